"""The base class of exit rules: when a sample's answer counts as settled."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

__all__ = ["ExitRule"]


class ExitRule(abc.ABC):
    """Says after every step which samples need no further ones.

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
            answers: What the readout makes of the outputs up to and including this step, ``[N, classes]``; by default
                their mean, in the ANN's units. Samples that have stopped are no longer among them, so that N falls from
                step to step.
            step: Number of this step, from 1.

        Returns:
            ``[N]``, bool.
        """
