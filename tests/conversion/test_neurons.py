"""The neurons of a converted network: rates, initial potentials, and neurons of a user's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    Delayed,
    IFNeuron,
    OptionError,
    PluginError,
    Trial,
    evaluate,
    simulate,
)

from ..helpers.networks import Graded, GradedMaker, convert, multi_step, relative_error, run_by_hand, spikes_of

# In a converted network -----------------------------------------------------------------------------


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def test_the_rate_of_the_first_layer_is_within_one_spike() -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    converter = Converter([data], progress=False)
    snn = converter(ann)
    scale = converter.report["1"].scale[0]
    wanted = torch.relu(ann[0](data)).detach() / scale
    for steps in (1, 7, 50, 333):
        rate = spikes_of(snn, data, steps)["1"].mean(0)
        assert (rate - wanted).abs().max().item() <= (1 + 1e-9) / steps
        assert set(rate.mul(steps).round().unique().tolist()) <= set(range(steps + 1))


def test_rates_above_one_saturate() -> None:
    ann = nn.Sequential(nn.ReLU())
    snn = convert(ann, torch.rand(100, 1), mode=0.5)
    assert simulate(snn, torch.tensor([[5.0]]), T=20).item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("start", [0.25, 0.5, 0.75])
def test_the_initial_potential_reaches_every_neuron(start: float) -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    snn = convert(ann, data, initial_potential=start)
    nodes = [module for module in snn.modules() if isinstance(module, neuron.IFNode)]
    assert [node.v for node in nodes] == [start, start]
    by_hand = run_by_hand(snn, data, 30)
    assert relative_error(multi_step(snn, data, 30), by_hand) < 1e-12
    assert relative_error(simulate(snn, data, T=30), by_hand.mean(0)) < 1e-12
    assert [node.v for node in nodes] == [start, start]


def test_half_a_threshold_makes_few_steps_more_accurate() -> None:
    ann, data = small(), torch.randn(200, 4, dtype=torch.float64)
    errors = [
        (simulate(convert(ann, data, initial_potential=start), data, T=8) - ann(data).detach()).abs().mean().item()
        for start in (0.0, 0.5)
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("start", [-0.1, 1.0, 7, float("nan")])
def test_initial_potentials_out_of_range(start: float) -> None:
    with pytest.raises(OptionError, match=r"initial_potential=.* must be a fraction of the threshold in \[0, 1\)"):
        Converter(initial_potential=start)


# Neurons of one's own -------------------------------------------------------------------------------


@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_spike_is_worth_what_the_maker_says(channel_wise: bool) -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    plain, graded = (
        Converter([data], channel_wise=channel_wise, neuron=which, progress=False) for which in ("if", GradedMaker())
    )
    snn = graded(ann)
    assert [entry.scale for entry in graded.report.entries] == [None, *(e.scale for e in plain_entries(plain, ann)[1:])]
    wanted = ann(data).detach()
    assert relative_error(simulate(snn, data, T=400), wanted) < 0.02
    few = [relative_error(simulate(each, data, T=12), wanted) for each in (plain(ann), snn)]
    assert few[1] < 0.5 * few[0]


def plain_entries(converter: Converter, ann: nn.Module) -> tuple[Any, ...]:
    converter(ann)
    return converter.report.entries


def test_a_graded_neuron_runs_by_hand_in_both_step_modes_and_simulated_alike() -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    snn = convert(ann, data, neuron=GradedMaker())
    by_hand = run_by_hand(snn, data, 30)
    assert by_hand.max() > 0
    assert relative_error(multi_step(snn, data, 30), by_hand) < 1e-12
    assert relative_error(simulate(snn, data, T=30), by_hand.mean(0)) < 1e-12
    assert {(node.v, node.emitted) for node in snn.modules() if isinstance(node, Graded)} == {(None, None)}


def test_a_graded_neuron_starts_anew_for_another_batch_size() -> None:
    node = Graded()
    node(torch.ones(3))
    assert node(torch.full((2,), 0.6)).tolist() == [1.0, 1.0]
    assert node.emitted.tolist() == [1.0, 1.0]


def test_a_graded_neuron_leaves_its_currents_alone() -> None:
    node, drive = Graded(), torch.full((4, 2), 0.75)
    node.step_mode = "m"
    node(drive)
    assert drive.eq(0.75).all()


def test_graded_spikes_count_by_their_value() -> None:
    ann, data = nn.Sequential(nn.ReLU(), nn.Linear(1, 2)), torch.tensor([[0.2], [0.4], [0.6]])
    converted = convert(ann, data, neuron=GradedMaker())
    result = evaluate(converted, [(data, torch.zeros(3, dtype=torch.int64))], T=10, progress=False)
    assert result.spikes_per_sample == pytest.approx((10 + 20 + 30) / 3)
    assert result.layers[0].firing_rate == pytest.approx(2.0)
    assert result.emissions_per_sample == result.layers[0].emissions_per_sample == 10
    assert "20 spikes in 10 emissions and" in str(result)


def test_a_neuron_with_a_hook_is_called_so_that_the_hook_sees_its_spikes() -> None:
    ann, data = small(), torch.randn(20, 4, dtype=torch.float64)
    snn = convert(ann, data, neuron=GradedMaker())
    seen: list[Tensor] = []
    next(m for m in snn.modules() if isinstance(m, Graded)).register_forward_hook(lambda _m, _x, y: seen.append(y))
    simulate(snn, data, T=8)
    assert sum(len(y) for y in seen) >= 8


# The readout that neurons ask for -------------------------------------------------------------------


class Late(IFNeuron):
    """Asks for a readout."""

    name = "late"

    def __init__(self, asks: Any = ("delayed", {"delay": 3})) -> None:
        super().__init__()
        self.asks = asks

    def readout(self) -> Any:
        return self.asks


def test_the_readout_that_a_neuron_asks_for_is_the_default_and_the_report_says_so() -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    converter = Converter([data], neuron=Late(), progress=False)
    snn = converter(ann)
    assert torch.equal(simulate(snn, data, T=9), simulate(snn, data, T=9, readout=Delayed(delay=3)))
    assert not torch.equal(simulate(snn, data, T=9), simulate(snn, data, T=9, readout="mean"))
    assert "asks for the readout 'delayed' (delay=3), which is the default" in str(converter.report)


def test_a_correction_decides_over_the_readout() -> None:
    class Mean(Correction):
        name = "mean"

        def correct(self, trial: Trial) -> None:
            trial.suggest_readout("last")

    data = torch.randn(60, 4, dtype=torch.float64)
    snn = convert(small(), data, neuron=Late(), corrections=Mean())
    assert torch.equal(simulate(snn, data, T=9), simulate(snn, data, T=9, readout="last"))


def test_neurons_that_ask_for_different_readouts_are_an_error() -> None:
    data = torch.randn(60, 4, dtype=torch.float64)
    layers = {"3": {"neuron": Late(("delayed", {"delay": 2}))}}
    with pytest.raises(
        OptionError, match=r"neurons of 1 need the readout .*delay': 3.*those of 3 .*delay': 2.*layers="
    ):
        convert(small(), data, neuron=Late(), layers=layers)
    snn = convert(small(), data, layers={"3": {"neuron": Late()}})  # the others take any
    assert torch.equal(simulate(snn, data, T=9), simulate(snn, data, T=9, readout=Delayed(delay=3)))


@pytest.mark.parametrize("asks", ["delayed", ("delayed",), ("delayed", 3)])
def test_a_readout_without_name_and_options_is_the_plugins_fault(asks: Any) -> None:
    with pytest.raises(PluginError, match=r"from readout\(\); it must be the name and the options of a readout"):
        convert(small(), torch.randn(60, 4, dtype=torch.float64), neuron=Late(asks))


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        (("delayd", {}), "readout='delayd' is not known. Did you mean 'delayed'? Known readouts: "),
        (("delayed", {"dely": 1}), "Readout 'delayed' got the unknown option dely"),
        (("delayed", {"delay": -1}), "delay=-1 is not allowed"),
    ],
)
def test_a_readout_that_nobody_knows_is_the_plugins_fault(asks: Any, message: str) -> None:
    data = torch.randn(60, 4, dtype=torch.float64)
    with pytest.raises(PluginError) as told:
        convert(small(), data, neuron=Late(asks))
    assert str(told.value).startswith("Neuron 'late' (your own argument) returned ('")
    assert "from readout(), which is not possible: " + message in str(told.value)

    class Suggesting(Correction):
        name = "suggesting"

        def correct(self, trial: Trial) -> None:
            trial.suggest_readout(asks[0], **asks[1])

    with pytest.raises(PluginError) as told:
        convert(small(), data, corrections=Suggesting())
    assert str(told.value).startswith("Correction 'suggesting' (your own argument) suggested the readout ('")
    assert message in str(told.value)
