"""The base class of exit rules, which decide when a sample's answer is settled."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

__all__ = ["ExitRule"]


class ExitRule(abc.ABC):
    """Decides after every step which samples may stop.

    >>> from sj_ann2snn import ExitRule
    >>> class Certain(ExitRule):
    ...     name = "certain"
    ...     def settled(self, answers, step):
    ...         return answers.softmax(1).amax(1) > 0.99

    ``evaluate(..., early_exit=Certain())`` uses it; a plugin offers it by name through the hook
    `ann2snn_exit_rules`, and ``early_exit="certain"`` then finds it.
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def settled(self, answers: Tensor, step: int) -> Tensor:
        """Which samples may stop.

        Args:
            answers: The readout's answers after this step, ``[N, classes]``; by default the mean output, in the ANN's
                units. Samples that have stopped are left out, so N falls from step to step.
            step: Number of this step, starting at 1.

        Returns:
            ``[N]``, bool.
        """
