"""The built-in readouts."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from sj_ann2snn import OptionError, Readout, hookimpl, require_integer, require_number

ANN2SNN_API = 1


class Mean(Readout):
    """The mean of the outputs: the firing rate, in the ANN's units.

    >>> import torch
    >>> from sj_ann2snn import Mean
    >>> mean = Mean()
    >>> sums, _ = mean.answers(torch.tensor([[[2.0]], [[4.0]]]), None, 0)
    >>> [(one / mean.divisor(step)).item() for step, one in enumerate(sums, 1)]
    [2.0, 3.0]

    Source: Rueckauer et al. 2017, "Conversion of continuous-valued deep networks to efficient event-driven networks
    for image classification", section 2.2.
    """

    name = "mean"

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        sums = running_sum(outputs, state)
        return sums, sums[-1]

    def last_answer(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        total = whole_sum(outputs, state)
        return total, total

    def divisor(self, steps: int) -> float:
        return steps


class Potential(Mean):
    """The sum of the outputs: the membrane potential of output neurons that integrate without leak and never fire.

    >>> import torch
    >>> from sj_ann2snn import Potential
    >>> Potential().last_answer(torch.tensor([[[2.0]], [[4.0]]]), None, 0)[0].item()
    6.0

    The best class is the same as for the mean. The answer is in the ANN's units times steps; an exit rule that expects
    means receives these sums.

    Source: Rathi et al. 2020, "Enabling deep spiking neural networks with hybrid conversion and spike timing dependent
    backpropagation", section 4: the output layer accumulates its input without leak and does not fire.
    """

    name = "potential"

    def divisor(self, steps: int) -> float:
        return 1


class Delayed(Readout):
    """The mean of the outputs after a delay, in which the first spikes arrive; up to the delay, the mean so far.

    >>> import torch
    >>> from sj_ann2snn import Delayed
    >>> delayed, outputs = Delayed(delay=1), torch.tensor([[[9.0]], [[2.0]], [[4.0]]])
    >>> [(one / delayed.divisor(step)).item() for step, one in enumerate(delayed.answers(outputs, None, 0)[0], 1)]
    [9.0, 2.0, 3.0]

    The delay is part of T: with T=8 and delay=2, the answer is the mean of steps 3 to 8.

    Args:
        delay: Number of steps at the beginning whose outputs do not count, at least 0 and less than T.

    Raises:
        OptionError: `delay` is not an integer of at least 0.

    Source: Hwang et al. 2021, "Low-latency spiking neural networks using pre-charged membrane potential and delayed
    evaluation".
    """

    name = "delayed"
    tunable: ClassVar = {"delay": (1, 2, 4, 8)}

    def __init__(self, *, delay: int = 4) -> None:
        self.delay = require_integer("delay", delay, 0, what="the delay of a readout")

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        early, late = self._parts(outputs, done)
        sums = []
        if len(early):
            sums.append(running_sum(early, state))
        if len(late):
            sums.append(running_sum(late, state if done > self.delay else None))
        return sums[0] if len(sums) == 1 else torch.cat(sums), sums[-1][-1]

    def last_answer(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        early, late = self._parts(outputs, done)
        counted, before = (late, state if done > self.delay else None) if len(late) else (early, state)
        total = whole_sum(counted, before)
        return total, total

    def divisor(self, steps: int) -> float:
        return steps if steps <= self.delay else steps - self.delay

    def check(self, steps: int) -> None:
        if self.delay >= steps:
            raise OptionError(
                f"A readout with delay={self.delay} is not allowed for T={steps}: the delay is part of T, so no step "
                f"is left to average over. Use a delay from 0 to T - 1 = {steps - 1}, "
                f"as in readout=Delayed(delay={steps // 4}), or more steps."
            )

    def _parts(self, outputs: Tensor, done: int) -> tuple[Tensor, Tensor]:
        """The outputs up to the delay, and the outputs after it."""
        count = min(len(outputs), max(0, self.delay - done))
        return outputs[:count], outputs[count:]


class Recent(Readout):
    """The mean of the last half of the outputs or more, for networks that may be stopped after any number of steps.

    >>> import torch
    >>> from sj_ann2snn import Recent
    >>> recent, outputs = Recent(), torch.tensor([9.0, 2.0, 4.0, 3.0]).view(4, 1, 1)
    >>> [(one / recent.divisor(step)).item() for step, one in enumerate(recent.answers(outputs, None, 0)[0], 1)]
    [9.0, 5.5, 5.0, 3.0]

    Like `Delayed`, with a delay that grows with the number of steps: 1 from the fourth step on, and half the largest
    power of two that is not above the number of steps, from the eighth on (4 after 8 to 15 steps, 8 after 16 to 31). It
    keeps three sums, however many steps there are.

    Source: as for `Delayed`.
    """

    name = "recent"
    tunable: ClassVar = {}

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        zero = torch.zeros_like(outputs[0])
        total, marked, skipped = (zero, zero, zero) if state is None else state
        answers = []
        for step, output in enumerate(outputs, done + 1):
            total = total + output
            if _is_mark(step):
                marked, skipped = total, marked
            answers.append(total - skipped)
        return torch.stack(answers), (total, marked, skipped)

    def divisor(self, steps: int) -> float:
        return steps - self.delay(steps)

    @staticmethod
    def delay(steps: int) -> int:
        """Steps at the beginning that do not count after `steps` steps."""
        power = 1 << (steps.bit_length() - 1)
        return power // 2 if power >= 8 else power // 4


def _is_mark(step: int) -> bool:
    """True for the steps after which `Recent` counts anew: 1, and the powers of two from 4 on."""
    return step != 2 and not step & (step - 1)


class Last(Readout):
    """Only the output of the last step.

    >>> import torch
    >>> from sj_ann2snn import Last
    >>> Last().last_answer(torch.tensor([[[2.0]], [[4.0]]]), None, 0)[0].item()
    4.0

    For networks whose output is already a potential, such as a network that ends with your own neuron which integrates
    and does not fire (Neftci et al. 2019, "Surrogate gradient learning in spiking neural networks"). If the output is
    the current of the last layer, a single step says little.
    """

    name = "last"

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        return outputs, None


class Exponential(Readout):
    """A mean with weights that decay with age: the membrane potential of leaky output neurons that never fire.

    >>> import torch
    >>> from sj_ann2snn import Exponential
    >>> leaky = Exponential(decay=0.5)
    >>> potentials, _ = leaky.answers(torch.tensor([[[6.0]], [[0.0]]]), None, 0)
    >>> [(one / leaky.divisor(step)).item() for step, one in enumerate(potentials, 1)]
    [6.0, 2.0]

    The potential is ``v[t] = decay * v[t - 1] + output[t]``, the answer ``v[t] / (1 + decay + ... + decay**(t - 1))``,
    in the ANN's units from the first step on. Like `Delayed`, it forgets the start, but needs no delay.

    Args:
        decay: Share of the potential that remains after a step, greater than 0 (only the last output) and less than 1
            (the mean of all outputs).

    Raises:
        OptionError: `decay` is not in (0, 1).

    Source: leaky output neurons as in Bellec et al. 2018, "Long short-term memory and learning-to-learn in networks of
    spiking neurons"; the weights' sum as in Kingma and Ba 2015, "Adam", section 3.
    """

    name = "exponential"
    tunable: ClassVar = {"decay": (0.8, 0.9)}

    def __init__(self, *, decay: float = 0.9) -> None:
        hint = "For 0 use the readout 'last', for 1 'mean'."
        self.decay = require_number("decay", decay, above=0, below=1, hint=hint)

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        potentials = []
        for output in outputs:
            state = output if state is None else state * self.decay + output
            potentials.append(state)
        return torch.stack(potentials), state

    def divisor(self, steps: int) -> float:
        return -math.expm1(steps * math.log(self.decay)) / (1 - self.decay)


def running_sum(outputs: Tensor, before: Tensor | None) -> Tensor:
    """The sums up to each step."""
    return outputs.cumsum(0) if before is None else before + outputs.cumsum(0)


def whole_sum(outputs: Tensor, before: Tensor | None) -> Tensor:
    """The sum over all steps."""
    return outputs.sum(0) if before is None else before + outputs.sum(0)


@hookimpl
def ann2snn_readouts() -> list[type[Readout]]:
    return [Mean, Delayed, Recent, Exponential, Last, Potential]
