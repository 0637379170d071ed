"""Layers with weights, BatchNorm, pools and resampling."""

from __future__ import annotations

from math import gcd

from .builder import Builder, Value

DIMENSIONS = {2: 1, 3: 2, 4: 3}
"""Spatial dimensions of a sample by its rank."""


def convolution(builder: Builder) -> None:
    """Conv1d, 2d or 3d, perhaps with a BatchNorm behind it."""
    value = builder.operand(ranks=(2, 3, 4))
    channels, spatial = builder.shape(value)[0], len(builder.shape(value)) - 1
    kernel = builder.pick(3, 1, 2)
    groups, out = _groups(builder, channels)
    stride, padding, bias = builder.pick(1, 1, 2), builder.pick(kernel // 2, 0, 1), builder.pick(True, False)
    options = f"{kernel}, stride={stride}, padding={padding}, groups={groups}, bias={bias}"
    if spatial == 2 and builder.chance(8) and padding:
        options += f", padding_mode={builder.pick('reflect', 'circular', 'replicate')!r}"
    if builder.chance(8):
        weight = builder.layer(
            f"nn.Parameter(torch.randn({out}, {channels // groups}{f', {kernel}' * spatial}))", "weight"
        )
        call = f"F.conv{spatial}d({value.name}, {weight}, None, {stride}, {padding}, 1, {groups})"
        _finish(builder, call, value, spatial)
        return
    layer = builder.layer(f"nn.Conv{spatial}d({channels}, {out}, {options})", "conv")
    _finish(builder, f"{layer}({value.name})", value, spatial)


def transposed_convolution(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3, 4))
    channels, spatial = builder.shape(value)[0], len(builder.shape(value)) - 1
    groups, out = _groups(builder, channels)
    stride = builder.pick(1, 2)
    extra = f", output_padding={builder.pick(0, 1)}" if stride == 2 else ""
    layer = builder.layer(
        f"nn.ConvTranspose{spatial}d({channels}, {out}, {builder.pick(2, 3)}, stride={stride}, "
        f"padding={builder.pick(1, 0)}{extra}, groups={groups}, bias={builder.pick(True, False)})",
        "deconv",
    )
    _finish(builder, f"{layer}({value.name})", value, spatial)


def linear(builder: Builder) -> None:
    """Linear over the last dimension of anything."""
    value = builder.operand()
    features, rank = builder.shape(value)[-1], len(builder.shape(value))
    if rank > 1 and not builder.chance(4):
        value = builder.write(f"{value.name}.flatten(1)", value)
        features, rank = builder.shape(value)[0], 1
        builder.read(value)
    out = builder.pick(4, 6, 3)
    if builder.chance(6):
        weight = builder.layer(f"nn.Parameter(torch.randn({out}, {features}))", "weight")
        form = builder.pick("F.linear({0}, {1})", "{0} @ {1}.t()", "torch.matmul({0}, {1}.t())")
        builder.write(form.format(value.name, weight), value)
        return
    layer = builder.layer(f"nn.Linear({features}, {out}, bias={builder.pick(True, False)})", "linear")
    _finish(builder, f"{layer}({value.name})", value, 1 if rank <= 2 else 0)


def sequential(builder: Builder) -> None:
    """Convolution, BatchNorm and an activation in one submodule."""
    value = builder.operand(ranks=(3,))
    channels = builder.shape(value)[0]
    out = builder.pick(channels, 4)
    inplace = builder.pick(False, True)
    layer = builder.layer(
        f"nn.Sequential(nn.Conv2d({channels}, {out}, 3, padding=1, bias=False), nn.BatchNorm2d({out}), "
        f"nn.ReLU(inplace={inplace}))",
        "block",
    )
    builder.write(f"{layer}({value.name})", value, spikes=True)


def batchnorm(builder: Builder) -> None:
    """A BatchNorm with anything before it."""
    value = builder.operand(ranks=(1, 2, 3, 4))
    spatial = max(1, len(builder.shape(value)) - 1)
    layer = _batchnorm(builder, builder.shape(value)[0], spatial)
    if builder.chance(6):
        call = f"F.batch_norm({value.name}, {layer}.running_mean, {layer}.running_var, {layer}.weight, {layer}.bias)"
    else:
        call = f"{layer}({value.name})"
    builder.write(call, value)


def again(builder: Builder) -> None:
    """A module that was called before, called once more."""
    layers = [
        line.split(" = ")[0]
        for line in builder.init
        if "nn.Parameter" not in line and "Norm" not in line.split(" = ")[0]
    ]
    if not layers:
        raise ValueError("nothing to call again")
    value = builder.operand()
    layer = builder.pick(*reversed(layers))
    module = builder.network.get_submodule(layer.removeprefix("self."))
    if getattr(module, "inplace", False):
        builder.mark_changed(value, spikes=True)
    builder.write(f"{layer}({value.name})", value, spikes="act" in layer or "block" in layer)


def max_pool(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3))
    spatial = len(builder.shape(value)) - 1
    kernel, stride = builder.pick(2, 3), builder.pick(2, 1)
    padding, dilation, ceil = builder.pick(0, 1), builder.pick(1, 1, 2), builder.pick(False, True)
    named = f"stride={stride}, padding={padding}, dilation={dilation}, ceil_mode={ceil}"
    forms = (
        f"{{layer}}({value.name})",
        f"F.max_pool{spatial}d({value.name}, {kernel}, {named})",
        f"torch.max_pool{spatial}d({value.name}, {kernel}, {stride}, {padding}, {dilation}, {ceil})",
        f"F.max_pool{spatial}d({value.name}, {kernel})",
    )
    form = builder.pick(*forms)
    if "{layer}" in form:
        form = form.format(layer=builder.layer(f"nn.MaxPool{spatial}d({kernel}, {named})", "pool"))
    builder.write(form, value)


def average_pool(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3))
    spatial = len(builder.shape(value)) - 1
    kernel, stride, padding = builder.pick(2, 3), builder.pick(2, 1), builder.pick(0, 1)
    options = (
        f"{kernel}, stride={stride}, padding={padding}, ceil_mode={builder.pick(False, True)}, "
        f"count_include_pad={builder.pick(True, False)}"
    )
    size = builder.pick("1", "2") if spatial == 1 else builder.pick("1", "2", "(1, 2)")
    dims = {1: ("2", "(2,)", "-1"), 2: ("(2, 3)", "[2, 3]", "(-2, -1)", "3")}[spatial]
    form = builder.pick(
        f"nn.AvgPool{spatial}d({options})",
        f"nn.AdaptiveAvgPool{spatial}d({size})",
        f"F.avg_pool{spatial}d({value.name}, {options})",
        f"F.adaptive_avg_pool{spatial}d({value.name}, {size})",
        f"{value.name}.mean({builder.pick(*dims)})",
        f"{value.name}.mean(dim={builder.pick(*dims)}, keepdim=True)",
        f"torch.mean({value.name}, {builder.pick(*dims)})",
        f"{value.name}.sum({builder.pick(*dims)}) * 0.2",
    )
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'pool')}({value.name})"
    builder.write(form, value)


def channel_mean(builder: Builder) -> None:
    """A mean that mixes channels."""
    value = builder.operand(ranks=(2, 3))
    builder.write(f"{value.name}.mean(1, keepdim={builder.pick(True, False)})", value)


def resample(builder: Builder) -> None:
    value = builder.operand(ranks=(3,))
    name = value.name
    form = builder.pick(
        f"F.interpolate({name}, scale_factor=2)",
        f"F.interpolate({name}, scale_factor=2, mode='bilinear', align_corners=False)",
        f"F.interpolate({name}, size=(3, 5), mode='bilinear', align_corners=True)",
        f"F.interpolate({name}, size=x.shape[-2:])",
        f"F.interpolate({name}, scale_factor=0.5)",
        "nn.Upsample(scale_factor=2)",
        "nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)",
        "nn.UpsamplingNearest2d(scale_factor=2)",
    )
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'up')}({name})"
    builder.write(form, value)


def dropout(builder: Builder) -> None:
    """What vanishes at inference; its result is the very same memory."""
    value = builder.operand()
    form = builder.pick(
        "nn.Dropout()",
        "nn.Dropout(inplace=True)",
        "nn.Identity()",
        "nn.AlphaDropout()",
        "nn.FeatureAlphaDropout()",
        "F.dropout({0}, 0.5, self.training)",
        "F.dropout({0}, 0.5, self.training, True)",
        "F.dropout({0}, training=self.training, inplace=True)",
        "F.alpha_dropout({0}, training=self.training)",
        "F.feature_alpha_dropout({0}, training=self.training)",
        *({2: ("nn.Dropout1d()",), 3: ("nn.Dropout2d()", "F.dropout2d({0}, 0.5, self.training)")}).get(
            len(builder.shape(value)), ()
        ),
    )
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'drop')}({{0}})"
    builder.write(form.format(value.name), value)


def _groups(builder: Builder, channels: int) -> tuple[int, int]:
    """Number of groups and of output channels."""
    kind = builder.pick("dense", "depthwise", "grouped")
    if kind == "depthwise":
        return channels, channels * builder.pick(1, 2)
    if kind == "grouped":
        groups = gcd(channels, 4) if channels > 1 else 1
        return groups, groups * builder.pick(1, 2)
    return 1, builder.pick(4, 2, 3, 6)


def _finish(builder: Builder, call: str, value: Value, spatial: int) -> None:
    made = builder.write(call, value)
    if spatial and builder.chance(2):
        layer = _batchnorm(builder, builder.shape(made)[0], spatial)
        if builder.pick(True, False):
            builder.values.remove(made)
            builder.body.pop()
            builder.write(f"{layer}({call})", value)
        else:
            builder.read(made)
            builder.write(f"{layer}({made.name})", made)


def _batchnorm(builder: Builder, channels: int, spatial: int) -> str:
    affine = builder.pick("", ", affine=False", ", eps=0.1")
    return builder.layer(f"nn.BatchNorm{spatial}d({channels}{affine})", "norm")
