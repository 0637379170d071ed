"""Fills in the report of a conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Analog, Spike
from ..layers import ChannelAffine, Scaler
from .draft import APPROXIMATED, Decision, Draft
from .graph.canonical import ORIGIN
from .integer_report import integer_report
from .report import ConversionCheck, ConversionReport, ReportEntry
from .selection import Selection
from .weights_argument import weights_asked

__all__ = ["make_check", "make_report"]


def make_report(
    draft: Draft,
    selection: Selection,
    network: fx.GraphModule,
    prefix: str = "",
    *,
    asked: Mapping[str, Any] = MappingProxyType({}),
    steps: int | None = None,
) -> ConversionReport:
    """The report of the conversion that turned `draft` into `network`.

    Args:
        draft: Final.
        selection: The caller's choice.
        network: The result.
        prefix: What the names of the layers begin with in the whole network.
        asked: Arguments of the converter itself that the selection does not know.
        steps: The number of time steps that it is meant for.
    """
    integers = weights_asked(asked.get("weights")).integers
    return ConversionReport(
        mode=str(selection.normalization),
        mode_owner=str(selection.mode_owner),
        neuron=selection.neuron.name,
        neuron_owner=str(selection.neuron_owner),
        corrections=tuple(str(who) for _, who in selection.corrections),
        entries=tuple(_entries(draft, selection, prefix)),
        scalers=tuple(prefix + name for name, module in network.named_modules() if isinstance(module, Scaler)),
        notes=draft.notes,
        settings={**selection.settings, **asked},
        integers=None if integers is None else integer_report(network, integers, steps, prefix),
        tuned=tuple(replace(one, name=prefix + one.name) for one in draft.tuned),
    )


def make_check(draft: Draft, selection: Selection, prefix: str = "") -> ConversionCheck:
    """The check for a planned `draft`: what a conversion would do."""
    problems = tuple(replace(problem, name=prefix + problem.name) for problem in draft.plan.problems)
    return ConversionCheck(tuple(_entries(draft, selection, prefix)), problems)


def _entries(draft: Draft, selection: Selection, prefix: str) -> Iterator[ReportEntry]:
    for node, decision in draft.plan.decisions.items():
        site, scale = decision.site, _scale(draft, node)
        chosen = selection.at(prefix + site.name)
        stands_for, analog = node.meta.get(APPROXIMATED), _analog(decision)
        exact = analog.is_exact if analog else decision.replacement is None or decision.replacement.is_exact
        yield ReportEntry(
            name=prefix + site.name,
            operation=stands_for or node.meta.get(ORIGIN, site.operation_name),
            becomes=_becomes(decision, stands_for, chosen.neuron.name),
            mapper=decision.mapper,
            owner=decision.owner,
            scale=None if scale is None else (float(scale.min()), float(scale.max())),
            exact=not stands_for and exact,
            source=site.source,
            analog=analog is not None,
            rate=draft.activity[node].mean_rate(draft.units[node]) if node in draft.activity else None,
            channels_unknown=chosen.channel_wise and node in draft.lambdas and draft.channels.is_unknown(node),
        )


def _scale(draft: Draft, node: fx.Node) -> Tensor | None:
    """λ of a node's neuron; of both neurons if there is one for each sign."""
    scale, adjustment = draft.lambdas.get(node), draft.adjustments.get(node)
    if scale is None or adjustment is None or adjustment.negative is None:
        return scale
    return torch.cat([scale.reshape(-1), adjustment.negative.scale.reshape(-1)])


def _becomes(decision: Decision, stands_for: str | None, neuron: str) -> str:
    site, replacement = decision.site, decision.replacement
    if stands_for and not isinstance(replacement, Spike):
        return site.operation_name
    if site.operation is ChannelAffine:
        return "affine map"
    return "itself" if replacement is None else replacement.becomes(site, neuron)


def _analog(decision: Decision) -> Analog | None:
    """The analog module at a site, even if a neuron follows it; None if there is none."""
    replacement = decision.replacement
    if isinstance(replacement, Spike):
        return replacement.analog_at(decision.site)
    return replacement if isinstance(replacement, Analog) else None
