"""Finds the readout that the caller means and applies it to the outputs of a tile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..contracts.readout import SUGGESTED, Readout
from ..errors import OptionError, PluginError, PluginWarning
from ..hooks.choice import choose, find
from ..hooks.discovery import load_plugins
from ..hooks.kinds import READOUTS
from ..hooks.options import construct
from ..hooks.registry import Registry, culprit
from ..support.batches import describe_batch
from ..support.blame import Culprit, blame
from ..support.trees import map_tensors, tensors
from ..support.untouched import Untouched
from ..support.wording import shown
from .engine import Collector

__all__ = ["AnswerAtEnd", "ChosenReadout", "Decoder", "find_readout", "readout_for"]


@dataclass(frozen=True)
class ChosenReadout:
    """A readout, and its name in messages."""

    readout: Readout
    who: Culprit


def readout_for(snn: nn.Module, given: object, steps: int, plugins: Sequence[Any] = ()) -> ChosenReadout:
    """The readout that the argument `readout` means; for None, that of a correction or a neuron, otherwise the mean.

    The mean also takes the place of one that needs more steps than these, and, with a warning, of one whose plugin is
    not in use.

    Raises:
        OptionError: As for `find_readout`.
    """
    registry = load_plugins() if plugins == () else load_plugins(plugins)
    if given is not None:
        return _choose(registry, given, steps)
    suggested = getattr(snn, "meta", {}).get(SUGGESTED)
    if suggested is not None and _is_usable(registry, *suggested):
        with suppress(OptionError):  # it needs more steps than these
            return _choose(registry, suggested[0], steps, suggested[1])
    return _choose(registry, "mean", steps)


def _is_usable(registry: Registry, name: str, options: Mapping[str, Any]) -> bool:
    """True if the readout of a network is there, which it may not be where the network was made elsewhere; warns."""
    try:
        found = find(registry, READOUTS, name)
        construct(found.cls, options, culprit(READOUTS, found.name, found.owner))
    except OptionError as error:
        warnings.warn(
            f"The answers of this network are those of the readout {shown(name)}, which cannot be used here; the mean "
            f"of its outputs takes its place. {error}",
            PluginWarning,
            stacklevel=4,
        )
        return False
    return True


def find_readout(given: object, steps: int, options: Mapping[str, Any] | None = None) -> Readout:
    """The readout that `given` means, after checking that it has an answer after `steps` steps.

    Args:
        given: Its name, or an instance.
        steps: Number of time steps.
        options: Options for a readout given by name.

    Raises:
        OptionError: No readout has that name, an option is unknown, or it has no answer after `steps` steps.
    """
    return _choose(load_plugins(), given, steps, options).readout


def _choose(registry: Registry, given: object, steps: int, options: Mapping[str, Any] | None = None) -> ChosenReadout:
    choice = choose(registry, READOUTS, given)
    readout: Readout = choice.instance
    if readout is None:
        readout = construct(choice.found.cls, options or {}, choice.culprit)
    with blame(choice.culprit, f"asked about T={steps}", readout, "check"):
        readout.check(steps)
    return ChosenReadout(readout, choice.culprit)


class Decoder:
    """Turns the outputs of one tile into answers and keeps the readout's state."""

    def __init__(self, readout: Readout, who: Culprit | None = None) -> None:
        self._readout = readout
        self._who = who or culprit(READOUTS, readout.name)
        self._state: Any = None
        self.done = 0

    def answers(self, outputs: Tensor) -> Tensor:
        """The answers ``[t, n, ...]`` after each of the next steps, before division by `divisors`."""
        with self._shown(outputs, "answers"):
            answers, self._state = self._readout.answers(outputs, self._state, self.done)
        self.done += len(outputs)
        return self._require_shape(answers, "answers()", tuple(outputs.shape[:2]))

    def last_answer(self, outputs: Tensor) -> Tensor:
        """The answer ``[n, ...]`` after the last of the next steps, before division by `divisors`."""
        with self._shown(outputs, "last_answer"):
            answer, self._state = self._readout.last_answer(outputs, self._state, self.done)
        self.done += len(outputs)
        return self._require_shape(answer, "last_answer()", (outputs.shape[1],))

    def divisors(self, steps: range) -> list[float]:
        """The number by which to divide the answers after each of `steps`."""
        with blame(self._who, f"asked for divisors from step {steps.start} on", self._readout, "divisor"):
            divisors: list[Any] = [self._readout.divisor(step) for step in steps]
        for step, divisor in zip(steps, divisors, strict=True):
            if not isinstance(divisor, (int, float)) or not 0 < divisor < math.inf:
                raise PluginError(
                    f"{self._who} returned {shown(divisor)} from divisor({step}); it must return a finite, "
                    "positive number."
                )
        return divisors

    def select(self, rows: Tensor, samples: int) -> None:
        """Keep only the samples in `rows`, out of `samples`."""

        def selected(x: Tensor) -> Tensor:
            if not x.dim() or x.shape[0] != samples:
                raise PluginError(
                    f"{self._who} keeps {describe_batch(x)} in its state for {samples} samples; "
                    "every tensor there must have one row per sample, so that samples that leave early can be removed."
                )
            return x[rows.to(x.device)]

        self._state = map_tensors(self._state, selected)

    @contextmanager
    def _shown(self, outputs: Tensor, method: str) -> Iterator[None]:
        """Runs a method of the readout on `outputs`, which it must leave as they are.

        Raises:
            PluginError: It fails, or writes to them.
        """
        before = Untouched([outputs], exact=not self.done)
        with blame(self._who, f"given the outputs after step {self.done}", self._readout, method):
            yield
        if before.changed():
            raise PluginError(
                f"{self._who}, given the outputs after step {self.done}, writes to them, in "
                f"{type(self._readout).__name__}.{method}; they belong to the network. Work on a copy "
                f"(outputs.clone()). {self._who.advice}"
            )

    def _require_shape(self, answers: Any, method: str, shape: tuple[int, ...]) -> Tensor:
        if not isinstance(answers, Tensor) or tuple(answers.shape[: len(shape)]) != shape:
            raise PluginError(
                f"{self._who} returned {describe_batch(answers)} from {method}; it must return a "
                f"tensor of shape [{', '.join(map(str, shape))}, ...] and the state."
            )
        return answers


class AnswerAtEnd(Collector):
    """The answer after the last step, in memory that does not grow with the number of steps."""

    def __init__(self, chosen: ChosenReadout) -> None:
        self._chosen = chosen
        self._decoders: list[Decoder] = []
        self._answer: Any = None

    def add(self, outputs: Any) -> None:
        found = tensors(outputs)
        self._decoders = self._decoders or [Decoder(self._chosen.readout, self._chosen.who) for _ in found]
        answers = iter([one.last_answer(x) for one, x in zip(self._decoders, found, strict=True)])
        self._answer = map_tensors(outputs, lambda _: next(answers))

    def result(self) -> Any:
        decoders = iter(self._decoders)

        def divided(answer: Tensor) -> Tensor:
            decoder = next(decoders)
            (divisor,) = decoder.divisors(range(decoder.done, decoder.done + 1))
            return answer if divisor == 1 else answer / divisor

        return map_tensors(self._answer, divided)
