"""Checks that what a network notes about its layers fits these layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..layers import Stepwise
from ..support.site_notes import ConversionNotes

__all__ = ["require_fitting_layers", "require_fitting_shapes"]


def require_fitting_layers(notes: ConversionNotes, modules: Mapping[str, nn.Module]) -> None:
    """Check that the layers exist, that bounds have the shapes of units, and biases those of their layers.

    Raises:
        InputError: They do not.
    """
    for target in (*notes.sites, *notes.biases, *notes.approximate):
        if target not in modules:
            raise _misfit(target, "which the network does not have")
    for target, note in notes.sites.items():
        if note.maximum is not None and note.maximum.shape != note.unit.shape:
            shapes = f"{tuple(note.maximum.shape)} and {tuple(note.unit.shape)}"
            raise _misfit(target, f"whose bound and unit have the shapes {shapes}")
    for target, bias in notes.biases.items():
        module = modules[target]
        own = getattr(module.operation if isinstance(module, Stepwise) else module, "bias", None)
        shape = tuple(own.shape) if isinstance(own, Tensor) else None
        if shape != tuple(bias.shape):
            has = "has no bias" if shape is None else f"has a bias of shape {shape}"
            raise _misfit(target, f"which {has}; the notes have one of shape {tuple(bias.shape)}")


def require_fitting_shapes(name: str, unit: Tensor, axis: int | None, activation: Tensor) -> None:
    """Check that the unit of a layer broadcasts over its activation ``[N, ...]``, which has the channels.

    Args:
        name: The layer.
        unit: Value of one spike.
        axis: The dimension of a sample that holds the channels.
        activation: Of some samples.

    Raises:
        InputError: They do not.
    """
    shape = activation.shape[1:]
    samples = f"whose samples have shape {tuple(shape)}"
    if not _broadcasts(unit.shape, shape):
        raise _misfit(name, f"{samples}; its unit has {tuple(unit.shape)}")
    if axis is not None and axis >= len(shape):
        raise _misfit(name, f"{samples}; its channels are in dimension {axis}")


def _broadcasts(shape: torch.Size, wanted: torch.Size) -> bool:
    return len(shape) <= len(wanted) and all(
        one in (1, other) for one, other in zip(reversed(shape), reversed(wanted), strict=False)
    )


def _misfit(target: str, why: str) -> InputError:
    return InputError(
        f"What the network notes about its conversion does not fit the network: it names {target!r}, {why}. The notes "
        "or the network were changed after the conversion: convert the ANN again."
    )
