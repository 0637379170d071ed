"""torchvision's segmentation networks, and decoders as other packages write them: whole, into a class per pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sj_ann2snn import Converter, UnsupportedError, export, load_network, simulate

from ..helpers.networks import GradedMaker, randomized, run_by_hand

# A CPU build of torch may lie beside a torchvision built for CUDA, whose import then fails.
models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))

from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3  # noqa: E402
from torchvision.models.segmentation.fcn import FCN, FCNHead  # noqa: E402

CLASSES = 4


def settled(ann: nn.Module, x: Tensor) -> nn.Module:
    """`ann` with BatchNorm statistics that fit its random weights."""
    for module in ann.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
            module.train()
    with torch.no_grad():
        ann(x)
    return ann.eval()


def backbone(channels: int = 16) -> nn.Module:
    """Maps of two depths by name, as torchvision's `IntermediateLayerGetter` returns them."""

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
            self.late = nn.Sequential(
                nn.Conv2d(8, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
            )

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            early = self.early(x)
            return {"aux": early, "out": self.late(early)}

    return Maps()


def fcn() -> nn.Module:
    return FCN(backbone(), FCNHead(16, CLASSES), FCNHead(8, CLASSES))


def deeplab() -> nn.Module:
    return DeepLabV3(backbone(), DeepLabHead(16, CLASSES, (2, 4, 6)))


class UnetDecoder(nn.Module):
    """In the manner of segmentation-models-pytorch: features in a list, the last one first."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for inputs in (24, 8)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        features = features[::-1]
        x, skips = features[0], features[1:]
        for index, block in enumerate(self.blocks):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if index < len(skips):
                x = torch.cat([x, skips[index]], dim=1)
            x = block(x)
        return x


class SegmentationModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = backbone(), UnetDecoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(8, CLASSES, 3, padding=1), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 4:
            raise RuntimeError("the size must be divisible by 4")
        return self.segmentation_head(self.decoder(list(self.encoder(x).values())))


class WeightedPyramid(nn.Module):
    """A layer of EfficientDet's BiFPN: maps are added with trained weights, up and down, and returned as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = backbone(8)
        self.weights = nn.Parameter(torch.rand(2, 2))
        self.up, self.down = (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine, coarse = self.encoder(x).values()
        weights = F.relu(self.weights)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-4)
        size = fine.shape[-2:]
        fine = F.relu(self.up(weights[0, 0] * fine + weights[0, 1] * F.interpolate(coarse, size=size)))
        coarse = F.relu(self.down(weights[1, 0] * coarse + weights[1, 1] * F.max_pool2d(fine, 3, 2, 1)))
        return [fine, coarse]


class YoloHead(nn.Module):
    """Predictions for every scale in a list, reshaped by anchors, in a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = backbone(8)
        self.stems = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.1)) for _ in range(2))
        self.detect = nn.ModuleList(nn.Conv2d(8, 3 * 7, 1) for _ in range(2))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        maps = list(self.encoder(x).values())
        outputs = []
        for index in range(len(maps)):
            maps[index] = self.stems[index](maps[index])
            y = self.detect[index](maps[index])
            batch, _, height, width = y.shape
            outputs.append(y.view(batch, 3, 7, height, width).permute(0, 1, 3, 4, 2).contiguous())
        return {"predictions": outputs, "maps": maps}


def leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(part)]


@pytest.mark.parametrize("make", [fcn, deeplab, SegmentationModel, WeightedPyramid, YoloHead])
def test_networks_of_maps_convert_whole(make: Any, tmp_path: Path) -> None:
    x = torch.rand(8, 3, 32, 32)
    ann = settled(make(), x) if make in (fcn, deeplab) else randomized(make())
    snn = Converter([x], channel_wise=True, neuron=GradedMaker(levels=200), progress=False)(ann)
    with torch.no_grad():
        wanted = ann(x[:2])
    got = simulate(snn, x[:2], T=32)
    assert type(got) is type(wanted)
    for one, other in zip(leaves(got), leaves(wanted), strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < 0.02 * other.norm()
    if make is fcn:
        assert (got["out"].argmax(1) == wanted["out"].argmax(1)).double().mean() > 0.98


def test_a_segmentation_network_by_hand_and_out_of_a_file(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 32, 32)
    ann = settled(fcn(), x)
    snn = Converter([x], progress=False)(ann)
    export(snn, tmp_path / "network.zip")
    loaded = load_network(tmp_path / "network.zip")
    simulated = simulate(snn, x, T=24)
    again = simulate(loaded, x, T=24)
    for key in ("out", "aux"):
        by_hand = run_by_hand(Picked(snn, key), x, 24).mean(0)
        assert torch.allclose(simulated[key], by_hand, atol=1e-4 * by_hand.abs().max().item())
        assert torch.equal(again[key], simulated[key])


class Picked(nn.Module):
    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[self.key]


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_mobilenets_are_refused_with_every_curve(name: str) -> None:
    ann = models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    with pytest.raises(UnsupportedError) as caught:
        Converter([torch.rand(4, 3, 64, 64)], progress=False)(ann)
    operations = [problem.operation for problem in caught.value.problems]
    assert operations.count("Hardsigmoid") == 8
    assert operations.count("Hardswish") == 19
    assert "sj-ann2snn-analog" in str(caught.value)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50"])
def test_segmentation_networks_as_they_are(name: str) -> None:
    x = torch.rand(4, 3, 64, 64)
    ann = models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
    for module in ann.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    settled(ann, x)
    snn = Converter([x], channel_wise=True, neuron=GradedMaker(levels=1000), progress=False)(ann)
    with torch.no_grad():
        wanted = ann(x[:1])["out"]
    few, many = ((simulate(snn, x[:1], T=steps)["out"] - wanted).norm() / wanted.norm() for steps in (8, 32))
    assert many < 0.1
    assert many < 0.6 * few
