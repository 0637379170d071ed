"""The built-ins run the conformance kit that plugins' authors run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn.builtin import (
    activation_mappers,
    arithmetic_mappers,
    exits,
    exporters,
    layer_mappers,
    neurons,
    normalizations,
    pool_mappers,
    readouts,
    shape_mappers,
)
from sj_ann2snn.hooks import discovery
from sj_ann2snn.testing import (
    ExitRuleTests,
    ExporterTests,
    LayerMapperTests,
    MapperCase,
    NeuronTests,
    NormalizationTests,
    PluginTests,
    ReadoutTests,
)

from ..helpers.networks import Written

# Modes -------------------------------------------------------------------------------------------


class TestMax(NormalizationTests):
    plugin_class = normalizations.Max
    plugin = normalizations


class TestFraction(NormalizationTests):
    plugin_class = normalizations.Fraction
    plugin = normalizations
    modes = ("0.5", 0.5, "1/4", 1)


class TestPercentile(NormalizationTests):
    plugin_class = normalizations.Percentile
    plugin = normalizations
    modes = ("99.9%", "50 %")
    options: ClassVar = {"percentile_bits": 9}
    relative_error = 2**-9


# Neurons and exit rules --------------------------------------------------------------------------


class TestIF(NeuronTests):
    plugin_class = neurons.IFNeuron
    plugin = neurons


class TestIFThatRounds(NeuronTests):
    plugin_class = neurons.IFNeuron
    options: ClassVar = {"initial_potential": 0.5}
    rate_error = 0.5


class TestMargin(ExitRuleTests):
    plugin_class = exits.Margin
    plugin = exits
    options: ClassVar = {"threshold": 3.0}


# Formats -----------------------------------------------------------------------------------------


class TestArchive(ExporterTests):
    plugin_class = exporters.Archive
    plugin = exporters


class TestCompressedArchive(ExporterTests):
    plugin_class = exporters.Archive
    options: ClassVar = {"compress": True}


class TestC(ExporterTests):
    plugin_class = exporters.C
    plugin = exporters
    reads_back = False
    keeps_notes = False
    refused = ("leaky", "residual")
    weights = "int8"


class TestTorch(ExporterTests):
    plugin_class = exporters.Torch
    plugin = exporters


# Readouts ----------------------------------------------------------------------------------------


class TestMean(ReadoutTests):
    plugin_class = readouts.Mean
    plugin = readouts


class TestDelayed(ReadoutTests):
    plugin_class = readouts.Delayed
    plugin = readouts
    options: ClassVar = {"delay": 9}


class TestRecent(ReadoutTests):
    plugin_class = readouts.Recent
    plugin = readouts


class TestExponential(ReadoutTests):
    plugin_class = readouts.Exponential
    plugin = readouts
    options: ClassVar = {"decay": 0.7}


class TestLast(ReadoutTests):
    plugin_class = readouts.Last
    plugin = readouts


class TestPotential(ReadoutTests):
    plugin_class = readouts.Potential
    plugin = readouts
    keeps_constants = False


# Mappers -----------------------------------------------------------------------------------------


# The networks below are drawn when this file is collected; what else is collected must not matter.
torch.manual_seed(0)


def behind(*operations: nn.Module, channels: int = 3, dims: int = 2) -> Callable[[], nn.Module]:
    """A network with `operations` behind a convolution and a neuron."""
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return lambda: nn.Sequential(conv(1, channels, 3), nn.ReLU(), *operations)


def written(forward: Callable[[Any, Tensor], Any], **parts: Callable[[], Any]) -> Callable[[], nn.Module]:
    """A network whose forward is written as a function; `h(x)` is its first spiking layer, of three channels."""

    def whole(net: Any, x: Tensor) -> Any:
        return forward(net, torch.relu(net.conv(x)))

    return lambda: Written(whole, conv=nn.Conv2d(1, 3, 3), **{name: make() for name, make in parts.items()})


IMAGE = (1, 8, 8)
MASK = torch.arange(36).view(1, 1, 6, 6) % 3 > 0


class Mapper(LayerMapperTests):
    """A mapper of the built-ins with its networks as a class attribute."""

    networks: ClassVar[Mapping[str, Callable[[], nn.Module] | MapperCase]]

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            name: one if isinstance(one, MapperCase) else MapperCase(one, IMAGE) for name, one in cls.networks.items()
        }


def refused(network: Callable[[], nn.Module], **options: Any) -> MapperCase:
    return MapperCase(network, IMAGE, refused=True, options=options)


def case(
    network: Callable[[], nn.Module], shape: tuple[int, ...] = IMAGE, *, memory: bool = False, **options: Any
) -> MapperCase:
    return MapperCase(network, shape, memory=memory, options=options)


class TestReLU(Mapper):
    plugin_class = activation_mappers.ReLUMapper
    plugin = activation_mappers
    networks: ClassVar = {
        "module": behind(nn.Conv2d(3, 2, 3), nn.ReLU()),
        "function": written(lambda net, h: F.relu(h - 0.1)),
        "method": written(lambda net, h: (h - 0.1).relu()),
    }


class TestBoundedReLU(Mapper):
    plugin_class = activation_mappers.BoundedReLUMapper
    networks: ClassVar = {
        "relu6": behind(nn.Conv2d(3, 2, 3), nn.ReLU6()),
        "clamp": written(lambda net, h: (h - 0.1).clamp(0, 0.2)),
        "clamp_min": written(lambda net, h: torch.clamp_min(h - 0.1, 0)),
        "hardtanh": behind(nn.Hardtanh(0.0, 0.3)),
        "both-signs": refused(behind(nn.Hardtanh())),
    }


class TestThreshold(Mapper):
    plugin_class = activation_mappers.ThresholdMapper
    networks: ClassVar = {
        "at-zero": behind(nn.Conv2d(3, 2, 3), nn.Threshold(0, 0)),
        "above": refused(behind(nn.Threshold(0.1, 0))),
    }


class TestLeakyReLU(Mapper):
    plugin_class = activation_mappers.LeakyReLUMapper
    networks: ClassVar = {
        "leaky": behind(nn.Conv2d(3, 2, 3), nn.LeakyReLU(0.2)),
        "prelu": behind(nn.Conv2d(3, 2, 3), nn.PReLU(2)),
        "rrelu": behind(nn.Conv2d(3, 2, 3), nn.RReLU()),
        "abs": written(lambda net, h: (h - 0.2).abs()),
        "random": refused(written(lambda net, h: F.rrelu(h - 0.2, training=True))),
    }


class TestWeighted(Mapper):
    plugin_class = layer_mappers.WeightedMapper
    networks: ClassVar = {
        "conv": behind(nn.Conv2d(3, 4, 3, padding=1, groups=1)),
        "transposed": behind(nn.ConvTranspose2d(3, 4, 2, stride=2)),
        "linear": behind(nn.Flatten(), nn.Linear(108, 5)),
        "last-dimension": behind(nn.Linear(6, 5)),
    }


class TestFunctionalWeighted(Mapper):
    # With constant weights it would be a layer; these are cut to the input's size.
    plugin_class = layer_mappers.FunctionalWeightedMapper
    networks: ClassVar = {
        "conv": written(
            lambda net, h: F.conv2d(h, net.w[:, : h.size(1)]), w=lambda: nn.Parameter(torch.randn(2, 3, 3, 3))
        ),
        "linear": written(
            lambda net, h: F.linear(h.flatten(1), net.w[:, : h.flatten(1).size(1)]),
            w=lambda: nn.Parameter(torch.randn(2, 108)),
        ),
    }


class TestBatchNorm(Mapper):
    plugin_class = layer_mappers.BatchNormMapper
    networks: ClassVar = {
        "fixed": written(
            # With constant statistics it would be a layer; these are cut to the input's channels.
            lambda net, h: F.batch_norm(h, net.mean[: h.size(1)], net.var[: h.size(1)]),
            mean=lambda: nn.Parameter(torch.rand(3)),
            var=lambda: nn.Parameter(torch.rand(3) + 0.5),
        ),
        "of-the-batch": refused(written(lambda net, h: F.batch_norm(h, None, None, training=True))),
    }


class TestDropout(Mapper):
    plugin_class = layer_mappers.DropoutMapper
    networks: ClassVar = {
        "module": behind(nn.Dropout(), nn.Identity(), nn.Dropout2d()),
        "function": written(lambda net, h: F.dropout(h, 0.5, net.training)),
        "always": refused(written(lambda net, h: F.dropout(h, 0.5, True))),
    }


class TestRearrange(Mapper):
    plugin_class = shape_mappers.RearrangeMapper
    networks: ClassVar = {
        "flatten": behind(nn.Flatten()),
        "permute": written(lambda net, h: h.permute(0, 2, 3, 1)),
        "cat": written(lambda net, h: torch.cat([h, h.flip(2)], 1)),
        "slice": written(lambda net, h: h[:, 1:, ::2]),
        "chunk": written(lambda net, h: h.chunk(3, 1)[1]),
        "shuffle": behind(nn.ChannelShuffle(3)),
    }


class TestPadding(Mapper):
    plugin_class = shape_mappers.PaddingMapper
    networks: ClassVar = {
        "zeros": behind(nn.ZeroPad2d(1)),
        "ones": behind(nn.ConstantPad2d(1, 1.0)),
        "reflection": behind(nn.ReflectionPad2d(1)),
        "channels": written(lambda net, h: F.pad(h, (0, 0, 0, 0, 1, 1))),
    }


class TestLinear(Mapper):
    plugin_class = layer_mappers.LinearMapper
    networks: ClassVar = {
        "cumsum": written(lambda net, h: h.cumsum(1)),
        "unfold": behind(nn.Unfold(2)),
        "rsub": written(lambda net, h: torch.rsub(h, 1.0)),
    }


class TestAddition(Mapper):
    plugin_class = arithmetic_mappers.AdditionMapper
    networks: ClassVar = {
        "residual": written(lambda net, h: h + torch.relu(net.inner(h)), inner=lambda: nn.Conv2d(3, 3, 3, padding=1)),
        "difference": written(lambda net, h: h - torch.relu(net.inner(h)), inner=lambda: nn.Conv2d(3, 3, 1)),
        "number": written(lambda net, h: h + 0.5),
        "alpha": written(lambda net, h: torch.add(h, h, alpha=2)),
    }


class TestNegation(Mapper):
    plugin_class = arithmetic_mappers.NegationMapper
    networks: ClassVar = {"operator": written(lambda net, h: -h), "method": written(lambda net, h: h.neg())}


class TestProduct(Mapper):
    plugin_class = arithmetic_mappers.ProductMapper
    networks: ClassVar = {
        "number": written(lambda net, h: 3 * h),
        "parameter": written(lambda net, h: h * net.w, w=lambda: nn.Parameter(torch.rand(3, 1, 1))),
    }


class TestQuotient(Mapper):
    plugin_class = arithmetic_mappers.QuotientMapper
    networks: ClassVar = {
        "number": written(lambda net, h: h / 3),
        "parameter": written(lambda net, h: h / net.w, w=lambda: nn.Parameter(torch.rand(3, 1, 1) + 0.5)),
        "rounded": refused(written(lambda net, h: torch.div(h, 3, rounding_mode="floor"))),
    }


class TestMatrixProduct(Mapper):
    plugin_class = arithmetic_mappers.MatrixProductMapper
    networks: ClassVar = {
        "operator": written(lambda net, h: net.w @ h, w=lambda: nn.Parameter(torch.randn(2, 6))),
        "einsum": written(
            lambda net, h: torch.einsum("nchw,cd->ndhw", h, net.w), w=lambda: nn.Parameter(torch.randn(3, 2))
        ),
    }


class TestCast(Mapper):
    # A network here is in double precision, where a cast to single is not exact; test_python_in_forward.py has those.
    plugin_class = shape_mappers.CastMapper
    networks: ClassVar = {
        "half": refused(written(lambda net, h: h.half().float())),
        "integers": refused(written(lambda net, h: h.to(torch.int32).float())),
    }


class TestSelection(Mapper):
    plugin_class = shape_mappers.SelectionMapper
    networks: ClassVar = {
        "where": written(
            lambda net, h: torch.where(net.mask, h, torch.zeros_like(h)), mask=lambda: nn.Parameter(MASK, False)
        ),
        "filled": written(lambda net, h: h.masked_fill(net.mask, 0.5), mask=lambda: nn.Parameter(MASK, False)),
        "triangle": written(lambda net, h: h.tril() + torch.triu(h)),
        "by-values": refused(written(lambda net, h: torch.where(h > 0.5, h, 0.5 * h))),
        "filled-by-values": refused(written(lambda net, h: h.masked_fill(h > 0.5, 0.0))),
    }


class TestAveragePool(Mapper):
    plugin_class = pool_mappers.AveragePoolMapper
    plugin = pool_mappers
    networks: ClassVar = {
        "2d": behind(nn.AvgPool2d(2)),
        "overlapping": behind(nn.AvgPool2d(3, stride=1, padding=1)),
        "1d": case(behind(nn.AvgPool1d(2), dims=1), (1, 9)),
        "3d": case(behind(nn.AvgPool3d(2), dims=3), (1, 5, 5, 5)),
        "global": behind(nn.AdaptiveAvgPool2d(1)),
        "function": written(lambda net, h: F.avg_pool2d(h, 2)),
        "neuron": case(behind(nn.AvgPool2d(2)), avgpool_neuron=True),
    }


class TestReduction(Mapper):
    plugin_class = pool_mappers.ReductionMapper
    networks: ClassVar = {
        "space": written(lambda net, h: h.mean((2, 3))),
        "channels": written(lambda net, h: h.sum(1)),
        "samples": refused(written(lambda net, h: h + h.mean(0))),
        "everything": refused(written(lambda net, h: h * 0 + h.sum())),
    }


class TestUpsample(Mapper):
    plugin_class = pool_mappers.UpsampleMapper
    networks: ClassVar = {
        "nearest": behind(nn.Upsample(scale_factor=2)),
        "bilinear": written(lambda net, h: F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)),
    }


class TestMaxPool(Mapper):
    plugin_class = pool_mappers.MaxPoolMapper
    networks: ClassVar = {
        "2d": case(behind(nn.MaxPool2d(2)), memory=True),
        "padded": case(behind(nn.MaxPool2d(3, stride=2, padding=1)), memory=True),
        "1d": case(behind(nn.MaxPool1d(2), dims=1), (1, 9), memory=True),
        "3d": case(behind(nn.MaxPool3d(2), dims=3), (1, 5, 5, 5), memory=True),
        "function": case(written(lambda net, h: F.max_pool2d(h, 2, ceil_mode=True)), memory=True),
        "momentum": case(behind(nn.MaxPool2d(2)), memory=True, maxpool="momentum"),
        "pre-spike": case(behind(nn.MaxPool2d(2)), memory=True, maxpool="pre-spike"),
        "average": case(behind(nn.MaxPool2d(2)), maxpool="avg"),
        "indices": refused(
            written(
                lambda net, h: net.unpool(*net.pool(h)),
                pool=lambda: nn.MaxPool2d(2, return_indices=True),
                unpool=lambda: nn.MaxUnpool2d(2),
            )
        ),
        "dilated": refused(behind(nn.MaxPool2d(2, dilation=2)), maxpool="avg"),
    }


NOT_HERE = {"StochasticDepthMapper"}
"""Claims a function of torchvision, which need not be installed; tests/behaviour/test_torchvision.py converts with it."""


def test_every_builtin_runs_the_kit() -> None:
    tested = {
        one.plugin_class
        for one in globals().values()
        if isinstance(one, type) and issubclass(one, PluginTests)
        if hasattr(one, "plugin_class")
    }
    known = {one.cls for classes in discovery._load("", "").classes.values() for one in classes}
    assert {cls.__qualname__ for cls in known - tested} == NOT_HERE
