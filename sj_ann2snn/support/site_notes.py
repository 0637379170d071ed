"""What a converted network notes about its spiking layers, so that its figures can be read in the ANN's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from ..errors import InputError

__all__ = ["ConversionNotes", "SiteNote", "note_conversion", "notes_of", "why_not_notes"]

KEY = "ann2snn_conversion"
"""Key of a converted network's `meta`."""


@dataclass(frozen=True)
class SiteNote:
    """A neuron of a converted network.

    >>> import torch
    >>> note = SiteNote("layer1.0.relu", unit=torch.full((16, 1, 1), 0.25), axis=0)
    >>> note.name, note.unit.shape
    ('layer1.0.relu', torch.Size([16, 1, 1]))

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

    >>> ConversionNotes(call={"mode": "99.9%", "neuron": "if"}, quiet={"layer4.1.relu": 300}).quiet
    {'layer4.1.relu': 300}

    Attributes:
        sites: Its neurons, by the name of their module.
        biases: Layers whose bias corrections have changed, with the bias that stands for the ANN's.
        approximate: Operations whose mean over time only approximates the ANN's, with what they stand for.
        call: The arguments of the conversion that are known as text and numbers, for `Converter(...)`.
        quiet: Layers whose active neurons rarely fire, by qualified name, with the steps that they need to fire at all.
    """

    sites: Mapping[str, SiteNote] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    approximate: Mapping[str, str] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    quiet: Mapping[str, int] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors."""
        own = (value for note in self.sites.values() for value in (note.unit, note.maximum))
        return (*(value for value in own if value is not None), *self.biases.values())

    def with_tensors(self, function: Callable[[Tensor], Tensor]) -> ConversionNotes:
        """The same with what `function` makes of every tensor."""
        sites = {
            target: replace(
                note, unit=function(note.unit), maximum=None if note.maximum is None else function(note.maximum)
            )
            for target, note in self.sites.items()
        }
        return replace(self, sites=sites, biases={target: function(bias) for target, bias in self.biases.items()})


def note_conversion(network: fx.GraphModule, notes: ConversionNotes) -> None:
    """Write `notes` into `network`, as plain data, which any pickle holds."""
    network.meta[KEY] = {
        "sites": {target: asdict(note) for target, note in notes.sites.items()},
        "biases": dict(notes.biases),
        "approximate": dict(notes.approximate),
        "call": dict(notes.call),
        "quiet": dict(notes.quiet),
    }


def notes_of(network: nn.Module) -> ConversionNotes | None:
    """The notes of a converted network; None if it has none, because it was read from a file of version 2 or older.

    Raises:
        InputError: Something else has written into them.
    """
    meta = getattr(network, "meta", None)
    found = meta.get(KEY) if isinstance(meta, Mapping) else None
    if found is None:
        return None
    try:
        sites = {target: SiteNote(**note) for target, note in found["sites"].items()}
        parts = (dict(found.get(name, {})) for name in ("biases", "approximate", "call", "quiet"))
        notes = ConversionNotes(sites, *parts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    problem = why_not_notes(notes)
    if problem:
        raise _damaged(problem)
    return notes


def why_not_notes(notes: ConversionNotes) -> str:
    """What is wrong about the types in `notes`; empty if nothing is.

    >>> import torch
    >>> why_not_notes(ConversionNotes({"relu": SiteNote("relu", torch.tensor([1.0]), axis=-1)}))
    "the neuron 'relu' has the channel axis -1"
    """
    for target, note in notes.sites.items():
        where = f"the neuron {target!r}"
        if not isinstance(target, str) or not isinstance(note.name, str):
            return f"{where} is called {note.name!r}"
        for name, value in (("unit", note.unit), ("maximum", note.maximum)):
            if (value is not None or name == "unit") and not _is_real(value):
                return f"{where} has no real numbers as {name}"
        if not bool((note.unit.isfinite() & (note.unit > 0)).all()):
            return f"{where} has a unit that is not positive and finite"
        if note.axis is not None and (type(note.axis) is not int or note.axis < 0):
            return f"{where} has the channel axis {note.axis!r}"
    for target, bias in notes.biases.items():
        if not isinstance(target, str) or not _is_real(bias):
            return f"the layer {target!r} has no real numbers as bias"
    texts = (*notes.approximate.items(), *((name, "") for name in (*notes.call, *notes.quiet)))
    if not all(isinstance(part, str) for pair in texts for part in pair):
        return "names are no text"
    if not all(type(count) is int for count in notes.quiet.values()):
        return "the steps of a quiet layer are no integer"
    return ""


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _damaged(why: str) -> InputError:
    return InputError(
        f"What the network notes about its conversion (meta[{KEY!r}]) was changed after the conversion: {why[:300]}. "
        "Convert it again, or read it from its file."
    )
