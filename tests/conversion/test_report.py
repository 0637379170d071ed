"""The report of a conversion, and the check that foresees it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import ConversionError, Converter

from ..helpers.cnn import cnn, images
from ..helpers.networks import Written, scalers


def test_the_report() -> None:
    converter = Converter([images()], mode="99%", progress=False)
    snn = converter(cnn())
    report = converter.report
    assert [(entry.name, entry.operation, entry.becomes) for entry in report] == [
        ("0", "Conv2d + BatchNorm2d", "itself"),
        ("2", "ReLU", "if neuron"),
        ("3", "AvgPool2d", "itself"),
        ("4", "Conv2d + BatchNorm2d", "itself"),
        ("6", "ReLU", "if neuron"),
        ("7", "AdaptiveAvgPool2d", "itself"),
        ("8", "Flatten", "itself"),
        ("9", "Dropout", "nothing"),
        ("10", "Linear", "itself"),
    ]
    assert (report.mode, report.neuron, report.scalers) == ("99%", "if", ())
    assert report.mode_owner.startswith("sj-ann2snn ")
    assert list(report.scales) == ["2", "6"]
    assert all(entry.owner.startswith("sj-ann2snn ") and entry.exact for entry in report)
    assert {entry.mapper for entry in report} == {
        "weighted", "relu", "average-pool", "rearrange", "dropout",
    }  # fmt: skip
    text = str(report)
    for part in ("mode 99%", "if neuron", "Conv2d + BatchNorm2d", f"{report['2'].scale[0]:.4g}"):
        assert part in text
    assert len(text.splitlines()) == 3 + len(report.entries)
    assert report.as_dict()["entries"][1]["scale"] == report["2"].scale
    with pytest.raises(KeyError, match="'99' is not in the report; it has 0, 2, 3"):
        report["99"]
    assert isinstance(snn, fx.GraphModule)


def test_the_report_names_scalers_and_approximations() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())
    converter = Converter([images()], maxpool="momentum", channel_wise=True, progress=False)
    snn = converter(ann)
    assert converter.report.scalers == tuple(scalers(snn))
    assert len(converter.report.scalers) == 1
    text = str(converter.report)
    assert "momentum max pool (approximate)" in text
    assert "scalers that no weights absorb: 3_scaler" in text
    low, high = converter.report["1"].scale
    assert low < high
    assert f"{low:.3g} to {high:.3g}" in text


def test_the_report_says_where_in_the_code() -> None:
    ann = Written(lambda net, x: net.head(torch.relu(net.body(x))), body=nn.Linear(2, 3), head=nn.Linear(3, 2))
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(ann)
    line = ann.written.__code__.co_firstlineno
    assert converter.report["relu"].source == f"{__file__}:{line}"


def test_the_report_knows_no_line_where_torch_makes_the_call() -> None:
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    assert converter.report["1"].source == ""


def test_a_function_and_a_module_of_one_name_have_two_names() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.relu(net.two(net.relu(net.one(x)).relu())))

    ann = Written(forward, one=nn.Linear(2, 3), relu=nn.ReLU(), two=nn.Linear(3, 3), head=nn.Linear(3, 2))
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(ann)
    assert len(converter.report.scales) == 3


def test_no_report_before_a_conversion() -> None:
    with pytest.raises(ConversionError, match="no report yet"):
        _ = Converter([images()]).report


def test_a_check_says_what_would_become_of_everything() -> None:
    converter = Converter([images()], progress=False)
    check = converter.check(cnn())
    assert check.convertible
    assert [entry.becomes for entry in check.entries].count("if neuron") == 2
    assert {entry.scale for entry in check.entries} == {None}
    assert "convertible" in str(check)
    refused = converter.check(nn.Sequential(cnn(), nn.Softmax(1), nn.ReLU(), nn.GELU()))
    assert not refused.convertible
    assert [problem.name for problem in refused.problems] == ["1", "3"]
    assert "not convertible: 2 operations refused" in str(refused)
    assert refused.as_dict()["convertible"] is False
    linear = converter.check(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    assert not linear.convertible
    assert "no activation becomes a spiking neuron" in str(linear)
