"""Networks written to files and read back: the same spikes, potentials and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    Trial,
    evaluate,
    export,
    simulate,
)
from sj_ann2snn.interchange import describe

from ..helpers.exports import FORMATS, STEPS, images, pooled, round_trip
from ..helpers.networks import Written, convert, multi_step, randomized, run_by_hand, spikes_of


def residual() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.bn1(m.conv1(x)))
        x = F.relu(x + m.bn2(m.conv2(x)))
        return m.fc(x.mean((2, 3)).flatten(1))

    return randomized(
        Written(
            forward,
            conv1=nn.Conv2d(1, 4, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(4),
            conv2=nn.Conv2d(4, 4, 3, padding=1),
            bn2=nn.BatchNorm2d(4),
            fc=nn.Linear(4, 3),
        )
    )


def with_constants() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second = x.flatten(1).chunk(2, 1)
        still = torch.sigmoid(m.norm(first)) * m.gain[None, ..., :]
        x = torch.cat([F.relu(m.fc(still)), m.cast(second[:, 1:6].to(torch.float32))], dim=-1)
        return {"all": F.relu(m.out(x)).view(x.shape[0], -1), "pair": (x.neg(), x * 2)}

    return Written(
        forward,
        norm=nn.LayerNorm(32),
        fc=nn.Linear(32, 6),
        cast=nn.Linear(5, 5),
        out=nn.Linear(11, 4),
        gain=nn.Parameter(torch.rand(32)),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 3)), {}),
    "residual": (residual, {}),
    "residual, per channel": (residual, {"channel_wise": True, "mode": "99%"}),
    "batchnorm in front": (lambda: randomized(nn.Sequential(nn.BatchNorm2d(1), *pooled(nn.MaxPool2d(2)))), {}),
    "cumulative max pool": (lambda: pooled(nn.MaxPool2d(2)), {}),
    "momentum max pool": (lambda: pooled(nn.MaxPool2d(2)), {"maxpool": "momentum", "maxpool_momentum": 0.7}),
    "max pool of currents": (lambda: pooled(nn.MaxPool2d(2)), {"maxpool": "pre-spike"}),
    "max pool as average": (lambda: pooled(nn.MaxPool2d(2)), {"maxpool": "avg"}),
    "average pool": (lambda: pooled(nn.AvgPool2d(2)), {}),
    "average pool with neuron": (lambda: pooled(nn.AdaptiveAvgPool2d(4)), {"avgpool_neuron": True}),
    "leaky": (lambda: pooled(nn.AvgPool2d(2), nn.LeakyReLU(0.2)), {}),
    "prelu": (lambda: pooled(nn.AvgPool2d(2), nn.PReLU(4)), {"channel_wise": True}),
    "bounded": (lambda: pooled(nn.AvgPool2d(2), nn.ReLU6()), {"initial_potential": 0.5}),
    "transposed": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2), nn.ReLU(), nn.PixelUnshuffle(2)),
        {},
    ),
    "constants": (with_constants, {}),
}  # fmt: skip


def leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for one in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(one)]


# A sigmoid in front of the first ReLU stays as it is in the ANN.
@pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_comes_back_with_the_same_spikes(case: str, format: str, tmp_path: Path) -> None:
    make, arguments = NETWORKS[case]
    x = images()
    snn = convert(make(), x, **arguments)
    loaded = round_trip(snn, tmp_path, format)
    if case != "constants":
        wanted = run_by_hand(snn, x, STEPS)
        assert torch.equal(run_by_hand(loaded, x, STEPS), wanted)
        assert torch.equal(multi_step(loaded, x, STEPS), multi_step(snn, x, STEPS))
        assert wanted.count_nonzero() > 0
        spikes, again = spikes_of(snn, x, STEPS), spikes_of(loaded, x, STEPS)
        assert spikes
        assert spikes.keys() == again.keys()
        assert all(torch.equal(again[name], emitted) and emitted.count_nonzero() for name, emitted in spikes.items())
    found, expected = leaves(simulate(loaded, x, T=STEPS)), leaves(simulate(snn, x, T=STEPS))
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert all(map(torch.equal, found, expected))
    assert [(name, type(one)) for name, one in loaded.named_modules() if name] == [
        (name, type(one)) for name, one in snn.named_modules() if name
    ]
    assert not any(module.training for module in loaded.modules())
    assert type(loaded).__name__ == type(snn).__name__
    assert describe(loaded, {}).as_document()[0] == describe(snn, {}).as_document()[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_normalized_network_comes_back(format: str, tmp_path: Path) -> None:
    x = images()
    converter = Converter([x], progress=False)
    for activation in (nn.ReLU6(), nn.LeakyReLU(0.3)):
        network = converter.normalize(pooled(nn.MaxPool2d(2), activation))
        assert torch.equal(round_trip(network, tmp_path, format)(x), network(x))


def test_everything_of_a_simulation_is_the_same(tmp_path: Path) -> None:
    x, labels = images(), torch.randint(0, 3, (40,))
    snn = convert(residual(), x)
    loaded = round_trip(snn, tmp_path)
    one, other = (evaluate(network, [(x, labels)], STEPS, progress=False) for network in (snn, loaded))
    assert (one.accuracy, one.spikes_per_sample, one.synops_per_sample) == (
        other.accuracy, other.spikes_per_sample, other.synops_per_sample,
    )  # fmt: skip
    assert [entry.name for entry in one.layers] == [entry.name for entry in other.layers]


class Starting(Correction):
    """An initial potential, a bias and a bias per step for every neuron, and a readout."""

    name = "starting"

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, initial_potential=torch.rand(site.shape), bias=0.1 * torch.ones(site.channels))
            trial.adjust(site.name, step_bias=torch.rand(4, site.channels) - 0.5)
        trial.suggest_readout("delayed", delay=3)


@pytest.mark.parametrize("format", FORMATS)
def test_what_corrections_set_comes_back(format: str, tmp_path: Path) -> None:
    x = images()
    snn = convert(pooled(nn.MaxPool2d(2)), x, corrections=Starting())
    kinds = [node.operation for node in describe(snn, {}).nodes]
    assert (kinds.count("InitialPotential"), kinds.count("StepBias")) == (2, 2)
    loaded = round_trip(snn, tmp_path, format)
    assert torch.equal(run_by_hand(loaded, x, STEPS), run_by_hand(snn, x, STEPS))
    default = simulate(loaded, x, T=STEPS)
    assert torch.equal(default, simulate(snn, x, T=STEPS))
    assert torch.equal(default, simulate(snn, x, T=STEPS, readout="delayed")) is False
    assert not torch.equal(default, simulate(snn, x, T=STEPS, readout="mean"))


def test_the_state_in_which_a_network_is_exported_does_not_matter(tmp_path: Path) -> None:
    x = images()
    snn = convert(pooled(nn.MaxPool2d(2)), x, initial_potential=0.5)
    export(snn, tmp_path / "fresh.zip")
    snn.train()
    functional.set_step_mode(snn, "m")
    snn(x.expand(3, *x.shape))
    export(snn, tmp_path / "used.zip")
    assert (tmp_path / "fresh.zip").read_bytes() == (tmp_path / "used.zip").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
def test_weights_keep_their_dtype(format: str, dtype: torch.dtype, tmp_path: Path) -> None:
    x = images()
    snn = convert(residual(), x).to(dtype)
    loaded = round_trip(snn, tmp_path, format)
    for (name, tensor), (again, found) in zip(snn.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert (name, tensor.dtype) == (again, found.dtype)
        assert torch.equal(tensor, found)


def test_several_inputs_and_defaults(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 5), nn.Linear(3, 5)

        def forward(self, first: Tensor, second: Tensor, mask: Any = None) -> Tensor:
            return torch.relu(self.one(first)) + torch.relu(self.two(second))

    first, second = torch.rand(20, 4), torch.rand(20, 3)
    snn = convert(Two(), [(first, second)])
    loaded = round_trip(snn, tmp_path)
    assert torch.equal(run_by_hand(loaded, first, STEPS, second), run_by_hand(snn, first, STEPS, second))
    assert loaded(first=first, second=second).shape == (20, 5)


def test_layers_of_spikingjelly_and_harmless_subclasses_are_those_of_torch(tmp_path: Path) -> None:
    class Initialized(nn.Linear):
        def __init__(self) -> None:
            super().__init__(64, 6)

        def reset_parameters(self) -> None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    x = images()
    snn = convert(nn.Sequential(layer.Flatten(), Initialized(), nn.ReLU(), layer.Linear(6, 3)), x)
    layers = [node.operation for node in describe(snn, {}).nodes if node.kind == "layer" and node.tensors]
    assert layers == ["Linear", "Linear"]
    assert torch.equal(run_by_hand(round_trip(snn, tmp_path), x, STEPS), run_by_hand(snn, x, STEPS))
