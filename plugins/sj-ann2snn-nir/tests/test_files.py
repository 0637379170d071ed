"""What is in a file, what is refused, and what is read back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_nir import READERS, Nir, ReaderWarning
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    ExportError,
    FormatError,
    InitialPotential,
    OptionError,
    StepBias,
    export,
    load_network,
    simulate,
)

from .networks import NETWORKS, exact


def graph(snn: nn.Module, path: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReaderWarning)
        export(snn, path, Nir(**options))
    return nir.read(str(path))


def converted(ann: nn.Module, shape: tuple[int, ...] = (3, 8, 8), **options: Any) -> tuple[nn.Module, Tensor]:
    x = torch.rand(20, *shape)
    return Converter([x], progress=False, **options)(ann), x


def kinds(found: Any) -> dict[str, str]:
    return {name: type(node).__name__ for name, node in found.nodes.items()}


@pytest.mark.parametrize("target", [None, *(name for name, reader in READERS.items() if not reader.refuses)])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_is_read_back_equal(name: str, target: str | None, tmp_path: Path) -> None:
    if name == "residual" and target is not None and not READERS[target].branches:
        pytest.skip(f"{target} reads chains of layers")
    snn, x = exact(name)
    found = graph(snn, tmp_path / "net.nir", target=target, input_shape=x.shape[1:])
    assert found.check_types()
    loaded = load_network(tmp_path / "net.nir", Nir())
    assert torch.equal(simulate(loaded, x, T=9), simulate(snn, x, T=9))
    assert loaded.code == snn.code


def test_nodes_of_a_chain(tmp_path: Path) -> None:
    snn, _ = exact("chain")
    found = graph(snn, tmp_path / "net.nir", input_shape=(3, 8, 8))
    assert list(nir.NIRGraph.from_dict(found.to_dict()).nodes) == list(found.nodes)
    assert kinds(found) == {
        "input": "Input", "layer_0": "Conv2d", "layer_1": "IF", "layer_2": "SumPool2d", "layer_3": "Conv2d",
        "layer_4": "IF", "layer_5": "Conv2d", "layer_6": "IF", "layer_7": "Flatten", "layer_8": "Affine",
        "layer_9": "IF", "layer_10": "Affine", "output": "Output",
    }  # fmt: skip
    assert found.nodes["layer_10"].metadata["label"] == "10"
    neuron = found.nodes["layer_1"]
    assert neuron.r.shape == (8, 8, 8)
    for values, wanted in ((neuron.r, 1), (neuron.v_threshold, 1), (neuron.v_reset, 0)):
        assert (values == wanted).all()
    assert neuron.metadata["reset"] == "subtract"
    assert found.metadata["sj_ann2snn"]["reset"].startswith("subtract")
    grouped, weight = found.nodes["layer_3"], snn.get_submodule("3").weight.detach().numpy()
    assert (grouped.groups, grouped.weight.shape) == (1, (8, 8, 3, 3))
    assert np.array_equal(grouped.weight[:4, :4], weight[:4] / 4)  # of the sums of four
    assert not grouped.weight[:4, 4:].any()
    flat = found.nodes["layer_5"]
    assert flat.weight.shape == (12, 8, 3, 3)
    assert (flat.padding == 1).all()
    assert not flat.weight[:, :, [0, 2]].any()


def test_the_nodes_hold_weights_once(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    graph(snn, tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir") as file:
        assert set(file["node/metadata/sj_ann2snn"]) >= {"document", "dt", "reset", "target"}
        beside = file["node/metadata/sj_ann2snn"].get("tensors", {})
        sizes = sorted(one.size for one in beside.values())
    assert sizes == [1, 1]  # of the notes: the value of a spike, for each layer


def test_nodes_of_a_residual_network(tmp_path: Path) -> None:
    snn, _ = exact("residual")
    found = graph(snn, tmp_path / "net.nir", input_shape=(3, 8, 8))
    (total,) = [name for name in found.nodes if kinds(found)[name] == "IF" and len(sources(found, name)) == 2]
    branches = {kinds(found)[source] for source in sources(found, total)}
    assert branches == {"Conv2d"}  # the convolution, and the scale of the shortcut
    scale = next(found.nodes[name] for name in sources(found, total) if found.nodes[name].weight.shape[-1] == 1)
    assert np.count_nonzero(scale.weight) == 8


def sources(found: Any, name: str) -> list[str]:
    return [source for source, target in found.edges if target == name]


def test_what_readers_need(tmp_path: Path) -> None:
    snn, _ = exact("chain")
    jelly = graph(snn, tmp_path / "net.nir", target="spikingjelly", input_shape="3x8x8")
    assert kinds(jelly)["layer_2"] == "AvgPool2d"
    assert np.allclose(jelly.nodes["layer_1"].r, 1e4)
    torchlike = graph(snn, tmp_path / "net.nir", target="snntorch", input_shape=(3, 8, 8))
    assert "Flatten" not in kinds(torchlike).values()
    assert torchlike.nodes["layer_8"].weight.shape == (20, 12, 2, 2)
    assert torchlike.nodes["layer_9"].r.shape == (20, 1, 1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(2, divisor_override=8),
        nn.AvgPool2d((2, 4), stride=2),
        nn.AdaptiveAvgPool2d((4, 2)),
        nn.Conv2d(4, 4, 3, dilation=2, padding="same"),
    ],
    ids=str,
)
def test_windows(layer: nn.Module, tmp_path: Path) -> None:
    """The nodes give what the layer gives, by NIR's definitions."""
    snn, _ = converted(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), layer, nn.Conv2d(4, 2, 1)))
    found = graph(snn, tmp_path / "net.nir", input_shape=(3, 8, 8))
    spikes = (torch.rand(5, 4, 8, 8) < 0.5).float()
    wanted = snn.get_submodule("3")(snn.get_submodule("2")(spikes))
    values = spikes.double()
    name = next(target for source, target in found.edges if source == "layer_1")
    while name != "output":
        node = found.nodes[name]
        if hasattr(node, "weight"):
            weight, bias = (torch.from_numpy(one).double() for one in (node.weight, node.bias))
            values = F.conv2d(values, weight, bias, tuple(node.stride), tuple(node.padding), tuple(node.dilation))
        else:
            area = int(np.prod(node.kernel_size))
            pooled = F.avg_pool2d(values, tuple(node.kernel_size), tuple(node.stride), tuple(node.padding))
            values = pooled * area
        name = next(target for source, target in found.edges if source == name)
    assert torch.allclose(values.float(), wanted, atol=1e-6)


def test_everything_without_a_node_is_named_before_anything_is_written(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3, padding_mode="circular", padding=1), nn.MaxPool2d(2)
            self.odd = nn.Conv2d(4, 4, (2, 3))
            self.offset = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(torch.relu(self.conv(x)))
            return torch.relu(self.odd(x) + 1).flatten(1)

    snn, _ = converted(Mixed())
    path = tmp_path / "net.nir"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError) as told:
        export(snn, path, Nir(input_shape=(3, 8, 8)))
    message = str(told.value)
    assert "conv: NIR pads with zeros, and this convolution with padding_mode='circular'" in message
    assert "pool: NIR has no max pool. Convert with maxpool='avg'" in message
    assert r"odd: NIR 1.0.8 computes the size of the output of square kernels only" in message
    assert [where for where, _ in told.value.problems][:3] == ["conv", "pool", "odd"]
    assert path.read_bytes() == b"an older file"


@pytest.mark.parametrize(
    ("ann", "options", "told"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.ReLU()), {}, r"0: NIR 1\.0\.8 computes the size .* square kernels"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            {"input_shape": "1x8x8"},
            r"0: it reads 3 channels, .*\(1, 8, 8\)",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            {"input_shape": "3x2x8"},
            r"0: its window of \(3, 3\) does not fit",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), {"input_shape": None}, r"input_shape=\(3, 32, 32\)"),
        (nn.Sequential(nn.Linear(8, 4), nn.ReLU()), {}, r"0: NIR's Affine takes vectors"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(4, ceil_mode=True)), {}, "2: with ceil_mode"),
    ],
)
def test_refusals(ann: nn.Module, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    snn, _ = converted(ann)
    with pytest.raises(ExportError, match=told):
        export(snn, tmp_path / "net.nir", Nir(**{"input_shape": (3, 8, 8), **options}))
    assert not list(tmp_path.iterdir())


def test_initial_potentials_need_a_reader_that_can_be_given_them(tmp_path: Path) -> None:
    snn, _ = exact("vectors", initial_potential=0.5)
    with pytest.raises(ExportError, match=r"1: NIR has no initial potential[^\n]*\n  3: NIR has no initial potential"):
        export(snn, tmp_path / "net.nir", Nir())
    found = graph(snn, tmp_path / "net.nir", target="sinabs")
    assert float(found.nodes["layer_1"].metadata["initial_potential"]) == 0.5


def test_a_potential_in_front_of_a_layer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    snn.add_submodule("start", InitialPotential(torch.tensor(0.5)))
    (layer,) = (node for node in snn.graph.nodes if node.target == "2")
    with snn.graph.inserting_before(layer):
        layer.args = (snn.graph.call_module("start", layer.args),)
    snn.recompile()
    with pytest.raises(ExportError, match=r"2: NIR has no initial potential, and no neuron follows.*in front of a neu"):
        export(snn, tmp_path / "net.nir", Nir(target="sinabs"))


def test_biases_per_step_are_refused_with_what_to_do(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    snn.add_submodule("steps", StepBias(torch.tensor([0.5])))
    (layer,) = (node for node in snn.graph.nodes if node.target == "1")
    with snn.graph.inserting_before(layer):
        layer.args = (snn.graph.call_module("steps", layer.args),)
    snn.recompile()
    with pytest.raises(ExportError, match="steps: NIR has no node that adds another bias at every step"):
        export(snn, tmp_path / "net.nir", Nir(target="sinabs"))
    assert not list(tmp_path.iterdir())


def test_a_chain_reader_is_not_given_branches(tmp_path: Path) -> None:
    snn, _ = exact("residual")
    with pytest.raises(ExportError, match=r"add: spyx 1\.0\.0 reads a chain of layers only"):
        export(snn, tmp_path / "net.nir", Nir(target="spyx", input_shape=(3, 8, 8)))


def test_warnings_say_what_a_reader_makes_of_a_file(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    with pytest.warns(ReaderWarning, match=r"spikingjelly 2\.0\.0 reads net\.nir differently: it resets to v_reset"):
        export(snn, tmp_path / "net.nir", Nir(target="spikingjelly"))
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Conv2d(4, 4, 1), nn.ReLU())
    with pytest.warns(ReaderWarning, match="2: the next weights are divided by 9, which is no power of two"):
        export(converted(ann)[0], tmp_path / "net.nir", Nir(input_shape=(3, 8, 8)))


def test_parts_and_constants_are_refused(tmp_path: Path) -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.offset = nn.Linear(4, 6), nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return (torch.relu(self.a(x)) + self.offset)[:, :2]

    snn, _ = converted(Part(), (4,))
    with pytest.raises(ExportError, match=r"add: it reads a constant tensor, which has no node"):
        export(snn, tmp_path / "net.nir", Nir())

    class Sliced(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x)[:, :2]
            return out

    snn, _ = converted(Sliced(nn.Linear(4, 6), nn.ReLU()), (4,))
    with pytest.raises(ExportError, match=r"getitem: it takes a part of a tensor"):
        export(snn, tmp_path / "net.nir", Nir())
    assert not list(tmp_path.iterdir())


def test_warnings_as_errors_write_nothing(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    # pytest.ini makes them errors.
    with pytest.raises(ReaderWarning, match=r"spikingjelly 2\.0\.0 reads net\.nir"):
        export(snn, tmp_path / "net.nir", Nir(target="spikingjelly"))
    assert not list(tmp_path.iterdir())


def test_sums_that_are_outputs_or_of_one_value(tmp_path: Path) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(x))
            x = torch.relu(x + x - self.b(x))
            return -x + self.b(x)

    snn, _ = converted(Sums(), (4,))
    found = graph(snn, tmp_path / "net.nir", target="sinabs")
    assert len(sources(found, "output")) == 1
    assert len(set(found.edges)) == len(found.edges)


def test_options(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"target='sinab' is not known. Allowed are 'sinabs', 'spikingjelly'"):
        Nir(target="sinab")
    for wrong in ("3x", (3, -1), "", object(), ("a",)):
        with pytest.raises(OptionError, match=r"input_shape=.* is not allowed"):
            Nir(input_shape=wrong)  # type: ignore[arg-type]
    assert Nir(input_shape=6).input_shape == (6,)


def test_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "foreign.nir"
    nir.write(str(path), nir.NIRGraph.from_list(nir.Affine(np.ones((2, 3)), np.ones(2))))
    with pytest.raises(FormatError, match="it is a NIR file, but sj-ann2snn did not write it"):
        load_network(path, Nir())
    path.write_bytes(b"no HDF5")
    with pytest.raises(FormatError, match="it is not a NIR file"):
        load_network(path, Nir())


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    snn, _ = exact("vectors")
    path = tmp_path / "net.nir"
    graph(snn, path)
    with h5py.File(path, "r+") as file:
        weights = file["node/nodes/layer_0/weight"]
        weights[0, 0] += 1
    with pytest.raises(FormatError, match="changed"):
        load_network(path, Nir())
