"""What a layer mapper may answer: a description of what becomes of a site.

A mapper describes; the core alone edits the graph. Each description also says how the *scale* of a
value passes through the operation (the spiking network carries ``value / scale``), which is what lets
the core fold scales into weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = [
    "Analog",
    "Average",
    "Linear",
    "NeuronAfterPool",
    "Product",
    "Rearrange",
    "Refuse",
    "Remove",
    "Replacement",
    "Spike",
    "Stateful",
    "Sum",
    "Weighted",
]


@dataclass(frozen=True)
class Replacement:
    """Base of all descriptions."""


@dataclass(frozen=True)
class Analog(Replacement):
    """A module with memory that does not spike takes the operation's place: for what no neuron can do.

    >>> import torch
    >>> from sj_ann2snn import Analog, LayerMapper
    >>> class GateMapper(LayerMapper):
    ...     name = "gate"
    ...     claims = (torch.nn.Sigmoid,)
    ...     def map(self, site):
    ...         return Analog(MyMemoryModule, "gate on running means")

    It is called as the operation is, with every argument in the ANN's units, and answers in them: scales stop in
    front of it. Any of the arguments may vary over time. It may mix channels, but never the samples of a batch. The
    report says that it does not spike. Where nothing varies over time the operation itself is kept.

    Attributes:
        make: Makes the module from the ANN's operation (a module, a function, or the name of a tensor method) and
            `sequences`: which tensors among the arguments (in order, nested ones included) carry samples, and time
            in step mode "m"; the others are parameters. The module is a SpikingJelly `MemoryModule` with the step
            modes "s" and "m", cleared by `reset_net`; tensors in its memory have the samples in dimension 0.
        label: What the report calls it.
        exact: False if its mean over time only approximates the ANN's operation.
    """

    make: Callable[[nn.Module | Callable[..., Any] | str, tuple[int, ...]], nn.Module]
    label: str
    exact: bool = True


@dataclass(frozen=True)
class Spike(Replacement):
    """A spiking neuron stands here; its scale λ comes from the normalization.

    Attributes:
        maximum: Upper bound of the ANN's activation (6 for ReLU6): λ never exceeds it.
        keep: Keep the operation (an average pool) and put the neuron behind it.
        negative_slope: Slope below zero, a number or one per channel. Where it is not zero, a second neuron
            fires for the negated current, and its spikes times the slope are subtracted; λ is then the scale
            of the current's magnitude. A slope of one carries both signs as they are.
        analog: Stands in the operation's place, as described there, and the neuron behind it; the slope is that of
            the neuron, zero for what is never negative and else one.
    """

    maximum: float | None = None
    keep: bool = False
    negative_slope: float | Tensor = 0.0
    analog: Analog | None = None

    @property
    def two_sided(self) -> bool:
        """True if negative currents make spikes, too."""
        return isinstance(self.negative_slope, Tensor) or self.negative_slope != 0

    @property
    def behind(self) -> bool:
        """True if the neuron stands behind the operation instead of in its place."""
        return self.keep or self.analog is not None


@dataclass(frozen=True)
class Weighted(Replacement):
    """A layer with `weight` and perhaps `bias`, linear in its one input, whose scales the core folds.

    `nn.Linear`, `nn.Conv*`, `nn.ConvTranspose*` and layers with their layout of weights.
    """


@dataclass(frozen=True)
class Rearrange(Replacement):
    """Every element of the output is one element of an input: reshape, permute, slice, concat, split."""


@dataclass(frozen=True)
class Average(Replacement):
    """Linear, without bias, and dimensions 0 and 1 (sample, channel) are kept apart.

    Average pooling, mean over space, interpolation.

    Attributes:
        make: Makes the module that takes the operation's place, or None to keep the operation.
        exact: False if that module is another function than the ANN's.
    """

    make: Callable[[], nn.Module] | None = None
    exact: bool = True


@dataclass(frozen=True)
class Sum(Replacement):
    """Sum or difference of its operands."""


@dataclass(frozen=True)
class Product(Replacement):
    """Product, quotient or matrix product: linear in each operand, so only one may vary over time.

    Attributes:
        elementwise: False for matrix products, which mix channels.
        divisor: Position of an operand that divides; it must not vary at all.
    """

    elementwise: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class Linear(Replacement):
    """Linear in what varies over time, in a way the core need not know; scales stop in front of it.

    Attributes:
        varying: Positions of the tensor arguments that may vary over time (None: any of them, jointly).
    """

    varying: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Remove(Replacement):
    """The identity at inference (dropout): the site's first argument takes its place."""


@dataclass(frozen=True)
class Stateful(Replacement):
    """A module with memory takes the operation's place, because the operation is not linear over time.

    The module is a SpikingJelly `MemoryModule`, takes the site's first argument, is cleared by
    `reset_net`, has the step modes "s" and "m", and its output scales with its input. Dimensions 0
    and 1 are kept apart. Where nothing varies over time the operation itself is kept.

    Attributes:
        make: Makes the module.
        label: What the report calls it.
        exact: False if its mean over time only approximates the ANN's operation.
    """

    make: Callable[[], nn.Module]
    label: str
    exact: bool = True


@dataclass(frozen=True)
class NeuronAfterPool(Replacement):
    """The operation moves in front of the neuron that feeds it: it acts on currents, then the neuron fires.

    Only for operations that commute with ReLU (max pooling), behind a neuron that nothing else reads;
    elsewhere `otherwise` holds.
    """

    otherwise: Replacement


@dataclass(frozen=True)
class Refuse(Replacement):
    """This operation has no exact counterpart here.

    Attributes:
        why: Why not, in a few words.
        help: What would make it convertible.
    """

    why: str
    help: str = ""
