"""Runs a graph in SpikingJelly's own reader, with soft reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["run"]

DT = 1e-4
"""The step that its reader assumes."""


def run(graph: Any, starts: Mapping[str, Any], x: Tensor, steps: int, *, settings: bool = True) -> dict[str, Tensor]:
    """What the IF nodes emit, ``[T, N, ...]``; without `settings`, with the reset to a value that NIR states."""
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    model = import_from_nir(graph, dt=DT)
    seen: dict[str, list[Tensor]] = {}
    state: Any = {name: None for name, _ in model.named_children()}
    for name, module in model.named_modules():
        inner = getattr(module, "module", None)
        if not isinstance(inner, neuron.IFNode):
            continue
        if settings:
            inner.v_reset = None
        if name in starts:
            shape = (len(x), *graph.nodes[name].r.shape)
            state[name] = (torch.from_numpy(starts[name]).expand(shape).clone(),)
        module.register_forward_hook(
            lambda module, args, kwargs, result, name=name: seen.setdefault(name, []).append(result[0]),
            with_kwargs=True,
        )
    for _ in range(steps):
        output, state = model(x, state)
        seen.setdefault("output", []).append(output)
    return {name: torch.stack(spikes) for name, spikes in seen.items()}
