"""evaluate(early_exit=...): samples stop once they are settled, the others go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from sj_ann2snn import ExitRule, OptionError, PluginError, evaluate
from sj_ann2snn.builtin.exits import Margin
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import Written, convert, run_by_hand, using_threads

STEPS = 24


class Net(nn.Module):
    """Neurons, a max pool with a memory, a residual, a static gate and reshaping by sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.stem(x)
        h = torch.relu(current)
        h = torch.relu(self.one(h) + h) * torch.sigmoid(current)
        return self.head(self.pool(h).view(x.size(0), -1))


def samples(count: int = 31) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 1, 6, 6, dtype=torch.float64) * 2, torch.randint(3, (count,))


@pytest.fixture
def snn() -> Any:
    ann, (x, _) = Net().double(), samples(60)
    with torch.no_grad():
        ann.head.bias -= ann(x).mean(0)
    return convert(ann, x)


def by_hand(snn: nn.Module, x: Tensor, threshold: float) -> tuple[list[list[int]], list[int]]:
    """For every sample its answers after each step, and the step at which it is settled: one sample after the other."""
    answers, stops = [], []
    for one in x:
        total, found, stop = torch.zeros(3, dtype=torch.float64), [], STEPS
        for step, out in enumerate(run_by_hand(snn, one[None], STEPS), 1):
            total = total + out[0]
            if stop == STEPS:
                found.append(int(total.argmax()))
                first, second = sorted(total.tolist(), reverse=True)[:2]
                if first - second >= threshold and step < STEPS:
                    stop = step
        answers.append(found + found[-1:] * (STEPS - len(found)))
        stops.append(stop)
    return answers, stops


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("budget", [1, 20_000, 1 << 22])
@pytest.mark.parametrize("threshold", [0.3, 1.5, 4.0, 1e9])
def test_every_sample_stops_where_it_would_alone(
    snn: Any, threshold: float, budget: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    x, labels = samples()
    answers, stops = by_hand(snn, x, threshold)
    with using_threads(threads):
        result = evaluate(snn, [(x, labels)], T=STEPS, early_exit=threshold, progress=False)
    assert result.steps_per_sample == pytest.approx(sum(stops) / len(stops))
    right = (torch.tensor(answers) == labels[:, None]).double().mean(0)
    assert list(result.accuracy) == pytest.approx(right.tolist())


def test_stopping_saves_spikes(snn: Any) -> None:
    x, labels = samples()
    whole = evaluate(snn, [(x, labels)], T=STEPS, progress=False)
    early = evaluate(snn, [(x, labels)], T=STEPS, early_exit=1.5, progress=False)
    assert whole.steps_per_sample == STEPS
    assert early.steps_per_sample < 0.8 * STEPS
    assert early.spikes_per_sample < whole.spikes_per_sample
    assert early.synops_per_sample < whole.synops_per_sample
    assert "steps, " in str(early)
    assert "steps, " not in str(whole)
    for one, other in zip(early.layers, whole.layers, strict=True):
        assert 0 < one.firing_rate <= 1
        assert one.firing_rate == pytest.approx(other.firing_rate, rel=0.5)


def test_after_the_last_sample_nothing_is_simulated(snn: Any) -> None:
    steps = []

    class Once(ExitRule):
        name = "once"

        def settled(self, answers: Tensor, step: int) -> Tensor:
            steps.append(step)
            return torch.ones(len(answers), dtype=torch.bool)

    x, labels = samples()
    result = evaluate(snn, [(x, labels)], T=1000, early_exit=Once(), progress=False)
    assert result.steps_per_sample == 1
    assert len(result.accuracy) == 1000
    assert len(set(result.accuracy)) == 1
    assert set(steps) <= set(range(1, 1 + max(tiling.TILE_STEPS["cpu"], 1)))


def test_a_network_that_is_no_graph() -> None:
    snn = nn.Sequential(layer.Linear(4, 8), neuron.IFNode(v_reset=None), layer.Linear(8, 3)).double()
    x, labels = torch.randn(9, 4, dtype=torch.float64), torch.randint(3, (9,))
    answers, stops = by_hand(snn, x, 2.0)
    result = evaluate(snn, [(x, labels)], T=STEPS, early_exit=2.0, progress=False)
    assert result.steps_per_sample == pytest.approx(sum(stops) / len(stops))
    assert result.accuracy[-1] == pytest.approx(
        sum(a[-1] == y for a, y in zip(answers, labels.tolist(), strict=True)) / 9
    )


def test_windows_of_samples_stay_with_their_sample() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        parts = x.reshape(-1, 1, 3, 6)  # two halves of each image
        h = torch.relu(net.conv(parts))
        return net.head(h.reshape(x.size(0), -1))

    ann = Written(forward, conv=nn.Conv2d(1, 2, 3), head=nn.Linear(16, 3)).double()
    x, labels = samples(17)
    snn = convert(ann, x)
    answers, stops = by_hand(snn, x, 1.0)
    result = evaluate(snn, [(x, labels)], T=STEPS, early_exit=1.0, progress=False)
    assert result.steps_per_sample == pytest.approx(sum(stops) / len(stops))
    right = (torch.tensor(answers) == labels[:, None]).double().mean(0)
    assert list(result.accuracy) == pytest.approx(right.tolist())


def test_the_margin_is_one_of_sums() -> None:
    rule = Margin(threshold=6, min_steps=3)
    answers = torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.5, 0.0]])
    assert rule.settled(answers, 2).tolist() == [False, False]
    assert rule.settled(answers, 3).tolist() == [True, False]
    assert rule.settled(answers, 12).tolist() == [True, True]
    assert not Margin(threshold=1).settled(torch.ones(4, 1), 50).any()  # a single class leads nobody


@pytest.mark.parametrize("given", [0, -1.0, float("nan"), float("inf"), True, [3], object()])
def test_what_is_no_rule_is_refused(snn: Any, given: Any) -> None:
    with pytest.raises(OptionError, match=r"early_exit=.* is not allowed"):
        evaluate(snn, [samples()], T=3, early_exit=given, progress=False)


def test_the_refusal_says_that_a_number_is_allowed(snn: Any) -> None:
    allowed = r"give the margin .* \(a number\), the name of an exit rule \('margin'\) or an instance of ExitRule\.$"
    with pytest.raises(OptionError, match=rf"^early_exit=\[3\] is not allowed: {allowed}"):
        evaluate(snn, [samples()], T=3, early_exit=[3], progress=False)


def wrong_answers() -> Iterator[tuple[str, Any]]:
    yield "a list", [True] * 31
    yield "numbers", torch.ones(31)
    yield "too few", torch.ones(1, dtype=torch.bool)
    yield "one for each class", torch.ones(31, 3, dtype=torch.bool)


@pytest.mark.parametrize(("what", "answer"), list(wrong_answers()))
def test_a_rule_that_answers_something_else(snn: Any, what: str, answer: Any) -> None:
    class Wrong(ExitRule):
        name = "wrong"

        def settled(self, answers: Tensor, step: int) -> Any:
            return answer

    with pytest.raises(
        PluginError,
        match=r"Exit rule 'wrong' \(your own argument\) returned .* at step 1; it must return a bool tensor",
    ):
        evaluate(snn, [samples()], T=3, early_exit=Wrong(), progress=False)


def test_a_rule_that_fails(snn: Any) -> None:
    class Failing(ExitRule):
        name = "failing"

        def settled(self, answers: Tensor, step: int) -> Tensor:
            raise RuntimeError("no idea")

    with pytest.raises(
        PluginError,
        match=r"Exit rule 'failing' \(your own argument\), asked at step 1, failed with RuntimeError: no idea",
    ):
        evaluate(snn, [samples()], T=3, early_exit=Failing(), progress=False)
