"""The base class of readouts: what makes the answer of the outputs over time."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from torch import Tensor

__all__ = ["SUGGESTED", "Readout"]

SUGGESTED = "ann2snn_readout"
"""Key of a converted network's `meta`: name and options of the readout that it was adjusted for."""


class Readout(abc.ABC):
    """Turns the outputs of all steps into the network's answer, stretch of time by stretch of time.

    >>> import torch
    >>> from sj_ann2snn import Readout
    >>> class Largest(Readout):
    ...     name = "largest"
    ...     def answers(self, outputs, state, done):
    ...         peaks = outputs.cummax(0).values
    ...         peaks = peaks if state is None else peaks.maximum(state)
    ...         return peaks, peaks[-1]
    >>> Largest().answers(torch.tensor([[[1.0]], [[3.0]], [[2.0]]]), None, 0)[0].flatten().tolist()
    [1.0, 3.0, 3.0]

    ``simulate(..., readout=Largest())`` and ``evaluate(..., readout=Largest())`` use it; a plugin offers it by name
    through the hook `ann2snn_readouts`, and ``readout="largest"`` then finds it. Options are keyword-only parameters of
    the constructor with defaults.

    Its methods are pure functions: they are called from several threads, for tiles of samples that take turns, so that
    all that is remembered of the past goes through the state. The state is to be as large for many steps as for few.
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        """The answers after each of the next steps, and what has to be remembered.

        Args:
            outputs: Of the network at the next t steps, ``[t, n, ...]``, in the ANN's units; not to be written into.
            state: None at first, then what the last call returned.
            done: Number of steps before these.

        Returns:
            The answers ``[t, n, ...]``, which `divisor` has still to divide; and the state: tensors ``[n, ...]``, alone
            or in tuples, lists and dicts, from which the rows of samples that leave early are taken out.
        """

    def last_answer(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        """As `answers`, but for the answer ``[n, ...]`` after the last of these steps only: where that is cheaper."""
        answers, state = self.answers(outputs, state, done)
        return answers[-1], state

    def divisor(self, steps: int) -> float:
        """A positive number by which the answers after `steps` steps are divided.

        It is left out where it makes no difference: which class is best does not depend on it.
        """
        return 1

    def check(self, steps: int) -> None:  # noqa: B027 - most have an answer after any number of steps
        """Called before a simulation of `steps` steps.

        Raises:
            OptionError: There is no answer after that number of steps.
        """
