"""Dense outputs: U-Nets in one, two and three dimensions, feature pyramids, detection heads, keypoints, super resolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..forms import form, images, vectors

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class UNet(nn.Module):
    """Crops or pads the upsampled features to the skipped ones, as many public ones do."""

    def __init__(self, dims: int, base: int = 4) -> None:
        super().__init__()
        self.dims = dims
        self.inc, self.down = self.double(1, base), self.double(base, 2 * base)
        self.pool, self.up = POOL[dims](2), UP[dims](2 * base, base, 2, stride=2)
        self.conv, self.outc = self.double(2 * base, base), CONV[dims](base, 2, 1)

    def double(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for first, last in ((inputs, outputs), (outputs, outputs)):
            layers += [CONV[self.dims](first, last, 3, padding=1, bias=False), NORM[self.dims](last), nn.ReLU(True)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.inc(x)
        up = self.up(self.down(self.pool(skip)))
        padding: list[int] = []
        for dim in range(self.dims):
            missing = skip.size(-1 - dim) - up.size(-1 - dim)
            padding += [missing // 2, missing - missing // 2]
        if any(padding):
            up = F.pad(up, padding)
        return self.outc(self.conv(torch.cat([skip, up], dim=1)))  # type: ignore[no-any-return]


@form(vectors(1, 15, count=3))
def unet_1d() -> nn.Module:
    return UNet(1)


@form(images(1, 9, 2))
def unet_2d() -> nn.Module:
    return UNet(2)


@form(vectors(1, 4, 6, 5, count=2))
def unet_3d() -> nn.Module:
    return UNet(3, base=2)


@form(images(1, 8, 2))
class OutputSizeUNet(nn.Module):
    """Gives the transposed convolution the size that it should come out with."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleList([nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)])
        self.dec = nn.ModuleList([nn.ConvTranspose2d(8, 4, 3, 2, 1), nn.ConvTranspose2d(4, 1, 3, 2, 1)])

    def forward(self, x: Tensor) -> Tensor:
        sizes: list[Any] = []
        for layer in self.enc:
            sizes.append(x.size())
            x = F.relu(layer(x))
        for index, layer in enumerate(self.dec):
            x = layer(x, output_size=sizes.pop()[2:])
            if index < len(self.dec) - 1:
                x = F.relu(x)
        return x


@form(images(3, 8, 2))
class FeaturePyramid(nn.Module):
    """Levels in an ordered dict, interpolated to the size of the next and added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleList([nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)])
        self.inner_blocks = nn.ModuleList([nn.Conv2d(c, 4, 1) for c in (4, 6, 8)])
        self.layer_blocks = nn.ModuleList([nn.Conv2d(4, 2, 3, padding=1) for _ in range(3)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = []
        for conv in self.stem:
            x = F.relu(conv(x))
            features.append(x)
        last = self.inner_blocks[-1](features[-1])
        results = [self.layer_blocks[-1](last)]
        for index in range(len(features) - 2, -1, -1):
            lateral = self.inner_blocks[index](features[index])
            last = lateral + F.interpolate(last, size=lateral.shape[-2:], mode="nearest")
            results.insert(0, self.layer_blocks[index](last))
        return {f"p{index + 2}": value for index, value in enumerate(results)}


@form(images(3, 8, 2))
class YoloNeck(nn.Module):
    """Upsampled and concatenated by indices of earlier layers; the head permutes to anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleList([
            nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU()),
            nn.Upsample(scale_factor=2), nn.Identity(), nn.Sequential(nn.Conv2d(12, 8, 1), nn.ReLU()),
        ])  # fmt: skip
        self.f = [-1, -1, -1, [-1, 0], -1]
        self.na, self.no = 2, 7
        self.m = nn.ModuleList([nn.Conv2d(8, self.na * self.no, 1), nn.Conv2d(8, self.na * self.no, 1)])
        self.stride = torch.tensor([1.0, 2.0])

    def forward(self, x: Tensor) -> list[Tensor]:
        y: list[Any] = []
        for f, m in zip(self.f, self.model, strict=True):
            if f != -1:
                x = torch.cat([x if j == -1 else y[j] for j in f], 1)  # type: ignore[union-attr]
            x = m(x)
            y.append(x)
        out = [y[4], y[1]]
        for i in range(len(out)):
            out[i] = self.m[i](out[i])
            bs, _, ny, nx = out[i].shape
            out[i] = out[i].view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
        return [one.view(one.shape[0], -1, self.no) for one in out]


@form(images(3, 8, 2))
class SSDHead(nn.Module):
    """Two heads for every level, flattened and concatenated over all levels; outputs boxes and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)])
        self.loc = nn.ModuleList([nn.Conv2d(4, 2 * 4, 3, padding=1) for _ in range(2)])
        self.conf = nn.ModuleList([nn.Conv2d(4, 2 * 3, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, conf = [], []
        for level, l, c in zip(self.levels, self.loc, self.conf, strict=True):  # noqa: E741
            x = F.relu(level(x), inplace=True)
            loc.append(l(x).permute(0, 2, 3, 1).contiguous())
            conf.append(c(x).permute(0, 2, 3, 1).contiguous())
        boxes = torch.cat([o.view(o.size(0), -1) for o in loc], 1)
        classes = torch.cat([o.view(o.size(0), -1) for o in conf], 1)
        return boxes.view(boxes.size(0), -1, 4), classes.view(classes.size(0), -1, 3)


@form(images(1, 6, 2))
class SubPixel(nn.Module):
    """Super resolution: a residual in high resolution over the enlarged input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 4, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.pixel_shuffle(self.conv2(F.relu(self.conv1(x)))) + enlarged  # type: ignore[no-any-return]


@form(images(3, 8, 2))
class AtrousPyramid(nn.Module):
    """DeepLab's pyramid with a branch of pooled features that is enlarged again."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=rate, dilation=rate) for rate in (1, 2, 3)])
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.ReLU())
        self.project = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        res = [F.relu(conv(x)) for conv in self.convs]
        res.append(F.interpolate(self.pooling(x), size=size, mode="bilinear", align_corners=False))
        return {"out": self.project(torch.cat(res, dim=1))}


@form(images(3, 8, 2))
class Hourglass(nn.Module):
    """Calls itself for the next scale; one head per stack, all of them outputs."""

    class Level(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.up, self.low = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.inner = Hourglass.Level(depth - 1) if depth > 1 else None

        def forward(self, x: Tensor) -> Tensor:
            up = F.relu(self.up(x))
            low = F.relu(self.low(F.max_pool2d(x, 2)))
            if self.inner is not None:
                low = self.inner(low)
            return up + F.interpolate(low, scale_factor=2.0)

    def __init__(self) -> None:
        super().__init__()
        self.pre = nn.Conv2d(3, 4, 1)
        self.stacks = nn.ModuleList([Hourglass.Level(2) for _ in range(2)])
        self.heads = nn.ModuleList([nn.Conv2d(4, 2, 1) for _ in range(2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.pre(x).relu()
        outputs = []
        for stack, head in zip(self.stacks, self.heads, strict=True):
            x = stack(x)
            outputs.append(head(x))
        return outputs
