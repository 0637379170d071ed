"""Runs a graph in Norse, as it reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .order import put_in_order

__all__ = ["run"]


def run(graph: Any, starts: Mapping[str, Any], x: Tensor, steps: int) -> dict[str, Tensor]:
    """What the IF nodes emit, ``[T, N, ...]``: Norse has no setting for a soft reset."""
    import norse.torch

    model = norse.torch.from_nir(graph, dt=1.0)
    put_in_order(model, graph)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, norse.torch.IAFCell):
            module.register_forward_hook(
                lambda module, args, result, name=name: seen.setdefault(name, []).append(result[0])
            )
    state: Any = None
    for _ in range(steps):
        output, state = model(x, state)
        seen.setdefault("output", []).append(output)
    return {name: torch.stack(spikes) for name, spikes in seen.items()}
