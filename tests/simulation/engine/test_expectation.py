"""Estimates of the largest activation, and the tiles that follow from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn.layers import CumulativeMaxPool, Stepwise
from sj_ann2snn.simulation.engine.expectation import expected_elements
from sj_ann2snn.simulation.engine.tiling import Tiling


class Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


def expected(*layers: nn.Module, x: Tensor) -> int:
    network = nn.Sequential(*layers)
    return expected_elements(Tracer().trace(network), dict(network.named_modules()), [x])


@pytest.mark.parametrize(
    ("layers", "shape", "elements"),
    [
        ([nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(16, 8, 1)], (3, 8, 8), 16 * 64),
        ([nn.Conv2d(3, 4, 1, stride=2), CumulativeMaxPool(2, 2), nn.Conv2d(4, 64, 1)], (3, 8, 8), 64 * 4),
        ([nn.AvgPool2d((1, 2)), nn.Conv2d(2, 8, 1)], (2, 4, 8), 8 * 16),
        ([nn.Linear(6, 9)], (6,), 54),  # features, or positions of a sequence: rather too many
        ([nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=4)], (3, 8, 8), 0),
        ([nn.ConvTranspose2d(3, 4, 2, stride=2)], (3, 8, 8), 0),
        ([nn.Unfold(2, stride=2)], (3, 8, 8), 3 * 64),
    ],
)
def test_of_layers(layers: list[nn.Module], shape: tuple[int, ...], elements: int) -> None:
    assert expected(*layers, x=torch.zeros(2, *shape)) == elements


def test_of_resized_images_nothing_is_expected() -> None:
    assert expected(nn.Conv2d(3, 4, 1), Stepwise(nn.functional.interpolate), x=torch.zeros(2, 3, 8, 8)) == 0


def test_tiles_follow_from_what_is_expected_until_a_size_is_known() -> None:
    tiling = Tiling("cuda", 32)
    assert tiling.samples() == 1
    tiling.expect(1 << 20)
    assert tiling.samples() == (1 << 31) // (4 << 20) // 32
    assert tiling.steps(1 << 10) == 1
    tiling.note(torch.zeros(2, 3, 1 << 10))
    assert tiling.samples() == (1 << 31) // (4 << 10) // 32
