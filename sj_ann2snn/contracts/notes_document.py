"""What a network notes about its conversion as part of a document: λ and bounds of its neurons, corrected biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import FormatError
from ..support.site_notes import ConversionNotes, SiteNote, why_not_notes
from .document_fields import field_of, tensor_of
from .values import decode, encode

__all__ = ["read_notes", "write_notes"]

WHERE = "What the document notes about the conversion"


def write_notes(notes: ConversionNotes, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The notes as part of a document; adds their tensors to all tensors of the document.

    >>> import torch
    >>> tensors = {}
    >>> notes = ConversionNotes({"relu": SiteNote("relu", torch.tensor([0.5]))}, call={"mode": "max"})
    >>> written = write_notes(notes, tensors)
    >>> written["sites"], tensors
    ({'relu': {'name': 'relu', 'unit': 'relu:unit', 'maximum': None, 'axis': None}}, {'relu:unit': tensor([0.5000])})
    >>> read_notes(written, tensors).call
    {'mode': 'max'}
    """

    def added(target: str, key: str, tensor: Tensor | None) -> str | None:
        if tensor is None:
            return None
        # No node's tensor is called so, because nodes are called as Python's variables are.
        name = f"{target}:{key}"
        tensors[name] = tensor
        return name

    sites = {
        target: {
            "name": note.name,
            "unit": added(target, "unit", note.unit),
            "maximum": added(target, "maximum", note.maximum),
            "axis": note.axis,
        }
        for target, note in notes.sites.items()
    }
    return {
        "sites": sites,
        "biases": {target: added(target, "bias", bias) for target, bias in notes.biases.items()},
        "approximate": dict(notes.approximate),
        "call": {name: encode(value) for name, value in notes.call.items()},
        "quiet": dict(notes.quiet),
    }


def read_notes(document: Any, tensors: Mapping[str, Tensor]) -> ConversionNotes:
    """The notes that `write_notes` wrote.

    Raises:
        FormatError: They have another form, or a tensor is missing.
    """
    if not isinstance(document, dict):
        raise FormatError(f"{WHERE} is no object.")
    sites = {}
    for target, one in field_of(document, "sites", dict, WHERE).items():
        where = f"The neuron {target!r} in {WHERE[0].lower()}{WHERE[1:]}"
        if not isinstance(one, dict):
            raise FormatError(f"{where} is no object.")
        maximum = one.get("maximum")
        sites[target] = SiteNote(
            field_of(one, "name", str, where),
            tensor_of(one.get("unit"), "unit", tensors, where),
            None if maximum is None else tensor_of(maximum, "maximum", tensors, where),
            one.get("axis"),
        )
    biases = field_of(document, "biases", dict, WHERE)
    call = field_of(document, "call", dict, WHERE)
    notes = ConversionNotes(
        sites,
        {target: tensor_of(name, f"bias of {target!r}", tensors, WHERE) for target, name in biases.items()},
        field_of(document, "approximate", dict, WHERE),
        {name: decode(value) for name, value in call.items()},
        field_of(document, "quiet", dict, WHERE),
    )
    problem = why_not_notes(notes)
    if problem:
        raise FormatError(f"{WHERE} cannot be: {problem}.")
    return notes
