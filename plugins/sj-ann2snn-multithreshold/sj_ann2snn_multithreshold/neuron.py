"""A neuron that emits one graded spike per step, of the size nearest to what its value still lacks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronLoop, NeuronMaker, NeuronSite

from .sizes import REFINED, Sizes, sizes_from

__all__ = ["MultiThreshold", "MultiThresholdNeuron"]


def fire(
    x: Any,
    v: Any,
    value: Any,
    step: Any,
    nothing: Any,
    levels: Any,
    second: Any,
    third: Any,
    fourth: Any,
    first_size: Any,
    second_size: Any,
    third_size: Any,
    fourth_size: Any,
) -> tuple[Any, Any, Any]:
    """`MultiThresholdNeuron.step` for one neuron without a maximum.

    Args:
        x: The current.
        v: The sum of the currents so far.
        value: What it represents.
        step: The number of the step, from 1 on.
        nothing: 0.
        levels: The largest number of smallest sizes in a spike.
        second: 2.
        third: 3.
        fourth: 4.
        first_size: The smallest size at the first step.
        second_size: At the second step.
        third_size: At the third step.
        fourth_size: At the fourth step and later.
    """
    v = v + x
    early = first_size if step < second else second_size
    size = early if step < third else (third_size if step < fourth else fourth_size)
    spike = min(max(np.rint((max(v / step, nothing) - value) / size), -levels), levels) * size
    return value + spike * step, v, value + spike


class MultiThresholdNeuron(InPlaceNeuron):
    """Emits one spike per step, of up to `levels` sizes and both signs, which changes the value that it represents.

    >>> neuron = MultiThresholdNeuron(levels=8, steps=2)
    >>> outputs = [neuron(torch.tensor([2.7])).item() for _ in range(2)]
    >>> outputs, sum(outputs) / 2
    ([3.0, 2.5], 2.75)

    The neuron compares its mean current so far, or zero if that is negative, with the value that its spikes add up to.
    The difference is its membrane potential. It emits the nearest spike, and the potential falls by its size. The
    sizes are 1 to `levels` times the smallest one, which is 1 at the first step and `finer` times smaller at each of
    the next, up to the step `steps`, at most the fourth. So the second spike corrects what rounding left over from the
    first, and what the first spikes of the layers in front had wrong.

    A receiver adds up the spikes. The layers of a converted network take the mean over time instead, so the output at
    step t is ``a + t q`` for a value a and a spike q, and the mean of the outputs is the value, ``a + q``.

    Args:
        levels: Number of sizes.
        steps: Number of time steps for which its sizes are made.
        finer: Ratio of the sizes of one step to those of the next.
        rest: A neuron that is silent at the first step represents `levels`, and a spike of the largest size with a
            negative sign means zero: the first spike then distinguishes ``2 levels + 1`` values instead of
            ``levels + 1``.
        maximum: Largest value that the neuron may represent, which broadcasts over the currents; None for no limit.

    Shapes: currents and outputs are ``[N, ...]``, in step mode "m" ``[T, N, ...]``, in units of the smallest size at
    the first step.
    """

    value: Tensor | None
    maximum: Tensor | None
    clock: int

    def __init__(
        self, *, levels: int = 8, steps: int = 2, finer: int = 4, rest: bool = False, maximum: Tensor | None = None
    ) -> None:
        super().__init__()
        self.sizes = Sizes(levels, steps, finer, rest)
        self.register_buffer("maximum", maximum)
        self.register_memory("value", None)
        self.register_memory("clock", 0)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.value = torch.full_like(x, self.sizes.start)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.value is not None
        self.v += x
        self.clock += 1
        missing = (self.v / self.clock).clamp_(min=0)
        if self.maximum is not None:
            missing = missing.minimum(self.maximum)
        size = self.sizes.smallest(self.clock)
        spike = missing.sub_(self.value).div_(size).round_().clamp_(-self.sizes.levels, self.sizes.levels).mul_(size)
        torch.add(self.value, spike, alpha=self.clock, out=out)
        self.value += spike

    def loop(self, dtype: torch.dtype) -> NeuronLoop | None:
        if self.maximum is not None:
            return None
        smallest = (self.sizes.smallest(step) for step in range(1, REFINED + 1))
        constants = (0, self.sizes.levels, 2, 3, 4, *smallest)
        return NeuronLoop(fire, states=("v", "value"), constants=constants, clock="clock")

    def spikes_per_step(self, emitted: Tensor) -> Tensor:
        """The sum of the spikes' sizes at every step, in units of the smallest of that step."""
        return self._counted(emitted)[0]

    def emissions_per_step(self, emitted: Tensor) -> Tensor:
        """How many neurons sent a spike at every step."""
        return self._counted(emitted)[1]

    def _counted(self, emitted: Tensor) -> tuple[Tensor, Tensor]:
        """Both, from the outputs ``[T, N, ...]`` and the value after the last of them, backwards: an output is
        ``a + t q``, after which the value is ``a + q``."""
        sums = torch.zeros(len(emitted), dtype=torch.int64)
        sent = torch.zeros_like(sums)
        if not len(emitted):
            return sums, sent
        assert self.value is not None
        value = self.value.double()
        for index in reversed(range(len(emitted))):
            step = self.clock - (len(emitted) - 1 - index)
            size = self.sizes.smallest(step)
            difference = value - self.sizes.start if step == 1 else (emitted[index].double() - value) / (step - 1)
            spike = (difference / size).round_()
            sums[index], sent[index] = int(spike.abs().sum()), int(spike.count_nonzero())
            value = value - spike * size
        return sums, sent

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        sizes = self.sizes
        return {
            "levels": sizes.levels,
            "steps": sizes.steps,
            "finer": sizes.finer,
            "rest": sizes.rest,
            "maximum": self.maximum,
        }

    def extra_repr(self) -> str:
        sizes = self.sizes
        return f"levels={sizes.levels}, steps={sizes.steps}, finer={sizes.finer}, rest={sizes.rest}"


class MultiThreshold(NeuronMaker):
    """One spike per step, out of a few sizes and both signs, for one or two time steps.

    >>> import torch
    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(50, 4)
    >>> snn = Converter([x], mode="multi-threshold", T=1, progress=False)(ann)
    >>> bool((simulate(snn, x, T=1) - ann(x)).abs().max() < 0.1)
    True

    After the first step, an activation of up to λ is represented within λ / (2 levels), or half of that with `rest`;
    after each of the next three, `finer` times as well.

    Args:
        T: Number of time steps for which the network will run.
        levels: Number of sizes: once to `levels` times the smallest one.
        finer: The sizes of a step are this many times smaller than those of the step before, up to the fourth: 1, 2, 4,
            8 or 16.
        rest: A neuron that stays silent at the first step means λ / 2, and spikes of either sign change that. The
            first spike then distinguishes almost twice as many values, but inactive neurons emit spikes as well. On
            hardware, λ / 2 is a constant current of the receivers. False: a silent neuron means zero.

    Raises:
        OptionError: `T` or `levels` is not an integer of at least 1, `finer` is none of those numbers, or `rest` is not
            a boolean.

    Source: Huang et al. 2024, "Towards high-performance spiking transformers from ANN to SNN conversion" (one spike
    out of several sizes and both signs, the nearest to the potential), and Huang et al. 2025, "Differential coding for
    training-free ANN-to-SNN conversion" (spikes transmit changes). Here the sizes are multiples of the smallest, and
    become finer from step to step.
    """

    name = "multi-threshold"
    tunable: ClassVar = {"levels": (4, 8), "rest": (False,)}
    exports = (MultiThresholdNeuron,)

    def __init__(
        self,
        *,
        T: int = 2,  # noqa: N803 - the field's name for the number of time steps
        levels: int = 8,
        finer: int = 4,
        rest: bool = True,
    ) -> None:
        self.sizes = sizes_from(T=T, levels=levels, finer=finer, rest=rest)
        self.T, self.levels, self.finer, self.rest = T, levels, finer, rest
        # What lies between two values of the last step stays as it is.
        self.resolution = self.sizes.smallest(T) / (2 * self.sizes.scale)

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.sizes.scale

    def make(self, site: NeuronSite) -> MultiThresholdNeuron:
        maximum = None
        if site.maximum is not None:
            maximum = site.along_channels((site.maximum / self.unit(site.scale)).to(site.dtype))
        sizes = self.sizes
        return MultiThresholdNeuron(
            levels=sizes.levels, steps=sizes.steps, finer=sizes.finer, rest=sizes.rest, maximum=maximum
        )
