"""``sj-ann2snn check``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sj_ann2snn.cli import main

from ..helpers.command_line import USER_CODE, failing
from ..helpers.onnx_models import HAS_ONNX, Weights, model, needs_onnx, node


def test_check_prints_a_table_and_says_yes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:network", "--input", "6"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^1 +ReLU +if neuron +relu", shown, re.MULTILINE)
    assert shown.splitlines()[-1] == "convertible"


def test_check_lists_all_that_is_refused_and_why(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:Product", "--input", "6"]) == 1
    shown = capsys.readouterr().out
    line = USER_CODE[: USER_CODE.index("return torch.relu(self.a(x))")].count("\n") + 1
    assert re.search(rf"^mul +operator\.mul +refused +product +usercode\.py:{line}$", shown, re.MULTILINE)
    assert shown.splitlines()[-2] == "not convertible: 1 operation refused"
    assert shown.splitlines()[-1].startswith("  - operator.mul: it multiplies two spike streams")


def test_check_as_json_agrees_with_the_table(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:Product", "--input", "6", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["convertible"] is False
    assert [problem["name"] for problem in found["problems"]] == ["mul"]
    assert [entry["becomes"] for entry in found["entries"]].count("if neuron") == 2


def test_check_takes_a_batch_of_the_users_data(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:network", "--data", "usercode:data"]) == 0
    assert "convertible" in capsys.readouterr().out


def test_check_honours_options(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "usercode:Product", "--input", "6"]
    assert main([*arguments, "--option", "convert_only=a"]) == 1
    assert "no activation becomes a spiking neuron" in capsys.readouterr().out
    assert main(["check", "usercode:network", "--input", "6", "--option", "leaf_modules=2"]) == 0
    assert "MaxPool1d" in capsys.readouterr().out


def test_check_says_what_a_made_up_input_may_be(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, told in (
        ("3xx", "write the shape of one sample as 3x32x32"),
        ("0", "write the shape of one sample as 3x32x32"),
        ("6:float33", "'float33' is not a dtype"),
    ):
        with pytest.raises(SystemExit):
            main(["check", "usercode:network", "--input", text])
        assert told in capsys.readouterr().err
    assert "fails on it with RuntimeError" in failing(capsys, "check", "usercode:network", "--input", "5")
    assert "use --input or --data instead" in failing(
        capsys, "check", "usercode:network", "--input", "6", "--option", "dataloader=1"
    )


@needs_onnx
def test_an_onnx_file_is_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    w = Weights()
    nodes = [
        node("Gemm", f"x {w('v', 4, 3)}", "a", "/fc/Gemm"),
        node("Relu", "a", "b", "/relu/Relu"),
        node("Softmax", "b", "y", "/softmax/Softmax"),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, {"x": ("n", 4)}, ["y"], w), path)
    assert main(["check", str(path), "--input", "4"]) == 1
    assert "/softmax/Softmax" in capsys.readouterr().out
    assert main(["check", f"{path}:/relu/Relu", "--input", "4"]) == 0
    assert "/relu/Relu" in capsys.readouterr().out


def test_an_onnx_file_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nowhere/model.onnx", "--input", "4"]) == 2
    told = capsys.readouterr().err
    assert "nowhere/model.onnx cannot be read" in told
    assert ("No such file" if HAS_ONNX else "onnx2pytorch") in told
