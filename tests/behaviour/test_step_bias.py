"""Biases per step in whole networks: the same however they are run, counted by costs, seen by the diagnosis."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Correction,
    CorrectionError,
    IntegerError,
    StepBias,
    Trial,
    costs,
    diagnose,
    evaluate,
    simulate,
)
from sj_ann2snn.conversion import correct as correcting
from sj_ann2snn.diagnosis.network import SpikingNetwork, run_once
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import StepBiases, convert, multi_step, run_by_hand

STEPS = 7


class Same(Correction):
    """Sets what it is given, for every site."""

    name = "same"

    def __init__(self, step_bias: Any, **more: Any) -> None:
        self.step_bias, self.more = step_bias, more

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, step_bias=self.step_bias, **self.more)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    ).double()


def images(count: int = 12) -> Tensor:
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def snn() -> Any:
    return convert(network(), images(), mode=0.9, channel_wise=True, corrections=StepBiases())


@pytest.mark.parametrize("samples", [1, 5])
def test_tiles_of_samples_and_groups_of_steps_count_alike(
    snn: Any, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, wanted = images(), run_by_hand(snn, images(), STEPS)
    plain = convert(network(), images(), mode=0.9, channel_wise=True)
    assert not torch.allclose(run_by_hand(plain, x, STEPS), wanted)
    torch.testing.assert_close(multi_step(snn, x, STEPS), wanted)
    for steps in (1, 2, STEPS):
        monkeypatch.setattr(tiling.Tiling, "steps", lambda self, samples, steps=steps, **_: steps)
        for part in images().split(samples):
            torch.testing.assert_close(simulate(snn, part, STEPS), run_by_hand(snn, part, STEPS).mean(0))


def test_samples_that_leave_early_change_nothing_for_the_others(snn: Any) -> None:
    x, labels = images(), torch.zeros(12, dtype=torch.long)
    found = evaluate(snn, [(x, labels)], STEPS, early_exit="margin", progress=False)
    alone = [evaluate(snn, [(one[None], labels[:1])], STEPS, early_exit="margin", progress=False) for one in x]
    assert found.accuracy[-1] == pytest.approx(sum(one.accuracy[-1] for one in alone) / len(x))
    assert found.spikes_per_sample == pytest.approx(sum(one.spikes_per_sample for one in alone) / len(x))


def test_copies_and_pickles_do_the_same(snn: Any) -> None:
    x, wanted = images(), run_by_hand(snn, images(), STEPS)
    for other in (copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))):
        assert torch.equal(run_by_hand(other, x, STEPS), wanted)
    blank = convert(network(), x, mode=0.9, channel_wise=True, corrections=StepBiases())
    for module in blank.modules():
        if isinstance(module, StepBias):
            module.bias.zero_()
    assert not torch.equal(run_by_hand(blank, x, STEPS), wanted)
    blank.load_state_dict(snn.state_dict())
    assert torch.equal(run_by_hand(blank, x, STEPS), wanted)


def test_an_initial_potential_is_a_bias_of_the_first_step() -> None:
    x = images()
    potential = Same(torch.zeros(1, 8), initial_potential=torch.full((8, 1, 1), 0.25))
    step = Same(torch.tensor([[0.25], [0.0]]).expand(2, 8))
    one, other = (convert(network(), x, channel_wise=True, corrections=given) for given in (potential, step))
    assert not any(isinstance(module, StepBias) for module in one.modules())
    assert torch.equal(run_by_hand(one, x, STEPS), run_by_hand(other, x, STEPS))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(3), r"tensor of shape \(3,\); it must be a tensor of shape \(T, 8\)"),
        (torch.zeros(4, 3), r"tensor of shape \(4, 3\); it must be a tensor of shape \(T, 8\)"),
        (torch.zeros(0, 8), r"tensor of shape \(0, 8\)"),
        (0.5, r"was set to 0\.5; it must be a tensor of shape \(T, 8\), with a row for each of the first T steps"),
        (torch.full((2, 8), math.inf), "was set to a value that is not finite"),
    ],
)
def test_a_value_that_fits_no_site_is_an_error(given: Any, message: str) -> None:
    with pytest.raises(
        CorrectionError, match=f"The step bias of 1 {message}|The step bias of 1 was set to a {message}"
    ):
        convert(network(), images(), channel_wise=True, corrections=Same(given))


def test_integers_refuse_it_with_the_layers_and_what_to_do() -> None:
    with pytest.raises(IntegerError, match="another bias at every step") as caught:
        convert(network(), images(), corrections=StepBiases(), weights="int8")
    assert str(caught.value).count("Convert without the correction that sets step biases, or without weights=") == 2
    assert "1_step_bias" in str(caught.value)


def test_costs_count_an_addition_for_every_neuron_at_the_steps_that_have_one(snn: Any) -> None:
    x = images()
    found = {one.name: one for one in costs(network(), snn, [x], STEPS, progress=False)}
    assert found["1_step_bias"].accumulates == 3 * 8 * 36
    assert found["3_step_bias"].accumulates == 3 * 8 * 16


def test_the_diagnosis_sees_the_current_that_arrives_and_compares_with_the_ann_without_it(snn: Any) -> None:
    x = images()
    shown = SpikingNetwork(snn)
    torch.testing.assert_close(run_once(shown.ann(), (x,)), network()(x))
    found = diagnose(network(), snn, [x], T=STEPS, progress=False)
    assert [one.name for one in found.layers] == ["1", "3"]


def test_processes_exchange_them() -> None:
    sent: list[Any] = []

    class Looking(StepBiases):
        def correct(self, trial: Trial) -> None:
            super().correct(trial)
            found = correcting._Adjusted.of(trial, (), ())
            wanted = [site.step_bias for site in trial.sites]
            for site in trial.sites:
                site.step_bias = None
            found.put_into(trial)
            sent.extend(zip(wanted, [site.step_bias for site in trial.sites], strict=True))

    convert(network(), images(), corrections=Looking())
    assert len(sent) == 2
    assert all(torch.equal(one, other) for one, other in sent)
