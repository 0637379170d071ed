"""What cannot be exported: one error lists all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    ExportError,
    export,
)
from sj_ann2snn.interchange import describe

from ..helpers.exports import FORMATS, changed, images, round_trip, small
from ..helpers.networks import Graded, convert, run_by_hand


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
    assert message.startswith("The network cannot be exported:\n  1 (Doubling): a file cannot name its type")
    assert "\n  2 (Graded): a file cannot name its type" in message
    assert "declare in `exports`" in message
    assert [where for where, _ in caught.value.problems] == ["1 (Doubling)", "2 (Graded)"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("replacement", "told"),
    [
        (Own(), r"1 \(Own\): a file cannot name its type"),
        (nn.Sequential(), r"1 \(Sequential\): a file cannot name its type"),
        (nn.LSTM(4, 4), r"1 \(LSTM\): the arguments of torch.nn.LSTM cannot be read off it"),
        (nn.TransformerEncoderLayer(4, 2), r"torch.nn.TransformerEncoderLayer does not keep its argument 'd_model'"),
        (changed(nn.Linear(64, 4), in_features=3), "cannot be rebuilt from its attributes"),
        (changed(nn.Conv2d(1, 1, 1), stride=object()), "it holds .* of type object"),
        (changed(nn.Conv2d(1, 1, 1), padding_mode="magic"), "torch.nn.Conv2d cannot be rebuilt"),
        (changed(nn.Hardtanh(), min_val=2.0), "torch.nn.Hardtanh cannot be rebuilt"),
    ],
)
def test_layers_that_cannot_be_told(replacement: nn.Module, told: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=told):
        export(with_layer(replacement), tmp_path / "network.zip")


def test_a_layer_with_a_hidden_buffer_is_refused(tmp_path: Path) -> None:
    hiding = nn.Linear(64, 4)
    hiding.register_buffer("mask", torch.ones(4), persistent=False)
    with pytest.raises(ExportError, match="it differs from a torch.nn.Linear with its arguments"):
        export(with_layer(hiding), tmp_path / "network.zip")


def test_functions_that_cannot_be_told(tmp_path: Path) -> None:
    snn = small()
    (output,) = [node for node in snn.graph.nodes if node.op == "output"]
    for function, arguments, told in (
        (
            describe,
            (),
            r"it calls sj_ann2snn.interchange.describing.describe, but a file can only name functions of torch",
        ),
        (getattr, ("grad_fn",), "it reads the attribute 'grad_fn'; allowed are H, T, "),
    ):
        with snn.graph.inserting_before(output):
            node = snn.graph.call_function(function, (output.args[0], *arguments))
        with pytest.raises(ExportError, match=told):
            export(snn, tmp_path / "network.zip")
        snn.graph.erase_node(node)
    with snn.graph.inserting_before(output):
        snn.graph.call_method("__reduce__", (output.args[0],))
    with pytest.raises(ExportError, match="'__reduce__' is not a method of torch.Tensor"):
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
    with pytest.raises(ExportError, match="its name cannot be written into code; rename the layer"):
        export(snn, tmp_path / "network.zip")
    snn = small()
    snn.thing = "text"
    with snn.graph.inserting_before():
        snn.graph.create_node("get_attr", "thing")
    with pytest.raises(ExportError, match="thing: it is 'text', but constants must be tensors"):
        export(snn, tmp_path / "network.zip")
    snn = small()
    next(node for node in snn.graph.nodes if node.op == "placeholder").target = "*args"
    with pytest.raises(ExportError, match=r"a network with a variable number of inputs \(\*args\) cannot be exported"):
        export(snn, tmp_path / "network.zip")


def test_only_converted_networks_can_be_exported(tmp_path: Path) -> None:
    x = images()
    with pytest.raises(
        ExportError,
        match=r"Only a converted network .* can be exported, not Sequential; give what Converter\(...\)\(ann\)",
    ):
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
