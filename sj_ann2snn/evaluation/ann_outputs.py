"""Runs an ANN on batches: as targets of its spiking network, or to measure it as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..support.batches import Signature, explain_rejection, forward_signature, move
from ..support.locks import exclusive
from ..support.structures import open_values, rebuild
from ..support.trees import map_tensors

__all__ = ["AnnOutputs"]


class AnnOutputs:
    """Computes an ANN's outputs in eval mode; training modes are restored.

    >>> AnnOutputs(nn.Linear(2, 3))(torch.zeros(4, 2), (torch.zeros(4, 2),)).shape
    torch.Size([4, 3])

    Args:
        ann: The network.
        signature: Its inputs; by default they follow from the first batch.
    """

    def __init__(self, ann: nn.Module, signature: Signature | None = None) -> None:
        self._ann = ann
        self._signature = signature
        self._template: Any = None
        self._device = next((p.device for p in ann.parameters()), torch.device("cpu"))

    def signature(self, batch: Any) -> Signature:
        """The network's inputs, given the first batch."""
        self._signature = self._signature or forward_signature(self._ann, batch)
        return self._signature

    @torch.no_grad()
    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Any:
        """The outputs on the CPU, with a plain dict for named tuples and the like.

        Args:
            batch: The batch, for messages.
            inputs: The network's inputs in it.

        Raises:
            InputError: The network cannot take them.
        """
        with _in_eval_mode(self._ann), explain_rejection(batch, self._ann, errors=(Exception,)):
            output = self.signature(batch).caller(self._ann)(*(move(value, self._device) for value in inputs))
        plain, self._template = open_values(output)
        return map_tensors(plain, lambda y: y.detach().cpu())

    def restore(self, plain: Any) -> Any:
        """An output with the classes that the network gives it."""
        return rebuild(plain, self._template)


@contextmanager
def _in_eval_mode(ann: nn.Module) -> Iterator[None]:
    """While the context is open, the network is in eval mode, and other threads that want to switch it wait."""
    with exclusive(*ann.modules()):
        modes = [(module, module.training) for module in ann.modules()]
        try:
            ann.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
