"""Operations that are not linear over time. In front of the first neuron they are exact, behind it refused."""

from __future__ import annotations

from .builder import Builder


def unsupported(builder: Builder) -> None:
    value = builder.operand(lambda one: one.varying)
    name, shape = value.name, builder.shape(value)
    forms = [
        f"{name} * {name}",
        f"{name}.pow(2)",
        f"{name} ** 2",
        f"torch.sigmoid({name})",
        f"F.softmax({name}, 1)",
        f"torch.tanh({name})",
        f"{name}.amax(1, keepdim=True)",
        f"{name}.max(1, keepdim=True)[0]",
        f"F.gelu({name})",
        f"torch.where({name} > 0.3, {name}, -{name})",
        f"{name} / ({name}.sum(1, keepdim=True) + 1)",
        f"{name}.sqrt()",
        f"torch.maximum({name}, {name}.flip(1))",
        f"F.layer_norm({name}, {shape})",
        f"F.normalize({name})",
        f"F.max_pool1d({name}.flatten(1).unsqueeze(1).sigmoid(), 2)",
        f"nn.GroupNorm(1, {shape[0]})",
        "nn.SiLU()",
        "nn.ELU()",
    ]
    if len(shape) == 3:
        forms += ["nn.AdaptiveMaxPool2d(2)", f"nn.InstanceNorm2d({shape[0]})", "nn.LocalResponseNorm(2)"]
    form = builder.pick(*forms)
    if form.startswith("nn."):
        form = f"{builder.layer(form, 'odd')}({name})"
    builder.write(form, value)
    builder.may_be_refused = True


def product(builder: Builder) -> None:
    """A product of two spike streams."""
    first = builder.operand(lambda one: one.varying)
    second = builder.operand(lambda one: one.varying and builder.shape(one) == builder.shape(first))
    form = builder.pick("{0} * {1}", "torch.mul({0}, {1})", "{0}.mul({1})", "{0} / (1 + {1}.abs())")
    builder.write(form.format(first.name, second.name), first, second, spikes=True)
    builder.may_be_refused = True


def product_in_place(builder: Builder) -> None:
    first = builder.operand(lambda one: one.varying)
    second = builder.operand(lambda one: one.varying and builder.shape(one) == builder.shape(first))
    builder.statement(f"{first.name} *= {second.name}", first, second)
    builder.may_be_refused = True
