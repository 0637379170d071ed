"""What files hold about the conversion: checked like everything else in them, and unknown to older versions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import FormatError, NetworkDescription, QuietLayerWarning, evaluate, load_network, simulate
from sj_ann2snn.builtin.exporters import Archive
from sj_ann2snn.contracts.checksums import add_checksums
from sj_ann2snn.interchange import build, describe

from ..helpers.exports import FORMATS, images, pooled, round_trip, small
from ..helpers.networks import convert


def written() -> tuple[dict[str, Any], dict[str, Tensor]]:
    snn = convert(pooled(nn.MaxPool2d(2), nn.ReLU6()), images(), channel_wise=True, maxpool="momentum")
    document, tensors = describe(snn, {}).as_document()
    return json.loads(json.dumps(document)), dict(tensors)


def read(document: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    del document["checksums"]
    add_checksums(document, tensors)
    return build(NetworkDescription.from_document(document, tensors), {})


def test_the_document_names_units_bounds_and_channels() -> None:
    document, tensors = written()
    notes = document["conversion"]
    assert notes["sites"]["1"] == {"name": "1", "unit": "1:unit", "maximum": "1:maximum", "axis": 0}
    assert tensors["1:unit"].shape == (4, 1, 1)
    assert notes["sites"]["5"]["maximum"] is None
    assert notes["approximate"] == {"2": "MaxPool2d"}
    assert notes["call"] == {"mode": "max", "neuron": "if", "channel_wise": True, "maxpool": "momentum"}
    assert read(document, tensors).meta["ann2snn_conversion"]["sites"]["1"]["axis"] == 0


def changed(**entries: Any) -> Callable[[dict[str, Any], dict[str, Tensor]], Any]:
    return lambda notes, tensors: notes.update(entries)


def site(**entries: Any) -> Callable[[dict[str, Any], dict[str, Tensor]], Any]:
    return lambda notes, tensors: notes["sites"]["1"].update(entries)


def tensor(name: str, value: Tensor) -> Callable[[dict[str, Any], dict[str, Tensor]], Any]:
    return lambda notes, tensors: tensors.update({name: value})


WRONG: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "sites that are none": (changed(sites=[1]), r"has \[1\] as sites; it must be of type dict"),
    "a site that is none": (lambda n, t: n["sites"].update({"1": 3}), "The neuron '1' in what the document .* no object"),
    "no name": (site(name=None), "has None as name; it must be of type str"),
    "no unit": (site(unit=None), "lacks the tensor None, its unit"),
    "a unit that is not there": (site(unit="nothing"), "lacks the tensor 'nothing', its unit"),
    "a unit in line": (site(unit=[1.0]), r"lacks the tensor \[1.0\], its unit"),
    "a bound that is not there": (site(maximum=6.0), "lacks the tensor 6.0, its maximum"),
    "an axis that is none": (site(axis=True), "has the channel axis True"),
    "a negative axis": (site(axis=-1), "has the channel axis -1"),
    "integers": (tensor("1:unit", torch.ones(4, 1, 1, dtype=torch.int64)), "has no real numbers as unit"),
    "a unit of zero": (tensor("1:unit", torch.zeros(4, 1, 1)), "unit that is not positive"),
    "NaN": (tensor("1:unit", torch.full((4, 1, 1), float("nan"))), "unit that is not positive and finite"),
    "a site of no layer": (lambda n, t: n["sites"].update(nowhere=n["sites"]["1"]), "layers 'nowhere', which the network"),
    "a bias of no layer": (changed(biases={"nowhere": "1:unit"}), "about the layers 'nowhere'"),
    "an operation that is none": (changed(approximate={"nowhere": "MaxPool2d"}), "about the layers 'nowhere'"),
    "an operation without name": (changed(approximate={"2": 7}), "names are no text"),
    "biases that are none": (changed(biases="none"), "has 'none' as biases"),
    "a call that is none": (changed(call=None), "has None as call"),
    "a call of nothing": (changed(call={"mode": {"what": 1}}), "which does not represent a value"),
    "quiet layers in words": (changed(quiet={"1": "very"}), "the steps of a quiet layer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_notes_of_another_form_are_refused(name: str) -> None:
    change, told = WRONG[name]
    document, tensors = written()
    change(document["conversion"], tensors)
    with pytest.raises(FormatError, match=told):
        read(document, tensors)


@pytest.mark.parametrize("value", [3, "text", [1], True])
def test_notes_that_are_no_object_are_refused(value: Any) -> None:
    document, tensors = written()
    document["conversion"] = value
    with pytest.raises(FormatError, match="notes about the conversion is no object"):
        read(document, tensors)


def test_changes_in_notes_are_noticed() -> None:
    document, tensors = written()
    document["conversion"]["sites"]["1"]["axis"] = None
    with pytest.raises(FormatError, match="The checksum of its document"):
        NetworkDescription.from_document(document, tensors)
    document, tensors = written()
    tensors["1:unit"] = tensors["1:unit"] * 2
    with pytest.raises(FormatError, match="The checksum of the tensor '1:unit'"):
        NetworkDescription.from_document(document, tensors)


def test_a_program_may_leave_the_notes_out() -> None:
    document, tensors = written()
    del document["conversion"]
    tensors = {name: value for name, value in tensors.items() if ":" not in name}
    assert "ann2snn_conversion" not in read(document, tensors).meta


def test_what_older_versions_say_of_newer_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = describe(small(), {}, "sj-ann2snn 9.1")
    Archive().export(description, tmp_path / "network.zip")
    monkeypatch.setattr(NetworkDescription, "VERSION", 2)
    told = r"It has version 3 of the format; .* reads versions up to 2. It was written by sj-ann2snn 9.1; update sj-ann2snn"
    with pytest.raises(FormatError, match=told):
        load_network(tmp_path / "network.zip")


@pytest.mark.parametrize("format", FORMATS)
def test_warnings_of_quiet_layers_come_back(format: str, tmp_path: Path) -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = torch.rand(200, 4)
    x[0] *= 1000
    snn = convert(ann, x)
    loaded = round_trip(snn, tmp_path, format)
    for network in (snn, loaded):
        with pytest.warns(QuietLayerWarning, match=r"T=8 is too few for 1 layer\(s\).* 1 \(about"):
            simulate(network, x[1:], 8)
        with pytest.warns(QuietLayerWarning, match=r"T=8 is too few for 1 layer"):
            evaluate(network, [(x[1:], torch.zeros(199, dtype=torch.int64))], 8, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            simulate(network, x[1:3], 10_000)
