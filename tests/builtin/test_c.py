"""The C file of an integer network: it compiles without a warning, and its spikes are those of the reference."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import ExportError, FormatError, OptionError, export, integer_network, load_network, saturated

from ..helpers.cnn import cnn, images
from ..helpers.networks import Written, convert
from ..integers.test_reference import NETWORKS

COMPILER = next((found for name in ("gcc", "clang", "cc") if (found := shutil.which(name))), None)
SHARED = os.environ.get("SJ_ANN2SNN_SHARED")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (gcc, clang, cc) is installed")


def run_in_c(path: Path, network: Any, inputs: tuple[Tensor, ...], steps: int, name: str = "network") -> Any:
    """The spikes of every layer ``[T, N, ...]`` and the outputs, as the compiled file computes them."""
    program = path.with_suffix("")
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", f"-D{name.upper()}_MAIN"]
    done = subprocess.run(
        [str(COMPILER), *strict, str(path), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    samples = len(inputs[0])
    given = b"".join(x[sample].float().numpy().tobytes() for sample in range(samples) for x in inputs)
    found = subprocess.run([str(program), str(steps)], input=given, capture_output=True, check=True).stdout
    neurons = [one for one in network.operations if one.kind == "neuron"]
    results = [one for one in network.operations if one.kind == "result"]
    spikes = {one.name: np.empty((steps, samples, *one.shape), np.uint8) for one in neurons}
    outputs = [np.empty((steps, samples, *one.shape), np.int32) for one in results]
    at = 0
    for sample in range(samples):
        for step in range(steps):
            for one in neurons:
                spikes[one.name][step, sample] = np.frombuffer(found, np.uint8, one.size, at).reshape(one.shape)
                at += one.size
            for one, into in zip(results, outputs, strict=True):
                into[step, sample] = np.frombuffer(found, np.int32, one.size, at).reshape(one.shape)
                at += 4 * one.size
    assert at == len(found)
    return spikes, outputs


def assert_c_agrees(snn: nn.Module, inputs: tuple[Tensor, ...], steps: int, folder: Path) -> None:
    export(snn, folder / "network.c")
    network = integer_network(snn)
    run = network.run(*inputs, T=steps)
    spikes, outputs = run_in_c(folder / "network.c", network, inputs, steps)
    assert list(spikes) == list(run.spikes)
    assert all(np.array_equal(spikes[name], run.spikes[name]) for name in spikes)
    assert all(np.array_equal(*pair) for pair in zip(outputs, run.outputs, strict=True))
    assert any(one.any() for one in spikes.values())


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_c_computes_the_spikes_of_the_reference(name: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    x = torch.randn(20, *shape)
    snn = convert(make().eval(), x, mode="99.9%", channel_wise=True, initial_potential=0.5, weights="int8")
    assert_c_agrees(snn, (x[:3],), 7, tmp_path)


class Branches(nn.Module):
    """Two inputs and outputs, a join, a part, a pad, a shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.pad, self.shuffle = nn.ZeroPad2d((1, 0, 0, 2)), nn.ChannelShuffle(2)
        self.mixed, self.head = nn.Conv2d(8, 6, 3, groups=2), nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = torch.relu(self.one(x)), torch.relu(self.other(y))
        joined = self.shuffle(self.pad(torch.cat([x, y], 1)))
        hidden = torch.relu(self.mixed(joined))[:, 1:5]
        return hidden, self.head(hidden.mean((2, 3)))


@needs_compiler
@pytest.mark.parametrize("weights", ["int4", "int8", "int16"])
def test_c_of_branches(weights: str, tmp_path: Path) -> None:
    x, y = torch.randn(30, 1, 6, 6), torch.rand(30, 2, 6, 6)
    snn = convert(Branches().eval(), [(x, y)], weights=weights, channel_wise=True)
    assert_c_agrees(snn, (x[:3], y[:3]), 9, tmp_path)


@needs_compiler
def test_sums_of_currents_over_time_exceed_32_bits(tmp_path: Path) -> None:
    ann = nn.Sequential(nn.Conv2d(1, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1), nn.MaxPool2d(2)).eval()
    with torch.no_grad():
        for number, weight, bias in ((0, 0.01, 1.0), (2, 1.0, 0.0)):
            ann[number].weight.fill_(weight)  # type: ignore[union-attr, operator]
            ann[number].bias.fill_(bias)  # type: ignore[union-attr, operator]
    x = torch.rand(4, 1, 2, 2)
    snn, steps = convert(ann, x, weights="int16"), 1100
    run = integer_network(snn).run(x[:1], T=steps)
    assert run.outputs[0].sum() > 1 << 31
    assert_c_agrees(snn, (x[:1],), steps, tmp_path)


@needs_compiler
def test_c_saturates_as_the_network_does(tmp_path: Path) -> None:
    snn = convert(cnn().eval(), images(), weights="int8", channel_wise=True)
    narrow = saturated(snn, 16)
    assert_c_agrees(narrow, (images(3),), 40, tmp_path)
    wide, less = integer_network(snn).run(images(3), T=40), integer_network(narrow).run(images(3), T=40)
    assert any((wide.spikes[name] != less.spikes[name]).any() for name in wide.spikes)


@needs_compiler
def test_inputs_are_rounded_as_torch_rounds_them(tmp_path: Path) -> None:
    snn = convert(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), torch.randn(50, 8), weights="int8")
    network = integer_network(snn)
    halves = (torch.arange(-20, 20).float() + 0.5).reshape(5, 8) * network.operations[0].scale  # type: ignore[attr-defined]
    extremes = torch.tensor([[1e30, -1e30, float("inf"), -float("inf"), 0.0, -0.0, 1e-30, -1e-30]])
    assert_c_agrees(snn, (torch.cat([halves, extremes]),), 5, tmp_path)


@needs_compiler
def test_names_and_prefixes_are_safe_in_c(tmp_path: Path) -> None:
    ann = nn.Sequential()
    for name, layer in (('a*/ "\\', nn.Linear(6, 4)), ("int", nn.ReLU()), ("??/", nn.Linear(4, 2))):
        ann.add_module(name, layer)
    x = torch.rand(30, 6)
    snn = convert(ann.eval(), x, weights="int8")
    export(snn, tmp_path / "network.c", format="c", prefix="my_net")
    network = integer_network(snn)
    spikes, _ = run_in_c(tmp_path / "network.c", network, (x[:2],), 4, name="my_net")
    assert all(np.array_equal(spikes[key], value) for key, value in network.run(x[:2], T=4).spikes.items())


@pytest.mark.parametrize("prefix", ["", "1st", "a-b", 'x"', 3])
def test_prefixes_that_are_no_identifiers_are_refused(prefix: Any, tmp_path: Path) -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    with pytest.raises(OptionError, match=r"prefix=.* is not allowed: it must be letters"):
        export(snn, tmp_path / "network.c", format="c", prefix=prefix)


def test_the_file_says_how_large_it_is(tmp_path: Path) -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    export(snn, tmp_path / "network.c")
    text = (tmp_path / "network.c").read_text(encoding="ascii")
    network = integer_network(snn)
    assert f"{network.additions:,} additions of a weight in a step" in text
    assert "bytes of weights" in text
    assert network.additions == 8 * 6 * 100 + 5 * 8  # 3x3 windows over 4x4, without what lies outside; then 8 to 5


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "floating point": (
        cnn,
        {},
        r"(?s)input: this input is not rounded.*0: its weight has values that are not integers.*2: the neuron IFNode",
    ),
    "both signs": (
        lambda: Written(
            lambda net, x: net.last(torch.abs(net.first(x)).flatten(1)), first=nn.Conv2d(1, 2, 3), last=nn.Linear(72, 2)
        ),
        {},
        r"(?s)abs: the neuron IFNode.*abs_negative: the neuron IFNode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_integer_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    make, options, message = REFUSED[name]
    path = tmp_path / "network.c"
    path.write_text("what was there", encoding="utf-8")
    with pytest.raises(ExportError, match=message) as caught:
        export(convert(make().eval(), images(), **options), path)
    assert str(path) in str(caught.value)
    assert caught.value.problems
    assert path.read_text(encoding="utf-8") == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_stateful_part_is_refused_by_name(tmp_path: Path) -> None:
    from sj_ann2snn import MomentumMaxPool

    snn = convert(cnn().eval(), images(), weights="int8")
    snn.set_submodule("3", MomentumMaxPool(2, 2))
    with pytest.raises(ExportError, match=r"3: the layer MomentumMaxPool keeps a state that is not of integers"):
        export(snn, tmp_path / "network.c")
    assert not list(tmp_path.iterdir())


def test_c_cannot_be_read_back(tmp_path: Path) -> None:
    export(convert(cnn().eval(), images(), weights="int8"), tmp_path / "network.c")
    with pytest.raises(FormatError, match=r"'c' can be written but not read back"):
        load_network(tmp_path / "network.c")


@needs_compiler
@pytest.mark.skipif(not SHARED, reason="SJ_ANN2SNN_SHARED names no folder with the reference networks")
@pytest.mark.parametrize(
    ("name", "shape"), [("mnist_cnn", (1, 28, 28)), ("resnet20", (3, 32, 32)), ("vgg_max", (3, 32, 32))]
)
def test_c_of_the_trained_reference_networks(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    from reference_networks import reference_network  # lies in benchmarks/, which an sdist leaves out

    x = torch.rand(25, *shape)
    snn = convert(reference_network(Path(SHARED or ""), name), x, mode="99.9%", channel_wise=True, weights="int8")
    assert_c_agrees(snn, (x[:2],), 5, tmp_path)
