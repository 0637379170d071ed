"""The outputs of a network on trial: which of them a correction may adjust, and how that gets into their layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from ..contracts.site import Varies
from ..contracts.trial_output import TrialOutput
from ..support.trees import leaves
from .absorb import absorb_bias, layer_behind
from .draft import Draft
from .graph.records import TensorRecord

__all__ = ["add_output_biases", "trial_outputs"]


def trial_outputs(draft: Draft) -> list[TrialOutput]:
    """The tensors that the network returns, each once, in order."""
    found: dict[tuple[fx.Node, str], list[tuple[int, str]]] = {}
    for place, (name, node, inner) in enumerate(_leaves(draft)):
        if node is not None:
            found.setdefault((node, inner), []).append((place, name))
    return [
        _make_output(draft, node, same[0][1], tuple(place for place, _ in same)) for (node, _), same in found.items()
    ]


def add_output_biases(draft: Draft, outputs: Sequence[TrialOutput]) -> Draft:
    """The draft with the biases that corrections chose, in the layers that the outputs come from."""
    by_name = {name: node for name, node, inner in _leaves(draft) if node is not None and not inner}
    for output in outputs:
        if bool(output.bias.any()):
            node = by_name[output.name]
            axis = _axis(draft, node)
            assert axis is not None, "only the bias of a layer can have been adjusted"
            draft = absorb_bias(draft, node, output.bias, axis) or draft
    return draft


def _make_output(draft: Draft, node: fx.Node, name: str, places: tuple[int, ...]) -> TrialOutput:
    axis, found = _axis(draft, node), draft.tensor(node)
    if axis is None or found is None:
        return TrialOutput(name, places, None, 0, torch.zeros((), device=draft.device))
    like = torch.zeros((), dtype=found.dtype, device=draft.device)
    return TrialOutput(name, places, axis - 1, found.shape[axis], like)


def _axis(draft: Draft, node: fx.Node) -> int | None:
    """The dimension of the output along which its layer has a bias; None if it does not come from one layer."""
    found = draft.tensor(node)
    dimensions = range(1, 0 if found is None else len(found.shape))
    return next((axis for axis in dimensions if layer_behind(draft, node, axis) is not None), None)


def _leaves(draft: Draft) -> Iterator[tuple[str, fx.Node | None, str]]:
    """Every leaf of the outputs: its name, its node if it is a tensor of the samples, its place in what that yields."""
    for name, node in _named(draft.output, ""):
        if not isinstance(node, fx.Node) or draft.plan.varies[node] is Varies.CONSTANT:
            yield from ((name, None, "") for _ in leaves(draft.record[node] if isinstance(node, fx.Node) else node))
            continue
        for inner, value in _named(draft.record[node], ""):
            yield name + inner, node if isinstance(value, TensorRecord) else None, inner


def _named(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested outputs with their names, in the order of `support.trees.leaves`."""
    if isinstance(tree, (tuple, list)) and not isinstance(tree, torch.Size):
        fields = getattr(tree, "_fields", None)
        for index, item in enumerate(tree):
            yield from _named(item, f"{name}.{fields[index]}" if fields else f"{name}[{index}]")
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from _named(item, f"{name}[{key!r}]")
    else:
        yield name, tree
