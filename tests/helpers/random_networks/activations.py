"""Activations in every form that people write."""

from __future__ import annotations

from .builder import Builder, Value

FORMS = (
    "F.relu({0})",
    "{0}.relu()",
    "torch.relu({0})",
    "F.relu(input={0})",
    "F.relu6({0})",
    "{0}.clamp(min=0)",
    "{0}.clamp(0, {bound})",
    "torch.clamp({0}, min=0, max={bound})",
    "torch.clip({0}, 0)",
    "{0}.clamp_min(0)",
    "torch.clamp_min({0}, 0)",
    "F.hardtanh({0}, 0, {bound})",
    "F.hardtanh({0}, min_val=0.0, max_val=6.0)",
    "F.leaky_relu({0}, {slope})",
    "F.leaky_relu({0})",
    "F.rrelu({0}, 0.1, 0.3, self.training)",
    "{0}.abs()",
    "torch.abs({0})",
    "F.threshold({0}, 0, 0)",
    "torch.threshold({0}, 0.0, 0.0)",
)
IN_PLACE_FORMS = (
    "F.relu({0}, inplace=True)",
    "F.relu_({0})",
    "torch.relu_({0})",
    "{0}.relu_()",
    "F.relu6({0}, inplace=True)",
    "{0}.clamp_(min=0)",
    "{0}.clamp_(0, {bound})",
    "torch.clamp_({0}, 0, {bound})",
    "{0}.clamp_min_(0)",
    "F.hardtanh_({0}, 0.0, {bound})",
    "F.hardtanh({0}, 0.0, {bound}, inplace=True)",
    "F.leaky_relu_({0}, {slope})",
    "F.leaky_relu({0}, {slope}, inplace=True)",
    "F.rrelu_({0}, 0.1, 0.3, self.training)",
    "{0}.abs_()",
    "torch.abs_({0})",
    "F.threshold_({0}, 0, 0)",
)
MODULES = (
    "nn.ReLU()",
    "nn.ReLU6()",
    "nn.Hardtanh(0.0, {bound})",
    "nn.LeakyReLU({slope})",
    "nn.PReLU()",
    "nn.PReLU({channels})",
    "nn.RReLU()",
    "nn.Threshold(0, 0)",
)
IN_PLACE_MODULES = (
    "nn.ReLU(inplace=True)",
    "nn.ReLU6(inplace=True)",
    "nn.Hardtanh(0.0, {bound}, inplace=True)",
    "nn.LeakyReLU({slope}, inplace=True)",
    "nn.RReLU(inplace=True)",
    "nn.Threshold(0, 0, inplace=True)",
)


def activation(builder: Builder) -> None:
    """An activation, its result in a variable of its own; in place one time in three."""
    value = builder.operand()
    if builder.chance(3):
        in_place(builder, value)
        return
    if builder.pick(True, False):
        layer = builder.layer(_filled(builder, builder.pick(*MODULES), value), "act")
        builder.write(f"{layer}({value.name})", value, spikes=True)
    elif builder.chance(8):
        slope = builder.layer(f"nn.Parameter(torch.rand({builder.pick(1, builder.shape(value)[0])}))", "slope")
        form = builder.pick("F.prelu({0}, {1})", "torch.prelu({0}, {1})", "{0}.prelu({1})")
        builder.write(form.format(value.name, slope), value, spikes=True)
    else:
        builder.write(_filled(builder, builder.pick(*FORMS), value), value, spikes=True)


def in_place(builder: Builder, value: Value) -> None:
    """An activation that overwrites its input, with or without a variable of its own."""
    if builder.pick(True, False):
        call = f"{builder.layer(_filled(builder, builder.pick(*IN_PLACE_MODULES), value), 'act')}({value.name})"
    else:
        call = _filled(builder, builder.pick(*IN_PLACE_FORMS), value)
    if builder.pick(True, False):
        builder.mark_changed(value, spikes=True)
        builder.write(call, value, spikes=True)
    else:
        builder.statement(call, value, spikes=True)


def _filled(builder: Builder, form: str, value: Value) -> str:
    bound = builder.pick(6.0, 1.0, 0.5) if "{bound}" in form else 0.0
    slope = builder.pick(0.1, 0.5, -0.2) if "{slope}" in form else 0.0
    return form.format(value.name, bound=bound, slope=slope, channels=builder.shape(value)[0])
