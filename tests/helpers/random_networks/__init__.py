"""Random networks out of every operation that can be converted, for property tests.

A network is generated as the source code of an `nn.Module`, so that a failing one is printed as a script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from . import activations, layers, shapes
from .builder import Builder, Network, Unusable, Value
from .unsupported import product, product_in_place, unsupported

__all__ = ["Network", "networks"]

SUPPORTED: dict[str, tuple[int, Callable[[Builder], None]]] = {
    "activation": (8, activations.activation),
    "convolution": (6, layers.convolution),
    "linear": (3, layers.linear),
    "sequential": (1, layers.sequential),
    "transposed_convolution": (2, layers.transposed_convolution),
    "batchnorm": (2, layers.batchnorm),
    "again": (2, layers.again),
    "max_pool": (3, layers.max_pool),
    "average_pool": (3, layers.average_pool),
    "channel_mean": (1, layers.channel_mean),
    "resample": (1, layers.resample),
    "dropout": (2, layers.dropout),
    "reshape": (2, shapes.reshape),
    "unflatten": (1, shapes.unflatten),
    "permute": (2, shapes.permute),
    "unsqueeze": (1, shapes.unsqueeze),
    "squeeze": (1, shapes.squeeze),
    "same_memory": (1, shapes.same_memory),
    "channel_shuffle": (2, shapes.channel_shuffle),
    "part": (2, shapes.part),
    "divide": (2, shapes.divide),
    "pad": (2, shapes.pad),
    "addition": (5, shapes.addition),
    "in_place_arithmetic": (2, shapes.in_place_arithmetic),
    "scaling": (2, shapes.scaling),
    "static_gate": (1, shapes.static_gate),
    "concatenation": (2, shapes.concatenation),
    "concatenation_in_space": (1, shapes.concatenation_in_space),
    "stack": (1, shapes.stack),
}
UNSUPPORTED: dict[str, Callable[[Builder], None]] = {
    "unsupported": unsupported,
    "product": product,
    "product_in_place": product_in_place,
}


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any], *, supported_only: bool = True) -> Network:
    """Random networks.

    Args:
        draw: Given by hypothesis.
        supported_only: False puts an operation that is not linear over time somewhere in the middle.
    """
    first = draw(st.sampled_from([(3, 6, 6), (2, 4, 4), (4, 8, 4), (4, 6), (8,)]))
    others = draw(st.sampled_from([(), (), (), (first,), ((4,),)]))
    builder = Builder(draw, (first, *others))
    names = [name for name, (weight, _) in SUPPORTED.items() for _ in range(weight)]
    chosen = draw(st.lists(st.sampled_from(names), min_size=3, max_size=10))
    for name in chosen:
        builder.attempt(name, SUPPORTED[name][1])
    if not any(value.varying for value in builder.values):
        builder.attempt("activation", activations.activation)
    if not supported_only:
        name = draw(st.sampled_from(list(UNSUPPORTED)))
        builder.attempt(name, UNSUPPORTED[name])
        for name in draw(st.lists(st.sampled_from(names), max_size=3)):
            builder.attempt(name, SUPPORTED[name][1])
    return builder.finish(_result(builder), draw(st.integers(0, 2**16)))


def _result(builder: Builder) -> str:
    """What the network returns: all that nothing else has read, in one of several containers."""
    ends = [value for value in builder.values if not value.read and value.varying]
    ends = ends or [value for value in builder.values if value.varying] or builder.values
    last = ends[-1]
    head = builder.pick("", "linear", "relu")
    if head:
        builder.attempt("head", lambda one: _head(one, last, head))
        last = builder.values[-1]
    ends = [one for one in ends[-4:] if not one.read]
    outputs = [*[one for one in ends if one is not last], last]
    for one in outputs:
        builder.read(one)
    names = [one.name for one in outputs]
    kind = builder.pick("one", "tuple", "list", "dict", "joined")
    if kind == "joined":
        return f"torch.cat([{', '.join(f'{name}.flatten(1)' for name in names)}], 1)"
    if kind == "dict":
        return "{" + ", ".join(f"'out_{name}': {name}" for name in names) + "}"
    if kind == "list":
        return f"[{', '.join(names)}]"
    if kind == "tuple":
        return f"({', '.join(names)},)"
    return names[-1]


def _head(builder: Builder, value: Value, kind: str) -> None:
    builder.read(value)
    layer = builder.layer(f"nn.Linear({builder.size(value)}, 3)", "head")
    call = f"{layer}({value.name}.flatten(1))"
    builder.write(f"F.relu({call})" if kind == "relu" else call, value, spikes=kind == "relu")
    if not builder.values:
        raise Unusable
