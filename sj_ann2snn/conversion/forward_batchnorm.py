"""Folds a BatchNorm that stands behind a neuron into the layers that read it.

The BatchNorm of ``Conv → ReLU → BatchNorm → pool → Conv`` has no layer before it to absorb it. As an affine map behind
the neuron, it would turn spikes into other numbers, zeros among them, and every input of the next layer would count as
active. Moved into the next layer's weights and bias, it leaves the spikes as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..contracts.replacements import Weighted
from ..contracts.site import Varies
from ..hooks.registry import CALLER
from ..layers import ChannelAffine
from ..support.shapes import along_axis
from .affine_maps import Affine, Mask, is_close, sample_of
from .affine_routes import Route, find_route
from .draft import Draft
from .graph.canonical import ORIGIN
from .graph.constant_currents import ConstantCurrent, depends_on_place
from .graph.copies import copied_graph
from .graph.tracing import PATH, SOURCE
from .graph.weights import scaled_layer

__all__ = ["fold_forward"]


def fold_forward(draft: Draft) -> Draft:
    """Fold affine maps per channel behind neurons into the layers behind them, where that is exact.

    A map that only some readers can do without stays for the others.

    Returns:
        The draft itself if nothing folds; otherwise an unplanned draft with another module.
    """
    maps = [node for node in draft.plan.decisions if _is_behind_neuron(draft, node)]
    if not maps:
        return draft
    folder = _Folder(draft)
    for node in maps:
        for reader in list(node.users):
            folder.fold(node, reader)
    return folder.finish()


def _is_behind_neuron(draft: Draft, node: fx.Node) -> bool:
    decision = draft.plan.decisions[node]
    return (
        decision.site.operation is ChannelAffine
        and isinstance(decision.replacement, Weighted)
        and decision.owner != str(CALLER)  # a site that the caller names stays
        and decision.varies is Varies.VARYING
    )


@dataclass(frozen=True)
class _TakenUp:
    """A layer that has taken up an affine map, and what it adds to its result at every step."""

    layer: nn.Module
    current: ConstantCurrent | None
    mask: Mask | None


class _Folder:
    """Edits a copy of the draft's graph.

    Args:
        draft: Planned.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.module, self.copies = copied_graph(draft.module)
        self.changed = False

    def fold(self, node: fx.Node, reader: fx.Node) -> None:
        """Let `reader` do without the map of `node`, if it can."""
        affine: Any = self._layer(node)
        ndim = affine.weight.dim() + 1
        factor, shift = (
            along_axis(one.detach().double().cpu().flatten(), ndim, 1) for one in (affine.weight, affine.bias)
        )
        route = find_route(self.draft, node, Affine(factor, shift), reader)
        if route is None:
            return
        taken = {layer: self._taken_up(layer, arriving) for layer, arriving in route.layers.items()}
        if all(taken.values()):
            self._apply(node, reader, route, taken)  # type: ignore[arg-type]

    def finish(self) -> Draft:
        """The draft with the edited graph."""
        if not self.changed:
            return self.draft
        for node, copy in self.copies.items():
            if node.op == "call_module" and isinstance(self._layer(node), ChannelAffine) and not copy.users:
                self.module.graph.erase_node(copy)
        self.module.delete_all_unused_submodules()
        self.module.graph.lint()
        self.module.recompile()
        old = self.draft
        return Draft(self.module, old.signature, old.device, old.samples, old.more, old.answer, old.problems)

    def _layer(self, node: fx.Node) -> nn.Module:
        return self.module.get_submodule(str(node.target))

    def _taken_up(self, node: fx.Node, arriving: Affine) -> _TakenUp | None:
        """The layer of `node` with the map in its weights; None if a trial shows that it computes something else."""
        layer: Any = self._layer(node)
        factor, shift = (
            one.to(layer.weight.device).flatten() if one.dim() else one for one in (arriving.factor, arriving.shift)
        )
        record = self.draft.record[node.all_input_nodes[0]]
        ones = Mask(node.all_input_nodes[0], (), torch.ones(1, 1, *record.shape[2:], dtype=record.dtype))
        current, mask, added = None, None, None
        if not bool(shift.any()):
            pass
        elif isinstance(layer, ChannelAffine):
            added = layer.weight.detach().double().flatten() * shift
        else:
            current, mask = ConstantCurrent.of(layer, shift), arriving.mask or ones
            if arriving.mask is None and not depends_on_place(layer):
                added, current = current.kernel.double().flatten(1).sum(1), None
        taken = _TakenUp(scaled_layer(layer, inputs=factor, shift=added), current, mask)
        return taken if self._agree(layer, arriving, taken, sample_of(record)) else None

    def _agree(self, layer: nn.Module, arriving: Affine, taken: _TakenUp, x: Tensor) -> bool:
        device = self.draft.device
        with torch.no_grad():
            wanted, got = layer(arriving.applied(x).to(device)), taken.layer(x.to(device))
            if taken.current is not None and taken.mask is not None:
                got = got + taken.current.computed(taken.mask.value.to(device))
        return is_close(got, wanted)

    def _apply(self, node: fx.Node, reader: fx.Node, route: Route, taken: Mapping[fx.Node, _TakenUp]) -> None:
        self.changed = True
        self.copies[reader].replace_input_with(self.copies[node], self._input(node))
        for pool, signs in route.signs.items():
            self._change_signs(node, self.copies[pool], signs)
        for layer, one in taken.items():
            copy = self.copies[layer]
            copy.meta[ORIGIN] = f"{self._origin(node)} + {self._origin(layer)}"
            self.module.set_submodule(str(layer.target), one.layer)
            if one.current is not None and one.mask is not None:
                self._add_current(node, copy, one.current, one.mask)

    def _input(self, node: fx.Node) -> fx.Node:
        """What the map of `node` reads in the edited graph."""
        return self.copies[node].all_input_nodes[0]

    def _change_signs(self, node: fx.Node, pool: fx.Node, signs: Tensor) -> None:
        """Change signs in front of `pool` and behind it: for these channels it takes minima."""
        graph, record = self.module.graph, self.draft.record[node]
        values = (signs[0] if signs.dim() else signs).to(record.dtype)
        name = self._constant(f"{node.target}_signs", values)
        with graph.inserting_before(pool):
            factor = graph.get_attr(name)
            before = graph.call_function(operator.mul, (pool.all_input_nodes[0], factor))
        pool.replace_input_with(pool.all_input_nodes[0], before)
        with graph.inserting_after(pool):
            behind = graph.call_function(operator.mul, (pool, factor))
        pool.replace_all_uses_with(behind, delete_user_cb=lambda user: user is not behind)
        for one in (before, behind):
            self._describe(one, node, "sign")

    def _add_current(self, node: fx.Node, copy: fx.Node, current: ConstantCurrent, mask: Mask) -> None:
        """Add a current that depends on the place, but neither on the data nor on time, to the result of `copy`."""
        graph = self.module.graph
        ndim = len(self.draft.record[mask.start].shape)
        one = self._constant(f"{node.target}_one", torch.ones((1,) * ndim, dtype=current.kernel.dtype))
        kernel = self._constant(f"{copy.target}_shift_weight", current.kernel)
        start = self._input(node) if mask.start is node else self.copies[mask.start]
        with graph.inserting_before(copy.next):
            sizes = [graph.call_method("size", (start, dim)) for dim in range(2, ndim)]
            drawn = graph.call_method("expand", (graph.get_attr(one), 1, 1, *sizes))
            for operation in mask.operations:
                drawn = self._repeated(operation, drawn)
            drawn = current.drawn(graph, drawn, graph.get_attr(kernel), f"{copy.name}_shift")
            total = graph.call_function(operator.add, (copy, drawn))
        copy.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
        self._describe(total, node, "shift")

    def _repeated(self, operation: fx.Node, mask: fx.Node) -> fx.Node:
        """The operation once more, on the mask."""
        before = operation.all_input_nodes[0]
        drawn = self.module.graph.node_copy(operation, lambda one: mask if one is before else self.copies[one])
        if drawn.op == "call_module":
            name = self._free(f"{operation.target}_of_ones")
            self.module.add_submodule(name, self._layer(operation))
            drawn.target = name
        return drawn

    def _constant(self, name: str, value: Tensor) -> str:
        name = self._free(name)
        self.module.register_buffer(name, value.to(self.draft.device))
        return name

    def _free(self, name: str) -> str:
        name = name.replace(".", "_").replace("#", "_")
        count, free = 1, name
        while hasattr(self.module, free):
            count += 1
            free = f"{name}_{count}"
        return free

    def _describe(self, new: fx.Node, node: fx.Node, what: str) -> None:
        """Name a new node after the map of `node`, for reports and messages."""
        new.meta[PATH] = f"{node.target}_{what}"
        new.meta[SOURCE] = node.meta.get(SOURCE, "")
        new.meta[ORIGIN] = f"{what} of {self._origin(node)}"

    def _origin(self, node: fx.Node) -> str:
        """The ANN's operations that the layer of `node` stands for."""
        return str(self.copies[node].meta.get(ORIGIN, type(self._layer(node)).__name__))
