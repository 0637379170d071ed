"""Neurons, and what they start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from sj_ann2snn import NodeDescription

from .work import Work, array, label_of

__all__ = ["if_neuron", "initial_potential", "step_bias"]


def if_neuron(work: Work, node: NodeDescription) -> str:
    """Integrate-and-fire with a soft reset, or with one to a value."""
    label, drawing, shape = label_of(node), work.drawing, work.shape(node.name)
    options = node.options
    v = drawing.state(f"{label}.v", shape, float(options.get("initial_potential", 0.0)))
    threshold = drawing.number(f"{label}.threshold", options["v_threshold"])
    charged = drawing.put("Add", [v, work.input_of(node)], f"{label}.charged")
    fires = drawing.put("GreaterOrEqual", [charged, threshold], f"{label}.fires")
    spikes = drawing.put("Cast", [fires], label, to=_kind(drawing.dtype))
    if options.get("v_reset") is None:
        lost = drawing.put("Mul", [spikes, threshold], f"{label}.lost")
        drawing.next(v, drawing.put("Sub", [charged, lost], f"{label}.left"))
    else:
        value = drawing.number(f"{label}.v_reset", options["v_reset"])
        drawing.next(v, drawing.put("Where", [fires, value, charged], f"{label}.left"))
    return spikes


def initial_potential(work: Work, node: NodeDescription) -> str:
    """A potential that is added to the current of the first step."""
    label, drawing, shape = label_of(node), work.drawing, work.shape(node.name)
    waiting = drawing.state(f"{label}.waiting", (shape[0], *(1 for _ in shape[1:])), 1.0)
    potential = drawing.weight(f"{label}.potential", array(node.tensors["potential"], "potential"))
    share = drawing.put("Mul", [waiting, potential], f"{label}.share")
    drawing.next(waiting, drawing.put("Sub", [waiting, waiting], f"{label}.done"))
    return drawing.put("Add", [work.input_of(node), share], label)


def step_bias(work: Work, node: NodeDescription) -> str:
    """A bias of its own at each of the first steps; a state counts them."""
    label, drawing, shape = label_of(node), work.drawing, work.shape(node.name)
    given = array(node.tensors["bias"], "bias")
    given = given.reshape(len(given), *(1,) * (len(shape) - given.ndim), *given.shape[1:])
    rows = drawing.weight(f"{label}.bias", np.concatenate([given, np.zeros_like(given[:1])]))
    done = drawing.state(f"{label}.done", (shape[0], *(1 for _ in shape[1:])))
    one, last = drawing.number(f"{label}.one", 1.0), drawing.number(f"{label}.last", float(len(given)))
    drawing.next(done, drawing.put("Min", [drawing.put("Add", [done, one], f"{label}.counted"), last], f"{label}.kept"))
    flat = drawing.put("Reshape", [done, drawing.integers(f"{label}.flat", [-1])], f"{label}.steps")
    steps = drawing.put("Cast", [flat], f"{label}.index", to=_kind(np.int64))
    added = drawing.put("Gather", [rows, steps], f"{label}.added", axis=0)
    return drawing.put("Add", [work.input_of(node), added], label)


def _kind(dtype: Any) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
