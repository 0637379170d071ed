"""Checks of the ANN and the spiking network that a caller gives together."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from ..simulation.engine.numbers.firing import is_spiking
from ..support.trees import tensors
from ..support.wording import shown

__all__ = ["require_ann", "require_same_shapes"]


def require_ann(ann: Any, takes: str, instead: str) -> None:
    """Check that what stands in the place of the ANN is one.

    Args:
        ann: The caller's network.
        takes: The call and what it takes, for messages: ``"tune(ann, data) takes the ANN"``.
        instead: What to give instead of a spiking network, for messages.

    Raises:
        InputError: It is no network, or a spiking one.
    """
    if not isinstance(ann, nn.Module):
        raise InputError(f"{takes}, a torch.nn.Module, not {shown(ann)}.")
    if any(is_spiking(module) for module in ann.modules()):
        raise InputError(f"{takes}, but this {type(ann).__name__} has spiking neurons. {instead}")


def require_same_shapes(answers: Any, wanted: Any) -> None:
    """Check that the outputs of a spiking network have the shapes of its ANN's.

    Raises:
        InputError: They have others.
    """
    if [x.shape for x in tensors(answers)] != [x.shape for x in tensors(wanted)]:
        raise InputError(
            f"The network is not made of this ANN: it returns {_shapes(answers)}, the ANN {_shapes(wanted)}. Give "
            "the ANN that was converted."
        )


def _shapes(values: Any) -> str:
    return ", ".join(str(list(value.shape)) for value in tensors(values)) or "no tensor"
