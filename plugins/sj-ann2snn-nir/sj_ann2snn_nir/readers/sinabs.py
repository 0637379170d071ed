"""Runs a graph in sinabs, with its two settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .order import put_in_order

__all__ = ["run"]


def run(graph: Any, starts: Mapping[str, Any], x: Tensor, steps: int, *, settings: bool = True) -> dict[str, Tensor]:
    """What the IF nodes emit, ``[T, N, ...]``; without `settings`, as sinabs reads the file by itself."""
    import sinabs.layers
    from sinabs.activation import SingleSpike
    from sinabs.nir import from_nir

    model = from_nir(graph, batch_size=len(x))
    if settings:
        put_in_order(model, graph)
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, sinabs.layers.IAFSqueeze):
            continue
        if settings:
            module.spike_fn, module.min_v_mem = SingleSpike, None
        if name in starts:
            shape = (len(x), *module.spike_threshold.shape)
            module.v_mem = torch.from_numpy(starts[name]).expand(shape).clone()
        module.register_forward_hook(
            lambda module, args, result, name=name: seen.update({name: _by_steps(result, steps)})
        )
    output, _ = model(x.repeat_interleave(steps, 0))  # [N * T, ...], the steps of a sample side by side
    return {**seen, "output": _by_steps(output, steps)}


def _by_steps(values: Tensor, steps: int) -> Tensor:
    return values.reshape(-1, steps, *values.shape[1:]).transpose(0, 1)
