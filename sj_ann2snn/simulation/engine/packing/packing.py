"""Runs the parts of a network whose values stay packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from ..bits.layers import subtract_packed
from ..bits.values import Flattened, PackedBits, PackedCounts, PackedSpikes
from ..changes.convolutions import ChangeConvolution
from ..changes.layers import average_changes, can_be_changed, fire_changes, pool_changes
from ..changes.values import Changes
from ..codes.values import Codes
from ..collectors import Call
from ..levels.convolutions import LevelConvolution
from ..levels.layers import fire_levels, pool_levels
from ..levels.values import Levels
from ..packed.moves import flattens
from ..packed.values import Packed
from .chains import Chain, Difference
from .parts import Parts

__all__ = ["Packing"]


class Packing:
    """How a runner computes packed spikes.

    Args:
        parts: The parts of the network whose values stay packed.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._modules = parts, parts.modules
        self._packers: Any = parts.packers  # read only where some parts were found

    def sources(self, node: fx.Node) -> list[fx.Node] | None:
        """The nodes whose values `node` reads, if others are computed together with it."""
        if node in self._parts.differences:
            difference = self._parts.differences[node]
            return [difference.spikes, difference.others]
        chain = self._parts.chains.get(node)
        return chain.sources if chain is not None and chain.merged else None

    @property
    def changes(self) -> bool:
        """True if some neurons send changes, which take hardly more time for more steps."""
        return any(node in self._parts.changing for node in self._parts.chains)

    @property
    def merged(self) -> set[fx.Node]:
        """The nodes that have no value of their own."""
        return self._parts.merged

    def merged_into(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The nodes that are computed together with `node`, before it."""
        together = self._parts.chains.get(node) or self._parts.differences.get(node)
        return () if together is None else together.merged

    def run(self, node: fx.Node, read: Callable[[fx.Node], Any]) -> Any:
        """The value of `node` from packed spikes, or as such, or a size; None if it must be computed as usual.

        Args:
            node: A node, none of those that are merged.
            read: Its argument's value, which may be packed.
        """
        if node in self._parts.chains:
            return self._fire(self._parts.chains[node], read)
        if node in self._parts.moves or node in self._parts.flattening or node in self._parts.asking:
            return self._move(node, read)
        if node in self._parts.differences:
            return self._subtract(self._parts.differences[node], read)
        if node not in self._parts.convolutions and node not in self._parts.pools and node not in self._parts.averages:
            return None
        x = read(node.args[0])  # type: ignore[arg-type]
        if node in self._parts.convolutions:
            return self._convolve(self._parts.convolutions[node], x)
        if isinstance(x, Levels):
            return pool_levels(self._parts.module(node), x)
        if isinstance(x, Changes):
            return (pool_changes if node in self._parts.pools else average_changes)(self._parts.module(node), x)
        pooled = self._packers.pool if node in self._parts.pools else self._packers.average
        found: Packed | None = pooled(self._parts.module(node), x) if isinstance(x, self._packers.spikes) else None
        return found

    def _move(self, node: fx.Node, read: Callable[[fx.Node], Any]) -> Any:
        """Packed values elsewhere, as features, or how many there are."""
        args: Any = fx.map_arg(node.args, read)
        kwargs: Any = fx.map_arg(node.kwargs, read)
        if node in self._parts.moves:
            return self._parts.moves[node](*args, **kwargs)
        x: Any = args[0] if args else None
        if not isinstance(x, Packed):
            return None
        if node in self._parts.asking:
            return torch.empty(()).expand(x.shape[0] * x.shape[1], *x.shape[2:]).size(*args[1:], **kwargs)
        if not flattens(self._parts.module(node), args, kwargs):
            return None
        if len(x.shape) == 3:
            return x
        return Flattened(x) if isinstance(x, PackedBits) else None

    def _subtract(self, difference: Difference, read: Callable[[fx.Node], Any]) -> Tensor | None:
        spikes, others = read(difference.spikes), read(difference.others)
        alike = isinstance(spikes, PackedSpikes) and isinstance(others, PackedSpikes) and spikes.shape == others.shape
        if not alike:
            return None
        factors = None
        if difference.scaler is not None:
            scaler: Any = self._parts.module(difference.scaler)
            factors = _by_channel(scaler.scale, others.shape)
            if factors is None:
                return None
        return subtract_packed(spikes, others, factors)

    @staticmethod
    def _convolve(convolution: Any, x: Any, *behind: Any) -> Packed | Tensor | None:
        """Call a convolution, if `x` is what it reads."""
        found: Packed | Tensor | None = convolution(x, *behind) if isinstance(x, convolution.reads) else None
        return found

    def fire(self, node: fx.Node, currents: Any, **negated: bool) -> Packed | None:
        """The spikes of the neuron `node` alone, whose currents are known, or `negated`; None if they must be
        numbers."""
        if node not in self._parts.chains:
            return None
        neuron: Any = self._parts.module(node)
        if node in self._parts.changing:
            if not can_be_changed(currents):
                return None
            return fire_changes(neuron, currents, constant=node in self._parts.driven_alike)
        if isinstance(currents, Packed):
            currents = currents.unpacked()
        if not isinstance(currents, Tensor) or not self._packers.fits(currents):
            return None
        if currents.dim() == 4 and node not in self._parts.along_lines:
            return None
        fire = fire_levels if node in self._parts.graded else self._packers.fire
        found: Packed | None = fire(neuron, currents, **negated)
        return found

    def calls(self, node: fx.Node, value: Packed | Tensor, read: Callable[[fx.Node], Any]) -> Iterator[Call]:
        """The calls that computed the value of `node`, for a collector that watches spikes.

        Args:
            node: A node that `run` has computed.
            value: Its value.
            read: Its argument's value, which may be packed.
        """
        elsewhere = self._parts.moves, self._parts.flattening, self._parts.asking, self._parts.differences
        if any(node in nodes for nodes in elsewhere):
            return  # nothing to count
        currents = torch.empty(()).expand(value.shape)
        chain = self._parts.chains.get(node)
        if chain is None or chain.convolution is None:
            loop = self._parts.convolutions[node].loop if node in self._parts.convolutions else self._packers.loop
            source: Any = node.args[0] if chain is None else chain.source
            yield self.call(node, read(source), value, loop)
            return
        loop = self._parts.convolutions[chain.convolution].loop
        yield self.call(chain.convolution, read(chain.source), currents, loop)
        if chain.scaler is not None:
            yield self.call(chain.scaler, read(chain.addend), None, loop)  # type: ignore[arg-type]
        if chain.second is not None:
            yield self.call(chain.second, read(chain.addend), currents, loop)  # type: ignore[arg-type]
        yield self.call(node, currents, value, loop)

    def call(self, node: fx.Node, x: Any, result: Any, loop: str | None = None) -> Call:
        """A call of the module at `node`, for a collector that watches spikes."""
        if isinstance(x, (PackedCounts, Flattened)):
            x = x.active()  # a collector asks what is zero
        counted = Levels, Changes  # what neurons send and convolutions read is counted without numbers
        if isinstance(result, (*counted, Codes)) and not (isinstance(result, counted) and node in self._parts.chains):
            result = result.unpacked()
        if isinstance(x, (*counted, Codes)) and not (isinstance(x, counted) and node in self._parts.convolutions):
            x = x.unpacked()
        name = str(node.target)
        return Call(name, self._modules[name], (x,), {}, result, (0,), loop=loop or self._packers.loop)

    def _fire(self, chain: Chain, read: Callable[[fx.Node], Any]) -> Packed | Tensor | None:
        neuron: Any = self._parts.module(chain.neuron)
        value = read(chain.source)
        if chain.convolution is None:
            return (
                self.fire(chain.neuron, value)
                if chain.negated is None
                else self.fire(chain.neuron, value, negated=True)
            )
        if not isinstance(value, Packed):
            return None
        addend: Any = None if chain.addend is None else read(chain.addend)
        if chain.neuron in self._parts.changing:
            return self._change(chain, value, addend)
        factors = None
        if chain.scaler is not None:
            scaler: Any = self._parts.module(chain.scaler)
            kind = Levels if chain.neuron in self._parts.graded else self._packers.spikes
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
        potential: Any = None if chain.potential is None else self._parts.module(chain.potential)
        if potential is not None and potential.waiting:
            if isinstance(neuron.v, Tensor) or float(neuron.v) != 0.0:
                return None
            initial = potential.potential
            if initial.dtype != torch.float32:
                return None
        convolution = self._parts.convolutions[chain.convolution]
        if isinstance(convolution, LevelConvolution):
            return self._convolve(convolution, value, addend, factors, neuron)
        found = self._convolve(convolution, value, addend, factors, neuron, initial)
        if found is not None and potential is not None:
            potential.waiting = False
        return found

    def _change(self, chain: Chain, value: Any, addend: Any) -> Changes | None:
        """The changes of a neuron whose currents come from changes."""
        convolution, second = (self._parts.convolutions.get(one) for one in (chain.convolution, chain.second))  # type: ignore[arg-type]
        if not isinstance(value, Changes) or not isinstance(convolution, ChangeConvolution):
            return None
        if chain.addend is not None and not isinstance(addend, Changes):
            return None
        factors = None
        if chain.scaler is not None:
            scaler: Any = self._parts.module(chain.scaler)
            factors = _by_channel(scaler.scale, addend.shape)
            if factors is None:
                return None
        return convolution(value, addend, factors, second, self._parts.module(chain.neuron))  # type: ignore[arg-type]


def _by_channel(scale: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The factors of the channels of ``(T, N, C, ...)``; None if the scale has another shape."""
    channels, places = shape[2], len(shape) - 3
    whole = scale.numel() == 1 or tuple(scale.shape) == (channels, *(1,) * places)
    return scale.reshape(-1).expand(channels).contiguous() if whole and scale.dtype == torch.float32 else None
