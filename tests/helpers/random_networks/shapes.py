"""Operations that move values about, join them, and do arithmetic with them."""

from __future__ import annotations

from .builder import Builder, Unusable, Value


def reshape(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3, 4))
    name, shape = value.name, builder.shape(value)
    forms = [
        f"{name}.flatten(1)",
        f"torch.flatten({name}, 1)",
        f"{name}.view({name}.size(0), -1)",
        f"{name}.reshape({name}.shape[0], {shape[0]}, -1)",
        f"{name}.view(-1, {builder.size(value)})",
        f"torch.reshape({name}, ({name}.size(0), -1))",
        f"{name}.contiguous().view({name}.shape[0], -1)",
        f"{name}.view({name}.size(0), {name}.size(1), -1)",
    ]
    if len(shape) == 3:
        forms += [f"{name}.flatten(2)", f"{name}.view({name}.shape[0], {name}.shape[1] * {name}.shape[2], -1)"]
        forms.append(f"{name}.reshape({name}.size())")
    form = builder.pick("nn.Flatten()", *forms)
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'flatten')}({name})"
    builder.write(form, value)


def unflatten(builder: Builder) -> None:
    value = builder.operand(lambda one: builder.shape(one)[0] % 2 == 0, ranks=(1,))
    half = builder.shape(value)[0] // 2
    builder.write(
        builder.pick(
            f"{value.name}.view({value.name}.size(0), 2, {half})",
            f"{value.name}.unflatten(1, (2, {half}))",
            f"{value.name}.view(-1, 2, {half}, 1)",
        ),
        value,
    )


def permute(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3))
    name, rank = value.name, len(builder.shape(value))
    forms = [f"{name}.transpose(1, 2)", f"torch.swapaxes({name}, 1, -1)"]
    if rank == 2:
        forms.append(f"{name}.permute(0, 2, 1)")
    else:
        forms += [f"{name}.permute(0, 2, 3, 1)", f"{name}.transpose(2, 3)", f"torch.permute({name}, (0, 3, 1, 2))"]
    form = builder.pick(*forms)
    builder.write(form + (".contiguous()" if builder.chance(3) else ""), value)


def unsqueeze(builder: Builder) -> None:
    value = builder.operand(ranks=(1, 2, 3))
    builder.write(f"{value.name}.unsqueeze({builder.pick(-1, 1, 2)})", value)


def squeeze(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3, 4))
    ones = [dim + 1 for dim, size in enumerate(builder.shape(value)) if size == 1]
    if not ones:
        raise Unusable
    dim = builder.pick(*ones)
    builder.write(builder.pick(f"{value.name}.squeeze({dim})", f"torch.squeeze({value.name}, dim={dim})"), value)


def same_memory(builder: Builder) -> None:
    """Copies and aliases."""
    value = builder.operand()
    form = builder.pick("{0}", "{0}.contiguous()", "{0}.clone()", "{0}[:]", "{0}.view_as({0})")
    builder.write(form.format(value.name), value)


def channel_shuffle(builder: Builder) -> None:
    value = builder.operand(lambda one: builder.shape(one)[0] % 2 == 0, ranks=(3,))
    name, (channels, height, width) = value.name, builder.shape(value)
    forms = [
        "nn.ChannelShuffle(2)",
        f"{name}.view({name}.size(0), 2, {channels // 2}, {height}, {width}).transpose(1, 2).contiguous()"
        f".view({name}.size(0), -1, {height}, {width})",
        f"{name}.reshape(-1, 2, {channels // 2}, {height}, {width}).transpose(1, 2).flatten(1, 2)",
    ]
    if channels % 4 == 0:
        forms += ["nn.PixelShuffle(2)", f"F.pixel_shuffle({name}, 2)"]
    if height % 2 == 0 and width % 2 == 0:
        forms += ["nn.PixelUnshuffle(2)", f"F.pixel_unshuffle({name}, 2)"]
    form = builder.pick(*forms)
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'shuffle')}({name})"
    builder.write(form, value)


def part(builder: Builder) -> None:
    value = builder.operand()
    name, shape = value.name, builder.shape(value)
    forms = [f"{name}[:, :{max(1, shape[0] // 2)}]", f"{name}[:, {shape[0] // 2}:]", f"{name}.flip(1)"]
    if len(shape) > 1:
        forms += [
            f"{name}[..., ::2]",
            f"{name}[:, -1]",
            f"{name}[:, :, :-1]" if shape[1] > 1 else f"{name}[:, 0]",
            f"{name}.select(2, 0)",
            f"{name}.narrow(1, 0, 1)",
            f"torch.roll({name}, 1, 2)",
            f"{name}[:, None]" if len(shape) < 3 else f"{name}[:, 0]",
        ]
    builder.write(builder.pick(*forms), value)


def divide(builder: Builder) -> None:
    """Chunk, split or unbind."""
    value = builder.operand(lambda one: builder.shape(one)[0] % 2 == 0)
    name, shape = value.name, builder.shape(value)
    half = shape[0] // 2
    form = builder.pick(
        f"{name}.chunk(2, 1)",
        f"torch.split({name}, {half}, dim=1)",
        f"{name}.split([{half}, {half}], 1)",
        f"torch.chunk({name}, 2, dim=1)",
        f"torch.tensor_split({name}, 2, 1)",
        *([f"{name}.unbind(1)"] if shape[0] == 2 and len(shape) > 1 else []),
    )
    if builder.chance(3):
        builder.write(f"torch.cat({form}[::-1], 1)", value)
    else:
        builder.write_all(2, form, value)


def pad(builder: Builder) -> None:
    value = builder.operand(ranks=(2, 3))
    name, spatial = value.name, len(builder.shape(value)) - 1
    width = "(1, 0)" if spatial == 1 else "(1, 1, 0, 1)"
    forms = [
        f"F.pad({name}, {width})",
        f"F.pad({name}, {width}, 'constant', 0.3)",
        f"F.pad({name}, {width}, value=-0.2)",
        f"F.pad({name}, {width}, mode='reflect')",
        f"F.pad({name}, {width}, mode='replicate')",
        f"nn.ConstantPad{spatial}d(1, 0.4)",
        f"nn.ZeroPad{spatial}d(1)",
        f"nn.ReflectionPad{spatial}d(1)",
        f"nn.ReplicationPad{spatial}d(1)",
    ]
    if spatial == 2:
        forms.append(f"F.pad({name}, (0, 0, 0, 0, 1, 1))")
    form = builder.pick(*forms)
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'pad')}({name})"
    builder.write(form, value)


def addition(builder: Builder) -> None:
    """Sum or difference of two values of the same shape, or of one with a constant."""
    first = builder.operand()
    name = first.name
    if builder.chance(4):
        channels = (builder.shape(first)[0], *(1,) * (len(builder.shape(first)) - 1))
        constant = builder.pick("0.25", builder.layer(f"nn.Parameter(torch.randn{channels})", "shift"))
        form = builder.pick("{0} + {1}", "{1} - {0}", "torch.add({0}, {1})", "{0} - {1}")
        builder.write(form.format(name, constant), first)
        return
    second = _partner(builder, first)
    form = builder.pick(
        "{0} + {1}",
        "{0} - {1}",
        "torch.add({0}, {1})",
        "torch.sub({0}, {1}, alpha=0.5)",
        "{0}.add({1}, alpha=2)",
        "{0}.sub({1})",
        "sum([{0}, {1}])",
    )
    builder.write(form.format(name, second.name), first, second)


def in_place_arithmetic(builder: Builder) -> None:
    first = builder.operand()
    if builder.pick(True, False):
        second = _partner(builder, first)
        form = builder.pick("{0} += {1}", "{0} -= {1}", "{0}.add_({1})", "{0}.sub_({1}, alpha=0.5)")
        builder.statement(form.format(first.name, second.name), first, second)
    else:
        form = builder.pick("{0} *= 0.5", "{0} += 0.25", "{0}.mul_(-0.75)", "{0} /= 2", "{0}.neg_()", "{0}.add_(0.1)")
        builder.statement(form.format(first.name), first)


def scaling(builder: Builder) -> None:
    value = builder.operand()
    name, shape = value.name, builder.shape(value)
    channels = (shape[0], *(1,) * (len(shape) - 1))
    factor = builder.pick(
        "0.5",
        "-1.25",
        builder.layer("nn.Parameter(torch.rand(()))", "gain"),
        builder.layer(f"nn.Parameter(torch.rand{channels})", "gain"),
        builder.layer(f"nn.Parameter(torch.rand({shape[-1]}))", "gain"),
    )
    form = builder.pick("{0} * {1}", "{1} * {0}", "torch.mul({0}, {1})", "{0}.mul({1})")
    if not factor.startswith("self") and builder.chance(3):
        form = builder.pick("{0} / {1}", "-{0}", "{0}.div({1})", "torch.neg({0})")
    builder.write(form.format(name, factor), value)


def static_gate(builder: Builder) -> None:
    """A product with something computed from the input before any neuron."""
    gate = builder.operand(lambda one: not one.varying)
    value = builder.operand(lambda one: builder.shape(one) == builder.shape(gate))
    form = builder.pick("{0} * torch.sigmoid({1})", "{0} * {1}", "{0} / ({1}.exp() + 1)", "torch.mul({1}, {0})")
    builder.write(form.format(value.name, gate.name), value, gate)


def concatenation(builder: Builder) -> None:
    first = builder.operand()
    shape = builder.shape(first)
    second = builder.operand(lambda one: builder.shape(one)[1:] == shape[1:] and len(builder.shape(one)) == len(shape))
    builder.write(
        builder.pick(
            f"torch.cat([{first.name}, {second.name}], 1)",
            f"torch.cat(({second.name}, {first.name}), dim=1)",
            f"torch.concat([{first.name}, {second.name}, {first.name}], 1)",
        ),
        first,
        second,
    )


def stack(builder: Builder) -> None:
    first = builder.operand(ranks=(1, 2))
    second = _partner(builder, first)
    dim = builder.pick(1, 2, -1)
    made = builder.write(f"torch.stack([{first.name}, {second.name}], {dim})", first, second)
    if builder.chance(2):
        builder.read(made)
        builder.write(f"{made.name}.sum({dim})", made)


def concatenation_in_space(builder: Builder) -> None:
    first = builder.operand(ranks=(2, 3))
    second = _partner(builder, first)
    builder.write(f"torch.cat([{first.name}, {second.name}], {builder.pick(2, -1)})", first, second)


def _partner(builder: Builder, first: Value) -> Value:
    return builder.operand(lambda one: builder.shape(one) == builder.shape(first))
