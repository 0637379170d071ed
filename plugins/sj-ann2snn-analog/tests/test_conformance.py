"""The mappers keep the contract of their hook."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import sj_ann2snn_analog
import torch
import torch.nn.functional as F
from sj_ann2snn_analog import mappers
from torch import Tensor, nn

from sj_ann2snn.testing import LayerMapperTests, MapperCase


class Behind(nn.Module):
    """Two layers with a ReLU, and an operation on what they yield."""

    def __init__(self, operation: Callable[..., Any], shape: tuple[int, ...] = (8,), streams: int = 1) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.layers = nn.ModuleList([nn.Linear(6, size) for _ in range(streams)])
        self.operation, self.shape = operation, shape

    def forward(self, x: Tensor) -> Any:
        return self.operation(*(torch.relu(layer(x)).unflatten(1, self.shape) for layer in self.layers))


def case(
    make: Callable[[], Callable[..., Any]],
    shape: tuple[int, ...] = (8,),
    *,
    streams: int = 1,
    memory: bool = True,
    **more: Any,
) -> MapperCase:
    return MapperCase(lambda: Behind(make(), shape, streams), (6,), memory=memory and streams == 1, **more)


class Scaled(nn.Module):
    """A function with parameters among its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (8,), self.factor)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


class Contract(LayerMapperTests):
    plugin = sj_ann2snn_analog


class TestActivation(Contract):
    plugin_class = mappers.ActivationMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "module": case(nn.SiLU),
            "function": case(lambda: F.gelu),
            "method": case(lambda: lambda x: x.tanh()),
            "spiking": case(nn.GELU, options={"analog_neuron": True}),
        }


class TestNormalization(Contract):
    plugin_class = mappers.NormalizationMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "module": case(lambda: nn.GroupNorm(2, 4), (4, 5)),
            "function": case(Scaled),
            "spiking": case(lambda: nn.LayerNorm(8), options={"analog_neuron": True}),
        }


class TestGate(Contract):
    plugin_class = mappers.GateMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {"module": case(nn.Sigmoid), "function": case(lambda: lambda x: torch.softmax(x, dim=-1), (4, 5))}


class TestAttention(Contract):
    plugin_class = mappers.AttentionMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        def dropping(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

        return {
            "module": case(Attention, (5, 6), memory=False),
            "function": case(lambda: F.scaled_dot_product_attention, (5, 6), streams=3),
            "dropout": case(lambda: dropping, (5, 6), streams=3, refused=True),
        }


class TestProduct(Contract):
    plugin_class = mappers.ProductMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {"two": case(lambda: operator.mul, streams=2), "factor": case(lambda: lambda x: 3 * x, memory=False)}


class TestMatrixProduct(Contract):
    plugin_class = mappers.MatrixProductMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {"two": case(lambda: lambda x, y: x @ y.transpose(1, 2), (4, 5), streams=2)}


class TestQuotient(Contract):
    plugin_class = mappers.QuotientMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "two": case(lambda: lambda x, y: x / (1 + y), streams=2),
            "constant": case(lambda: lambda x: x / 3, memory=False),
            "rounding": case(lambda: lambda x: torch.div(x, 2, rounding_mode="floor"), refused=True),
        }


class TestClamp(Contract):
    plugin_class = mappers.ClampMapper

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "elsewhere": case(lambda: lambda x: x.clamp(0.1, 0.5)),
            "from zero": case(lambda: nn.Hardtanh(0.0, 0.5), memory=False),
        }
