"""Neurons, and what they start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sj_ann2snn import NodeDescription

from .drawing import Drawing
from .signals import NoNodeError, Signal, array

__all__ = ["neuron", "potential"]


def neuron(work: Drawing, node: NodeDescription) -> Signal:
    given = work.input_of(node)
    value = work.plain(replace(given, potential=None), node.label)
    start: Any = np.float32(node.options.get("initial_potential", 0.0))
    if given.potential is not None:
        start = np.broadcast_to(start + given.potential, given.shape).reshape(value.held).astype(np.float32)
    if np.any(start != 0) and not work.reader.potentials:
        able = "target='sinabs', 'spikingjelly', 'spyx' or 'snntorch', whose neurons can be given it after reading"
        raise NoNodeError(
            "NIR has no initial potential, and this neuron starts from one. Convert with initial_potential=0 and "
            f"without a correction that sets potentials, or give {able}"
        )
    reset = node.options.get("v_reset")
    threshold = np.full(value.held, node.options["v_threshold"], np.float32)
    name = work.name(node.label)
    work.put(
        name,
        "IF",
        {
            "r": np.full(value.held, 1 / work.reader.dt, np.float32),
            "v_threshold": threshold,
            "v_reset": np.full(value.held, 0.0 if reset is None else reset, np.float32),
        },
        value,
        label=node.label,
        reset="subtract" if reset is None else "value",
        **({"initial_potential": start} if np.any(start != 0) else {}),
    )
    return Signal((name,), value.shape, value.held)


def potential(work: Drawing, node: NodeDescription) -> Signal:
    value = work.input_of(node)
    given = np.broadcast_to(array(node.tensors["potential"]), value.shape)
    return replace(value, potential=given if value.potential is None else value.potential + given)
