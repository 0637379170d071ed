"""The built-in exit rule."""

from __future__ import annotations

import math

from torch import Tensor

from sj_ann2snn import ExitRule, OptionError, hookimpl

ANN2SNN_API = 1


class Margin(ExitRule):
    """A sample is settled once its best class leads the next one, in summed outputs, by a threshold.

    >>> import torch
    >>> from sj_ann2snn.builtin.exits import Margin
    >>> Margin(threshold=10).settled(torch.tensor([[3.0, 0.0], [3.0, 2.0]]), step=4)
    tensor([ True, False])

    Summed outputs, not their mean: what rounding to spikes adds to a sum stays as small as it is after a few steps,
    while the lead of the right class grows. A lead of the mean would have to be larger at step 4 than at step 40.

    Args:
        threshold: In the ANN's output units times steps, positive.
        min_steps: No sample stops before.
    """

    name = "margin"

    def __init__(self, *, threshold: float = 40.0, min_steps: int = 1) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < math.inf:
            raise OptionError(f"early_exit={threshold!r} is not allowed: the margin's threshold is a positive number.")
        self.threshold = float(threshold)
        self.min_steps = min_steps

    def settled(self, answers: Tensor, step: int) -> Tensor:
        best = answers.topk(min(2, answers.shape[1]), dim=1).values
        lead = (best[:, 0] - best[:, -1]) * step
        return (lead >= self.threshold) & (step >= self.min_steps)


@hookimpl
def ann2snn_exit_rules() -> list[type[ExitRule]]:
    return [Margin]
