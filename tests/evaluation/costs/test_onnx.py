"""Costs of a network from an ONNX file."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("onnx", reason="reading ONNX needs the extra onnx")
pytest.importorskip("onnx2pytorch", reason="reading ONNX needs the extra onnx")

from sj_ann2snn import Converter, costs, from_onnx

from ...helpers.onnx_models import Weights, model, node


def test_rows_are_called_like_the_nodes_of_the_file() -> None:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)} {w('b', 6)}", "c", "/conv/Conv"),
        node("Relu", "c", "r", "/relu/Relu"),
        node("Flatten", "r", "f", "/flat/Flatten"),
        node("Gemm", f"f {w('v', 4, 216)} {w('e', 4)}", "y", "/fc/Gemm", transB=1),
    ]
    ann = from_onnx(model(nodes, {"x": ("n", 3, 8, 8)}, ["y"], w))
    x = torch.randn(5, 3, 8, 8)
    found = costs(ann, Converter([x], progress=False)(ann), [x], 6, progress=False)
    assert {one.name: one.ann_macs for one in found if one.ann_macs} == {
        "/conv/Conv": 36 * 6 * 27,
        "/fc/Gemm": 216 * 4,
    }
    assert found["/conv/Conv"].runs == "once"
    assert found["/fc/Gemm"].accumulates == pytest.approx(4 * found.spikes)
    assert found.rest == 0
