"""What an evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..support.wording import listed

__all__ = ["EvaluationResult", "LayerActivity", "short"]


@dataclass(frozen=True)
class LayerActivity:
    """The activity of one spiking layer.

    Attributes:
        name: Qualified name of the layer.
        neurons: Number of neurons.
        spikes_per_sample: Spikes per sample, summed over its neurons and all steps.
        firing_rate: Spikes per neuron and step.
        emissions_per_sample: How often one of its neurons emitted anything, per sample. A binary spike is one emission;
            a graded spike of value k is one emission and k spikes, so spikes / emissions is the mean level.
    """

    name: str
    neurons: int
    spikes_per_sample: float
    firing_rate: float
    emissions_per_sample: float


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured.

    Attributes:
        values: The metrics by name: ``values["top1"][t - 1]`` is the value when stopping after t steps; a sample that
            stopped earlier keeps its answer.
        samples: Number of samples.
        steps_per_sample: Mean number of steps until a sample's answer was taken: T without an early exit.
        spikes_per_sample: Spikes of all neurons over all steps, per sample. With an early exit, a sample's spikes count
            to the end of the group of steps in which it stops. A graded spike of value k counts k times, a negative
            spike like a positive one.
        synops_per_sample: Synaptic operations per sample: for every nonzero value that reaches a Linear, Bilinear, Conv
            or ConvTranspose layer at a step, or a function or method of that kind (``F.linear``, ``F.conv2d``,
            ``matmul``, ``einsum``), the number of its connections there. The layers in front of the first neuron see a
            constant input; they are computed once and not counted. Scaling and pooling are not counted.
        seconds: Duration of the simulation, without loading data.
        layers: The spiking layers, in order.
        emissions_per_sample: How often a neuron emitted anything, per sample; less than `spikes_per_sample` if spikes
            are graded.
        not_counted: The operations that multiply by weights, or values by each other, and are missing in
            `synops_per_sample`: ``("attention (MultiheadAttention)",)``.
        spikes_over_time: ``spikes_over_time[t - 1]`` are the spikes per sample in the first t steps, so that one run
            says what stopping earlier would have saved; the last entry is `spikes_per_sample`. With an early exit,
            they are those that were simulated: the steps after the exit of a sample add nothing. Empty if a neuron of
            a plugin counts its spikes by runs and not by steps.
        emissions_over_time: The same of the emissions.
        synops_over_time: The same of the synaptic operations.
    """

    values: Mapping[str, tuple[float, ...]]
    samples: int
    steps_per_sample: float
    spikes_per_sample: float
    synops_per_sample: float
    seconds: float
    layers: tuple[LayerActivity, ...]
    emissions_per_sample: float
    not_counted: tuple[str, ...] = ()
    spikes_over_time: tuple[float, ...] = ()
    emissions_over_time: tuple[float, ...] = ()
    synops_over_time: tuple[float, ...] = ()

    @property
    def accuracy(self) -> tuple[float, ...]:
        """``accuracy[t - 1]`` is the share of samples classified correctly when stopping after t steps.

        Raises:
            InputError: The evaluation measured something else.
        """
        if "top1" not in self.values:
            raise InputError(f"This evaluation measured {listed(self.values)}, not top1; see its `values`.")
        return self.values["top1"]

    @property
    def value(self) -> tuple[float, ...]:
        """The only metric's value after every step.

        Raises:
            InputError: There are several; choose one of `values`.
        """
        if len(self.values) != 1:
            raise InputError(f"This evaluation measured {listed(self.values)}; choose one of them, result.values[...].")
        return next(iter(self.values.values()))

    def __str__(self) -> str:
        steps = len(next(iter(self.values.values())))
        shown = sorted({1, *(2**k for k in range(1, steps.bit_length()) if 2**k < steps), steps})
        curves = "; ".join(
            f"{'accuracy' if name == 'top1' else name} " + ", ".join(f"{short(values[t - 1])} (T={t})" for t in shown)
            for name, values in self.values.items()
        )
        early = f"{self.steps_per_sample:.4g} steps, " if self.steps_per_sample < steps else ""
        graded = self.emissions_per_sample != self.spikes_per_sample
        emissions = f" in {self.emissions_per_sample:.4g} emissions" if graded else ""
        missing = f" (not counted: {listed(self.not_counted)})" if self.not_counted else ""
        return (
            f"{curves}; {self.samples} samples, {early}{self.spikes_per_sample:.4g} spikes{emissions} and "
            f"{self.synops_per_sample:.4g} synaptic operations per sample{missing}, {self.seconds:.2f} s"
        )


def short(value: float) -> str:
    """A metric's value for people: four decimals for shares and the like, three digits for anything else.

    >>> short(0.98), short(0.000123)
    ('0.9800', '0.000123')
    """
    return f"{value:.4f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
