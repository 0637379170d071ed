"""Finds the parts of a network whose spikes can stay packed, and runs them.

A neuron writes bits, or small integers if its spikes are graded, if a layer that can read them comes next. A
convolution, the sum with a shortcut behind it and the neuron behind that are one loop: currents and potentials never
leave a core's registers and caches as a whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...layers import InitialPotential, Scaler, Stepwise
from ...support.exact_sums import Range, averaged_by_halves
from .change_convolutions import ChangeConvolution, change_convolution
from .change_layers import average_changes, emits_changes, fire_changes, pool_changes
from .changes import Changes
from .collectors import Call
from .flow import SUMS, Flow
from .level_convolutions import LevelConvolution, level_convolution
from .level_layers import emits_levels, fire_levels, pool_levels
from .packed import Codes, Levels, Packed, PackedCounts
from .packed_layers import averages_packed, fires_packed, pools_packed
from .packers import Convolution, Packers
from .remembered import KnownConvolutions

__all__ = ["Packing"]

OF_CHANGES = "changes"
"""What a convolution of them reads, among the keys of those that are known."""

FEWEST_STEPS = 8
"""From which on changes are faster than outputs: neurons send most of their changes in fewer."""

MOST_STEPS = (1 << 15) - 1
"""Cumulative pools count spikes in 16 bits."""


@dataclass(frozen=True)
class Chain:
    """A neuron, and what is computed together with it.

    Attributes:
        neuron: The node.
        source: Whose currents it takes, unless there is a convolution.
        convolution: The node of the convolution in front of it.
        addend: The node that is added to the convolution's currents.
        scaler: The node that scales the addend.
        second: The node of a convolution of the addend.
        potential: The node of the initial potential.
        merged: The nodes that have no value of their own, in order of execution.
    """

    neuron: fx.Node
    source: fx.Node
    convolution: fx.Node | None = None
    addend: fx.Node | None = None
    scaler: fx.Node | None = None
    second: fx.Node | None = None
    potential: fx.Node | None = None
    merged: tuple[fx.Node, ...] = ()

    @property
    def sources(self) -> list[fx.Node]:
        """The nodes whose values it reads."""
        return [one for one in (self.source, self.addend) if one is not None]


class Packing:
    """How a runner computes packed spikes.

    Args:
        flow: The network's graph.
        modules: The runner's modules.
        steps: Number of time steps.
        known: The convolutions found so far; runners of one network share them, and with them the tables.
        packers: The loops; None packs nothing.
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
        self.modules = modules
        self._packers: Any = packers
        self._known = {} if known is None else known
        self.chains: dict[fx.Node, Chain] = {}
        self.convolutions: dict[fx.Node, Convolution] = {}
        self.graded: dict[fx.Node, Range] = {}
        self.changing: set[fx.Node] = set()
        self._driven_alike: set[fx.Node] = set()
        """Neurons whose currents are the same at every step."""
        self.pools: set[fx.Node] = set()
        self.averages: dict[fx.Node, int] = {}
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
                    self._driven_alike.add(node)
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
            elif node.args and (found := self._convolution(node, binary)) is not None:
                self.convolutions[node] = found
        for node in binary.union(self.graded, self.changing) - self.pools - self.averages.keys():
            self.chains[node] = self._chain(node, flow)
        self._keep_those_that_are_read()
        self.merged = {one for chain in self.chains.values() for one in chain.merged}

    @property
    def changes(self) -> bool:
        """True if some neurons send changes, which take hardly more time for more steps."""
        return any(node in self.changing for node in self.chains)

    def _convolution(self, node: fx.Node, binary: set[fx.Node]) -> Convolution | None:
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
                self._known[key] = self._found(self.modules[key[0]], read)
            except torch.OutOfMemoryError:  # a device may have room for it another time
                return None
        return self._known[key]

    def _found(self, module: Any, read: int | Range | str) -> Convolution | None:
        if isinstance(read, str):
            return change_convolution(module)
        found: Convolution | None = (
            self._packers.convolution(module, read) if isinstance(read, int) else level_convolution(module, read)
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
        potential = None
        if source in flow.exclusive and isinstance(self._module(source), InitialPotential):
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
        """True for a convolution of binary spikes."""
        return node in self.convolutions and not isinstance(
            self.convolutions[node], (LevelConvolution, ChangeConvolution)
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
        module = self._module(node)
        if not isinstance(module, Stepwise) or module.operation not in SUMS:
            return None
        first, second = node.args
        if first is second or not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return None
        for one, other in ((first, second), (second, first)):
            if other not in flow.varying:
                continue
            if one in self.convolutions and one in flow.exclusive:
                scaler = self._module(other)
                if isinstance(scaler, Scaler) and other in flow.exclusive and node in flow.sums:
                    return one, other.all_input_nodes[0], other
                return one, other, None
        return None

    def _keep_those_that_are_read(self) -> None:
        """A neuron alone writes bits only where something comes next that reads them. Changes are read together with
        the neurons behind a convolution."""
        together = {one for chain in self.chains.values() for one in chain.merged}
        self.convolutions = {
            node: found
            for node, found in self.convolutions.items()
            if node in together or not isinstance(found, ChangeConvolution)
        }
        sums = {chain.merged[-1] for chain in self.chains.values() if chain.addend and chain.neuron in self.changing}
        scalers = {chain.scaler for chain in self.chains.values()}
        reading = {*self.convolutions, *self.pools, *self.averages, *scalers, *sums}
        self.chains = {
            node: chain
            for node, chain in self.chains.items()
            if chain.convolution is not None or not reading.isdisjoint(node.users)
        }

    def _module(self, node: Any) -> nn.Module | None:
        return self.modules.get(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None

    def parts(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The nodes that are computed together with `node`, before it."""
        chain = self.chains.get(node)
        return () if chain is None else chain.merged

    def run(self, node: fx.Node, read: Callable[[fx.Node], Any]) -> Packed | Tensor | None:
        """The value of `node` from packed spikes, or as such; None if it must be computed as usual.

        Args:
            node: A node, none of those that are merged.
            read: Its argument's value, which may be packed.
        """
        if node in self.chains:
            return self._fire(self.chains[node], read)
        if node not in self.convolutions and node not in self.pools and node not in self.averages:
            return None
        x = read(node.args[0])  # type: ignore[arg-type]
        if node in self.convolutions:
            return self._convolve(self.convolutions[node], x)
        if isinstance(x, Levels):
            return pool_levels(self._module(node), x)
        if isinstance(x, Changes):
            return (pool_changes if node in self.pools else average_changes)(self._module(node), x)
        pooled = self._packers.pool if node in self.pools else self._packers.average
        found: Packed | None = pooled(self._module(node), x) if isinstance(x, self._packers.spikes) else None
        return found

    @staticmethod
    def _convolve(convolution: Any, x: Any, *behind: Any) -> Packed | Tensor | None:
        """Call a convolution, if `x` is what it reads."""
        found: Packed | Tensor | None = convolution(x, *behind) if isinstance(x, convolution.reads) else None
        return found

    def fire(self, node: fx.Node, currents: Any) -> Packed | None:
        """The spikes of the neuron `node` alone, whose currents are known; None if they must be numbers."""
        if node not in self.chains or not isinstance(currents, Tensor) or not self._packers.fits(currents):
            return None
        neuron: Any = self._module(node)
        if node in self.changing:
            return fire_changes(neuron, currents, constant=node in self._driven_alike)
        fire = fire_levels if node in self.graded else self._packers.fire
        found: Packed | None = fire(neuron, currents)
        return found

    def calls(self, node: fx.Node, value: Packed | Tensor, read: Callable[[fx.Node], Any]) -> Iterator[Call]:
        """The calls that computed the value of `node`, for a collector that watches spikes.

        Args:
            node: A node that `run` has computed.
            value: Its value.
            read: Its argument's value, which may be packed.
        """
        currents = torch.empty(()).expand(value.shape)
        chain = self.chains.get(node)
        if chain is None or chain.convolution is None:
            loop = self.convolutions[node].loop if node in self.convolutions else self._packers.loop
            yield self.call(node, read(node.args[0]), value, loop)  # type: ignore[arg-type]
            return
        loop = self.convolutions[chain.convolution].loop
        yield self.call(chain.convolution, read(chain.source), currents, loop)
        if chain.scaler is not None:
            yield self.call(chain.scaler, read(chain.addend), None, loop)  # type: ignore[arg-type]
        if chain.second is not None:
            yield self.call(chain.second, read(chain.addend), currents, loop)  # type: ignore[arg-type]
        yield self.call(node, currents, value, loop)

    def call(self, node: fx.Node, x: Any, result: Any, loop: str | None = None) -> Call:
        """A call of the module at `node`, for a collector that watches spikes."""
        if isinstance(x, PackedCounts):
            x = x.active()  # a collector asks what is zero
        counted = Levels, Changes  # what neurons send and convolutions read is counted without numbers
        if isinstance(result, (*counted, Codes)) and not (isinstance(result, counted) and node in self.chains):
            result = result.unpacked()
        if isinstance(x, (*counted, Codes)) and not (isinstance(x, counted) and node in self.convolutions):
            x = x.unpacked()
        name = str(node.target)
        return Call(name, self.modules[name], (x,), {}, result, (0,), loop=loop or self._packers.loop)

    def _fire(self, chain: Chain, read: Callable[[fx.Node], Any]) -> Packed | Tensor | None:
        neuron: Any = self._module(chain.neuron)
        value = read(chain.source)
        if chain.convolution is None:
            return self.fire(chain.neuron, value)
        if not isinstance(value, Packed):
            return None
        addend: Any = None if chain.addend is None else read(chain.addend)
        if chain.neuron in self.changing:
            return self._change(chain, value, addend)
        factors = None
        if chain.scaler is not None:
            scaler: Any = self._module(chain.scaler)
            kind = Levels if chain.neuron in self.graded else self._packers.spikes
            # The product of a factor and a binary spike is not rounded.
            binary = isinstance(addend, kind) and getattr(addend, "unit", 1.0) == 1.0
            factors = _by_channel(scaler.scale, addend.shape) if binary else None
            if factors is None:
                addend = scaler(addend.unpacked() if isinstance(addend, Packed) else addend)
        elif isinstance(addend, Packed):
            addend = addend.unpacked()
        if isinstance(addend, Tensor) and not self._packers.fits(addend):
            return None
        initial = None
        potential: Any = None if chain.potential is None else self._module(chain.potential)
        if potential is not None and potential.waiting:
            if isinstance(neuron.v, Tensor) or float(neuron.v) != 0.0:
                return None
            initial = potential.potential
            if initial.dtype != torch.float32:
                return None
        convolution = self.convolutions[chain.convolution]
        if isinstance(convolution, LevelConvolution):
            return self._convolve(convolution, value, addend, factors, neuron)
        found = self._convolve(convolution, value, addend, factors, neuron, initial)
        if found is not None and potential is not None:
            potential.waiting = False
        return found

    def _change(self, chain: Chain, value: Any, addend: Any) -> Changes | None:
        """The changes of a neuron whose currents come from changes."""
        convolution, second = (self.convolutions.get(one) for one in (chain.convolution, chain.second))  # type: ignore[arg-type]
        if not isinstance(value, Changes) or not isinstance(convolution, ChangeConvolution):
            return None
        if chain.addend is not None and not isinstance(addend, Changes):
            return None
        factors = None
        if chain.scaler is not None:
            scaler: Any = self._module(chain.scaler)
            factors = _by_channel(scaler.scale, addend.shape)
            if factors is None:
                return None
        return convolution(value, addend, factors, second, self._module(chain.neuron))  # type: ignore[arg-type]


def _by_channel(scale: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The factors of the channels of ``(T, N, C, ...)``; None if the scale has another shape."""
    channels, places = shape[2], len(shape) - 3
    whole = scale.numel() == 1 or tuple(scale.shape) == (channels, *(1,) * places)
    return scale.reshape(-1).expand(channels).contiguous() if whole and scale.dtype == torch.float32 else None
