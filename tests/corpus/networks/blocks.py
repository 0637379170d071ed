"""Blocks of image classifiers, in the manner of timm and torchvision."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..forms import form, images


class ConvNormAct(nn.Module):
    """A convolution, its norm and its activation, made from options."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = act(inplace=True) if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """Features, pooled and flattened, and a classifier."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.features, self.pool, self.fc = features, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)
        return self.fc(self.pool(x).flatten(1))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.conv2 = ConvNormAct(inputs, width, 1), ConvNormAct(width, width, 3, stride)
        self.conv3 = ConvNormAct(width, outputs, 1, act=None)
        self.shortcut = None if inputs == outputs and stride == 1 else ConvNormAct(inputs, outputs, 1, stride, act=None)
        self.act3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv3(self.conv2(self.conv1(x)))
        if self.shortcut is not None:
            shortcut = self.shortcut(shortcut)
        x += shortcut
        return self.act3(x)  # type: ignore[no-any-return]


@form(images())
def residual_bottlenecks() -> nn.Module:
    return Pooled(nn.Sequential(ConvNormAct(3, 8), Bottleneck(8, 4), Bottleneck(16, 4, 2), nn.MaxPool2d(2)), 16)


@form(images())
class InvertedResidual(Pooled):
    """MobileNet v2 with ReLU6, its blocks in a list of settings."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [ConvNormAct(3, 8, act=nn.ReLU6)]
        for expand, channels, stride in [(1, 8, 1), (2, 8, 1), (2, 12, 2)]:
            layers.append(self.Block(layers[-1], expand, channels, stride))
        super().__init__(nn.Sequential(*layers), 12)

    class Block(nn.Module):
        def __init__(self, before: Any, expand: int, outputs: int, stride: int) -> None:
            super().__init__()
            inputs = before.conv.out_channels if isinstance(before, ConvNormAct) else before.outputs
            hidden = round(inputs * expand)
            self.outputs, self.use_res_connect = outputs, stride == 1 and inputs == outputs
            self.conv = nn.Sequential(
                ConvNormAct(inputs, hidden, 1, act=nn.ReLU6),
                ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6),
                nn.Conv2d(hidden, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

        def forward(self, x: Tensor) -> Tensor:
            if self.use_res_connect:
                return x + self.conv(x)  # type: ignore[no-any-return]
            return self.conv(x)  # type: ignore[no-any-return]


@form(images(8))
class ShuffleUnit(Pooled):
    """Channels split, shuffled and concatenated."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 8)
        self.branch = nn.Sequential(
            ConvNormAct(4, 4, 1), ConvNormAct(4, 4, 3, groups=4, act=None), ConvNormAct(4, 4, 1)
        )

    @staticmethod
    def channel_shuffle(x: Tensor, groups: int) -> Tensor:
        batch, channels, height, width = x.size()
        x = x.view(batch, groups, channels // groups, height, width)
        x = torch.transpose(x, 1, 2).contiguous()
        return x.view(batch, channels, height, width)

    def forward_features(self, x: Tensor) -> Tensor:
        kept, passed = x.chunk(2, dim=1)
        return self.channel_shuffle(torch.cat((kept, self.branch(passed)), dim=1), 2)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.drop_rate = 0.1

    def forward(self, features: list[Tensor] | Tensor) -> Tensor:
        if isinstance(features, Tensor):
            features = [features]
        out = self.conv(F.relu(self.norm(torch.cat(features, 1)), inplace=True))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        return out  # type: ignore[no-any-return]


@form(images())
class DenseNet(Pooled):
    def __init__(self) -> None:
        features = OrderedDict([("conv0", nn.Conv2d(3, 4, 3, padding=1)), ("relu0", nn.ReLU())])
        super().__init__(nn.Sequential(features), 13)
        self.layers = nn.ModuleDict({f"denselayer{i + 1}": DenseLayer(4 + 3 * i, 3) for i in range(3)})

    def forward_features(self, x: Tensor) -> Tensor:
        features = [self.features(x)]
        for _, layer in self.layers.items():
            features.append(layer(features))
        return F.relu(torch.cat(features, 1))


@form(images())
class Inception(Pooled):
    """Branches with an average pool and with asymmetric convolutions."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 14)
        self.branch1x1, self.branch_pool = ConvNormAct(3, 4, 1), ConvNormAct(3, 4, 1)
        self.branch1x7 = nn.Conv2d(3, 3, (1, 7), padding=(0, 3))
        self.branch7x1 = nn.Conv2d(3, 3, (7, 1), padding=(3, 0))

    def _forward(self, x: Tensor) -> list[Tensor]:
        pool = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        asymmetric = [F.relu(self.branch1x7(x)), F.relu(self.branch7x1(x))]
        return [self.branch1x1(x), torch.cat(asymmetric, 1), pool]

    def forward_features(self, x: Tensor) -> Tensor:
        return torch.cat(self._forward(x), 1)


@form(images(size=6))
class RepVGG(Pooled):
    """Three parallel branches that are summed before the activation, one of them only a BatchNorm."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 3)
        self.rbr_dense, self.rbr_1x1 = ConvNormAct(3, 3, 3, act=None), ConvNormAct(3, 3, 1, act=None)
        self.rbr_identity = nn.BatchNorm2d(3)
        self.nonlinearity = nn.ReLU()

    def forward_features(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        identity: Any = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return self.nonlinearity(self.rbr_dense(x) + self.rbr_1x1(x) + identity)  # type: ignore[no-any-return]


@form(images(), refused=r"2 operations.*(sigmoid|Sigmoid)")
class SqueezeExcitation(Pooled):
    """A gate computed from the features; plugins can compute it on analog values."""

    def __init__(self) -> None:
        super().__init__(ConvNormAct(3, 8), 8)
        self.fc1, self.fc2 = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.features(x)
        scale = torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return x * scale


@form(images())
class StandardizedConv(Pooled):
    """Weight standardization in the forward, as in NFNets and BiT."""

    class StdConv2d(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight
            v, m = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, unbiased=False)
            w = (w - m) / torch.sqrt(v + 1e-5)
            return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def __init__(self) -> None:
        conv = partial(self.StdConv2d, bias=True, padding=1)
        super().__init__(nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 8, 3, groups=2), nn.ReLU()), 8)


@form(images(size=7))
class SamePadding(Pooled):
    """TensorFlow's padding, computed from the input's size."""

    class Conv2dSame(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            ih, iw = x.size()[-2:]
            (kh, kw), (sh, sw) = self.weight.size()[-2:], self.stride
            oh, ow = math.ceil(ih / sh), math.ceil(iw / sw)
            pad_h = max((oh - 1) * sh + (kh - 1) * self.dilation[0] + 1 - ih, 0)
            pad_w = max((ow - 1) * sw + (kw - 1) * self.dilation[1] + 1 - iw, 0)
            if pad_h > 0 or pad_w > 0:
                x = F.pad(x, [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2])
            return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def __init__(self) -> None:
        conv = self.Conv2dSame
        super().__init__(nn.Sequential(conv(3, 6, 3, 2), nn.ReLU(), conv(6, 6, 3, 2), nn.ReLU()), 6)


@form(images())
class BlurPool(Pooled):
    """Anti-aliasing by a fixed depthwise filter in a buffer."""

    def __init__(self) -> None:
        super().__init__(ConvNormAct(3, 4), 4)
        a = torch.tensor([1.0, 2.0, 1.0])
        filter_ = (a[:, None] * a[None, :]) / 16
        self.register_buffer("filt", filter_[None, None].repeat(4, 1, 1, 1), persistent=False)
        self.pad = nn.ReflectionPad2d(1)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.features(x)
        filt: Any = self.filt
        return F.conv2d(self.pad(x), filt, stride=2, groups=x.shape[1])


@form(images())
class LayerScale(Pooled):
    """ConvNeXt's layout with ReLU and BatchNorm: depthwise, pointwise by Linear, a scale per channel, drop path."""

    class DropPath(nn.Module):
        def __init__(self, drop_prob: float) -> None:
            super().__init__()
            self.drop_prob = drop_prob

        def forward(self, x: Tensor) -> Tensor:
            if self.drop_prob == 0.0 or not self.training:
                return x
            mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
            return x * mask

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 1), 6)
        self.dwconv, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.pwconv1, self.pwconv2 = nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma, self.drop_path = nn.Parameter(torch.rand(6)), self.DropPath(0.1)

    def forward_features(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x))
        shortcut = x
        x = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        x = self.pwconv2(F.relu(self.pwconv1(x)))
        x = x.mul(self.gamma).permute(0, 3, 1, 2)
        return F.relu(shortcut + self.drop_path(x))


@form(images(1, 8))
class ChecksItsInput(Pooled):
    """Assertions, a grey image repeated to three channels, and an early flatten."""

    def __init__(self) -> None:
        super().__init__(ConvNormAct(3, 4), 4)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor), "a tensor"
        if x.dim() != 4:
            raise ValueError(f"expected [N, C, H, W], got {tuple(x.shape)}")
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        return super().forward(x)
