"""Runs a graph in snnTorch, without the leak."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["run"]


def run(graph: Any, starts: Mapping[str, Any], x: Tensor, steps: int, *, settings: bool = True) -> dict[str, Tensor]:
    """What the IF nodes emit, ``[T, N, ...]``; without `settings`, with the leak that snnTorch reads."""
    import snntorch
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        model = import_from_nir(graph)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.groups = int(module.groups)  # it is numpy's
        if not isinstance(module, snntorch.Leaky):
            continue
        module.init_hidden = True  # otherwise the next layer is given the potentials as well
        if settings:
            module.beta, module.reset_delay = torch.tensor(1.0), True
            module.spike_grad = _fires
            shape = (len(x), *graph.nodes[name].r.shape)
            start = torch.as_tensor(starts.get(name, 0.0)).expand(shape).float()
            # A potential at the threshold is reset before the first current.
            module.mem = torch.where(start >= module.threshold, start + module.threshold, start)
        module.register_forward_hook(lambda module, args, result, name=name: seen.setdefault(name, []).append(result))
    state: Any = None
    for _ in range(steps):
        output, state = model(x, state)
        seen.setdefault("output", []).append(output)
    return {name: torch.stack(spikes) for name, spikes in seen.items()}


def _fires(above: Tensor) -> Tensor:
    """A spike at the threshold, too: `above` is how far the potential is above it."""
    return (above >= 0).to(above)
