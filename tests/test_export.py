"""Networks written to files and read back: the same spikes, and errors where that cannot be."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from sj_ann2snn import (
    ConflictError,
    Converter,
    Correction,
    Exporter,
    ExportError,
    FormatError,
    NetworkDescription,
    NodeDescription,
    NodeReference,
    OperationDescription,
    OptionError,
    PluginError,
    Trial,
    evaluate,
    export,
    hookimpl,
    load_network,
    simulate,
)
from sj_ann2snn.builtin.exporters import Archive, Torch
from sj_ann2snn.hooks import discovery, validation
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.interchange import build, describe
from sj_ann2snn.interchange.modules import build_layer, describe_layer

from .networks import Graded, GradedMaker, Written, convert, multi_step, randomized, run_by_hand, spikes_of

FORMATS = {"archive": "network.zip", "torch": "network.pt"}
STEPS = 24


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


def pooled(pool: nn.Module, activation: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), activation or nn.ReLU(), pool, nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


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


def images(samples: int = 40) -> Tensor:
    return torch.rand(samples, 1, 8, 8)


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


def round_trip(snn: nn.Module, folder: Path, format: str = "archive") -> Any:
    path = folder / FORMATS[format]
    export(snn, path)
    return load_network(path)


def leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for one in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(one)]


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
    """An initial potential and a bias for every neuron, and a readout."""

    name = "starting"

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, initial_potential=torch.rand(site.shape), bias=0.1 * torch.ones(site.channels))
        trial.suggest_readout("delayed", delay=3)


@pytest.mark.parametrize("format", FORMATS)
def test_what_corrections_set_comes_back(format: str, tmp_path: Path) -> None:
    x = images()
    snn = convert(pooled(nn.MaxPool2d(2)), x, corrections=Starting())
    kinds = [node.operation for node in describe(snn, {}).nodes]
    assert kinds.count("InitialPotential") == 2
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


# The archive without torch --------------------------------------------------------------------------


def test_the_archive_is_enough_to_simulate_without_torch(tmp_path: Path) -> None:
    x = torch.rand(30, 6, dtype=torch.float64)
    ann = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5), nn.LeakyReLU(0.25), nn.Linear(5, 2)).double()
    snn = convert(ann, x, initial_potential=0.25)
    export(snn, tmp_path / "network.zip")
    with zipfile.ZipFile(tmp_path / "network.zip") as archive:
        document = json.loads(archive.read("network.json"))
        arrays = {name: np.load(io.BytesIO(archive.read(one["file"]))) for name, one in document["tensors"].items()}
    assert (document["format"], document["version"]) == ("sj-ann2snn", 1)
    potentials: dict[str, Any] = {}
    outputs = []
    for _ in range(STEPS):
        values: dict[str, Any] = {}

        def of(argument: Any, values: dict[str, Any] = values) -> Any:
            return values[argument["node"]]

        for node in document["nodes"]:
            tensors = {key: arrays[name] for key, name in node["tensors"].items()}
            name, operation, options = node["name"], node["operation"], node["options"]
            if node["kind"] == "input":
                values[name] = x.numpy()
            elif operation == "Linear":
                values[name] = of(node["args"][0]) @ tensors["weight"].T + tensors["bias"]
            elif operation == "IFNode":
                current = of(node["args"][0])
                v = potentials.get(name, options["initial_potential"]) + current
                values[name] = (v >= options["v_threshold"]).astype(current.dtype)
                assert options["v_reset"] is None
                potentials[name] = v - values[name] * options["v_threshold"]
            elif operation == "Scaler":
                values[name] = of(node["args"][0]) * tensors["scale"]
            elif operation == "operator.neg":
                values[name] = -of(node["args"][0])
            elif operation == "operator.sub":
                values[name] = of(node["args"][0]) - of(node["args"][1])
            else:
                assert node["kind"] == "output", operation
                outputs.append(of(node["args"][0]))
    np.testing.assert_allclose(np.stack(outputs), run_by_hand(snn, x, STEPS).numpy(), rtol=1e-12, atol=1e-12)


def test_the_archive_may_be_compressed(tmp_path: Path) -> None:
    snn = convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU()), images())
    with torch.no_grad():
        snn.get_submodule("1").weight.zero_()
    export(snn, tmp_path / "plain.zip")
    export(snn, tmp_path / "small.zip", compress=True)
    assert (tmp_path / "small.zip").stat().st_size < (tmp_path / "plain.zip").stat().st_size / 2
    assert torch.equal(load_network(tmp_path / "small.zip").get_submodule("1").weight, torch.zeros(64, 64))


def test_a_description_is_plain_data_that_survives_the_document() -> None:
    values = (
        None, True, 3, 0.5, float("inf"), "text", (1, (2,)), [1, [2]], {"a": (1, [2])}, slice(1, None), ..., 1 + 2j,
        torch.float16, torch.device("cpu"), torch.channels_last, NodeReference("x"), torch.Size([2, 3]),
    )  # fmt: skip
    node = NodeDescription("x", "function", "torch.flatten", args=values, kwargs={"nan": float("-inf")})
    network = NetworkDescription("Net", (node,), ("delayed", {"delay": 2}), "someone 1.0")
    document, tensors = network.as_document()
    again = NetworkDescription.from_document(json.loads(json.dumps(document, allow_nan=False)), tensors)
    assert again == network
    assert [type(one) for one in again.nodes[0].args[:-1]] == [type(one) for one in values[:-1]]
    with pytest.raises(ExportError, match="it holds .*object.* of type object, which cannot be written"):
        NetworkDescription("Net", (NodeDescription("x", "function", args=(object(),)),)).as_document()


class Holding(nn.Module):
    """A layer with operations in it."""

    def __init__(self, first: Any, second: Any, factor: Tensor) -> None:
        super().__init__()
        self.first, self.second, self.factor = first, second, factor

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.factor * self.second(self.first(x))
        return result

    def export_options(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second, "factor": self.factor}


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"add_bias_kv": True}, {"kdim": 3, "vdim": 5}])
def test_attention_comes_back(options: dict[str, Any]) -> None:
    module = nn.MultiheadAttention(6, 2, batch_first=True, **options).eval()
    described = describe_layer(module, {})
    again = build_layer(described.operation, described.options, described.tensors, {})
    q, k, v = (torch.randn(2, 4, size) for size in (6, module.kdim, module.vdim))
    assert torch.equal(again(q, k, v)[0], module(q, k, v)[0])


def test_layers_may_hold_other_layers_and_functions() -> None:
    declared = {f"{__name__}.Holding": Holding}
    inner = Holding(nn.LayerNorm(4), torch.tanh, torch.tensor(2.0))
    described = describe_layer(Holding(inner, nn.Sigmoid(), torch.tensor(3.0)), declared)
    node = NodeDescription("layer", "layer", described.operation, options=described.options, tensors=described.tensors)
    document, tensors = NetworkDescription("Net", (node,)).as_document()
    assert set(tensors) == {
        "layer.factor", "layer.first.factor", "layer.first.first.weight", "layer.first.first.bias",
    }  # fmt: skip
    (read,) = NetworkDescription.from_document(json.loads(json.dumps(document)), tensors).nodes
    again = build_layer(read.operation, read.options, read.tensors, declared)
    x = torch.randn(5, 4)
    assert torch.equal(again(x), 3 * torch.sigmoid(2 * torch.tanh(inner.first(x))))
    for held in (print, getattr, torch.load):
        with pytest.raises(
            ExportError, match=r"it holds .*, and a file can name functions of torch and operators only"
        ):
            describe_layer(Holding(nn.Tanh(), held, torch.tensor(1.0)), declared)
    for kind, name in (("function", "torch.load"), ("function", "getattr"), ("method", "relu")):
        options = {"first": OperationDescription(kind, name), "second": None}
        with pytest.raises(FormatError, match=f"holds the {kind} '{name}', which is none of torch's functions"):
            build_layer(f"{__name__}.Holding", options, {"factor": torch.tensor(1.0)}, declared)
    del tensors["layer.first.first.bias"]
    with pytest.raises(FormatError, match="Node 'layer', in first, in first lacks the tensor"):
        NetworkDescription.from_document(document, tensors)


# What cannot be exported ---------------------------------------------------------------------------


def small() -> Any:
    return convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2)), images())


def with_layer(replacement: nn.Module, name: str = "1") -> Any:
    snn = small()
    snn.set_submodule(name, replacement)
    return snn


class Doubling(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_everything_that_stands_in_the_way_is_listed(tmp_path: Path) -> None:
    snn = small()
    snn.set_submodule("1", Doubling(64, 4))
    snn.set_submodule("2", Graded())
    with pytest.raises(ExportError) as caught:
        export(snn, tmp_path / "network.zip")
    message = str(caught.value)
    assert message.startswith(
        "The network cannot be exported:\n  1 (Doubling): it is of a type that a file cannot name"
    )
    assert "\n  2 (Graded): it is of a type" in message
    assert "declares in `exports`" in message
    assert [where for where, _ in caught.value.problems] == ["1 (Doubling)", "2 (Graded)"]
    assert not list(tmp_path.iterdir())


def changed(module: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("replacement", "told"),
    [
        (Own(), r"1 \(Own\): it is of a type"),
        (nn.Sequential(), r"1 \(Sequential\): it is of a type"),
        (nn.LSTM(4, 4), r"1 \(LSTM\): the arguments of torch.nn.LSTM cannot be told"),
        (nn.TransformerEncoderLayer(4, 2), r"torch.nn.TransformerEncoderLayer does not keep its argument 'd_model'"),
        (changed(nn.Linear(64, 4), in_features=3), "cannot be made anew with what it holds"),
        (changed(nn.Conv2d(1, 1, 1), stride=object()), "it holds .* of type object"),
        (changed(nn.Conv2d(1, 1, 1), padding_mode="magic"), "torch.nn.Conv2d cannot be made anew"),
        (changed(nn.Hardtanh(), min_val=2.0), "torch.nn.Hardtanh cannot be made anew"),
    ],
)
def test_layers_that_cannot_be_told(replacement: nn.Module, told: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=told):
        export(with_layer(replacement), tmp_path / "network.zip")


def test_a_layer_with_a_hidden_buffer_is_refused(tmp_path: Path) -> None:
    hiding = nn.Linear(64, 4)
    hiding.register_buffer("mask", torch.ones(4), persistent=False)
    with pytest.raises(ExportError, match="it is not what its arguments make of torch.nn.Linear"):
        export(with_layer(hiding), tmp_path / "network.zip")


def test_functions_that_cannot_be_told(tmp_path: Path) -> None:
    snn = small()
    (output,) = [node for node in snn.graph.nodes if node.op == "output"]
    for function, arguments, told in (
        (describe, (), r"it calls sj_ann2snn.interchange.describing.describe, and a file can name functions of torch"),
        (getattr, ("grad_fn",), "it reads the attribute 'grad_fn'; allowed are H, T, "),
    ):
        with snn.graph.inserting_before(output):
            node = snn.graph.call_function(function, (output.args[0], *arguments))
        with pytest.raises(ExportError, match=told):
            export(snn, tmp_path / "network.zip")
        snn.graph.erase_node(node)
    with snn.graph.inserting_before(output):
        snn.graph.call_method("__reduce__", (output.args[0],))
    with pytest.raises(ExportError, match="'__reduce__' is no method of torch.Tensor"):
        export(snn, tmp_path / "network.zip")


def test_graphs_that_the_converter_does_not_make(tmp_path: Path) -> None:
    snn = small()
    called = next(node for node in snn.graph.nodes if node.target == "2")
    with snn.graph.inserting_after(called):
        snn.graph.call_module("2", (called.args[0],))
    with pytest.raises(ExportError, match=r"2 \(IFNode\): it is called twice"):
        export(snn, tmp_path / "network.zip")
    snn = small()
    snn.add_module('a"b', nn.Flatten())
    next(node for node in snn.graph.nodes if node.target == "0").target = 'a"b'
    with pytest.raises(ExportError, match="its name holds quotes"):
        export(snn, tmp_path / "network.zip")
    snn = small()
    snn.thing = "text"
    with snn.graph.inserting_before():
        snn.graph.create_node("get_attr", "thing")
    with pytest.raises(ExportError, match="thing: it is 'text', and only tensors can be written as constants"):
        export(snn, tmp_path / "network.zip")
    snn = small()
    next(node for node in snn.graph.nodes if node.op == "placeholder").target = "*args"
    with pytest.raises(ExportError, match=r"a network with a variable number of inputs \(\*args\) cannot be written"):
        export(snn, tmp_path / "network.zip")


def test_only_converted_networks_can_be_exported(tmp_path: Path) -> None:
    x = images()
    with pytest.raises(ExportError, match=r"Sequential is no converted network .*: give what Converter\(...\)\(ann\)"):
        export(nn.Sequential(nn.Linear(3, 3)), tmp_path / "network.zip")
    ann = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU()), nn.Linear(4, 2))
    partly = convert(ann, x, convert_only="0")
    with pytest.raises(ExportError, match=r"give snn.get_submodule\('0'\)"):
        export(partly, tmp_path / "network.zip")
    loaded = round_trip(partly.get_submodule("0"), tmp_path)
    assert torch.equal(run_by_hand(loaded, x, 9), run_by_hand(partly.get_submodule("0"), x, 9))


@pytest.mark.parametrize("file", FORMATS.values())
def test_a_file_that_cannot_be_written_is_told_and_the_old_one_stays(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match=rf"nowhere.{file} cannot be written: "):
        export(small(), tmp_path / "nowhere" / file)
    path = tmp_path / file
    path.write_text("old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ExportError, match=f"{file} cannot be written: No space left on device"):
        export(small(), path)
    assert [one.name for one in tmp_path.iterdir()] == [file]
    assert path.read_text() == "old"


# What cannot be loaded -----------------------------------------------------------------------------


def archive_with(path: Path, change: Callable[[dict[str, Any]], Any], drop: str = "") -> Path:
    """An archive whose document was changed, or that lacks a member."""
    original = path / "original.zip"
    export(small(), original)
    changed = path / "changed.zip"
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "network.json":
                document = json.loads(content)
                content = json.dumps(change(document) or document).encode()
            if name != drop:
                target.writestr(name, content)
    return changed


def node_of(document: dict[str, Any], operation: str) -> dict[str, Any]:
    return next(node for node in document["nodes"] if operation in (node["operation"], node["kind"]))


def setting(operation: str, /, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> None:
        node_of(document, operation).update(fields)

    return change


def without_output(document: dict[str, Any]) -> None:
    document["nodes"].pop()


def without_tensor(document: dict[str, Any]) -> None:
    document["tensors"].popitem()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(version=99), r"has version 99 of the format; .* reads versions up to 1. .*written by sj-ann2snn"),
        (lambda d: d.update(version="1"), "has version '1' of the format"),
        (lambda d: d.update(format="onnx"), "does not hold a network that sj-ann2snn wrote"),
        (lambda d: d.update(nodes=None), "The document has None as nodes; it must be of type list"),
        (lambda d: d.update(name="no name"), "The network is called 'no name'"),
        (lambda d: d.update(readout={"name": 3, "options": {}}), "The readout has 3 as name"),
        (without_output, "A network has one output, and it is the last of its nodes"),
        (lambda d: d["nodes"].insert(0, 7), "Node 0 is 7, not an object"),
        (lambda d: d["nodes"].insert(0, d["nodes"][0]), "names are unique"),
        (without_tensor, "lacks the tensor"),
        (setting("Linear", kind="thing"), "has the kind 'thing'. Allowed are input, constant"),
        (setting("Linear", label=None), "has None as label; it must be of type str"),
        (setting("Linear", operation="Linea"), r"The layer '1' is of the type 'Linea', which torch .* do not have"),
        (setting("Linear", operation="Module"), "is of the type 'Module'"),
        (setting("Linear", operation="Sequential"), "is of the type 'Sequential'"),
        (setting("Linear", operation="some_plugin.layers.Thing"), r"Install the distribution that has the package 'some_plugin'"),
        (setting("Linear", options={"in_features": 64}), r"The layer '1' cannot be made with the options .*in_features"),
        (setting("Linear", options={"in_features": 5, "out_features": 4}), "size mismatch"),
        (setting("IFNode", options={"v_threshold": 1.0}), "The layer '2' cannot be made with the options"),
        (setting("Linear", sequences="0"), "has the sequences '0'; it must be a list of positions"),
        (setting("Linear", args=[{"node": "later"}]), "reads 'later', which is no node before it"),
        (setting("Linear", args=[{"code": "1+1"}]), "holds {'code': '1\\+1'}, which stands for no value"),
        (setting("Linear", args=[{"dtype": "load"}]), "stands for no value"),
        (setting("Linear", kwargs={"a b": 1}), "names are identifiers"),
        (setting("Linear", label="forward"), "has the label 'forward', which is no name for a layer"),
        (setting("Linear", label='x"), print("a'), "which is no name for a layer"),
        (setting("Linear", label="3"), "or is that of another one"),
        (setting("Linear", label="0.deeper"), "or is that of another one"),
        (setting("input", label="x=print()"), "An input is called 'x=print\\(\\)'"),
        (setting("output", args=[]), "The output has 0 arguments; it has one"),
        (setting("IFNode", kind="constant"), "The constant '2' has the tensors \\[\\]; it has one"),
        (setting("IFNode", kind="function", operation="torch.load"), "calls 'torch.load' with .* none of the functions"),
        (setting("IFNode", kind="function", operation="getattr"), "calls 'getattr'"),
        (setting("IFNode", kind="method", operation="__reduce__"), "calls '__reduce__', which is no method of torch.Tensor"),
    ],
)  # fmt: skip
def test_changed_archives_are_refused(change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"(?s)changed.zip cannot be read: .*{told}"):
        load_network(archive_with(tmp_path, change))


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none.zip cannot be read: No such file or directory"):
        load_network(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(FormatError, match="text.zip cannot be read: it is no archive of a network .*BadZipFile"):
        load_network(tmp_path / "text.zip")
    for drop in ("network.json", "tensors/0.npy"):
        with pytest.raises(FormatError, match=f"it is no archive of a network .*KeyError.*{drop}"):
            load_network(archive_with(tmp_path, lambda d: None, drop))
    with pytest.raises(FormatError, match="does not hold a network that sj-ann2snn wrote"):
        load_network(archive_with(tmp_path, lambda d: [1]))

    def as_objects(document: dict[str, Any]) -> None:
        next(iter(document["tensors"].values()))["dtype"] = "load"

    with pytest.raises(FormatError, match="'load' is no dtype"):
        load_network(archive_with(tmp_path, as_objects))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_files_of_torch_are_loaded_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"document": Evil(), "tensors": {}}, "evil.pt")
    with pytest.raises(FormatError, match=r"evil.pt cannot be read: torch.load refuses it \(UnpicklingError"):
        load_network("evil.pt")
    array = np.empty(1, dtype=object)
    array[0] = Evil()
    evil = io.BytesIO()
    np.save(evil, array, allow_pickle=True)
    export(small(), "good.zip")
    with zipfile.ZipFile("good.zip") as source, zipfile.ZipFile("evil.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, evil.getvalue() if name.endswith(".npy") else source.read(name))
    with pytest.raises(FormatError, match="evil.zip cannot be read: it is no archive of a network .*ValueError"):
        load_network("evil.zip")
    assert not Path("pwned").exists()
    torch.save({"weight": torch.ones(2)}, "weights.pt")
    with pytest.raises(FormatError, match="it is a file of torch, but not one that holds a network"):
        load_network("weights.pt")
    Path("text.pt").write_text("hello")
    with pytest.raises(FormatError, match=r"text.pt cannot be read: torch.load refuses it"):
        load_network("text.pt")
    with pytest.raises(FormatError, match="No such file"):
        load_network("none.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load("evil.pt", weights_only=True)


# Formats -------------------------------------------------------------------------------------------


def test_the_format_follows_from_the_suffix_or_the_name(tmp_path: Path) -> None:
    snn = small()
    export(snn, tmp_path / "a.PTH")
    assert isinstance(Torch().load(tmp_path / "a.PTH"), NetworkDescription)
    export(snn, str(tmp_path / "a.dat"), format="Archive")
    export(snn, tmp_path / "b.dat", format=Archive(compress=True))
    for file, format in (("a.dat", "archive"), ("b.dat", Archive())):
        assert len(list(load_network(tmp_path / file, format).graph.nodes)) == len(list(snn.graph.nodes))
    known = r"'archive' \(.zip\), 'torch' \(.pt, .pth\)"
    with pytest.raises(OptionError, match=rf"The suffix of 'a.dat' belongs to no format. Known formats: {known}"):
        load_network(tmp_path / "a.dat")
    with pytest.raises(OptionError, match=r"format='nir' is not known. Known formats: 'archive' \(sj-ann2snn"):
        export(snn, tmp_path / "a.zip", "nir")
    with pytest.raises(OptionError, match=rf"format=3 is not allowed: give the name of a format \({known}\)"):
        export(snn, tmp_path / "a.zip", 3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="Format 'archive' got the unknown option compres. Did you mean 'compress'"):
        export(snn, tmp_path / "a.zip", compres=True)
    with pytest.raises(OptionError, match="format='archive' is an instance and has its options; compress would have"):
        export(snn, tmp_path / "a.zip", Archive(), compress=True)


def offering(monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> None:
    """Has a distribution called `extra` offer classes."""
    registry = discovery.load_plugins().copy()
    offered = SimpleNamespace(**{hook: hookimpl(lambda found=found: found) for hook, found in hooks.items()})
    validation.register_plugin(registry, offered, Owner("extra", "1.0"))
    monkeypatch.setattr("sj_ann2snn.interchange.files.load_plugins", lambda: registry)


class Zipped(Archive):
    name = "zipped"


class Broken(Exporter):
    name = "broken"
    suffixes = (".broken",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        raise RuntimeError("no luck")

    def load(self, path: Path) -> Any:
        return "a network"


class OneWay(Exporter):
    name = "one-way"
    suffixes = (".one",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        raise ExportError("it has 3 neurons, and this chip has none")


def test_formats_of_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, ann2snn_exporters=[Zipped, Broken, OneWay])
    with pytest.raises(ConflictError, match=r"The suffix of 'a.zip' is claimed by 'zipped' of extra 1.0 and 'archive'"):
        export(small(), tmp_path / "a.zip")
    export(small(), tmp_path / "a.zip", "zipped")
    with pytest.raises(
        PluginError, match=r"Format 'broken', asked to write .*a.broken, failed with RuntimeError: no luck"
    ):
        export(small(), tmp_path / "a.broken")
    with pytest.raises(PluginError, match=r"Format 'broken' returned 'a network' from load\(\)"):
        load_network(tmp_path / "a.broken")
    with pytest.raises(
        FormatError, match="a.one cannot be read: the format 'one-way' can be written but not read back"
    ):
        load_network(tmp_path / "a.one")
    with pytest.raises(ExportError, match="a.one cannot be written: it has 3 neurons, and this chip has none"):
        export(small(), tmp_path / "a.one")


class Exported(Graded):
    """A neuron that says what makes it anew."""

    def export_options(self) -> dict[str, Any]:
        return {"levels": self.levels}


class ExportedMaker(GradedMaker):
    name = "exported"
    exports = (Exported,)

    def make(self, site: Any) -> nn.Module:
        return Exported(self.levels)


@pytest.mark.parametrize("format", FORMATS)
def test_neurons_that_plugins_declare_come_back(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    snn = convert(pooled(nn.MaxPool2d(2)), x, neuron=ExportedMaker(levels=2))
    with pytest.raises(ExportError, match=r"1 \(Exported\): it is of a type that a file cannot name"):
        export(snn, tmp_path / FORMATS[format])
    with monkeypatch.context() as patched:
        offering(patched, ann2snn_neurons=[ExportedMaker])
        loaded = round_trip(snn, tmp_path, format)
        assert torch.equal(run_by_hand(loaded, x, STEPS), run_by_hand(snn, x, STEPS))
        assert torch.equal(simulate(loaded, x, STEPS), simulate(snn, x, STEPS))
        monkeypatch.setattr(Exported, "export_options", lambda self: {"levels": object()})
        with pytest.raises(ExportError, match=r"1 \(Exported\): it holds .*, which cannot be written"):
            export(snn, tmp_path / FORMATS[format])
        monkeypatch.setattr(Exported, "export_options", lambda self: 1 / 0)
        with pytest.raises(PluginError, match=r"Exported.export_options\(\) failed with ZeroDivisionError"):
            export(snn, tmp_path / FORMATS[format])
    with pytest.raises(FormatError, match=r"Exported, which no plugin that is installed here declares in `exports`"):
        load_network(tmp_path / FORMATS[format])


def test_declarations_are_checked() -> None:
    class Undeclared(GradedMaker):
        name = "undeclared"
        exports = (Graded,)

    class NoSuffix(Archive):
        name = "no-suffix"
        suffixes = ("zip",)

    with pytest.raises(PluginError, match=r"Undeclared.exports must be a tuple of layers with a method export_options"):
        validation.checked("ann2snn_neurons", Undeclared)
    with pytest.raises(PluginError, match=r"NoSuffix.suffixes must be a tuple of suffixes as '.zip', it is \('zip',\)"):
        validation.checked("ann2snn_exporters", NoSuffix)


def test_a_description_by_hand_is_a_network() -> None:
    network = NetworkDescription(
        "Constant",
        (
            NodeDescription("x", "input", label="x"),
            NodeDescription("offset", "constant", label="inner.offset", tensors={"value": torch.ones(2)}),
            NodeDescription("added", "function", "operator.add", args=(NodeReference("x"), NodeReference("offset"))),
            NodeDescription("doubled", "method", "mul", args=(NodeReference("added"), 2.0)),
            NodeDescription("output", "output", args=((NodeReference("doubled"), [NodeReference("x")]),)),
        ),
    )
    doubled, (x,) = build(network, {})(torch.ones(3, 2))
    assert torch.equal(doubled, torch.full((3, 2), 4.0))
    assert torch.equal(x, torch.ones(3, 2))
