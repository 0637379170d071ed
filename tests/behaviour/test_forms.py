"""Every form in which people write the operations of a ReLU network, one small network each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sj_ann2snn import ConversionError, Converter, TracingError, UnsupportedError, simulate

from ..helpers.convergence import answer, assert_converges, relative_error, tensors


class Around(nn.Module):
    """One operation in the middle of a network.

    Args:
        operation: A module or a function.
        behind: What it works on: `"input"`, the current of the first layer; `"spikes"`, what its neurons emit;
            `"currents"`, what the second layer makes of these, with a neuron behind the operation.
    """

    def __init__(self, operation: Callable[..., Any], behind: str = "spikes") -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.operation, self.behind = operation, behind
        with torch.no_grad():
            size = self.features(torch.rand(1, 3, 6, 6)).shape[1]
        self.head = nn.Linear(size, 5)

    def features(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.behind == "input":
            h = self.operation(h)
        elif self.behind == "spikes":
            h = self.operation(F.relu(h))
        else:
            h = F.relu(self.operation(self.second(F.relu(h))))
        return h.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Written(nn.Module):
    """A forward given as a function of the module and its inputs."""

    def __init__(self, body: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def data(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*(shape or (6, 3, 6, 6)), dtype=torch.float64).mul(2).sub(0.9).to(dtype)


def randomised(ann: nn.Module) -> nn.Module:
    """With BatchNorm statistics that are not the identity, and biases that keep every layer alive."""
    for module in ann.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.3)
        elif getattr(module, "bias", None) is not None:
            with torch.no_grad():
                module.bias.abs_()
    return ann.eval()


def convert(ann: nn.Module, *inputs: Tensor, **options: Any) -> nn.Module:
    return Converter([inputs], progress=False, **options)(ann)


def assert_converts(ann: nn.Module, *inputs: Tensor, **options: Any) -> nn.Module:
    """Converts and converges, layer-wise and channel-wise."""
    ann = randomised(ann).double()
    wanted = answer(ann, inputs)
    for channel_wise in (False, True):
        snn = convert(ann, *inputs, channel_wise=channel_wise, **options)
        assert_converges(snn, inputs, wanted)
    return snn


class Clipped(nn.Module):
    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, h: Tensor) -> Tensor:
        return h.clamp(max=self.most)


ACTIVATIONS: dict[str, Callable[[], Callable[[Tensor], Any]]] = {
    "nn.ReLU": nn.ReLU,
    "nn.ReLU inplace": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: F.relu,
    "F.relu inplace": lambda: lambda h: F.relu(h, inplace=True),
    "F.relu_": lambda: F.relu_,
    "torch.relu": lambda: torch.relu,
    "torch.relu_": lambda: torch.relu_,
    "Tensor.relu": lambda: lambda h: h.relu(),
    "Tensor.relu_": lambda: lambda h: h.relu_(),
    "nn.ReLU6": lambda: nn.ReLU6(),
    "nn.ReLU6 inplace": lambda: nn.ReLU6(inplace=True),
    "F.relu6": lambda: F.relu6,
    "clamp(min=0)": lambda: lambda h: h.clamp(min=0),
    "clamp(0, max)": lambda: lambda h: h.clamp(0, 0.4),
    "clamp(max) of relu": lambda: lambda h: F.relu(h).clamp(max=0.4),
    "relu of clamp(max)": lambda: lambda h: F.relu(h.clamp(max=0.4)),
    "clamp_max of relu": lambda: lambda h: torch.relu(h).clamp_max(0.4),
    "clamp_max_ of relu": lambda: lambda h: torch.relu(h).clamp_max_(0.4),
    "clamp_max of nn.ReLU": lambda: nn.Sequential(nn.ReLU(), Clipped(0.4)),
    "clamp_max of relu6": lambda: lambda h: F.relu6(h).clamp(max=0.4),
    "minimum of relu": lambda: lambda h: torch.minimum(torch.relu(h), torch.tensor(0.4)),
    "relu of minimum": lambda: lambda h: torch.relu(torch.minimum(h, torch.tensor(0.4))),
    "minimum of maximum": lambda: lambda h: torch.min(torch.max(h, torch.zeros(())), torch.full((1,), 0.4)),
    "maximum with zero": lambda: lambda h: torch.maximum(h, torch.tensor(0.0)),
    "maximum with zeros": lambda: lambda h: torch.maximum(torch.zeros_like(h), h),
    "maximum method with zeros": lambda: lambda h: h.max(h.new_zeros(())),
    "where positive": lambda: lambda h: torch.where(h > 0, h, 0.0),
    "where not positive": lambda: lambda h: torch.where(h <= 0, torch.zeros_like(h), h),
    "h.where": lambda: lambda h: h.where(h >= 0, torch.zeros(())),
    "clamp_(min=0)": lambda: lambda h: h.clamp_(min=0),
    "clamp_min": lambda: lambda h: h.clamp_min(0.0),
    "torch.clamp": lambda: lambda h: torch.clamp(h, min=0.0, max=0.5),
    "torch.clip": lambda: lambda h: torch.clip(h, 0),
    "F.hardtanh(0, 6)": lambda: lambda h: F.hardtanh(h, 0, 6),
    "F.hardtanh_(0, 0.3)": lambda: lambda h: F.hardtanh_(h, 0.0, 0.3),
    "nn.Hardtanh(0, 0.3)": lambda: nn.Hardtanh(0.0, 0.3),
    "nn.LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "nn.LeakyReLU inplace": lambda: nn.LeakyReLU(0.1, inplace=True),
    "F.leaky_relu": lambda: lambda h: F.leaky_relu(h, 0.25),
    "nn.PReLU": lambda: nn.PReLU(),
    "nn.PReLU per channel": lambda: nn.PReLU(4, init=0.3),
    "nn.RReLU": lambda: nn.RReLU(),
    "abs": lambda: torch.abs,
    "nn.Threshold(0, 0)": lambda: nn.Threshold(0, 0),
    "F.threshold(0, 0)": lambda: lambda h: F.threshold(h, 0, 0),
}


@pytest.mark.parametrize("behind", ["input", "currents"])
@pytest.mark.parametrize("form", ACTIVATIONS)
def test_activations(form: str, behind: str) -> None:
    assert_converts(Around(ACTIVATIONS[form](), behind), data())


class OwnReLU(nn.ReLU):
    """A subclass that keeps torch's forward."""


def test_a_subclass_of_relu_that_keeps_its_forward() -> None:
    assert_converts(Around(OwnReLU(), "input"), data())


OPERATIONS: dict[str, Callable[[], Callable[[Tensor], Any]]] = {
    "nn.MaxPool2d": lambda: nn.MaxPool2d(2),
    "nn.MaxPool2d overlapping": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "nn.MaxPool2d dilated": lambda: nn.MaxPool2d(2, 1, dilation=2),
    "F.max_pool2d": lambda: lambda h: F.max_pool2d(h, 2),
    "torch.max_pool2d": lambda: lambda h: torch.max_pool2d(h, 2),
    "F.max_pool1d": lambda: lambda h: F.max_pool1d(h.flatten(2), 3, stride=2),
    "nn.AvgPool2d": lambda: nn.AvgPool2d(2),
    "nn.AvgPool2d without padding": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "F.avg_pool2d": lambda: lambda h: F.avg_pool2d(h, 2),
    "nn.AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((1, 2)),
    "F.adaptive_avg_pool2d": lambda: lambda h: F.adaptive_avg_pool2d(h, 1),
    "mean over space": lambda: lambda h: h.mean((2, 3)),
    "mean over space, kept": lambda: lambda h: torch.mean(h, dim=[-2, -1], keepdim=True),
    "nn.Flatten": lambda: nn.Flatten(),
    "flatten": lambda: lambda h: torch.flatten(h, 1),
    "view with a traced size": lambda: lambda h: h.view(h.size(0), -1),
    "view with a traced shape": lambda: lambda h: h.view(h.shape[0], h.shape[1], -1),
    "reshape": lambda: lambda h: h.reshape(-1, 4 * 36),
    "unpacked shape": lambda: unpacked_shape,
    "squeeze": lambda: lambda h: F.adaptive_avg_pool2d(h, 1).squeeze(-1).squeeze(-1),
    "unsqueeze": lambda: lambda h: h.unsqueeze(1),
    "permute": lambda: lambda h: h.permute(0, 2, 3, 1),
    "transpose": lambda: lambda h: h.transpose(1, 3),
    "contiguous": lambda: lambda h: h.transpose(1, 2).contiguous().view(h.size(0), -1),
    "chunk": lambda: lambda h: h.chunk(2, dim=1)[1],
    "split": lambda: lambda h: torch.cat(h.split([1, 3], dim=1)[::-1], dim=1),
    "unbind": lambda: lambda h: h.unbind(1)[2],
    "slice": lambda: lambda h: h[:, 1:, ::2],
    "F.pad": lambda: lambda h: F.pad(h, (1, 0, 2, 1)),
    "F.pad with a value": lambda: lambda h: F.pad(h, (1, 0, 2, 1), value=0.5),
    "F.pad reflect": lambda: lambda h: F.pad(h, (1, 1, 1, 1), mode="reflect"),
    "nn.ZeroPad2d": lambda: nn.ZeroPad2d(1),
    "cat": lambda: lambda h: torch.cat([h, h[:, :2]], 1),
    "stack": lambda: lambda h: torch.stack([h, h.flip(1)], 1),
    "add": lambda: lambda h: h + h.flip(1),
    "sub": lambda: lambda h: h - 0.5 * h.flip(2),
    "torch.add with alpha": lambda: lambda h: torch.add(h, h.flip(1), alpha=0.5),
    "add a constant": lambda: lambda h: 0.3 + h,
    "scale by a constant": lambda: lambda h: -0.7 * h,
    "divide by a constant": lambda: lambda h: h / 3,
    "interpolate nearest": lambda: lambda h: F.interpolate(h, scale_factor=2),
    "interpolate bilinear": lambda: lambda h: F.interpolate(h, size=(4, 9), mode="bilinear", align_corners=False),
    "interpolate to a traced size": lambda: lambda h: F.interpolate(F.avg_pool2d(h, 2), size=h.shape[-2:]) + h,
    "nn.Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "nn.PixelShuffle": lambda: nn.PixelShuffle(2),
    "nn.PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
    "nn.ChannelShuffle": lambda: nn.ChannelShuffle(2),
    "channel shuffle by hand": lambda: channel_shuffle,
    "nn.Dropout": lambda: nn.Dropout(),
    "nn.Dropout inplace": lambda: nn.Dropout(inplace=True),
    "nn.Dropout2d": lambda: nn.Dropout2d(),
    "nn.AlphaDropout": lambda: nn.AlphaDropout(),
    "nn.FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(),
    "F.dropout": lambda: lambda h: F.dropout(h, training=False),
    "nn.Identity": lambda: nn.Identity(),
}


def unpacked_shape(h: Tensor) -> Tensor:
    samples, channels, height, width = h.shape
    return h.reshape(samples, channels // 2, 2 * height, width)


def channel_shuffle(h: Tensor) -> Tensor:
    samples, channels, height, width = h.size()
    return (
        h.view(samples, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(samples, -1, height, width)
    )


def cat_takes_a_traced_tuple() -> bool:
    try:
        fx.symbolic_trace(lambda h: torch.cat(h.split(1)[::-1]))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("behind", ["spikes", "currents"])
@pytest.mark.parametrize("form", OPERATIONS)
def test_operations(form: str, behind: str) -> None:
    if form == "split" and not cat_takes_a_traced_tuple():
        pytest.skip("this version of torch cannot trace torch.cat of a slice of several results")
    assert_converts(Around(OPERATIONS[form](), behind), data())


def test_scaling_by_parameters() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.a(x)) * m.gain + m.shift
        return m.b(m.scalar * h)

    ann = Written(body, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 2, 3))
    ann.gain, ann.shift = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.rand(4, 1, 1))
    ann.scalar = nn.Parameter(torch.tensor(-0.7))
    assert_converts(ann, data())


# In-place operations and what shares memory with their input ----------------------------------------


def in_place_module(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    activated = m.act(h)
    return m.b(activated) + h


def in_place_function(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    activated = F.relu_(h)
    return m.b(activated) - 2 * h


def in_place_statement(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    h.relu_()
    return m.b(h) + h


def alias_of_dropout(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    alias = m.dropout(h)
    alias.relu_()
    return m.b(h) + alias


def view_read_after(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    flat = h.flatten(1)
    F.relu(h, inplace=True)
    return m.b(h).flatten(1) + flat


def view_changed(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    h.view(h.size(0), -1).relu_()
    return m.b(h) + h


def in_place_addition(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    shortcut = h
    h = F.relu(h)
    h += shortcut
    h = m.b(h)
    h += shortcut
    return F.relu(h)


def addition_seen_by_alias(m: Any, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    alias = m.dropout(h)
    h += 1.0
    h *= 0.5
    return m.b(alias) - h


def input_changed(m: Any, x: Tensor) -> Tensor:
    x.relu_()
    return m.b(m.a(x)) + m.a(x)


IN_PLACE = [
    in_place_module,
    in_place_function,
    in_place_statement,
    alias_of_dropout,
    view_read_after,
    view_changed,
    in_place_addition,
    addition_seen_by_alias,
    input_changed,
]


@pytest.mark.parametrize("body", IN_PLACE, ids=lambda body: body.__name__)
def test_in_place_operations_mean_what_they_mean(body: Callable[..., Any]) -> None:
    ann = Written(
        body,
        a=nn.Conv2d(3, 3, 3, padding=1),
        b=nn.Conv2d(3, 3, 3, padding=1),
        act=nn.ReLU(inplace=True),
        dropout=nn.Dropout(),
    )
    x = data()
    kept = x.clone()
    assert_converts(ann, x)
    assert torch.equal(x, kept)


def test_an_in_place_change_of_another_view_that_is_read_later_is_refused() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        h[:, :2].relu_()
        return m.b(h)

    ann = Written(body, a=nn.Conv2d(3, 3, 3), b=nn.Conv2d(3, 3, 3)).double()
    with pytest.raises(UnsupportedError, match="another view"):
        convert(ann, data())


def halves_one_activated(m: Any, x: Tensor) -> Tensor:
    left, right = m.a(x).chunk(2, dim=1)
    left = F.relu(left, inplace=True)
    return m.b(torch.cat([left, F.relu(right)], 1))


def in_place_dropout_of_a_part(m: Any, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    part = m.dropout(h[:, :2])
    return m.b(h) + m.c(part)


@pytest.mark.parametrize("body", [halves_one_activated, in_place_dropout_of_a_part], ids=lambda body: body.__name__)
def test_in_place_operations_that_change_no_memory_read_elsewhere(body: Callable[..., Any]) -> None:
    ann = Written(
        body, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 3, 3), c=nn.Conv2d(2, 3, 3), dropout=nn.Dropout(inplace=True)
    )
    assert_converts(ann, data())


# Weighted layers and BatchNorm -----------------------------------------------------------------------

BLOCKS: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "Conv1d": (lambda: [nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)], (4, 8)),
    "Conv2d": (lambda: [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)], (4, 6, 6)),
    "Conv3d": (lambda: [nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6)], (4, 3, 4, 3)),
    "ConvTranspose1d": (lambda: [nn.ConvTranspose1d(4, 6, 3, stride=2), nn.BatchNorm1d(6)], (4, 5)),
    "ConvTranspose2d": (lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)], (4, 4, 3)),
    "ConvTranspose3d": (lambda: [nn.ConvTranspose3d(4, 6, 2), nn.BatchNorm3d(6)], (4, 2, 3, 2)),
    "grouped Conv2d": (lambda: [nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], (4, 6, 6)),
    "depthwise Conv2d": (lambda: [nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)], (4, 6, 6)),
    "grouped ConvTranspose2d": (lambda: [nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6)], (4, 4, 4)),
    "Linear": (lambda: [nn.Linear(7, 6), nn.BatchNorm1d(6)], (7,)),
    "Linear over tokens": (lambda: [nn.Linear(7, 6), nn.BatchNorm1d(4)], (4, 7)),
    "affine=False": (lambda: [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)], (4, 6, 6)),
    "BatchNorm first": (lambda: [nn.BatchNorm2d(4)], (4, 6, 6)),
    "two BatchNorms": (lambda: [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)], (4, 6, 6)),
}


@pytest.mark.parametrize("fuse_flag", [True, False], ids=["folded", "kept"])
@pytest.mark.parametrize("block", BLOCKS)
def test_batchnorm_behind_every_layer(block: str, fuse_flag: bool) -> None:
    make, shape = BLOCKS[block]
    first, second = make(), make()
    x = data(6, *shape)
    with torch.no_grad():
        width = nn.Sequential(*first).eval()(x.float()).shape[1:]
    between = nn.Linear(width.numel(), x[0].numel())
    ann = nn.Sequential(
        *first, nn.ReLU(), nn.Flatten(), between, nn.ReLU(), nn.Unflatten(1, shape), *second, nn.ReLU(), nn.Flatten()
    )
    assert_converts(ann, x, fuse_flag=fuse_flag)


def test_batchnorm_before_the_activation_with_nothing_to_fold_into() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x)
        h = h + m.a(F.relu(m.bn1(h)))
        h = h + m.b(F.relu(m.bn2(h)))
        return m.head(F.relu(m.bn3(h)).mean((2, 3)))

    layers = {name: nn.Conv2d(4, 4, 3, padding=1) for name in ("a", "b")}
    norms = {f"bn{index}": nn.BatchNorm2d(4) for index in (1, 2, 3)}
    ann = Written(body, stem=nn.Conv2d(3, 4, 3), head=nn.Linear(4, 3), **layers, **norms)
    assert_converts(ann, data())


def test_batchnorm_behind_a_layer_whose_output_has_other_users() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.b(F.relu(m.bn(h))) + F.relu(h)

    ann = Written(body, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4))
    assert_converts(ann, data())


def test_batchnorm_without_running_statistics_is_refused_with_the_reason() -> None:
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()).eval()
    with pytest.raises(ConversionError, match="track_running_stats=False"):
        convert(ann, data(dtype=torch.float32))


def test_functional_layers_with_parameters() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = F.relu(F.conv2d(x, m.w1, m.b1, padding=1))
        h = F.relu(F.conv_transpose2d(h, m.w2, stride=2))
        return F.linear(h.flatten(1), m.w3)

    ann = Written(body)
    ann.w1, ann.b1 = nn.Parameter(torch.randn(4, 3, 3, 3) / 4), nn.Parameter(torch.rand(4) / 4)
    ann.w2, ann.w3 = nn.Parameter(torch.randn(4, 2, 2, 2) / 2), nn.Parameter(torch.randn(3, 288) / 10)
    assert_converts(ann, data())


# Reuse, several inputs and outputs ---------------------------------------------------------------------


def test_a_module_called_twice_gets_a_neuron_and_a_scale_per_call() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = m.act(m.a(x))
        h = m.act(m.b(10 * h))
        return m.b(h)

    ann = Written(body, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 3, padding=1), act=nn.ReLU()).double()
    x = data()
    converter = Converter([x], progress=False)
    assert_converges(converter(ann), (x,), answer(ann, (x,)))
    scales = converter.report.scales
    assert list(scales) == ["act", "act#2"]
    assert scales["act"] != scales["act#2"]


class TwoInputs(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.image, self.vector, self.kind = nn.Conv2d(3, 4, 3), nn.Linear(5, 4), kind

    def forward(self, image: Tensor, vector: Tensor) -> Any:
        a = F.relu(self.image(image)).mean((2, 3))
        b = F.relu(self.vector(vector))
        joined = torch.cat([a, b], 1)
        if self.kind == "dict":
            return {"sum": a + b, "joined": joined}
        if self.kind == "nested":
            return {"pair": (a, b), "list": [joined]}
        if self.kind == "list":
            return [a - b, joined]
        return (a, b, joined) if self.kind == "tuple" else joined


@pytest.mark.parametrize("kind", ["tensor", "tuple", "list", "dict", "nested"])
def test_several_inputs_and_outputs(kind: str) -> None:
    ann, inputs = TwoInputs(kind).double(), (data(), data(6, 5))
    assert_converts(ann, *inputs)


def test_inputs_by_name() -> None:
    ann, inputs = TwoInputs("tensor").double(), (data(), data(6, 5))
    batch = {"vector": inputs[1], "label": torch.zeros(6), "image": inputs[0]}
    snn = Converter([batch], progress=False)(ann)
    assert_converges(snn, inputs, answer(ann, inputs))


def test_an_optional_input_stays_at_its_default() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 8)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            h = F.relu(self.linear(x))
            return h if mask is None else h * mask

    assert_converts(Optional(), data(6, 4))


@pytest.mark.parametrize("last", [nn.Identity(), nn.ReLU()], ids=["currents", "spikes"])
def test_regression_outputs_come_in_the_units_of_the_ann(last: nn.Module) -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), last)
    with torch.no_grad():
        ann[2].weight.mul_(300)
        ann[2].bias.add_(1000)
    assert_converts(ann, data(16, 4))


# Networks that are not linear over time -------------------------------------------------------------------


def product_of_two_streams(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.a(x)) * F.relu(m.b(x))


def square(m: Any, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    return m.b(h * h)


def normalized_between_spikes(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.norm(F.relu(m.a(x))))


REFUSED: dict[Callable[..., Any], str] = {
    product_of_two_streams: "multiplies two spike streams",
    square: "multiplies two spike streams",
    normalized_between_spikes: "norm (GroupNorm)",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body.__name__)
def test_what_converts_wrongly_elsewhere_is_refused(body: Callable[..., Any]) -> None:
    a, b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    ann = Written(body, a=a, b=b, norm=nn.GroupNorm(1, 3))
    with pytest.raises(UnsupportedError) as caught:
        convert(ann, data(dtype=torch.float32))
    assert REFUSED[body] in str(caught.value)
    assert "test_forms.py" in str(caught.value)


def test_all_that_stands_in_the_way_is_listed_at_once() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        h = torch.sigmoid(F.relu(m.a(x)))
        return F.softmax(m.norm(h) * h, dim=1)

    ann = Written(body, a=nn.Conv2d(3, 4, 3), norm=nn.GroupNorm(2, 4))
    with pytest.raises(UnsupportedError) as caught:
        convert(ann, data(dtype=torch.float32))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("4 operations")
    for line, word in zip(lines[1:], ["sigmoid", "GroupNorm", "mul", "softmax"], strict=True):
        assert word in line


def test_products_with_what_does_not_vary_are_exact() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        gate = torch.sigmoid(m.norm(m.gate(x)))
        return m.b(F.relu(m.a(x)) * gate)

    ann = Written(body, a=nn.Conv2d(3, 4, 3), gate=nn.Conv2d(3, 4, 3), norm=nn.GroupNorm(2, 4), b=nn.Conv2d(4, 2, 3))
    assert_converts(ann, data())


# Parts, leaves, checks, dtypes ------------------------------------------------------------------------------


class Branching(nn.Module):
    """fx cannot trace it; it is linear for all that."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) == float("inf"):
            return x
        return self.linear(x)


def test_leaf_modules_are_kept_as_they_are() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Branching(), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(TracingError, match="leaf_modules"):
        convert(ann, data(6, 4, dtype=torch.float32))
    snn = assert_converts(ann, data(6, 4), leaf_modules=["2"])
    assert any(isinstance(module, Branching) for module in snn.modules())


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tail = nn.Linear(4, 4), nn.Linear(3, 2)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sigmoid(self.stem(x)) if float(x.sum()) < 1e9 else x
        return self.tail(self.body(h))


def test_convert_only_converts_one_submodule() -> None:
    ann, x = Untraceable().double(), data(6, 4)
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    with pytest.raises(TracingError, match="cannot trace the forward of Untraceable"):
        convert(ann, x)
    snn = convert(ann, x, convert_only="body")
    assert type(snn) is Untraceable
    assert type(ann.body) is nn.Sequential
    assert isinstance(snn.body, torch.fx.GraphModule)
    assert_converges(snn, (x,), answer(ann, (x,)))
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_check_says_what_would_happen() -> None:
    good = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    found = Converter([data(6, 4, dtype=torch.float32)], progress=False).check(good)
    assert found.convertible
    assert [entry.becomes for entry in found.entries] == ["itself", "if neuron", "itself"]

    bad = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Softmax(1), nn.Linear(6, 2), nn.Sigmoid())
    found = Converter([data(6, 4, dtype=torch.float32)], progress=False).check(bad)
    assert not found.convertible
    assert [problem.name for problem in found.problems] == ["2", "4"]
    assert "2 operations refused" in str(found)


def test_check_looks_at_the_submodule_that_is_to_be_converted() -> None:
    found = Converter([data(6, 4)], convert_only="body", progress=False).check(Untraceable().double())
    assert found.convertible
    assert [entry.operation for entry in found.entries] == [type(one).__name__ for one in Untraceable().body]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_and_double_precision_are_kept(dtype: torch.dtype) -> None:
    ann = randomised(Around(nn.LeakyReLU(0.1), "currents")).to(dtype)
    x = data(dtype=dtype)
    snn = convert(ann, x)
    assert {p.dtype for p in (*snn.parameters(), *snn.buffers()) if p.is_floating_point()} == {dtype}
    assert simulate(snn, x, T=2).dtype == dtype
    assert_converges(snn, (x,), answer(ann, (x,)))


@pytest.mark.parametrize("slope", [0.1, -0.2, 1 / 3])
def test_slopes_keep_double_precision(slope: float) -> None:
    ann, x = (
        nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(slope), nn.Linear(6, 6), nn.RReLU()).double().eval(),
        data(6, 4),
    )
    normalized = Converter([x], progress=False, verify=False).normalize(ann)
    assert relative_error(answer(normalized, (x,)), answer(ann, (x,))) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_single(dtype: torch.dtype) -> None:
    ann = randomised(Around(nn.ReLU(), "currents")).to(dtype)
    x = data(dtype=dtype)
    snn = convert(ann, x)
    assert {p.dtype for p in (*snn.parameters(), *snn.buffers()) if p.is_floating_point()} == {torch.float32}
    assert simulate(snn, x, T=2).dtype == torch.float32
    assert_converges(snn, (x,), answer(ann.float(), (x.float(),)))


def test_tensors_of_nested_outputs() -> None:
    # The helper that all of this file rests on.
    one, two = torch.ones(2), torch.zeros(2)
    assert len(tensors({"pair": (one, [two])})) == 2
    assert relative_error((one, two), (one, two)) == 0
    assert relative_error((one, two), (one, one)) == 1


def tied_weights(m: Any, x: Tensor) -> Tensor:
    return F.linear(F.relu(m.a(x)), m.a.weight.t())


def tied_weights_behind_batchnorm(m: Any, x: Tensor) -> Tensor:
    return F.linear(F.relu(m.bn(m.a(x))), m.a.weight.t())


def statistics_read_elsewhere(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.bn(m.a(x)) + m.bn.running_mean)


def test_weights_that_are_read_besides_the_call_of_their_layer() -> None:
    assert_converts(Written(tied_weights, a=nn.Linear(4, 6)), data(6, 4))


def test_weights_that_are_read_besides_the_call_of_a_layer_with_batchnorm() -> None:
    ann = Written(tied_weights_behind_batchnorm, a=nn.Linear(4, 6), bn=nn.BatchNorm1d(6))
    assert_converts(ann, data(6, 4))


def test_statistics_that_are_read_besides_the_call_of_their_layer() -> None:
    assert_converts(Written(statistics_read_elsewhere, a=nn.Linear(4, 6), bn=nn.BatchNorm1d(6)), data(6, 4))


def test_statistics_of_a_batchnorm_that_is_not_folded_are_read_elsewhere() -> None:
    ann = Written(statistics_read_elsewhere, a=nn.Linear(4, 6), bn=nn.BatchNorm1d(6))
    assert_converts(ann, data(6, 4), fuse_flag=False)
