"""Names of layers: those of the ONNX nodes, as far as torch can hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from ...support.names import usable, usable_input

__all__ = ["add_layer", "input_names"]


def add_layer(root: nn.Module, name: str, layer: nn.Module) -> str:
    """Add a layer under the name of its node, which is returned as torch writes it.

    A dot separates the names of nested modules in torch, so ``/layer1.0/Conv`` becomes a layer ``0/Conv`` in a module
    ``/layer1``: together, that is the node's name again.
    """
    parts = [usable(part) for part in name.split(".")]
    holder = _holder(root, parts[:-1])
    if holder is None or hasattr(holder, parts[-1]):
        holder, parts = root, [usable(name.replace(".", "_"))]
    last = base = parts[-1]
    count = 1
    while hasattr(holder, last):
        count += 1
        last = f"{base}_{count}"
    holder.add_module(last, layer)
    return ".".join((*parts[:-1], last))


def _holder(root: nn.Module, parts: Sequence[str]) -> nn.Module | None:
    """The module in which a layer's last name goes; None if a layer stands there already."""
    holder = root
    for part in parts:
        if part not in holder._modules:
            if hasattr(holder, part):
                return None
            holder.add_module(part, nn.Module())
        inner = holder._modules[part]
        if type(inner) is not nn.Module:
            return None
        holder = inner
    return holder


def input_names(names: Sequence[str]) -> list[str]:
    """Names of the inputs that can stand in code: ``input.1`` becomes ``input_1``."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "input"
        plain = base = usable_input(usable(plain if plain.isidentifier() else f"input_{plain}"))
        count = 1
        while plain in found:
            count += 1
            plain = f"{base}_{count}"
        found.append(plain)
    return found
