"""Weights are rounded so that sums do not depend on the order of summation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn.conversion.round_weights import round_to_grid

from ..helpers.networks import GradedMaker, convert


class TestExactSums:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize(
        "layer",
        [nn.Conv2d(64, 8, 3), nn.Conv1d(64, 8, 9, groups=2), nn.Linear(500, 8), nn.Linear(500, 8, bias=False)],
        ids=["conv", "grouped", "linear", "no bias"],
    )
    def test_the_order_of_summation_does_not_matter(self, layer: nn.Module, dtype: torch.dtype) -> None:
        rounded: Any = round_to_grid(layer.to(dtype))
        weight = rounded.weight.flatten(1)
        x = (torch.rand(weight.shape[1]) < 0.5).to(dtype)
        bias = torch.zeros(8, dtype=dtype) if rounded.bias is None else rounded.bias
        terms = torch.cat([weight * x, bias[:, None]], dim=1).detach()
        in_order, reversed_ = terms.cumsum(1)[:, -1], terms.flip(1).cumsum(1)[:, -1]
        shuffled = terms[:, torch.randperm(terms.shape[1])].cumsum(1)[:, -1]
        assert torch.equal(in_order, reversed_)
        assert torch.equal(in_order, shuffled)

    @pytest.mark.parametrize("groups", [1, 2])
    def test_transposed_convolutions(self, groups: int) -> None:
        rounded: Any = round_to_grid(nn.ConvTranspose2d(64, 6, 4, stride=2, groups=groups))
        x = (torch.rand(1, 64, 7, 7) < 0.5).float()
        exact: Any = nn.ConvTranspose2d(64, 6, 4, stride=2, groups=groups).double()
        exact.load_state_dict(rounded.state_dict())
        assert torch.equal(rounded(x).double(), exact(x.double()))

    def test_weights_hardly_move(self) -> None:
        conv = nn.Conv2d(64, 8, 3)
        rounded: Any = round_to_grid(conv)
        bound = 2.0**-25 * (conv.weight.detach().abs().flatten(1).sum(1) + conv.bias.detach().abs()).max()
        assert 0 < (rounded.weight - conv.weight).abs().max() <= bound
        assert (rounded.bias - conv.bias).abs().max() <= bound

    @pytest.mark.parametrize("averaged", [4, 16])
    def test_averages_of_spikes(self, averaged: int) -> None:
        rounded: Any = round_to_grid(nn.Conv2d(64, 8, 3), averaged)
        exact: Any = nn.Conv2d(64, 8, 3).double()
        exact.load_state_dict(rounded.state_dict())
        x = torch.randint(averaged + 1, (2, 64, 7, 7)) / averaged
        assert torch.equal(rounded(x).double(), exact(x.double()))

    def test_the_layer_itself_stays(self) -> None:
        conv = nn.Conv2d(4, 4, 3)
        before = conv.weight.detach().clone()
        assert round_to_grid(conv) is not conv
        assert torch.equal(conv.weight, before)

    def test_a_channel_without_weights(self) -> None:
        conv = nn.Conv2d(4, 2, 3)
        with torch.no_grad():
            conv.weight[0] = 0
            conv.bias[0] = 0  # type: ignore[index]
        rounded: Any = round_to_grid(conv)
        assert torch.equal(rounded.weight[0], torch.zeros_like(rounded.weight[0]))

    @pytest.mark.parametrize(
        "layer",
        [nn.Bilinear(3, 3, 2), nn.Conv2d(3, 3, 2).half(), nn.Linear(3, 3).half()],
        ids=["bilinear", "half", "half linear"],
    )
    def test_other_layers_stay_as_they_are(self, layer: nn.Module) -> None:
        assert round_to_grid(layer) is layer

    def test_weights_that_are_not_finite_stay_as_they_are(self) -> None:
        conv = nn.Conv2d(3, 3, 2)
        with torch.no_grad():
            conv.weight[0] = float("nan")
        assert round_to_grid(conv) is conv


class TestWhichWeightsAreRounded:
    """Those between binary spikes and the next neuron."""

    def rounded(self, ann: nn.Module, x: Tensor, **options: Any) -> list[bool]:
        torch.manual_seed(0)
        snn = convert(ann, x, mode="max", **options)
        layers = [module for module in snn.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        return [torch.equal(layer.weight, round_to_grid(layer).weight) for layer in layers]  # type: ignore[arg-type]

    def network(self) -> nn.Module:
        first = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*first, nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(32, 2))

    def test_binary_spikes_also_through_pools(self) -> None:
        assert self.rounded(self.network(), torch.rand(4, 3, 8, 8)) == [False, True, False, False]

    @pytest.mark.parametrize(
        ("pools", "averaged"),
        [
            ([nn.AvgPool2d(2)], 4),
            ([nn.AvgPool2d((1, 2)), nn.AvgPool2d(2)], 8),
            ([nn.AvgPool2d(3)], 1),
            ([nn.AvgPool2d(2, divisor_override=3)], 1),
        ],
    )
    def test_average_pools_ask_for_coarser_weights(self, pools: list[nn.Module], averaged: int) -> None:
        torch.manual_seed(0)
        ann = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *pools, nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        snn = convert(ann, torch.rand(4, 3, 8, 14), mode="max")
        behind = [module for module in snn.modules() if isinstance(module, nn.Conv2d)][1]
        assert torch.equal(behind.weight, round_to_grid(behind, averaged).weight)  # type: ignore[arg-type]
        assert not torch.equal(behind.weight, round_to_grid(behind, 16 * averaged).weight)  # type: ignore[arg-type]

    def test_graded_spikes(self) -> None:
        maker = GradedMaker(levels=10)
        assert self.rounded(self.network(), torch.rand(4, 3, 8, 8), neuron=maker) == [False, False, False, False]
