"""The mappers keep the contract of their hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sj_ann2snn_adaptive_maxpool
from torch import Tensor, nn

from sj_ann2snn.testing import LayerMapperTests, MapperCase


class Maximum(nn.Module):
    """A convolution, a ReLU, and a maximum over dimensions, written as a tensor method."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().amax(**self.arguments)


def behind(pool: nn.Module, dims: int) -> nn.Module:
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return nn.Sequential(conv(1, 3, 3), nn.ReLU(), pool)


class TestAdaptiveMaxPool(LayerMapperTests):
    plugin_class = sj_ann2snn_adaptive_maxpool.AdaptiveMaxPoolMapper
    plugin = sj_ann2snn_adaptive_maxpool

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "1d": MapperCase(lambda: behind(nn.AdaptiveMaxPool1d(3), 1), (1, 10), memory=True),
            "2d": MapperCase(lambda: behind(nn.AdaptiveMaxPool2d((2, 3)), 2), (1, 8, 8), memory=True),
            "3d": MapperCase(lambda: behind(nn.AdaptiveMaxPool3d(1), 3), (1, 4, 5, 6), memory=True),
        }


class TestSpatialMax(LayerMapperTests):
    plugin_class = sj_ann2snn_adaptive_maxpool.SpatialMaxMapper
    plugin = sj_ann2snn_adaptive_maxpool

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "space": MapperCase(lambda: Maximum(dim=(2, 3)), (1, 8, 8), memory=True),
            "kept": MapperCase(lambda: Maximum(dim=-1, keepdim=True), (1, 8, 8), memory=True),
            "channels": MapperCase(lambda: Maximum(dim=1), (1, 8, 8), memory=True),
            "samples": MapperCase(lambda: Maximum(dim=0), (1, 8, 8), refused=True),
        }
