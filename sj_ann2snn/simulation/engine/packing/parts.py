"""Finds the parts of a network whose values can stay packed.

A neuron writes bits, or small integers if its spikes are graded, if a layer that can read them comes next. A
convolution, the sum with a shortcut behind it and the neuron behind that are one loop: currents and potentials never
leave a core's registers and caches as a whole layer.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from ....layers import InitialPotential, Scaler, Stepwise
from ....support.exact_sums import Range, averaged_by_halves
from ....support.shapes import spatial_of
from ..changes.convolutions import ChangeConvolution, change_convolution
from ..changes.layers import emits_changes
from ..flow import SUMS, Flow
from ..levels.convolutions import LevelConvolution, level_convolution
from ..levels.layers import emits_levels
from ..packed.moves import Move, asks_for_sizes, may_flatten, move_of
from ..packed.neurons import fires_packed
from ..packed.pools import averages_packed, pools_packed
from .chains import Chain, Difference
from .packers import CURRENTS_ALONE, Convolution, Packers
from .remembered import KnownConvolutions

__all__ = ["Parts"]

OF_CHANGES = "changes"
"""What a convolution of them reads, among the keys of those that are known."""

FEWEST_STEPS = 8
"""From which on changes are faster than outputs: neurons send most of their changes in fewer."""

NEGATIONS, DIFFERENCES = (operator.neg, torch.neg), (operator.sub, torch.sub)
"""Of currents, and of spikes."""

MOST_STEPS = (1 << 15) - 1
"""Cumulative pools count spikes in 16 bits."""


class Parts:
    """The layers of a network that read or write packed values, and which of them run as one.

    Args:
        flow: The network's graph.
        modules: The runner's modules.
        steps: Number of time steps.
        known: The convolutions found so far; runners of one network share them, and with them the tables.
        packers: The loops; None packs nothing.

    Attributes:
        chains: The neurons that write packed values, each with what is computed together with it.
        convolutions: The layers that read packed values, as loops.
        graded: Neurons and pools that pass on graded spikes, with the smallest and the largest.
        changing: Neurons and pools that pass on changes.
        driven_alike: Neurons among them whose currents are the same at every step.
        pools: The cumulative max pools.
        averages: The average pools, with how many values they take together.
        moves: The layers that put packed values elsewhere.
        flattening: Those that make features of images.
        asking: Those that read nothing but a packed value's shape.
        differences: The sums of spikes of both signs.
        along_lines: Neurons whose spikes something reads along a line, ``[N, C, length]``.
        merged: The nodes that have no value of their own.
    """

    def __init__(
        self,
        flow: Flow,
        modules: Mapping[str, nn.Module],
        steps: int,
        known: KnownConvolutions | None = None,
        *,
        packers: Packers | None = None,
    ) -> None:
        self.modules, self.packers = modules, packers
        self._known = {} if known is None else known
        self.chains: dict[fx.Node, Chain] = {}
        self.convolutions: dict[fx.Node, Convolution] = {}
        self.graded: dict[fx.Node, Range] = {}
        self.changing: set[fx.Node] = set()
        self.driven_alike: set[fx.Node] = set()
        self.pools: set[fx.Node] = set()
        self.averages: dict[fx.Node, int] = {}
        self.moves: dict[fx.Node, Move] = {}
        self.flattening: set[fx.Node] = set()
        self.asking: set[fx.Node] = set()
        self.differences: dict[fx.Node, Difference] = {}
        self.along_lines: set[fx.Node] = set()
        self.merged: set[fx.Node] = set()
        if packers is None or steps > MOST_STEPS or not flow.copyable:
            return
        binary: set[fx.Node] = set()
        for node in flow.graph.nodes:
            if node.op != "call_module" or node not in flow.varying:
                continue
            module = modules[str(node.target)]
            if fires_packed(module):
                binary.add(node)
            elif packers.graded and (outputs := emits_levels(module, steps)) is not None:
                self.graded[node] = outputs
            elif packers.graded and steps >= FEWEST_STEPS and emits_changes(module):
                self.changing.add(node)
                if node.args[0] not in flow.varying:
                    self.driven_alike.add(node)
            elif pools_packed(module) and node.args[0] in binary:
                binary.add(node)
                self.pools.add(node)
            elif pools_packed(module) and node.args[0] in self.graded:
                self.graded[node] = self.graded[node.args[0]]
                self.pools.add(node)
            elif pools_packed(module) and node.args[0] in self.changing:
                self.changing.add(node)
                self.pools.add(node)
            elif averages_packed(module) and node.args[0] in binary:
                self.averages[node] = averaged_by_halves(module)
            elif averages_packed(module) and node.args[0] in self.changing:
                self.changing.add(node)
                self.averages[node] = averaged_by_halves(module)
            elif len(node.args) == 1 and not node.kwargs and (found := self._convolution(node, binary, packers)):
                self.convolutions[node] = found
            elif packers.moves:
                self._find_moves(node, module, binary)
                self._find_difference(node, module, binary, flow)
        elsewhere = {*self.pools, *self.averages, *self.moves, *self.flattening}
        for node in binary.union(self.graded, self.changing) - elsewhere:
            self.chains[node] = self._chain(node, flow)
        self._keep_those_that_are_read()
        self.along_lines = set(filter(self._leads_along_lines, self.chains))
        together: list[Chain | Difference] = [*self.chains.values(), *self.differences.values()]
        self.merged = {one for each in together for one in each.merged}

    def _find_moves(self, node: fx.Node, module: nn.Module, binary: set[fx.Node]) -> None:
        """Note the node if it puts elsewhere what is packed, or asks how large that is."""
        kept = {*binary, *self.averages, *self.graded} - self.changing
        packed = [one for one in node.all_input_nodes if one in kept]
        source = node.args[0] if node.args else None
        if asks_for_sizes(module):
            if source in packed:
                self.asking.add(node)
            return
        read = {self._kind(one) for one in packed}
        others = set(node.all_input_nodes) - set(packed) - self.asking
        if len(read) != 1 or others:
            return
        (kind,) = read
        if may_flatten(module) and kind != "graded":
            self.flattening.add(node)
        elif (move := move_of(module)) is not None:
            self.moves[node] = move
        else:
            return
        if isinstance(kind, int) and kind > 1:
            self.averages[node] = kind
        elif isinstance(kind, int):
            binary.add(node)
        else:
            ranges = [self.graded[one] for one in packed]
            self.graded[node] = min(low for low, _ in ranges), max(high for _, high in ranges)

    def _find_difference(self, node: fx.Node, module: nn.Module, binary: set[fx.Node], flow: Flow) -> None:
        """Note the node if it takes spikes, perhaps scaled ones, from others."""
        if not isinstance(module, Stepwise) or module.operation not in DIFFERENCES or node.kwargs:
            return
        if len(node.args) != 2:
            return
        spikes, others = node.args
        scaler = None
        if others in flow.exclusive and isinstance(self.module(others), Scaler):
            scaler, others = others, others.args[0]  # type: ignore[union-attr]
        if spikes in binary and others in binary and spikes is not others:
            self.differences[node] = Difference(spikes, others, scaler)  # type: ignore[arg-type]

    def _negates_for_a_difference(self, neuron: fx.Node, source: fx.Node) -> bool:
        """True if the source of a neuron's currents negates others, and its spikes are taken from some."""
        module = self.module(source)
        negates = isinstance(module, Stepwise) and module.operation in NEGATIONS
        return negates and any(neuron is one.others for one in self.differences.values())

    def _kind(self, node: fx.Node) -> int | str:
        """What values of a node may be joined with: how many spikes are averaged in them, or graded ones."""
        return "graded" if node in self.graded else self.averages.get(node, 1)

    def _leads_along_lines(self, node: fx.Node) -> bool:
        """True if a layer of lines reads the node's values, perhaps behind others that pass them on."""
        for reader in node.users:
            if reader in self.flattening:
                continue
            if reader in self.moves:
                if self._leads_along_lines(reader):
                    return True
            elif reader in self.pools or reader in self.averages:
                if spatial_of(self.module(reader)) == 1:
                    return True
            elif getattr(self.convolutions.get(reader), "dimensions", None) == 1:
                return True
        return False

    def _convolution(self, node: fx.Node, binary: set[fx.Node], packers: Packers) -> Convolution | None:
        """The node as a convolution of packed values, if its source has them."""
        source: Any = node.args[0]
        read: int | Range | str
        if source in self.changing:
            read = OF_CHANGES
        elif source in self.graded:
            read = self.graded[source]
        elif source in binary or source in self.averages:
            read = self.averages.get(source, 1)
        else:
            return None
        key = str(node.target), read
        if key not in self._known:
            try:
                self._known[key] = self._found(self.modules[key[0]], read, packers)
            except torch.OutOfMemoryError:  # a device may have room for it another time
                return None
        return self._known[key]

    @staticmethod
    def _found(module: Any, read: int | Range | str, packers: Packers) -> Convolution | None:
        if isinstance(read, str):
            return change_convolution(module)
        found: Convolution | None = (
            packers.convolution(module, read) if isinstance(read, int) else level_convolution(module, read)
        )
        return found

    def _chain(self, neuron: fx.Node, flow: Flow) -> Chain:
        """The neuron with what can be computed together with it."""
        source: Any = neuron.args[0]
        alone = Chain(neuron, source)
        if neuron in self.changing:
            return self._changing_chain(alone, flow)
        if neuron in self.graded:
            return self._graded_chain(alone, flow)
        if source in flow.varying and len(source.users) == 1 and self._negates_for_a_difference(neuron, source):
            return Chain(neuron, source.args[0], negated=source, merged=(source,))
        potential = None
        if source in flow.exclusive and isinstance(self.module(source), InitialPotential):
            potential, source = source, source.args[0]
        behind = () if potential is None else (potential,)
        if source in flow.exclusive and self._reads_spikes(source):
            return Chain(neuron, source.args[0], source, potential=potential, merged=(source, *behind))
        parts = self._parts(source, flow)
        if parts is None or not self._reads_spikes(parts[0]):
            return alone
        convolution, addend, scaler = parts
        merged = [convolution, *([] if scaler is None else [scaler]), source, *behind]
        reads: Any = convolution.args[0]
        return Chain(neuron, reads, convolution, addend, scaler, potential=potential, merged=tuple(merged))

    def _reads_spikes(self, node: fx.Node) -> bool:
        """True for a convolution of binary spikes that may charge neurons."""
        return node in self.convolutions and not isinstance(
            self.convolutions[node], (*CURRENTS_ALONE, LevelConvolution, ChangeConvolution)
        )

    def _graded_chain(self, alone: Chain, flow: Flow) -> Chain:
        """The same for a neuron of graded spikes; an initial potential in front of it is a current of its own."""
        source: Any = alone.source
        if source in flow.exclusive and isinstance(self.convolutions.get(source), LevelConvolution):
            return Chain(alone.neuron, source.args[0], source, merged=(source,))
        parts = self._parts(source, flow)
        if parts is None or not isinstance(self.convolutions[parts[0]], LevelConvolution):
            return alone
        convolution, addend, scaler = parts
        reads: Any = convolution.args[0]
        merged = (convolution, *(() if scaler is None else (scaler,)), source)
        return Chain(alone.neuron, reads, convolution, addend, scaler, merged=merged)

    def _changing_chain(self, alone: Chain, flow: Flow) -> Chain:
        """The same for a neuron that sends changes, if all its currents come from changes."""
        source: Any = alone.source
        if self._reads_changes(source, flow):
            return Chain(alone.neuron, source.args[0], source, merged=(source,))
        parts = self._parts(source, flow)
        if parts is None or not self._reads_changes(parts[0], flow):
            return alone
        convolution, addend, scaler = parts
        reads: Any = convolution.args[0]
        if scaler is None and self._reads_changes(addend, flow):
            behind: Any = addend.args[0]
            both = sorted((convolution, addend), key=list(flow.graph.nodes).index)
            return Chain(alone.neuron, reads, convolution, behind, second=addend, merged=(*both, source))
        if addend not in self.changing:
            return alone
        merged = (convolution, *(() if scaler is None else (scaler,)), source)
        return Chain(alone.neuron, reads, convolution, addend, scaler, merged=merged)

    def _reads_changes(self, node: fx.Node, flow: Flow) -> bool:
        """True for a convolution of changes that nothing else reads."""
        return node in flow.exclusive and isinstance(self.convolutions.get(node), ChangeConvolution)

    def _parts(self, node: fx.Node, flow: Flow) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
        """For the sum of a convolution and something else: both, and the node that scales the latter."""
        if node not in flow.exclusive or len(node.args) != 2 or node.kwargs:
            return None
        module = self.module(node)
        if not isinstance(module, Stepwise) or module.operation not in SUMS:
            return None
        first, second = node.args
        if first is second or not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return None
        for one, other in ((first, second), (second, first)):
            if other not in flow.varying:
                continue
            if one in self.convolutions and one in flow.exclusive:
                scaler = self.module(other)
                if isinstance(scaler, Scaler) and other in flow.exclusive and node in flow.sums:
                    return one, other.all_input_nodes[0], other
                return one, other, None
        return None

    def _keep_those_that_are_read(self) -> None:
        """A neuron alone writes bits only where something comes next that reads them; changes it writes in any case,
        which tell the steps that are alike. They are read together with the neurons behind a convolution."""
        together = {one for chain in self.chains.values() for one in chain.merged}
        self.convolutions = {
            node: found
            for node, found in self.convolutions.items()
            if node in together or not isinstance(found, ChangeConvolution)
        }
        sums = {chain.merged[-1] for chain in self.chains.values() if chain.addend and chain.neuron in self.changing}
        scalers = {chain.scaler for chain in self.chains.values()}
        moving = *self.moves, *self.flattening
        subtracting = {*self.differences, *(one.scaler for one in self.differences.values())}
        reading = {*self.convolutions, *self.pools, *self.averages, *moving, *scalers, *sums, *subtracting}
        self.chains = {
            node: chain
            for node, chain in self.chains.items()
            if chain.convolution is not None or node in self.changing or not reading.isdisjoint(node.users)
        }

    def module(self, node: Any) -> nn.Module | None:
        """The module that a node calls."""
        return self.modules.get(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
