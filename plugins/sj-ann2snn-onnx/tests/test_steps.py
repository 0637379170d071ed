"""ONNX Runtime computes a hundred steps as the network does, in floating point and in integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_onnx import Onnx, first_states, notes_of, run
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    InitialPotential,
    InPlaceNeuron,
    NeuronMaker,
    StepBias,
    check_export,
    export,
    hookimpl,
    integer_network,
    tensors,
)

from .networks import NETWORKS, RandomNetwork, converted, on_grid

onnxruntime = pytest.importorskip("onnxruntime")

STEPS = 100


def by_hand(snn: nn.Module, x: tuple[Tensor, ...], steps: int = STEPS) -> tuple[list[Any], dict[str, Any]]:
    """Outputs and spikes of every step in the hand-written loop."""
    spikes: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda module, args, result, name=name: spikes.setdefault(name, []).append(result))
        for name, module in snn.named_modules()
        if type(module).__name__ in ("IFNode", "IntegerIF")
    ]
    with torch.no_grad():
        outputs = [tensors(snn(*x)) for _ in range(steps)]
    functional.reset_net(snn)
    for handle in handles:
        handle.remove()
    return (
        [torch.stack(column).numpy() for column in zip(*outputs, strict=True)],
        {name: torch.stack(values).numpy() for name, values in spikes.items()},
    )


def shapes_of(x: tuple[Tensor, ...], snn: Any) -> dict[str, tuple[int, ...]]:
    names = [node.target for node in snn.graph.nodes if node.op == "placeholder"]
    return {name: tuple(one.shape[1:]) for name, one in zip(names, x, strict=True)}


def assert_same_steps(snn: Any, x: tuple[Tensor, ...], path: Path) -> None:
    export(snn, path, Onnx(input_shape=shapes_of(x, snn)))
    outputs, spikes = by_hand(snn, x)
    theirs, trains = run(path, x, STEPS)
    assert set(trains) == set(spikes)
    for layer, wanted in spikes.items():
        assert np.array_equal(trains[layer], wanted), layer
        assert 0 < wanted.mean() < 1
    scales = notes_of(path).get("scales", {})
    for (name, found), wanted in zip(theirs.items(), outputs, strict=True):
        worth = found * np.asarray(scales.get(name, 1.0))
        assert np.allclose(worth, wanted, rtol=1e-5, atol=1e-5 * abs(wanted).max()), name


@pytest.mark.parametrize("name", NETWORKS)
def test_floating_point(name: str, tmp_path: Path) -> None:
    snn, x = converted(name)
    assert_same_steps(snn, x, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("name", "maxpool"),
    [
        ("pools", "momentum"),
        ("pools", "pre-spike"),
        ("signals", "momentum"),
        ("volumes", "momentum"),
        ("volumes", "avg"),
    ],
)
def test_max_pools(name: str, maxpool: str, tmp_path: Path) -> None:
    snn, x = converted(name, maxpool=maxpool)
    assert_same_steps(snn, x, tmp_path / "net.onnx")


@pytest.mark.parametrize("options", [{"channel_wise": True}, {"initial_potential": 0.5}, {"mode": "99.9%"}], ids=str)
@pytest.mark.parametrize("name", ["pools", "residual"])
def test_options_of_the_conversion(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    snn, x = converted(name, **options)
    assert_same_steps(snn, x, tmp_path / "net.onnx")


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    snn, x = on_grid(RandomNetwork(seed), ((2, 16, 16),), channel_wise=seed % 2 == 1)
    assert_same_steps(snn, x, tmp_path / "net.onnx")


@pytest.mark.parametrize("weights", ["int8", "int4", "int16"])
@pytest.mark.parametrize("name", ["pools", "transposed", "two of each", "vectors", "volumes"])
def test_integers(name: str, weights: str, tmp_path: Path) -> None:
    snn, x = converted(name, weights=weights, initial_potential=0.5, channel_wise=name != "transposed")
    assert_same_integers(snn, x, tmp_path / "net.onnx")


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_of_integers(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    snn, x = on_grid(RandomNetwork(seed, integers=True), ((2, 16, 16),), weights="int8", avgpool_neuron=seed % 2 == 1)
    assert_same_integers(snn, x, tmp_path / "net.onnx")


def assert_same_integers(snn: Any, x: tuple[Tensor, ...], path: Path) -> None:
    """The reference's outputs and spikes, to the last one."""
    x = tuple(one[:4] for one in x)
    export(snn, path, Onnx())
    wanted = integer_network(snn).run(*x, T=STEPS)
    outputs, spikes = run(path, x, STEPS)
    assert set(spikes) == set(wanted.spikes)
    for layer, train in wanted.spikes.items():
        assert spikes[layer].dtype == np.uint8
        assert np.array_equal(spikes[layer], train), layer
    for found, one in zip(outputs.values(), wanted.outputs, strict=True):
        assert found.dtype == np.int32
        assert np.array_equal(found, one)
    floating = [one for one in onnx.load(path).graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert all(one.name.rpartition(".")[2] in ("scale", "low", "high") for one in floating)


class TakingBack(InPlaceNeuron):
    """Several spikes in a step, of both signs, never more back than it emitted; like those of the plugins."""

    def __init__(self, *, levels: int, threshold: Tensor, potential: Tensor) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("threshold", threshold)
        self.register_buffer("potential", potential)
        self.register_memory("emitted", None)
        self.register_memory("rested", None)

    def start(self, x: Tensor) -> None:
        self.v = torch.empty_like(x).copy_(self.potential.expand(x.shape))
        self.emitted, self.rested = torch.zeros_like(x), torch.ones_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += torch.where(self.rested > 0.5, x, 2 * x) * (x.abs() < 1e6)
        torch.floor(self.v / self.threshold, out=out)
        out.clamp_(-self.levels, self.levels)
        self.emitted += out
        short = self.emitted.clamp(max=0)
        out -= short
        self.emitted -= short
        self.v.sub_(out * self.threshold).clamp_(min=-64.0)
        self.rested = torch.zeros_like(x)

    def export_options(self) -> dict[str, Any]:
        return {"levels": self.levels, "threshold": self.threshold, "potential": self.potential}


class TakingBackMaker(NeuronMaker):
    name = "taking-back"
    exports = (TakingBack,)

    def make(self, site: Any) -> Any:
        raise NotImplementedError


class TakingBackPlugin:
    @staticmethod
    @hookimpl
    def ann2snn_neurons() -> list[type[NeuronMaker]]:
        return [TakingBackMaker]


def test_neurons_of_plugins(tmp_path: Path) -> None:
    """What their step computes is read off a trace; potentials that differ start in the first step."""
    snn, (x,) = converted("vectors")
    for name in ("1", "3"):
        potential = (torch.rand(16) * 8).round() / 8
        threshold = torch.tensor([0.5, 1.0]).repeat(8)
        setattr(snn, name, TakingBack(levels=3, threshold=threshold, potential=potential))
    path = tmp_path / "net.onnx"
    export(snn, path, Onnx(), plugins=[TakingBackPlugin])
    found = check_export(snn, path, x, STEPS, Onnx())
    assert found.agrees, str(found)
    assert found.layers == ("1", "3")
    states = {one["input"]: one["initial"] for one in notes_of(path)["states"]}
    assert states["1.v"] == states["1.emitted"] == 0
    assert states["1.waiting"] == states["1.rested"] == 1
    _, spikes = run(path, [x], 5)
    assert set(np.unique(spikes["1"])) > {-1.0, 0.0, 1.0, 2.0}


def test_bilinear_interpolation(tmp_path: Path) -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
            self.up = nn.Upsample(scale_factor=2, mode="bilinear")

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(torch.relu(self.first(x)))
            x = F.interpolate(torch.relu(self.second(x)), (31, 31), mode="bilinear", align_corners=True)
            return torch.relu(x)

    torch.manual_seed(1)
    snn, x = on_grid(Growing(), ((3, 8, 8),))
    assert_same_steps(snn, x, tmp_path / "net.onnx")


def test_potentials_of_single_neurons(tmp_path: Path) -> None:
    snn, x = converted("chain")
    snn.add_submodule("start", InitialPotential((torch.rand(8, 8, 8) * 32).round() / 32))
    (neuron,) = (node for node in snn.graph.nodes if node.target == "1")
    with snn.graph.inserting_before(neuron):
        neuron.args = (snn.graph.call_module("start", neuron.args),)
    snn.recompile()
    assert_same_steps(snn, x, tmp_path / "net.onnx")
    (waiting,) = (one for one in notes_of(tmp_path / "net.onnx")["states"] if one["input"] == "start.waiting")
    assert (waiting["initial"], waiting["shape"]) == (1.0, [1, 1, 1, 1])


def test_biases_per_step(tmp_path: Path) -> None:
    snn, x = converted("chain")
    snn.add_submodule("steps", StepBias((torch.rand(3, 8, 1, 1) * 32).round() / 32))
    (neuron,) = (node for node in snn.graph.nodes if node.target == "1")
    with snn.graph.inserting_before(neuron):
        neuron.args = (snn.graph.call_module("steps", neuron.args),)
    snn.recompile()
    assert_same_steps(snn, x, tmp_path / "net.onnx")
    (done,) = (one for one in notes_of(tmp_path / "net.onnx")["states"] if one["input"] == "steps.done")
    assert (done["initial"], done["shape"]) == (0.0, [1, 1, 1, 1])


def test_the_loop_of_the_documentation(tmp_path: Path) -> None:
    """ONNX Runtime alone, with what the file says."""
    snn, (x,) = converted("residual", initial_potential=0.5)
    path = tmp_path / "net.onnx"
    export(snn, path, Onnx(input_shape=(3, 8, 8), spikes=True))
    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_outputs()]
    follow = {one["output"]: one["input"] for one in notes_of(path)["states"]}
    states, total = first_states(path, len(x)), 0
    for _ in range(20):
        results = dict(zip(names, session.run(None, {"x": x.numpy(), **states}), strict=True))
        states = {before: results[after] for after, before in follow.items()}
        total = total + results["output"]
    ours, spikes = by_hand(snn, (x,), 20)
    assert np.allclose(total, ours[0].sum(0), atol=1e-4)
    assert set(spikes) <= set(names)


def test_samples_may_be_any_number(tmp_path: Path) -> None:
    snn, (x,) = converted("pools")
    export(snn, tmp_path / "net.onnx", Onnx(input_shape=(3, 8, 8)))
    _, together = run(tmp_path / "net.onnx", [x], 10)
    for samples in (1, 5):
        _, spikes = run(tmp_path / "net.onnx", {"input": x[:samples]}, 10)
        assert all(np.array_equal(spikes[label], together[label][:, :samples]) for label in spikes)


def test_a_wrong_weight_is_found(tmp_path: Path) -> None:
    snn, (x,) = converted("chain")
    export(snn, tmp_path / "net.onnx", Onnx(input_shape=(3, 8, 8)))
    assert check_export(snn, tmp_path / "net.onnx", x, STEPS, Onnx()).agrees
    with torch.no_grad():
        snn.get_submodule("5").bias += 0.25
    found = check_export(snn, tmp_path / "net.onnx", x, STEPS, Onnx())
    assert found.first is not None
    assert found.first.layer == "6"


def test_bytes_that_need_all_their_bits(tmp_path: Path) -> None:
    """Inputs up to 255 and weights up to 127 of both signs, whose products some processors saturate."""
    torch.manual_seed(0)
    ann, x = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)), torch.rand(64, 64)
    with torch.no_grad():
        ann[0].weight.copy_(ann[0].weight.sign())
    snn = Converter([x], weights="int8", progress=False)(ann)
    assert_same_integers(snn, (torch.ones(3, 64) * 100,), tmp_path / "net.onnx")
