"""What a layer mapper returns: a description of what a site becomes.

A mapper describes; only the core edits the graph. A description states everything that the stages of a conversion
need: whether the operation is linear over time at a site, what it becomes if nothing varies over time, how the *scale*
of a value passes through it (the spiking network carries ``value / scale``), which module with memory replaces the
operation, and its name in the report.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

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

    OWN = "result and input have the site's own scale"
    FOLDED = "weights absorb the scales of input and output"
    UNCHANGED = "the result has the scale of the input"
    PER_CHANNEL = "scales per channel pass, whatever the operation does to the other dimensions"
    SHARED = "all operands are brought to one scale"
    MOVED = "every scale moves along with its element"
    MULTIPLIED = "the scales of the operands are multiplied"
    STOPPED = "input and result are in the ANN's units"


Operation = nn.Module | Callable[..., object] | str
"""The ANN's operation: a module, a function, or the name of a tensor method."""


@dataclass(frozen=True)
class Replacement:
    """Base of all descriptions. A subclass states how the stages of a conversion treat it.

    >>> from sj_ann2snn import Linear
    >>> Linear(varying=(0,), channel_axis=-1).channel_axis
    -1

    Attributes:
        channel_axis: The dimension of the result that holds its channels, for `channel_wise=True`: 1 for layers that
            work like convolutions, -1 for layers that work like `nn.Linear`, or `"kept"` if every element stays in the
            channel of the input's element at the same place (elementwise operations). By default it follows from the
            operation if that is one of torch's, and otherwise from the kind of description; if neither tells, the
            layer behind it has one scale λ for all of its channels.
    """

    channel_axis: int | Literal["kept"] | None = field(default=None, kw_only=True)

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.STOPPED
    passes_bias: ClassVar[bool] = False
    """True if adding a bias to one operand adds the same bias to the result."""
    only_first_argument: ClassVar[bool] = False
    """True if only the first argument may vary over time; a module with memory takes that argument alone."""

    @property
    def is_exact(self) -> bool:
        """False if the mean over time only approximates the ANN's operation: what a field `exact` says."""
        return bool(getattr(self, "exact", True))

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        """Why the operation is not linear in the values that vary over time at `site`, and what would help.

        Args:
            site: A site where some arguments vary over time.
            varying: Positions of the varying arguments among the tensor arguments.

        Returns:
            Reason and help, or None if the operation is linear.
        """
        if self.only_first_argument and len(site.values) > 1 and list(varying) != [0]:
            return "only its first argument may vary over time", ""
        return None

    def when_static(self) -> Replacement:
        """What the site becomes if nothing varies over time there."""
        return self

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        """The module that replaces `operation` where values vary over time; None to keep the operation.

        Args:
            operation: The ANN's operation.
            sequences: Which tensors among the arguments carry samples, and time in step mode "m".
        """
        return None

    def becomes(self, site: Site, neuron: str) -> str:
        """The report's entry for what `site` becomes; `neuron` is the name of the spiking neuron."""
        return "itself"


@dataclass(frozen=True)
class Analog(Replacement):
    """Replaces the operation by a module with memory that does not spike, for operations that no neuron can compute.

    >>> import torch
    >>> from sj_ann2snn import Analog, LayerMapper
    >>> class GateMapper(LayerMapper):
    ...     name = "gate"
    ...     claims = (torch.nn.Sigmoid,)
    ...     def map(self, site):
    ...         return Analog(MyMemoryModule, "gate on running means")

    The module is called with the operation's arguments, in the ANN's units, and returns its result in the ANN's units,
    so scales stop in front of it. Any argument may vary over time. The module may mix channels, but never the samples
    of a batch. The report says that it does not spike. If nothing varies over time, the operation itself is kept.

    Attributes:
        make: Makes the module from the ANN's operation (a module, a function, or the name of a tensor method) and
            `sequences`: which tensors among the arguments (in order, including nested ones) carry samples, and time
            in step mode "m"; the others are parameters. The module is a SpikingJelly `MemoryModule` with the step
            modes "s" and "m" that `reset_net` resets; tensors in its memory have the samples in dimension 0.
        label: Its name in the report.
        exact: False if its mean over time only approximates the ANN's operation.
    """

    make: Callable[[Operation, tuple[int, ...]], nn.Module]
    label: str
    exact: bool = True

    def when_static(self) -> Replacement:
        return Linear(channel_axis=self.channel_axis)

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        return self.make(operation, sequences)

    def becomes(self, site: Site, neuron: str) -> str:
        return self.label


@dataclass(frozen=True)
class Spike(Replacement):
    """A spiking neuron replaces the operation; its scale λ comes from the normalization.

    Attributes:
        maximum: Upper bound of the ANN's activation (6 for ReLU6): λ never exceeds it.
        keep: Keep the operation (an average pool) and put the neuron behind it.
        negative_slope: Slope below zero, a number or one per channel. If it is not zero, a second neuron fires for the
            negated current, and its spikes times the slope are subtracted; λ is then the scale of the current's
            magnitude. A slope of one carries both signs unchanged.
        analog: An `Analog` that replaces the operation, with the neuron behind it. `negative_slope` is then the
            neuron's: zero if the result is never negative, otherwise one.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.OWN

    maximum: float | None = None
    keep: bool = False
    negative_slope: float | Tensor = 0.0
    analog: Analog | None = None

    @property
    def two_sided(self) -> bool:
        """True if negative currents also produce spikes."""
        return isinstance(self.negative_slope, Tensor) or self.negative_slope != 0

    @property
    def behind(self) -> bool:
        """True if the neuron stands behind the operation instead of in its place."""
        return self.keep or self.analog is not None

    def analog_at(self, site: Site) -> Analog | None:
        """The analog module in front of the neuron at `site`; None if nothing varies over time there."""
        return self.analog if site.varies is Varies.VARYING else None

    def becomes(self, site: Site, neuron: str) -> str:
        neurons = f"difference of two {neuron} neurons" if self.two_sided else f"{neuron} neuron"
        if self.analog is None:
            return neurons
        analog = self.analog_at(site)
        return f"{analog.label if analog else 'itself'}, then {neurons}"


@dataclass(frozen=True)
class Weighted(Replacement):
    """A layer with `weight` and optional `bias`, linear in its only input; the core folds scales into it.

    `nn.Linear`, `nn.Conv*`, `nn.ConvTranspose*` and layers with the same weight layout.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.FOLDED
    only_first_argument: ClassVar[bool] = True


@dataclass(frozen=True)
class Rearrange(Replacement):
    """Every element of the output is one element of an input: reshape, permute, slice, concat, split."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.MOVED


@dataclass(frozen=True)
class Average(Replacement):
    """Linear, without bias, and without mixing dimensions 0 and 1 (sample, channel).

    Average pooling, mean over space, interpolation.

    Attributes:
        make: Makes the module that replaces the operation, or None to keep the operation.
        exact: False if that module computes another function than the ANN's operation.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.PER_CHANNEL
    only_first_argument: ClassVar[bool] = True

    make: Callable[[], nn.Module] | None = None
    exact: bool = True

    def when_static(self) -> Replacement:
        # Nothing varies over time, so the ANN's own operation is exact.
        return Average(channel_axis=self.channel_axis)


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
        divisor: Position of the divisor; it must not vary at all.
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
    """Linear in the values that vary over time, in a way that the core need not know; scales stop in front of it.

    Attributes:
        varying: Positions of the tensor arguments that may vary over time (None: any of them, jointly).
    """

    varying: tuple[int, ...] | None = None

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        if self.varying is not None and not set(varying) <= set(self.varying):
            return "its weights would be spikes, but it is linear only in its input", ""
        return None


@dataclass(frozen=True)
class Remove(Replacement):
    """The identity at inference (dropout): the site's first argument replaces it."""

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.UNCHANGED
    only_first_argument: ClassVar[bool] = True
    passes_bias: ClassVar[bool] = True

    def becomes(self, site: Site, neuron: str) -> str:
        return "nothing"


@dataclass(frozen=True)
class Stateful(Replacement):
    """Replaces the operation by a module with memory, because the operation is not linear over time.

    The module is a SpikingJelly `MemoryModule` (derive it from `MemoryLayer`), takes the site's first argument, is
    reset by `reset_net`, has the step modes "s" and "m", and its output scales with its input. It does not mix
    samples, dimension 0; channels, dimension 1, only where the operation is a reduction of torch's own, like
    ``x.amax(1)``. If nothing varies over time, the operation itself is kept.

    Attributes:
        make: Makes the module.
        label: Its name in the report.
        exact: False if its mean over time only approximates the ANN's operation.
    """

    scale_flow: ClassVar[ScaleFlow] = ScaleFlow.PER_CHANNEL
    only_first_argument: ClassVar[bool] = True

    make: Callable[[], nn.Module]
    label: str
    exact: bool = True

    def when_static(self) -> Replacement:
        return Average(channel_axis=self.channel_axis)

    def module_with_memory(self, operation: Operation, sequences: tuple[int, ...]) -> nn.Module | None:
        return self.make()

    def becomes(self, site: Site, neuron: str) -> str:
        return self.label


@dataclass(frozen=True)
class NeuronAfterPool(Replacement):
    """Moves the operation in front of the neuron before it: it acts on currents, then the neuron fires.

    Only for operations that commute with ReLU (max pooling), behind a neuron that nothing else reads; in all other
    cases `otherwise` applies.
    """

    otherwise: Replacement


@dataclass(frozen=True)
class Refuse(Replacement):
    """The operation has no exact spiking counterpart.

    Attributes:
        why: The reason, in a few words.
        help: What would make it convertible.
    """

    why: str
    help: str = ""

    def objection(self, site: Site, varying: Sequence[int]) -> tuple[str, str] | None:
        return self.why, self.help

    def becomes(self, site: Site, neuron: str) -> str:
        return "refused"
