"""The built-in exit rule."""

from __future__ import annotations

from torch import Tensor

from sj_ann2snn import ExitRule, hookimpl, require_number

ANN2SNN_API = 1


class Margin(ExitRule):
    """A sample is settled once the summed output of its best class leads the next by a threshold.

    >>> import torch
    >>> from sj_ann2snn import Margin
    >>> Margin(threshold=10).settled(torch.tensor([[3.0, 0.0], [3.0, 2.0]]), step=4)
    tensor([ True, False])

    The rule uses summed outputs, not their mean: the rounding error of a sum stays as small as it is after a few steps,
    while the lead of the right class grows. A lead of the mean would have to be larger at step 4 than at step 40.

    Of answers with one class per position, ``[N, classes, ...]``, every position must lead.

    Args:
        threshold: Positive, in the ANN's output units times steps.
        min_steps: No sample stops before this step.
    """

    name = "margin"

    def __init__(self, *, threshold: float = 40.0, min_steps: int = 1) -> None:
        self.threshold = require_number("early_exit", threshold, above=0, what="the threshold of the margin")
        self.min_steps = min_steps

    def settled(self, answers: Tensor, step: int) -> Tensor:
        best = answers.topk(min(2, answers.shape[1]), dim=1).values
        lead = (best[:, 0] - best[:, -1]).reshape(len(answers), -1).amin(1) * step
        return (lead >= self.threshold) & (step >= self.min_steps)


@hookimpl
def ann2snn_exit_rules() -> list[type[ExitRule]]:
    return [Margin]
