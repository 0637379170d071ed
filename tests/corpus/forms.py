"""What the corpus says about a network: how to make it, what it takes, and why it is refused, if it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["FORMS", "Form", "form", "images", "vectors"]


@dataclass(frozen=True)
class Form:
    """A network as people write it.

    Attributes:
        name: Its name.
        make: Makes the network.
        batch: Makes a batch, as a loader would yield it.
        refused: A pattern for the message that refuses it; empty if it converts.
    """

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[], Any]
    refused: str = ""

    def network(self) -> nn.Module:
        """The network with trained-looking weights, in eval mode."""
        torch.manual_seed(0)
        network = self.make()
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                nn.init.normal_(module.running_mean, 0.0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return network.eval()

    def data(self) -> Any:
        torch.manual_seed(1)
        return self.batch()


FORMS: list[Form] = []


def form(batch: Callable[[], Any], refused: str = "") -> Callable[[Any], Any]:
    """Adds a network to the corpus: a class, or a function that makes one."""

    def add(make: Any) -> Any:
        FORMS.append(Form(make.__name__, make, batch, refused))
        return make

    return add


def images(channels: int = 3, size: int = 8, count: int = 4) -> Callable[[], Any]:
    return lambda: torch.randn(count, channels, size, size)


def vectors(*shape: int, count: int = 6) -> Callable[[], Any]:
    return lambda: torch.randn(count, *shape)
