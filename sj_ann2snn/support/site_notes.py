"""What a converted network notes about its spiking layers, so that its figures can be read in the ANN's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, fx, nn

__all__ = ["ConversionNotes", "SiteNote", "note_conversion", "notes_of"]

KEY = "ann2snn_conversion"
"""Key of a converted network's `meta`."""


@dataclass(frozen=True)
class SiteNote:
    """A neuron of a converted network.

    Attributes:
        name: Qualified name of the layer; followed by ``_negative`` for the second of two neurons.
        unit: Value of one spike in the ANN's units, in a shape that broadcasts over a sample.
        maximum: Upper bound of the activation, in units of a spike and in the same shapes; None for none.
        axis: The dimension of a sample that holds the channels; None if it is not known.
    """

    name: str
    unit: Tensor
    maximum: Tensor | None = None
    axis: int | None = None


@dataclass(frozen=True)
class ConversionNotes:
    """What a network notes about its conversion.

    Attributes:
        sites: Its neurons, by the name of their module.
        biases: Layers whose bias corrections have changed, with the bias that stands for the ANN's.
        approximate: Operations whose mean over time only approximates the ANN's, with what they stand for.
        call: The arguments of the conversion that are known as text and numbers, for `Converter(...)`.
    """

    sites: Mapping[str, SiteNote] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    approximate: Mapping[str, str] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


def note_conversion(network: fx.GraphModule, notes: ConversionNotes) -> None:
    """Write `notes` into `network`, as plain data, which any pickle holds."""
    network.meta[KEY] = {
        "sites": {target: asdict(note) for target, note in notes.sites.items()},
        "biases": dict(notes.biases),
        "approximate": dict(notes.approximate),
        "call": dict(notes.call),
    }


def notes_of(network: nn.Module) -> ConversionNotes | None:
    """The notes of a converted network; None if it has none, because it was read from a file."""
    found = getattr(network, "meta", {}).get(KEY)
    if not isinstance(found, Mapping):
        return None
    sites = {target: SiteNote(**note) for target, note in found["sites"].items()}
    return ConversionNotes(sites, found["biases"], found["approximate"], found["call"])
