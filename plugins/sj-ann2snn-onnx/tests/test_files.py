"""What is in a file, and what is refused before anything is written."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sj_ann2snn_onnx
import torch
from sj_ann2snn_onnx import Onnx, first_states, notes_of, run
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    ExportError,
    FormatError,
    InPlaceNeuron,
    MemoryLayer,
    NeuronMaker,
    OptionError,
    check_export,
    export,
    hookimpl,
    load_network,
)

from .networks import converted


def plain(ann: nn.Module, shape: tuple[int, ...] = (3, 8, 8), **options: Any) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(20, *shape)
    return Converter([x], progress=False, **options)(ann), x


def kinds(model: Any) -> list[str]:
    return [one.op_type for one in model.graph.node]


def test_the_graph_of_a_step(tmp_path: Path) -> None:
    snn, _ = converted("vectors", initial_potential=0.25)
    export(snn, tmp_path / "net.onnx", "onnx", plugins=[sj_ann2snn_onnx])
    model = onnx.load(tmp_path / "net.onnx")
    graph = model.graph
    assert [one.name for one in graph.input] == ["input", "1.v", "3.v"]
    assert [one.name for one in graph.output] == ["output", "1.v.next", "3.v.next"]
    assert all(one.type.tensor_type.shape.dim[0].dim_param == "N" for one in (*graph.input, *graph.output))
    neuron = ["Add", "GreaterOrEqual", "Cast", "Mul", "Sub", "Identity"]
    assert kinds(model) == ["Gemm", *neuron, "Gemm", *neuron, "Gemm", "Identity"]
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 17)
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    assert np.array_equal(weights["0.weight"], snn.get_submodule("0").weight.detach().numpy())
    notes = notes_of(tmp_path / "net.onnx")
    assert notes["states"][0] == {
        "input": "1.v", "output": "1.v.next", "shape": [1, 16], "dtype": "float32", "initial": 0.25,
    }  # fmt: skip
    assert notes["spikes"] == {"1": "1", "3": "3"}
    assert notes["numbers"] == "float32"
    assert notes["units"].keys() == {"1", "3"}
    assert notes["units"]["1"] > 0
    assert "initial_potential=0.25" in notes["conversion"]


def test_the_layers_spikes_on_request(tmp_path: Path) -> None:
    snn, _ = converted("vectors")
    export(snn, tmp_path / "net.onnx", plugins=[sj_ann2snn_onnx], spikes=True)
    outputs = [one.name for one in onnx.load(tmp_path / "net.onnx").graph.output]
    assert outputs == ["output", "1.v.next", "3.v.next", "1", "3"]


def test_the_graph_of_integers(tmp_path: Path) -> None:
    snn, _ = converted("pools", weights="int8")
    export(snn, tmp_path / "net.onnx", "onnx", plugins=[sj_ann2snn_onnx])
    model = onnx.load(tmp_path / "net.onnx")
    found = kinds(model)
    assert found.count("ConvInteger") == 3
    assert "Conv" not in found
    types = {one.name: onnx.numpy_helper.to_array(one).dtype for one in model.graph.initializer}
    # Images take all of a byte, so the first weights are unsigned, for sums in 16 bits; spikes leave room.
    assert types["0.weight"] == np.uint8
    assert types["3.weight"] == types["6.weight"] == np.int8
    states = notes_of(tmp_path / "net.onnx")["states"]
    assert {one["dtype"] for one in states} == {"int32"}
    assert states[0]["input"] == "1.v"


def test_named_outputs(tmp_path: Path) -> None:
    snn, _ = converted("two of each")
    exporter = Onnx(input_shape={"image": "3x8x8", "vector": 6})
    export(snn, tmp_path / "net.onnx", exporter)
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [one.name for one in graph.input][:2] == ["image", "vector"]
    assert [one.name for one in graph.output][:3] == ["logits", "maps_0", "maps_1"]
    integers, _ = converted("two of each", weights="int8")
    export(integers, tmp_path / "integers.onnx", Onnx())
    assert notes_of(tmp_path / "integers.onnx")["outputs"] == ["logits", "maps_0", "maps_1"]


class CountingNeuron(InPlaceNeuron):
    """It remembers the number of steps, like that of sj-ann2snn-differential."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("steps", 0)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.steps += 1
        self.v += x
        torch.ge(self.v, self.steps, out=out)

    def export_options(self) -> dict[str, Any]:
        return {}


class BranchingNeuron(InPlaceNeuron):
    """Its code looks at values."""

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        torch.ge(self.v, 1 if float(self.v.max()) > 2 else 2, out=out)

    def export_options(self) -> dict[str, Any]:
        return {}


class SortingNeuron(InPlaceNeuron):
    """It computes what has no form here."""

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        torch.ge(self.v.sort(1).values, 1, out=out)

    def export_options(self) -> dict[str, Any]:
        return {}


class SmoothedLayer(MemoryLayer):
    """Memory that is not a neuron's, as in analog layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("mean", 0.0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x
        return self.mean

    def export_options(self) -> dict[str, Any]:
        return {}


def with_layer(module: type[nn.Module]) -> tuple[Any, Any]:
    """A converted network in which a plugin's layer has taken the place of its neurons, and the plugin."""

    class Maker(NeuronMaker):
        name = "made-here"
        exports = (module,)

        def make(self, site: Any) -> Any:
            raise NotImplementedError

    class Plugin:
        @staticmethod
        @hookimpl
        def ann2snn_neurons() -> list[type[NeuronMaker]]:
            return [Maker]

    snn, _ = plain(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU()), (4,))
    for name in ("1", "3"):
        setattr(snn, name, module())
    return snn, Plugin


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (
            CountingNeuron,
            r"the neuron \S*CountingNeuron remembers steps = 0, and a state in ONNX is a tensor",
        ),
        (BranchingNeuron, r"torch\.export cannot trace a step of the neuron \S*BranchingNeuron \("),
        (
            SortingNeuron,
            r"a step of the neuron \S*SortingNeuron computes \S+, which has no form in ONNX here",
        ),
        (SmoothedLayer, r"\S*SmoothedLayer is a layer of a plugin, which has no form in ONNX\. Convert without"),
    ],
)
def test_layers_of_plugins_without_a_form_are_named(module: type[nn.Module], told: str, tmp_path: Path) -> None:
    snn, plugin = with_layer(module)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError, match=told) as raised:
        export(snn, path, Onnx(), plugins=[plugin])
    assert [where for where, _ in raised.value.problems] == ["1", "3"]
    assert path.read_bytes() == b"an older file"


def test_everything_without_a_form_is_named_before_anything_is_written(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Linear(8, 3)
            self.up = nn.Upsample(size=(8, 8), mode="bicubic")

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            return self.fc(self.up(x)) + self.fc(nn.functional.pad(self.pool(x), (2, 2, 2, 2)))

    snn, _ = plain(Mixed())
    path = tmp_path / "net.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError) as told:
        export(snn, path, Onnx(input_shape=(3, 8, 8)))
    message = str(told.value)
    assert f"{path} cannot be written: ONNX cannot hold the network:" in message
    assert "\n  up: Upsample with mode='bicubic' has no form in ONNX here; nearest and bilinear have" in message
    assert "\n  pool: AdaptiveAvgPool2d from [6, 6] to [4, 4] has windows of several sizes. Choose sizes" in message
    assert [where for where, _ in told.value.problems] == ["up", "pool"]
    assert path.read_bytes() == b"an older file"


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (None, r"the states have sizes, which follow .* a sample of input: give input_shape=\(3, 32, 32\)"),
        ((1, 8, 8), r"cannot be run on samples of the shape \[1, 8, 8\] .*Is input_shape that of a sample"),
        ({"image": (3, 8, 8)}, "input_shape names 'image', and the network's inputs are input"),
    ],
)
def test_shapes(shape: Any, told: str, tmp_path: Path) -> None:
    snn, _ = plain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(ExportError, match=told):
        export(snn, tmp_path / "net.onnx", Onnx(input_shape=shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    snn, _ = plain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,))
    with pytest.raises(ExportError, match=f"the network computes in {dtype}, .*snn.float"):
        export(snn.to(dtype), tmp_path / "net.onnx", Onnx())


def test_an_interrupted_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snn, _ = plain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,))
    path = tmp_path / "net.onnx"
    path.write_bytes(b"an older file")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        patched.setattr("os.replace", full)
        with pytest.raises(ExportError, match="No space left"):
            export(snn, path, Onnx())
    assert path.read_bytes() == b"an older file"
    assert [one.name for one in tmp_path.iterdir()] == ["net.onnx"]
    export(snn, path, Onnx())
    assert notes_of(path)["outputs"] == ["output"]


def test_options() -> None:
    for wrong in ("3x", (3, -1), "", object(), ("a",), {"x": "3x"}):
        with pytest.raises(OptionError, match=r"input_shape=.* is not allowed"):
            Onnx(input_shape=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="spikes=1"):
        Onnx(spikes=1)  # type: ignore[arg-type]
    assert Onnx(input_shape={"x": "3x8"}).input_shape == {"x": (3, 8)}


def test_files_of_others_are_told(tmp_path: Path) -> None:
    snn, x = plain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,))
    path = tmp_path / "net.onnx"
    export(snn, path, Onnx())
    with pytest.raises(FormatError, match="can be written but not read back"):
        load_network(path, Onnx())
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    for ask in (notes_of, lambda path: first_states(path, 2)):
        with pytest.raises(FormatError, match="an ONNX file, but not one that sj-ann2snn wrote"):
            ask(path)
    path.write_bytes(b"\xff\xffno ONNX")
    with pytest.raises(FormatError, match="is not an ONNX file"):
        notes_of(path)
    with pytest.raises(ExportError, match="is not an ONNX file"):
        check_export(snn, path, x, 3, Onnx())


def test_a_file_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    snn, x = plain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,))
    path = tmp_path / "net.onnx"
    export(snn, path, Onnx())
    with pytest.raises(ExportError, match=r"ONNX Runtime .* cannot run .*net\.onnx \("):
        run(path, [x[:, :2]], 3)
    notes = notes_of(path)
    assert json.dumps(notes)


def test_a_missing_runtime_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snn, x = plain(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,))
    export(snn, tmp_path / "net.onnx", Onnx())
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match=r"the package onnxruntime is missing .*pip install onnxruntime"):
        check_export(snn, tmp_path / "net.onnx", x, 3, Onnx())
