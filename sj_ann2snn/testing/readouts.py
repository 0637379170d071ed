"""The contract of readouts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..conversion.converter import Converter
from ..conversion.memory_growth import kept_values
from ..errors import OptionError
from ..evaluation.evaluate import evaluate
from ..hooks.discovery import load_plugins, using
from ..hooks.registry import CALLER
from ..hooks.validation import register_plugin
from ..simulation.answers import Decoder, find_readout
from ..simulation.simulate import simulate
from .contract import PluginTests
from .running import small_network, step_by_step, tiled
from .stateful import TOLERANCE

__all__ = ["ReadoutTests"]

SHAPES = {"classes": (5, 3), "numbers": (5,), "images": (5, 2, 4, 3)}


class ReadoutTests(PluginTests):
    """Runs the contract of `sj_ann2snn.Readout` on a readout.

    >>> from sj_ann2snn.builtin.readouts import Delayed
    >>> class TestDelayed(ReadoutTests):
    ...     plugin_class = Delayed
    ...     options = {"delay": 5}

    Attributes:
        steps: Number of time steps to test with.
        keeps_constants: If the output is the same at every step, it is the answer, in the ANN's units.
        proportional: Outputs k times as large give an answer k times as large.
        alike_classes: The readout treats all classes alike.
    """

    hook = "ann2snn_readouts"
    steps: ClassVar[int] = 24
    keeps_constants: ClassVar[bool] = True
    proportional: ClassVar[bool] = True
    alike_classes: ClassVar[bool] = True

    def outputs(self, *shape: int) -> Tensor:
        """Outputs of a network, ``[steps, *shape]``."""
        return torch.randn(self.steps, *shape, dtype=torch.float64)

    def answers(self, outputs: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """The answers after every step, in the ANN's units, for groups of steps of these `lengths`."""
        readout, state, done, found = self.make(), None, 0, []
        for part in outputs.split(list(lengths or [len(outputs)])):  # type: ignore[no-untyped-call]
            answers, state = readout.answers(part, state, done)
            found.append(answers.clone())
            done += len(part)
        return self._divided(torch.cat(found), range(1, len(outputs) + 1))

    # What it answers ---------------------------------------------------------------------------

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_answers_after_every_step(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """``[t, n, ...]`` and ``[n, ...]``, finite, in the precision of the outputs."""
        y = self.outputs(*shape).to(dtype)
        answers, _ = self.make().answers(y, None, 0)
        answer, _ = self.make().last_answer(y, None, 0)
        samples = shape[0]
        for method, found, wanted in (("answers", answers, (self.steps, samples)), ("last_answer", answer, (samples,))):
            assert isinstance(found, Tensor), f"{method}() answered {found!r}"
            assert found.shape[: len(wanted)] == wanted, (
                f"{method}() answered the shape {tuple(found.shape)} for outputs {tuple(y.shape)}"
            )
            assert found.dtype == dtype, f"{method}() answered {found.dtype} for {dtype}"
            assert bool(found.isfinite().all()), f"{method}() returned a value that is not finite"

    def test_divisor_is_positive(self) -> None:
        """And finite, after any number of steps."""
        for step in (*range(1, 65), 1000):
            divisor: Any = self.make().divisor(step)
            assert isinstance(divisor, (int, float)), f"divisor({step}) answered {divisor!r}"
            assert 0 < divisor < math.inf, f"divisor({step}) answered {divisor!r}"

    def test_the_last_answer_is_the_last_of_the_answers(self) -> None:
        """The cheaper method gives the same answer, step by step, for longer groups, and with the other's state."""
        y = self.outputs(5, 3)
        for length in (1, 5, self.steps):
            readout, one, other, done = self.make(), None, None, 0
            for part in y.split(length):  # type: ignore[no-untyped-call]
                answers, one = readout.answers(part, one, done)
                answer, other = readout.last_answer(part, other, done)
                torch.testing.assert_close(answer, answers[-1], **TOLERANCE)
                one, other = other, one
                done += len(part)

    def test_time_may_be_cut_anywhere(self) -> None:
        """The number of steps that the simulator computes at a time depends on memory."""
        y = self.outputs(5, 3)
        wanted = self.answers(y)
        for lengths in ([1] * self.steps, [1, self.steps - 1], [self.steps - 1, 1], [7, 4, 1, self.steps - 12]):
            torch.testing.assert_close(self.answers(y, lengths), wanted, **TOLERANCE)

    def test_samples_are_apart(self) -> None:
        """A sample's answers are the same whatever else is in the batch."""
        y = self.outputs(5, 3)
        alone = [self.answers(y[:, row : row + 1]) for row in range(5)]
        torch.testing.assert_close(torch.cat(alone, 1), self.answers(y), **TOLERANCE)

    def test_constant_outputs_are_the_answer(self) -> None:
        """The answer of a network that has settled is its output."""
        self.require("keeps_constants")
        y = self.outputs(5, 3)[:1].expand(self.steps, 5, 3).contiguous()
        torch.testing.assert_close(self.answers(y), y, **TOLERANCE)

    def test_answers_are_proportional_to_the_outputs(self) -> None:
        """Other units give the same answer."""
        self.require("proportional")
        y = self.outputs(5, 3)
        for k in (0.01, 1000.0):
            torch.testing.assert_close(self.answers(k * y), k * self.answers(y), **TOLERANCE)

    def test_classes_are_alike(self) -> None:
        """Classes in another order have the same answers in that order."""
        self.require("alike_classes")
        y = self.outputs(5, 3)
        torch.testing.assert_close(self.answers(y.roll(1, 2)), self.answers(y).roll(1, 2), **TOLERANCE)

    # What it does with what it is given ---------------------------------------------------------

    def test_outputs_are_left_alone(self) -> None:
        """They belong to the network, including the outputs of earlier groups of steps."""
        y = self.outputs(5, 3)
        for method in ("answers", "last_answer"):
            readout, state, done = self.make(), None, 0
            parts = [part.clone() for part in y.split(6)]  # type: ignore[no-untyped-call]
            for part in parts:
                _, state = getattr(readout, method)(part, state, done)
                done += len(part)
            assert torch.equal(torch.cat(parts), y), f"{method}() writes to the outputs"

    def test_calls_are_pure(self) -> None:
        """The same call gives the same result: tiles take turns, and only the state is remembered."""
        y = self.outputs(5, 3)
        readout = self.make()
        _, state = readout.answers(y[:7], None, 0)
        for method in ("answers", "last_answer"):
            first = getattr(readout, method)(y[7:12], state, 7)[0].clone()
            readout.answers(10 * y[12:], None, 0)
            again = getattr(readout, method)(y[7:12], state, 7)[0]
            assert torch.equal(first, again), f"{method}() returns another result when it is called again"

    def test_state_has_a_row_for_every_sample(self) -> None:
        """Removing finished samples from it does not affect the others."""
        y, rows = self.outputs(6, 3), torch.tensor([0, 2, 5])
        wanted = self.answers(y)[:, rows]
        decoder = Decoder(self.make())
        decoder.answers(y[:9])
        decoder.select(rows, 6)
        late = self._divided(decoder.answers(y[9:, rows]), range(10, self.steps + 1))
        torch.testing.assert_close(late, wanted[9:], **TOLERANCE)

    def test_state_does_not_grow(self) -> None:
        """It has the same size after many steps as after few."""
        readout, state, sizes = self.make(), None, []
        for done in range(64):
            _, state = readout.answers(torch.randn(1, 50, 3), state, done)
            sizes.append(kept_values(state))
        assert sizes[-1] <= sizes[self.steps], (
            f"the state holds {sizes[self.steps]} values after {self.steps + 1} steps and {sizes[-1]} after 64"
        )

    def test_a_number_of_steps_is_agreed_to_or_refused(self) -> None:
        """`check` raises an `OptionError` if there is no answer, and accepts `steps`."""
        self.make().check(self.steps)
        for steps in range(1, self.steps):
            said = _refusal(self.make(), steps)
            assert said is None or str(steps) in said, f"the error for T={steps} does not name T: {said}"

    # In a simulation ---------------------------------------------------------------------------

    @contextmanager
    def offered(self) -> Iterator[None]:
        """While the context is open, a plugin offers it by name."""
        registry = load_plugins().copy()
        register_plugin(registry, self.as_plugin(), CALLER)
        with using(registry):
            yield

    def converted(self) -> tuple[nn.Module, Tensor, Tensor]:
        """A network, samples, and its outputs step by step."""
        x = torch.rand(13, 1, 8, 8, dtype=torch.float64)
        snn = Converter([x], channel_wise=True, progress=False)(small_network())
        return snn, x, step_by_step(snn, x.expand(self.steps, *x.shape))

    def test_is_known_by_name(self) -> None:
        """In upper or lower case, with its options; a misspelt option is an error."""
        name = self.plugin_class.name
        with self.offered():
            for written in (name, name.upper()):
                assert isinstance(find_readout(written, self.steps, self.options), self.plugin_class)
            with pytest.raises(OptionError, match="no_such_option_of_any_plugin"):
                find_readout(name, self.steps, {"no_such_option_of_any_plugin": 1})

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("budget", [1, 10_000, 1 << 22])
    def test_tiles_and_threads_change_nothing(self, budget: int, threads: int) -> None:
        """`simulate` and `evaluate` give the readout's answer for the outputs of the hand-written loop."""
        snn, x, outputs = self.converted()
        wanted = self.answers(outputs)
        labels = wanted[-1].argmax(1)
        with tiled(budget, threads):
            torch.testing.assert_close(simulate(snn, x, self.steps, readout=self.make()), wanted[-1], **TOLERANCE)
            result = evaluate(snn, [(x, labels)], self.steps, readout=self.make(), progress=False)
        right = (wanted.argmax(2) == labels).double().mean(1)
        assert result.accuracy == pytest.approx(right.tolist())

    @pytest.mark.parametrize("budget", [1, 3_000, 1 << 22])
    def test_settled_samples_can_leave(self, budget: int) -> None:
        """With an early exit, every sample stops according to its own answers."""
        snn, x, outputs = self.converted()
        answers = self.answers(outputs)
        bound = float(answers.amax(2).quantile(0.7))
        over = answers[:-1].amax(2) > bound
        stops = torch.where(over.any(0), over.double().argmax(0) + 1, self.steps)
        with tiled(budget, threads=2):
            result = evaluate(
                snn,
                [(x, answers[-1].argmax(1))],
                self.steps,
                readout=self.make(),
                early_exit=_Above(bound),
                progress=False,
            )
        assert result.steps_per_sample == pytest.approx(float(stops.double().mean()))

    def _divided(self, answers: Tensor, steps: range) -> Tensor:
        readout: Readout = self.make()
        return torch.stack([one / readout.divisor(step) for step, one in zip(steps, answers, strict=True)])


def _refusal(readout: Readout, steps: int) -> str | None:
    """Why there is no answer after `steps` steps."""
    try:
        readout.check(steps)
    except OptionError as error:
        return str(error)
    return None


class _Above(ExitRule):
    """A sample is settled once its best answer is above a bound."""

    name = "above"

    def __init__(self, bound: float = 0.0) -> None:
        self.bound = bound

    def settled(self, answers: Tensor, step: int) -> Tensor:
        return answers.amax(1) > self.bound
