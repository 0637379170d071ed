"""The joint correction and the modes, on small networks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_calibration import Joint, LowLatency, Staircase
from sj_ann2snn_calibration.parameters import Parameters
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    CorrectionError,
    InPlaceNeuron,
    NeuronMaker,
    NeuronSite,
    OptionError,
    Trial,
    simulate,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    ).apply(lively)


def lively(module: nn.Module) -> None:
    """Weights that keep activations from fading away, so that answers differ."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight)


def images(samples: int = 512) -> Tensor:
    return torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def divergence(ann: nn.Module, x: Tensor, steps: int, **arguments: Any) -> float:
    snn = Converter([images()], T=steps, progress=False, **arguments)(ann)
    with torch.no_grad():
        wanted = ann(x).log_softmax(1)
    return F.kl_div(simulate(snn, x, steps).log_softmax(1), wanted, reduction="batchmean", log_target=True).item()


@pytest.mark.parametrize("steps", [2, 4, 16])
def test_answers_come_nearer_to_those_of_the_ann_also_on_images_it_has_not_seen(steps: int) -> None:
    ann, unseen = network(), torch.randn(200, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    plain, staircase, joint = (
        divergence(ann, unseen, steps, **arguments)
        for arguments in (
            {"mode": "99.9%", "channel_wise": True, "initial_potential": 0.5},
            {"mode": Staircase(T=steps), "initial_potential": 0.5},
            {"mode": LowLatency(T=steps), "corrections": Joint(T=steps, epochs=6), "initial_potential": 0.5},
        )
    )
    assert staircase < 1.05 * plain
    assert joint < 0.95 * staircase


def test_the_same_seed_gives_the_same_network_and_the_ann_stays_as_it_is() -> None:
    ann, x = network(), images()
    before = copy.deepcopy(ann.state_dict())
    answers = [simulate(Converter([x], corrections=Joint(T=4, epochs=2), progress=False)(ann), x, 4) for _ in range(2)]
    assert torch.equal(*answers)
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_weights_change_by_scales_only() -> None:
    ann, x = network(), images()
    snn = Converter([x], corrections=Joint(T=4, epochs=2), progress=False)(ann)
    # One factor for each pair of channels, whatever the position in the window.
    ratio = (snn.get_submodule("2").weight / ann.get_submodule("2").weight).flatten(2)
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3, atol=1e-3)


def test_networks_whose_answer_is_no_list_of_classes() -> None:
    torch.manual_seed(0)
    ann, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)), images()
    errors = []
    for corrections in ((), Joint(T=4, epochs=20)):
        snn = Converter([x], mode="max", corrections=corrections, progress=False)(ann)
        errors.append((simulate(snn, x, 4) - ann(x)).norm().item())
    assert errors[1] < 0.7 * errors[0]


def test_several_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(torch.relu(self.left(x) + self.right(y)))

    x, y = torch.rand(40, 4), torch.rand(40, 3)
    snn = Converter([(x, y)], corrections=Joint(T=4, epochs=2), progress=False)(Sum())
    assert simulate(snn, (x, y), 4).shape == (40, 2)


class OtherNeuron(InPlaceNeuron):
    def step(self, x: Tensor, out: Tensor) -> None:
        torch.clamp(x, min=0, out=out)


class Other(NeuronMaker):
    name = "other"

    def make(self, site: NeuronSite) -> OtherNeuron:
        return OtherNeuron()


def test_other_neurons_are_refused() -> None:
    message = r"'joint' only supports the plain IF neuron, but 1 has another .*corrections='layer-by-layer'"
    with pytest.raises(CorrectionError, match=message):
        Converter([images()], neuron=Other(), corrections=Joint(), progress=False)(network())


@pytest.mark.parametrize(
    ("option", "value"),
    [("T", 0), ("T", 2.5), ("epochs", 0), ("samples", True), ("learning_rate", 0.0), ("delay", 8), ("delay", -1)],
)
def test_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{option}={value!r} is not allowed"):
        Joint(**{"T": 8, option: value})


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_the_staircase_errs_least(steps: int) -> None:
    from sj_ann2snn import CalibrationSite

    torch.manual_seed(0)
    x = torch.randn(200, 3, 8).relu() * torch.tensor([0.1, 1.0, 30.0]).view(3, 1)
    observer = Staircase(T=steps).observer(CalibrationSite("relu", channel_axis=1, channels=3))
    observer.observe(x)

    def error(scale: Tensor) -> Tensor:
        height = scale.view(3, 1) / steps
        return ((x / height).round().clamp(max=steps) * height - x).square().mean((0, 2))

    found = error(observer.scale().float())
    for share in torch.linspace(0.05, 1.2, 200):
        assert bool((found <= 1.1 * error(share * x.amax((0, 2)))).all())


def test_biases_per_step_of_an_earlier_correction_are_there_while_it_learns() -> None:
    found: list[Tensor] = []

    class Stepped(Correction):
        name = "stepped"

        def correct(self, trial: Trial) -> None:
            x = trial.inputs(8)
            found.append(trial.run(x, 4))
            for site in trial.sites:
                trial.adjust(site.name, step_bias=torch.tensor([[0.4], [-0.2]]).expand(2, site.channels))
            found.extend((trial.run(x, 4), Parameters(trial).run(x, 4).detach()))

    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    Converter([torch.rand(32, 4)], channel_wise=True, corrections=Stepped(), progress=False)(ann)
    assert not torch.allclose(found[0], found[1])
    torch.testing.assert_close(found[2], found[1])
