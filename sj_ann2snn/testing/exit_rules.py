"""The contract of exit rules."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..contracts.exit_rule import ExitRule
from ..conversion.converter import Converter
from ..evaluation.evaluate import evaluate
from .contract import PluginTests
from .running import tiled

__all__ = ["ExitRuleTests"]


class ExitRuleTests(PluginTests):
    """Runs the contract of `sj_ann2snn.ExitRule` on a rule.

    >>> from sj_ann2snn.builtin.exits import Margin
    >>> class TestMargin(ExitRuleTests):
    ...     plugin_class = Margin
    ...     options = {"threshold": 3.0}

    Attributes:
        settles_clear_answers: A sample with one class far ahead of all others is settled by step 1000.
        keeps_ties_open: A sample with equal answers for all classes is never settled.
        alike_classes: The rule treats all classes alike.
        remembers: The result at a step also depends on earlier steps. (All tiles share a rule and run side by side, so
            it can hardly remember anything correctly.)
    """

    hook = "ann2snn_exit_rules"
    settles_clear_answers: ClassVar[bool] = True
    keeps_ties_open: ClassVar[bool] = True
    alike_classes: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def answers(self, samples: int = 40, classes: int = 5) -> Tensor:
        """Mean outputs ``[samples, classes]``, some of them clear, some not."""
        spread = torch.logspace(-3, 2, samples, dtype=torch.float64)
        return torch.randn(samples, classes, dtype=torch.float64) * spread[:, None]

    def settled(self, answers: Tensor, step: int) -> Tensor:
        """The result of a fresh rule."""
        found: Tensor = self.make().settled(answers.clone(), step)
        return found

    def test_answers_yes_or_no_for_each_sample(self) -> None:
        """A bool tensor ``[N]`` for any number of samples and classes, at any step, in either precision."""
        for samples in (1, 2, 40):
            for classes in (1, 2, 10):
                for step in (1, 2, 1000):
                    for dtype in (torch.float32, torch.float64):
                        found: Any = self.settled(self.answers(samples, classes).to(dtype), step)
                        what = f"{samples} samples of {classes} classes at step {step}"
                        assert isinstance(found, Tensor), f"settled() answered {found!r} for {what}"
                        assert found.dtype == torch.bool, f"settled() answered {found.dtype} for {what}"
                        assert found.shape == (samples,), f"settled() answered {tuple(found.shape)} for {what}"

    def test_leaves_the_answers_alone(self) -> None:
        """The answers are needed for later steps."""
        answers = self.answers()
        shown = answers.clone()
        self.make().settled(shown, 5)
        assert torch.equal(shown, answers), "settled() changed the answers in place"

    def test_every_sample_stands_by_itself(self) -> None:
        """The result does not depend on which samples share a tile, or in which order: samples leave at every step."""
        for step in (1, 4, 32):
            answers = self.answers()
            whole = self.settled(answers, step)
            assert torch.equal(whole, torch.cat([self.settled(row, step) for row in torch.split(answers, 1)]))
            assert torch.equal(whole[::3], self.settled(answers[::3], step))

    def test_remembers_nothing(self) -> None:
        """One rule serves all tiles side by side, so the result for one tile must not depend on the others."""
        if self.remembers:
            pytest.skip("it says remembers = True")
        rule, answers = self.make(), self.answers()
        first = rule.settled(answers.clone(), 4)
        for step in (4, 1, 50):
            assert torch.equal(rule.settled(answers.clone(), 4), first)
            rule.settled(self.answers(17), step)

    def test_classes_are_alike(self) -> None:
        """The order of the classes does not matter."""
        self.require("alike_classes")
        answers = self.answers()
        for step in (1, 8, 64):
            assert torch.equal(self.settled(answers.flip(1), step), self.settled(answers, step))

    def test_ties_stay_open(self) -> None:
        """If all classes are equal, nothing is decided yet."""
        self.require("keeps_ties_open")
        for level in (0.0, 1.0, 100.0):
            for step in (1, 10, 1000):
                assert not self.settled(torch.full((3, 5), level), step).any(), f"level at {level}, step {step}"

    def test_clear_answers_are_settled(self) -> None:
        """A rule that never stops any sample saves nothing."""
        self.require("settles_clear_answers")
        answers = torch.zeros(3, 5, dtype=torch.float64)
        answers[torch.arange(3), torch.arange(3)] = 100.0
        assert self.settled(answers, 1000).all()

    @pytest.mark.parametrize("budget", [1, 3_000, 1 << 22])
    def test_stops_samples_in_an_evaluation(self, budget: int) -> None:
        """Whatever the tiles, each sample stops at the step at which it would stop alone, and keeps its answer."""
        ann = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).double()
        x = torch.rand(30, 6, dtype=torch.float64)
        labels = ann(x).argmax(1)
        snn = Converter([x], progress=False)(ann)
        rule: ExitRule = self.make()
        with tiled(1 << 22, threads=1):
            alone = [
                evaluate(snn, [(one, label)], T=40, early_exit=rule, progress=False)
                for one, label in zip(torch.split(x, 1), torch.split(labels, 1), strict=True)
            ]
        with tiled(budget, threads=2):
            together = evaluate(snn, [(x, labels)], T=40, early_exit=rule, progress=False)
        assert 1 <= together.steps_per_sample <= 40
        assert together.steps_per_sample == pytest.approx(sum(one.steps_per_sample for one in alone) / len(alone))
        accuracy = torch.tensor([one.accuracy for one in alone]).mean(0)
        assert together.accuracy == pytest.approx(accuracy.tolist())
