"""The base class of readouts, which turn the outputs over time into the answer."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

__all__ = ["SUGGESTED", "Readout"]

SUGGESTED = "ann2snn_readout"
"""Key of a converted network's `meta`: name and options of the readout for which it was adjusted."""


class Readout(abc.ABC):
    """Turns the outputs of all steps into the network's answer, a group of steps at a time.

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

    The methods are pure functions: several threads call them, for tiles of samples that take turns, so everything to be
    remembered goes into the state. The state must not grow with the number of steps.
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()
    tunable: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """The values of options that `tune` tries, by name: ``{"delay": (1, 2, 4)}``. All others stay at their
    defaults. A readout without options that `tune` shall try declares ``tunable = {}``; one that declares nothing is
    not tried."""

    @abc.abstractmethod
    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        """The answers after each of the next steps, and the new state.

        Args:
            outputs: The network's outputs at the next t steps, ``[t, n, ...]``, in the ANN's units; do not write to it.
            state: None at first, then the state returned by the last call.
            done: Number of steps before these.

        Returns:
            The answers ``[t, n, ...]``, still to be divided by `divisor`; and the state: tensors ``[n, ...]``, alone or
            in tuples, lists and dicts, from which the core removes the rows of samples that leave early.
        """

    def last_answer(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        """Like `answers`, but only the answer ``[n, ...]`` after the last of these steps; override it to save time."""
        answers, state = self.answers(outputs, state, done)
        return answers[-1], state

    def divisor(self, steps: int) -> float:
        """A positive number by which the answers after `steps` steps are divided.

        The core skips the division where only the best class matters.
        """
        return 1

    def check(self, steps: int) -> None:  # noqa: B027 - most have an answer after any number of steps
        """Called before a simulation of `steps` steps.

        Raises:
            OptionError: The readout has no answer after that number of steps.
        """
