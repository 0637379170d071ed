"""Layers that hold other layers and functions, described and built again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    ExportError,
    FormatError,
    NetworkDescription,
    NodeDescription,
    OperationDescription,
)
from sj_ann2snn.interchange.modules import build_layer, describe_layer


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
            ExportError, match=r"it holds .*, but a file can only name functions of torch and operators"
        ):
            describe_layer(Holding(nn.Tanh(), held, torch.tensor(1.0)), declared)
    for kind, name in (("function", "torch.load"), ("function", "getattr"), ("method", "relu")):
        options = {"first": OperationDescription(kind, name), "second": None}
        with pytest.raises(
            FormatError, match=f"holds the {kind} '{name}', which is not a function of torch on tensors"
        ):
            build_layer(f"{__name__}.Holding", options, {"factor": torch.tensor(1.0)}, declared)
    del tensors["layer.first.first.bias"]
    with pytest.raises(FormatError, match="Node 'layer', in first, in first lacks the tensor"):
        NetworkDescription.from_document(document, tensors)
