"""Runs a graph in Spyx, layer by layer, with each layer's spikes moved back by the step that it fires late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["run"]


def run(graph: Any, starts: Mapping[str, Any], x: Tensor, steps: int, *, settings: bool = True) -> dict[str, Tensor]:
    """What the IF nodes emit, ``[T, N, ...]``; without `settings`, each layer a step later."""
    import jax
    import jax.numpy as jnp
    import nir
    import spyx
    from spyx.nir import from_nir

    inputs = jnp.asarray(_channels_last(x).numpy())
    names = [name for name in _chain(graph) if isinstance(graph.nodes[name], nir.IF)]
    model, _ = from_nir(graph, inputs[None], dt=1)
    values = jnp.broadcast_to(inputs, (steps, *inputs.shape))
    seen: dict[str, Tensor] = {}
    left = iter(names)
    for layer in model.layers:
        if not isinstance(layer, spyx.nn.IF):
            values = jax.lax.map(layer, values)
            continue
        name = next(left)
        start = layer.initial_state(len(x))
        if settings:
            layer.spike = lambda above: (above >= 0).astype(above.dtype)  # at the threshold, too
            given = np.broadcast_to(starts.get(name, np.float32(0)), graph.nodes[name].r.shape)
            start = start + jnp.asarray(given.transpose(1, 2, 0) if given.ndim == 3 else given)
            # A potential at the threshold fires, and is reset, before the first current.
            start = jnp.where(start >= layer.threshold, start + layer.threshold, start)
            # What the layer fires at a step is due to the currents before, so a last step shows the last spikes.
            values = jnp.concatenate([values, jnp.zeros_like(values[:1])])
        _, fired = jax.lax.scan(lambda v, current, layer=layer: layer(current, v)[::-1], start, values)
        values = fired[1:] if settings else fired
        seen[name] = _channels_first(values)
    return {**seen, "output": _channels_first(values)}


def _chain(graph: Any) -> list[str]:
    """The nodes of a chain in order."""
    following = dict(graph.edges)
    found = ["input"]
    while found[-1] in following:
        found.append(following[found[-1]])
    return found


def _channels_first(values: Any) -> Tensor:
    found = torch.from_numpy(np.array(values))
    return found.permute(0, 1, 4, 2, 3) if found.dim() == 5 else found


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous() if x.dim() == 4 else x
