"""simulate(readout=...) and evaluate(readout=...): what the outputs over time are made into, against plain arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from sj_ann2snn import (
    ConflictError,
    ExitRule,
    InputError,
    OptionError,
    PluginError,
    PluginWarning,
    Readout,
    evaluate,
    simulate,
    tensors,
)
from sj_ann2snn.builtin.readouts import Delayed, Exponential, Last, Mean, Potential, Recent
from sj_ann2snn.contracts.readout import SUGGESTED
from sj_ann2snn.hooks import discovery, validation
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.simulation import answers as decoding_module
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import Written, convert, relative_error, run_by_hand, using_threads
from ..helpers.plugins import plugin

STEPS = 13


def leaky(outputs: Tensor, decay: float) -> Tensor:
    weights = decay ** torch.arange(len(outputs) - 1, -1, -1, dtype=outputs.dtype)
    return (weights.view(-1, *(1,) * (outputs.dim() - 1)) * outputs).sum(0) / weights.sum()


def recent_delay(steps: int) -> int:
    return max((delay for least, delay in ((4, 1), (8, 4), (16, 8)) if least <= steps), default=0)


WANTED: dict[str, tuple[Readout, Callable[[Tensor], Tensor]]] = {
    "mean": (Mean(), lambda y: y.mean(0)),
    "potential": (Potential(), lambda y: y.sum(0)),
    "last": (Last(), lambda y: y[-1]),
    "no delay": (Delayed(delay=0), lambda y: y.mean(0)),
    "delayed by 1": (Delayed(delay=1), lambda y: y[1:].mean(0) if len(y) > 1 else y[0]),
    "delayed by 6": (Delayed(delay=6), lambda y: y[6:].mean(0) if len(y) > 6 else y.mean(0)),
    "delayed by 12": (Delayed(delay=12), lambda y: y[12:].mean(0) if len(y) > 12 else y.mean(0)),
    "recent": (Recent(), lambda y: y[recent_delay(len(y)) :].mean(0)),
    "slowly leaking": (Exponential(decay=0.99), lambda y: leaky(y, 0.99)),
    "quickly leaking": (Exponential(decay=0.2), lambda y: leaky(y, 0.2)),
}
"""Readouts, and the answer that they have to give on all outputs up to a step, ``[t, n, ...]``."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        return self.head(torch.relu(self.two(h) + h))


def samples(count: int = 23) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 6, dtype=torch.float64), torch.randint(4, (count,))


@pytest.fixture
def snn() -> Any:
    ann, (x, _) = Net().double(), samples(60)
    with torch.no_grad():
        ann.head.bias -= ann(x).mean(0)
    return convert(ann, x)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("budget", [1, 5000, 1 << 22])
@pytest.mark.parametrize("readout", WANTED)
def test_answers_are_those_of_plain_arithmetic(
    snn: Any, readout: str, budget: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    x, labels = samples()
    one, wanted = WANTED[readout]
    outputs = run_by_hand(snn, x, STEPS)
    with using_threads(threads):
        assert relative_error(simulate(snn, x, STEPS, readout=one), wanted(outputs)) < 1e-12
        result = evaluate(snn, [(x, labels)], STEPS, readout=one, progress=False)
    answers = torch.stack([wanted(outputs[:t]).argmax(1) for t in range(1, STEPS + 1)])
    assert list(result.accuracy) == pytest.approx((answers == labels).double().mean(1).tolist())


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [6, 7], [5, 2, 6], [7, 6], [12, 1]])
@pytest.mark.parametrize("readout", WANTED)
def test_stretches_of_any_length_give_the_same(readout: str, pieces: list[int]) -> None:
    one, wanted = WANTED[readout]
    outputs = torch.randn(STEPS, 5, 3, 2, dtype=torch.float64)
    for method in (one.answers, one.last_answer):
        state, done = None, 0
        for part in outputs.split(pieces):
            before = part.clone()
            answers, state = method(part, state, done)
            assert torch.equal(part, before), "the outputs are written into"
            each = answers if method == one.answers else answers[None]
            steps = range(done + 1, done + len(part) + 1) if method == one.answers else [done + len(part)]
            for step, answer in zip(steps, each, strict=True):
                torch.testing.assert_close(answer / one.divisor(step), wanted(outputs[:step]), rtol=1e-12, atol=1e-14)
            done += len(part)


def test_names_mean_the_defaults(snn: Any) -> None:
    x, _ = samples()
    for name, one in {"Mean": Mean(), "delayed": Delayed(delay=4), "exponential": Exponential(decay=0.9)}.items():
        assert torch.equal(simulate(snn, x, 9, readout=name), simulate(snn, x, 9, readout=one))
    assert torch.equal(simulate(snn, x, 9), simulate(snn, x, 9, readout="mean"))


def test_every_tensor_of_a_nested_output_gets_its_answer() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        h = torch.relu(net.one(x))
        return {"heads": (net.two(h), [h]), "input": x}

    ann = Written(forward, one=nn.Linear(6, 5), two=nn.Linear(5, 3)).double()
    x, _ = samples()
    snn = convert(ann, x)
    each = _steps(snn, x)
    got = simulate(snn, x, STEPS, readout=Delayed(delay=3))
    assert relative_error(got["heads"][0], torch.stack([y["heads"][0] for y in each])[3:].mean(0)) < 1e-12
    assert relative_error(got["heads"][1][0], torch.stack([y["heads"][1][0] for y in each])[3:].mean(0)) < 1e-12
    assert relative_error(got["input"], x) < 1e-12
    assert relative_error(simulate(snn, x, STEPS, readout="potential")["input"], STEPS * x) < 1e-12


def _steps(snn: nn.Module, x: Tensor) -> list[Any]:
    with torch.no_grad():
        outputs = [snn(x) for _ in range(STEPS)]
    for module in snn.modules():
        if hasattr(module, "reset"):
            module.reset()
    return outputs


def test_a_network_that_is_no_graph() -> None:
    snn = nn.Sequential(layer.Linear(4, 8), neuron.IFNode(v_reset=None), layer.Linear(8, 3)).double()
    x = torch.randn(9, 4, dtype=torch.float64)
    outputs = run_by_hand(snn, x, STEPS)
    assert relative_error(simulate(snn, x, STEPS, readout=Delayed(delay=5)), outputs[5:].mean(0)) < 1e-12


class Above(ExitRule):
    """A sample stops where its best answer is above a bound; remembers what it was shown."""

    name = "above"

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.seen: list[tuple[int, Tensor]] = []

    def settled(self, answers: Tensor, step: int) -> Tensor:
        self.seen.append((step, answers))
        return answers.amax(1) > self.bound


@pytest.mark.parametrize("budget", [1, 3000, 1 << 22])
@pytest.mark.parametrize("readout", WANTED)
def test_exit_rules_get_the_answers_of_the_readout(
    snn: Any, readout: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    one, wanted = WANTED[readout]
    x, labels = samples()
    outputs = run_by_hand(snn, x, STEPS)
    answers = torch.stack([wanted(outputs[:t]) for t in range(1, STEPS + 1)])
    bound = float(answers.amax(2).quantile(0.85))
    stops = [next((t for t in range(1, STEPS) if answers[t - 1, i].amax() > bound), STEPS) for i in range(len(x))]
    assert len(set(stops)) > 2
    rule = Above(bound)
    result = evaluate(snn, [(x, labels)], STEPS, readout=one, early_exit=rule, progress=False)
    assert result.steps_per_sample == pytest.approx(sum(stops) / len(stops))
    right = [
        sum(int(answers[min(t, stop) - 1, i].argmax()) == int(labels[i]) for i, stop in enumerate(stops)) / len(x)
        for t in range(1, STEPS + 1)
    ]
    assert list(result.accuracy) == pytest.approx(right)
    shown = torch.cat([seen for step, seen in rule.seen if step == STEPS])
    going_on = [i for i, stop in enumerate(stops) if stop == STEPS]
    torch.testing.assert_close(
        shown.sort(0).values, answers[-1, going_on].sort(0).values.to(shown), rtol=1e-9, atol=1e-12
    )


def test_nested_states_lose_the_rows_of_samples_that_left(snn: Any) -> None:
    class Nested(Readout):
        name = "nested"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            sums, state = Mean().answers(outputs, None if state is None else state["sums"][0], done)
            return sums, {"sums": (state,), "since": [torch.zeros(len(state))], "note": "text"}

    x, labels = samples()
    for rule in (0.5, None):
        got = evaluate(snn, [(x, labels)], STEPS, readout=Nested(), early_exit=rule, progress=False)
        wanted = evaluate(snn, [(x, labels)], STEPS, readout="potential", early_exit=rule, progress=False)
        assert got.accuracy == wanted.accuracy


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["simulate", "evaluate"])
@pytest.mark.parametrize("delay", [8, 9, 100])
def test_a_delay_that_leaves_no_step_is_refused(snn: Any, delay: int, run: str) -> None:
    with pytest.raises(
        OptionError,
        match=rf"^A readout with delay={delay} is not allowed for T=8: .*Use a delay from 0 to T - 1 = 7,",
    ):
        used(run, snn, 8, Delayed(delay=delay))
    used(run, snn, 8, Delayed(delay=7))


def used(run: str, snn: nn.Module, steps: int, readout: Any) -> None:
    x, labels = samples()
    if run == "simulate":
        simulate(snn, x, steps, readout=readout)
    else:
        evaluate(snn, [(x, labels)], steps, readout=readout, progress=False)


@pytest.mark.parametrize("delay", [-1, 1.5, True, "2", None])
def test_a_delay_that_is_no_number_of_steps_is_refused(delay: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^delay=.* is not allowed: the delay of a readout must be an integer of at least 0"
    ):
        Delayed(delay=delay)


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2.0, float("nan"), True, "0.5"])
def test_a_decay_outside_its_range_is_refused(decay: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^decay=.* is not allowed: it must be a number in \(0, 1\)\. For 0 .*'last', for 1 'mean'"
    ):
        Exponential(decay=decay)


@pytest.mark.parametrize("run", ["simulate", "evaluate"])
def test_what_is_no_readout_is_refused(snn: Any, run: str) -> None:
    known = "'delayed', 'exponential', 'last', 'mean', 'potential', 'recent'"
    with pytest.raises(OptionError, match=r"^readout=Mean is a class; give an instance, readout=Mean\(\.\.\.\)\.$"):
        used(run, snn, 3, Mean)
    for given in (0, 3, torch.mean):
        with pytest.raises(
            OptionError,
            match=rf"^readout=.* is not allowed: give the name of a readout \({known}\) or an instance of Readout\.$",
        ):
            used(run, snn, 3, given)
    with pytest.raises(OptionError, match=r"^readout='average' is not known\. Known readouts: 'delayed' \(sj-ann2snn"):
        used(run, snn, 3, "average")


@pytest.mark.parametrize("named", [("elsewhere", {}), ("delayed", {"wait": 2})])
def test_the_mean_takes_the_place_of_a_networks_readout_that_is_not_in_use_and_a_warning_says_so(
    snn: Any, named: Any
) -> None:
    x = samples()[0]
    other = copy.deepcopy(snn)
    other.meta[SUGGESTED] = named
    with pytest.warns(
        PluginWarning, match=f"those of the readout '{named[0]}', which cannot be used here; the mean of"
    ):
        answer = simulate(other, x, 3)
    assert torch.equal(answer, simulate(snn, x, 3, readout="mean"))


def test_two_readouts_of_one_name_are_a_conflict(snn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Last):
        name = "Mean"

    registry = discovery.load_plugins().copy()
    validation.register_plugin(registry, plugin("ann2snn_readouts", Other), Owner("other", "1.0"))
    monkeypatch.setattr(decoding_module, "load_plugins", lambda: registry)
    with pytest.raises(
        ConflictError,
        match=r"^readout='mean' is claimed by 'Mean' of other 1\.0 and 'mean' of sj-ann2snn .*"
        r"Give an instance instead of the name, uninstall one of them",
    ):
        used("simulate", snn, 3, "mean")


def answering(answer: Any = None, *, last: Any = None, divide: Any = 1) -> Readout:
    class Wrong(Readout):
        name = "wrong"

        def answers(self, outputs: Tensor, state: Any, done: int) -> Any:
            return (outputs, None) if answer is None else answer

        def last_answer(self, outputs: Tensor, state: Any, done: int) -> Any:
            return (outputs[-1], None) if last is None else last

        def divisor(self, steps: int) -> Any:
            return divide

    return Wrong()


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (
            answering((torch.ones(2, 1, 4), None)),
            r"Readout 'wrong' \(your own argument\) returned .* from answers\(\); it must return a tensor of shape \[\d+, \d+, \.\.\.\] and",
        ),
        (
            answering((None, None)),
            r"Readout 'wrong' \(your own argument\) returned .* from answers\(\); it must return a tensor of shape",
        ),
        (
            answering(torch.ones(23, 4)),
            r"Readout 'wrong' \(your own argument\), given the outputs after step 0, failed with ValueError",
        ),
        (
            answering(divide=0),
            r"Readout 'wrong' \(your own argument\) returned 0 from divisor\(1\); it must return a finite, positive num",
        ),
        (answering(divide=float("inf")), r"Readout 'wrong' \(your own argument\) returned inf from divisor\(1\)"),
        (answering(divide="2"), r"Readout 'wrong' \(your own argument\) returned '2' from divisor\(1\)"),
    ],
)
def test_answers_outside_the_contract_in_evaluate(snn: Any, readout: Readout, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        evaluate(snn, [samples()], 3, readout=readout, early_exit=1.0, progress=False)


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (
            answering(last=(torch.ones(999, 4), None)),
            r"Readout 'wrong' \(your own argument\) returned .* from last_answer\(\); it must return a tensor of shape \[\d+, \.\.\.\] and",
        ),
        (
            answering(last=(3, None)),
            r"Readout 'wrong' \(your own argument\) returned .* from last_answer\(\); it must return a tensor",
        ),
        (
            answering(last=3),
            r"Readout 'wrong' \(your own argument\), given the outputs after step 0, failed with TypeError",
        ),
        (
            answering(divide=-1.0),
            r"Readout 'wrong' \(your own argument\) returned -1\.0 from divisor\(3\); it must return a finite, posit",
        ),
    ],
)
def test_answers_outside_the_contract_in_simulate(snn: Any, readout: Readout, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        simulate(snn, samples()[0], 3, readout=readout)


def test_metrics_measure_the_answers_of_a_readout(snn: Any) -> None:
    class Pairs(Last):
        name = "pairs"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            return outputs.unflatten(2, (2, 2)), None

    x, labels = samples()
    assert simulate(snn, x, 3, readout=Pairs()).shape == (23, 2, 2)
    pairs = labels[:, None].expand(-1, 2) % 2
    answers = run_by_hand(snn, x, 3).unflatten(2, (2, 2))
    wanted = (answers.argmax(2) == pairs).double().mean((1, 2)).tolist()
    assert evaluate(snn, [(x, pairs)], 3, readout=Pairs(), progress=False).accuracy == pytest.approx(wanted)
    with pytest.raises(InputError, match=r"labels have shape \(23,\), but the network's output is shape \(23, 2, 2\)"):
        evaluate(snn, [(x, labels)], 3, readout=Pairs(), progress=False)


def test_a_readout_may_decode_into_fewer_numbers(snn: Any) -> None:
    class Populations(Mean):
        """Two classes, each the sum of two outputs."""

        name = "populations"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            return super().answers(outputs.unflatten(2, (2, 2)).sum(3), state, done)

    x, _ = samples()
    labels = run_by_hand(snn, x, STEPS).sum(0).unflatten(1, (2, 2)).sum(2).argmax(1)
    assert evaluate(snn, [(x, labels)], STEPS, readout=Populations(), progress=False).accuracy[-1] == 1


def test_a_state_without_a_row_for_each_sample_is_told(snn: Any) -> None:
    class Careless(Readout):
        name = "careless"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            return outputs, torch.tensor(done)

    with pytest.raises(
        PluginError,
        match=r"Readout 'careless' \(your own argument\) keeps .* in its state for \d+ samples; every tensor there must have one",
    ):
        evaluate(snn, [samples()], STEPS, readout=Careless(), early_exit=0.05, progress=False)


def test_a_readout_that_fails(snn: Any) -> None:
    class Failing(Last):
        name = "failing"

        def check(self, steps: int) -> None:
            if steps > 2:
                raise RuntimeError("too many")

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            raise RuntimeError("no idea")

    with pytest.raises(
        PluginError,
        match=r"^Readout 'failing' \(your own argument\), asked about T=3, failed with RuntimeError: too many",
    ):
        used("simulate", snn, 3, Failing())
    for run in ("simulate", "evaluate"):
        with pytest.raises(
            PluginError,
            match=r"^Readout 'failing' \(your own argument\), given the outputs after step 0, failed with .*idea",
        ):
            used(run, snn, 2, Failing())


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    outputs = torch.ones(4, 3, 2)
    stateless = {("last", "answers"), ("last", "last_answer")}
    for name, (one, _) in WANTED.items():
        for method in ("answers", "last_answer"):
            state: Any = None
            for done in range(0, 400, 4):
                _, state = getattr(one, method)(outputs, state, done)
            assert (state is None) == ((name, method) in stateless)
            kept = tensors(state)
            assert len(kept) <= 3
            assert all(value.shape == (3, 2) for value in kept)
