"""What a layer mapper returns: a description of what becomes of a site.

A mapper describes; the core alone edits the graph. A description states everything that the stages of a conversion
need to know about it: whether the operation is linear over time at a site, what it becomes where nothing varies over
time, how the *scale* of a value passes through it (the spiking network carries ``value / scale``), which module with
memory replaces the operation, and what the report calls it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .site import Site, Value, Varies

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
    "ScaleFlow",
    "Spike",
    "Stateful",
    "Sum",
    "Weighted",
]


class ScaleFlow(enum.Enum):
    """How the scale of a value passes through an operation; the network carries ``value / scale``."""

    OWN = "the result has a scale of its own, and so has the input"
    FOLDED = "weights take up the scales of input and output"
    UNCHANGED = "the result has the scale of the input"
    PER_CHANNEL = "one scale per channel passes, whatever the other dimensions become"
    SHARED = "all operands are brought to one scale"
    MOVED = "every scale moves along with its element"
    MULTIPLIED = "the scales of the operands are multiplied"
    STOPPED = "input and result are in the ANN's units"


Operation = nn.Module | Callable[..., object] | str
"""The ANN's operation: a module, a function, or the name of a tensor method."""


@dataclass(frozen=True)
class Replacement:
    """Base of all descriptions. A subclass states how the stages of a conversion treat it."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.STOPPED
    passes_bias: ClassVar[bool] = False
    """True if adding a bias to one operand adds the same bias to the result."""
    only_first_argument: ClassVar[bool] = False
    """True if the module with memory takes the first argument of the operation and no other."""
    is_exact: ClassVar[bool] = True
    """False if the mean over time only approximates the ANN's operation; a subclass may make it a property."""

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        """Why the operation is not linear in what varies over time at `site`, and what would help.

        Args:
            site: Some of its arguments vary over time.
            varying: Positions of those among the tensor arguments.

        Returns:
            None if it is linear.
        """
        return None

    def when_static(self) -> Replacement:
        """What becomes of the site where nothing varies over time."""
        return self

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        """The module that takes the place of `operation` where values vary over time; None to keep the operation.

        Args:
            operation: The ANN's.
            sequences: Which tensors among the arguments carry samples, and time in step mode "m".
        """
        return None

    def becomes(self, site: Site, neuron: str) -> str:
        """What the report says of `site`, where `neuron` is the name of the spiking neuron."""
        return "itself"


def _only_first_argument(site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
    if len(site.values) > 1 and list(varying) != [0]:
        return "only its first argument may vary over time", ""
    return None


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

    make: Callable[[Operation, tuple[int, ...]], nn.Module]
    label: str
    exact: bool = True

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        return self.exact

    def when_static(self) -> Replacement:
        return Linear()

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        return self.make(operation, sequences)

    def becomes(self, site: Site, neuron: str) -> str:
        return self.label


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

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.OWN

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

    def analog_at(self, site: Site) -> Analog | None:
        """The analog module in front of the neuron at `site`; None where nothing varies over time."""
        return self.analog if site.varies is Varies.VARYING else None

    def becomes(self, site: Site, neuron: str) -> str:
        neurons = f"difference of two {neuron} neurons" if self.two_sided else f"{neuron} neuron"
        if self.analog is None:
            return neurons
        analog = self.analog_at(site)
        return f"{analog.label if analog else 'itself'}, then {neurons}"


@dataclass(frozen=True)
class Weighted(Replacement):
    """A layer with `weight` and perhaps `bias`, linear in its one input, whose scales the core folds.

    `nn.Linear`, `nn.Conv*`, `nn.ConvTranspose*` and layers with their layout of weights.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.FOLDED

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return _only_first_argument(site, varying)


@dataclass(frozen=True)
class Rearrange(Replacement):
    """Every element of the output is one element of an input: reshape, permute, slice, concat, split."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.MOVED


@dataclass(frozen=True)
class Average(Replacement):
    """Linear, without bias, and dimensions 0 and 1 (sample, channel) are kept apart.

    Average pooling, mean over space, interpolation.

    Attributes:
        make: Makes the module that takes the operation's place, or None to keep the operation.
        exact: False if that module is another function than the ANN's.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.PER_CHANNEL

    make: Callable[[], nn.Module] | None = None
    exact: bool = True

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        return self.exact

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return _only_first_argument(site, varying)

    def when_static(self) -> Replacement:
        # Nothing changes over time yet, so the ANN's own operation is exact.
        return Average()


@dataclass(frozen=True)
class Sum(Replacement):
    """Sum or difference of its operands."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.SHARED
    passes_bias: ClassVar[bool] = True


@dataclass(frozen=True)
class Product(Replacement):
    """Product, quotient or matrix product: linear in each operand, so only one may vary over time.

    Attributes:
        elementwise: False for matrix products, which mix channels.
        divisor: Position of an operand that divides; it must not vary at all.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.MULTIPLIED

    elementwise: bool = True
    divisor: int | None = None

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        if len(varying) > 1:
            return "it multiplies two spike streams, and the mean of a product is not the product of the means", ""
        divisor = None if self.divisor is None else site.argument("other", self.divisor)
        if isinstance(divisor, Value) and divisor.varies is Varies.VARYING:
            return "it divides by a spike stream", ""
        return None


@dataclass(frozen=True)
class Linear(Replacement):
    """Linear in what varies over time, in a way the core need not know; scales stop in front of it.

    Attributes:
        varying: Positions of the tensor arguments that may vary over time (None: any of them, jointly).
    """

    varying: tuple[int, ...] | None = None

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        if self.varying is not None and not set(varying) <= set(self.varying):
            return "its weights would be spikes: it is linear in its input only", ""
        return None


@dataclass(frozen=True)
class Remove(Replacement):
    """The identity at inference (dropout): the site's first argument takes its place."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.UNCHANGED
    passes_bias: ClassVar[bool] = True

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return _only_first_argument(site, varying)

    def becomes(self, site: Site, neuron: str) -> str:
        return "nothing"


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

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.PER_CHANNEL
    only_first_argument: ClassVar[bool] = True

    make: Callable[[], nn.Module]
    label: str
    exact: bool = True

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        return self.exact

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return _only_first_argument(site, varying)

    def when_static(self) -> Replacement:
        return Average()

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        return self.make()

    def becomes(self, site: Site, neuron: str) -> str:
        return self.label


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

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return self.why, self.help

    def becomes(self, site: Site, neuron: str) -> str:
        return "refused"
