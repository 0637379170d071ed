"""FTBC: the rule by hand, and what it does to a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_offsets import ForwardTemporalBias
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, CorrectionError, OptionError, StepBias, Trial


class Looking(Correction):
    """Keeps the sites as the corrections before it left them."""

    name = "looking"

    def __init__(self) -> None:
        self.sites: dict[str, Any] = {}

    def correct(self, trial: Trial) -> None:
        self.sites = {site.name: site for site in trial.sites}


class Starting(Correction):
    """Sets biases per step."""

    name = "starting"

    def __init__(self, value: float, steps: int) -> None:
        self.value, self.steps = value, steps

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, step_bias=torch.full((self.steps, site.channels), self.value))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).double()


def images(count: int = 40) -> Tensor:
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(currents: Tensor, activation: Tensor, rate: float, steps: int) -> list[float]:
    """The biases of a neuron with threshold 1 that starts at one half, for one round."""
    v, found = torch.full_like(currents, 0.5), []
    for _ in range(steps):
        spikes = (v + currents >= 1).double()
        bias = rate * float((activation - spikes).mean())
        v = v + currents + bias
        v = v - (v >= 1).double()
        found.append(bias)
    return found


def test_the_rule() -> None:
    ann = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    nn.init.ones_(ann[0].weight)
    x, looking = torch.tensor([[0.2], [0.35], [0.9], [1.0]], dtype=torch.float64), Looking()
    corrections = (ForwardTemporalBias(T=3, rounds=1, rate=0.5), looking)
    Converter([x], mode="max", initial_potential=0.5, corrections=corrections, progress=False)(ann)
    wanted = by_hand(x.flatten(), x.flatten(), 0.5, 3)
    assert looking.sites["1"].step_bias.flatten().tolist() == pytest.approx(wanted)
    assert any(wanted)


@pytest.mark.parametrize("layer", ["1", "3"])
def test_rounds_bring_the_mean_spike_of_every_step_to_the_mean_activation(layer: str) -> None:
    def off(rounds: int | None) -> Tensor:
        """For each step, how far the mean spikes of the layer's channels are from their mean activation."""
        found: list[Tensor] = []

        class Judge(Correction):
            name = "judge"

            def correct(self, trial: Trial) -> None:
                x = trial.inputs()
                wanted = trial.activations(x).sites[layer].mean([0, 2, 3])

                def look(site: Any, currents: Tensor) -> Tensor:
                    emitted: Tensor = site.fire(currents)
                    if site.name == layer:
                        found.append((emitted.mean([1, 3, 4]) - wanted).abs().mean(1))
                    return emitted

                trial.run(x, 4, look)

        before = () if rounds is None else (ForwardTemporalBias(T=4, rounds=rounds),)
        options: dict[str, Any] = {"mode": 0.7, "channel_wise": True, "initial_potential": 0.5}
        Converter([images()], corrections=(*before, Judge()), progress=False, **options)(network())
        return found[0]

    plain, one, eight = off(None), off(1), off(8)
    assert eight.mean() < one.mean() < plain.mean()
    assert eight.mean() < 0.5 * plain.mean()


def test_later_steps_have_no_bias_and_earlier_corrections_are_kept() -> None:
    looking = Looking()
    corrections = (Starting(0.25, 6), ForwardTemporalBias(T=4, rounds=1, rate=1e-9), looking)
    snn = Converter([images()], corrections=corrections, progress=False)(network())
    for site in looking.sites.values():
        torch.testing.assert_close(site.step_bias, torch.full((4, 1 if site.channels == 1 else 6), 0.25).double())
    assert sum(isinstance(module, StepBias) for module in snn.modules()) == 2


def test_both_neurons_of_a_leaky_relu_are_corrected() -> None:
    looking = Looking()
    ann = nn.Sequential(nn.Conv2d(1, 6, 3), nn.LeakyReLU(0.3), nn.Flatten(), nn.Linear(216, 4)).double()
    corrections = (ForwardTemporalBias(T=4), looking)
    Converter([images()], channel_wise=True, corrections=corrections, progress=False)(ann)
    assert set(looking.sites) == {"1", "1_negative"}
    assert all(bool(site.step_bias.any()) for site in looking.sites.values())


def test_other_neurons_are_refused_by_name() -> None:
    with pytest.raises(CorrectionError, match=r"biases for plain IF neurons, and 1, 3 have other ones.*neuron='if'"):
        Converter([images()], neuron="cos", corrections="ftbc", progress=False)(network())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds=0 is not allowed"),
        ({"rate": 0.0}, "rate=0.0 is not allowed"),
        ({"rate": 1.5}, "rate=1.5 is not allowed"),
        ({"samples": -1}, "samples=-1 is not allowed"),
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ForwardTemporalBias(**options)
