"""Thresholds from the currents of the network: what they are, by hand and through the converter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_spikenorm import LargestCurrent, correction
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, CorrectionError, OptionError, Trial, simulate

STEPS = 40


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()
    ).double()


def images(count: int = 30) -> Tensor:
    return torch.rand(count, 1, 8, 8, dtype=torch.float64)


def scales_of(ann: nn.Module, x: Tensor, **options: Any) -> dict[str, float]:
    """λ of every layer, which has one."""
    converter = Converter([x], progress=False, **options)
    converter(ann)
    assert all(low == high for low, high in converter.report.scales.values())
    return {name: low for name, (low, _) in converter.report.scales.items()}


class Looking(Correction):
    """Keeps the currents that arrive at every site, in units of its threshold."""

    name = "looking"

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def correct(self, trial: Trial) -> None:
        def emit(site: Any, currents: Tensor) -> Tensor:
            self.seen[site.name] = (currents + site.along_channels(site.bias)) / site.along_channels(site.scale)
            return site.fire(currents)

        with torch.no_grad():
            trial.run(trial.inputs(), STEPS, emit)


def looked_at(ann: nn.Module, x: Tensor, **options: Any) -> dict[str, Tensor]:
    looking = Looking()
    options = {"mode": "max", "channel_wise": False, **options}
    options["corrections"] = (*options.get("corrections", ()), looking)
    Converter([x], progress=False, **options)(ann)
    return looking.seen


def test_the_largest_current_is_the_threshold_at_every_layer() -> None:
    ann, x = network(), images()
    before = looked_at(ann, x)
    assert max(float(currents.max()) for currents in before.values()) > 1.2
    after = looked_at(ann, x, corrections=(LargestCurrent(T=STEPS),))
    for name, currents in after.items():
        assert float(currents.max()) == pytest.approx(1, rel=1e-6), name


@pytest.mark.parametrize("channel_wise", [False, True])
def test_by_channel_each_one_meets_its_own_threshold(channel_wise: bool) -> None:
    ann, x = network(), images()
    corrections = (LargestCurrent(T=STEPS, current_channel_wise=True),)
    for currents in looked_at(ann, x, channel_wise=channel_wise, corrections=corrections).values():
        largest = currents.amax((0, 1, 3, 4))
        torch.testing.assert_close(largest[largest > 0], torch.ones_like(largest[largest > 0]), rtol=1e-6, atol=0)


def test_a_percentile_leaves_that_share_of_the_currents_below_the_threshold() -> None:
    corrections = (LargestCurrent(T=STEPS, current_percentile=95.0),)
    for name, currents in looked_at(network(), images(), corrections=corrections).items():
        assert float((currents <= 1 + 1e-3).double().mean()) == pytest.approx(0.95, abs=2e-3), name


def test_a_percentile_at_which_nothing_fires_gives_way_to_the_largest() -> None:
    ann, x = network(), images()
    rare = looked_at(ann, x, corrections=(LargestCurrent(T=STEPS, current_percentile=0.001),))
    largest = looked_at(ann, x, corrections=(LargestCurrent(T=STEPS),))
    for name in rare:
        torch.testing.assert_close(rare[name], largest[name])


def test_thresholds_do_not_depend_on_how_many_samples_are_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ann, x = network(), images()

    def scales() -> dict[str, float]:
        return scales_of(ann, x, mode="max", corrections=LargestCurrent(T=STEPS))

    at_once = scales()
    monkeypatch.setattr(correction, "VALUES", 7 * STEPS * 4 * 36)
    assert scales() == pytest.approx(at_once)
    monkeypatch.setattr(correction, "VALUES", 1)
    assert scales() == pytest.approx(at_once)


def test_thresholds_do_not_depend_on_the_scales_before() -> None:
    ann, x = network(), images()
    found = [scales_of(ann, x, mode=mode, corrections=LargestCurrent(T=STEPS)) for mode in ("max", 0.4)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_mode_brings_its_correction_and_takes_its_options() -> None:
    ann, x = network(), images()
    converter = Converter([x], mode="spike-norm", T=STEPS, samples=10, progress=False)
    by_mode = simulate(converter(ann), x, T=20)
    by_hand = Converter([x], mode="max", corrections=LargestCurrent(T=STEPS, samples=10), progress=False)
    torch.testing.assert_close(by_mode, simulate(by_hand(ann), x, T=20))
    plain = Converter([x], mode="spike-norm", corrections=(), progress=False)
    torch.testing.assert_close(
        simulate(plain(ann), x, T=20), simulate(Converter([x], mode="max", progress=False)(ann), x, T=20)
    )


def test_the_error_goes_to_zero_with_the_steps() -> None:
    ann, x = network(), images()
    snn = Converter([x], mode="spike-norm", T=STEPS, progress=False)(ann)
    wanted = ann(x).detach()
    errors = [float((simulate(snn, x, T=steps) - wanted).norm() / wanted.norm()) for steps in (20, 80, 640)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_a_layer_that_gets_no_positive_current_keeps_its_scale() -> None:
    ann = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    for layer, bias in ((ann[0], 0.0), (ann[2], -0.5)):
        nn.init.ones_(layer.weight)
        nn.init.constant_(layer.bias, bias)
    x = torch.tensor([[0.4], [1.0]], dtype=torch.float64)
    # The first sample alone never gets over the second layer's bias.
    assert scales_of(ann, x, mode="max", corrections=LargestCurrent(samples=1)) == pytest.approx({"1": 0.4, "3": 0.5})
    assert scales_of(ann, x, mode="max", corrections=LargestCurrent())["3"] == pytest.approx(0.5)


def test_refuses_neurons_whose_threshold_is_not_all() -> None:
    from sj_ann2snn import InPlaceNeuron, NeuronMaker, NeuronSite

    class Double(InPlaceNeuron):
        """Emits up to two spikes in a step."""

        def step(self, x: Tensor, out: Tensor) -> None:
            self.v = self.v + x
            torch.clamp(torch.floor(self.v), 0, 2, out=out)
            self.v = self.v - out

    class Maker(NeuronMaker):
        name = "double"

        def make(self, site: NeuronSite) -> nn.Module:
            return Double()

    with pytest.raises(CorrectionError, match=r"'spike-norm' .* 1 has another neuron"):
        Converter([images()], mode="max", neuron=Maker(), corrections=LargestCurrent(), progress=False)(network())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, r"T=0 is not allowed: in correction 'spike-norm' it must be an integer"),
        ({"samples": 2.5}, r"samples=2\.5 is not allowed"),
        ({"current_percentile": 0}, r"current_percentile=0 is not allowed: it must be a number in \(0, 100\]"),
        ({"current_percentile": True}, r"current_percentile=True is not allowed"),
        ({"current_channel_wise": "yes"}, r"current_channel_wise='yes' is not allowed: it must be True or False"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LargestCurrent(**options)
