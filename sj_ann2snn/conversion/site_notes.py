"""Collects what a network notes about its neurons while it is built; see `support/site_notes.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Spike
from ..layers import ChannelAffine, Stepwise
from ..support.names import NEGATIVE
from ..support.shapes import along_axis
from ..support.site_notes import ConversionNotes, SiteNote, note_conversion, notes_of
from .draft import APPROXIMATED, COMMUTED, Adjustment, Draft
from .graph.weights import scaled_layer
from .report import ConversionReport

__all__ = ["NoteTaker", "note_call"]


class NoteTaker:
    """Takes notes of the nodes of a network as they are made.

    Args:
        draft: With adjustments.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._sites: dict[str, SiteNote] = {}
        self._biases: dict[str, Tensor] = {}
        self._approximate: dict[str, str] = {}

    def neuron(self, node: fx.Node, made: fx.Node, *, negative: bool = False) -> None:
        """`made` calls the neuron of the ANN's `node`."""
        draft, dimensions = self.draft, len(self.draft.record[node].shape) - 1
        axis = draft.channels.axis(node)
        unit = draft.units[node]
        adjusted = draft.adjustments.get(node, Adjustment()).negative if negative else None
        if adjusted is not None:
            unit = adjusted.unit
        unit = unit.detach().double().cpu()
        maximum = draft.plan.spikes[node].maximum
        name = draft.plan.decisions[node].site.name + (NEGATIVE if negative else "")
        shaped = along_axis(unit, dimensions, (axis or 1) - 1)
        self._sites[str(made.target)] = SiteNote(
            name, shaped, None if maximum is None else maximum / shaped, None if axis is None else axis - 1
        )

    def affine(self, made: fx.Node, module: object) -> None:
        """`made` adds the bias of a correction to a current."""
        if isinstance(module, ChannelAffine):
            self._biases[str(made.target)] = torch.zeros_like(module.bias.detach()).cpu()

    def operation(self, node: fx.Node, made: object, network: dict[str, object]) -> None:
        """`made` stands for the ANN's `node`."""
        if not isinstance(made, fx.Node) or made.op != "call_module":
            return
        decision = self.draft.plan.decisions.get(node)
        replacement = None if decision is None else decision.replacement
        if node.op == "call_module" and str(node.target) in self.draft.layers:
            bias = self._own_bias(node, network[str(made.target)])
            if bias is not None:
                self._biases[str(made.target)] = bias
        if decision is None or isinstance(replacement, Spike):
            return
        stands_for = node.meta.get(APPROXIMATED) or (decision.site.operation_name if node.meta.get(COMMUTED) else None)
        inexact = replacement is not None and not replacement.is_exact
        if stands_for or (inexact and decision.mapper):
            self._approximate[str(made.target)] = stands_for or decision.site.operation_name

    def _own_bias(self, node: fx.Node, module: object) -> Tensor | None:
        """The bias of the ANN's own layer, in the scale of the layer that corrections have changed; None if neither
        has one."""
        layer = self.draft.module.get_submodule(str(node.target))
        if node in self.draft.scales.folds:
            incoming, outgoing = self.draft.scales.folds[node]
            layer = scaled_layer(layer, inputs=incoming, outputs=outgoing)
        corrected: Any = module.operation if isinstance(module, Stepwise) else module
        bias = getattr(layer, "bias", None)
        if corrected.bias is None:
            return None
        return (torch.zeros_like(corrected.bias) if bias is None else bias).detach().cpu()

    def finish(self, network: fx.GraphModule) -> None:
        """Write the notes into the finished network."""
        note_conversion(network, ConversionNotes(self._sites, self._biases, self._approximate))


def note_call(network: fx.GraphModule, report: ConversionReport) -> None:
    """Add to the notes which arguments of the converter have made the network."""
    notes = notes_of(network)
    if notes is not None:
        settings = {key: value for key, value in report.settings.items() if _is_plain(value)}
        note_conversion(network, replace(notes, call={"mode": report.mode, "neuron": report.neuron, **settings}))


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):  # the arguments of single layers
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))
