"""Compares a network that was read with what the ONNX file computes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import VerificationError
from ...support.wording import described
from .model import Graph

__all__ = ["check_outputs"]

TOLERANCE = 1e-3
"""Largest difference, relative to the largest value of an output."""

ROUNDING = 5e-7
"""Largest difference of any output: several functions round to a few units in the last place of one."""

NOISE = 4.0
"""Largest difference where the network's own rounding errors are larger, as a multiple of these."""

SAMPLES = 2
"""Samples of a random input where the file leaves their number open."""

SIZE = 64
"""Other sizes of a random input that the file leaves open."""

LARGEST_INPUT = 1 << 28
"""Bytes of a random input, at most."""


def check_outputs(
    model: Any, graph: Graph, network: nn.Module, ends: Sequence[str], given: Any, batch: int | None, name: str
) -> None:
    """Compare the network's outputs with those of onnxruntime or of ONNX's reference implementation.

    Args:
        model: The `onnx.ModelProto`.
        graph: Its graph.
        network: What was read from it; it returns a tuple.
        ends: Names of the values that the model and the network return.
        given: The inputs; None for random ones.
        batch: The number of samples that the file takes; None for any.
        name: What to call the file.

    Raises:
        VerificationError: The network fails on these inputs, or computes something else.
    """
    inputs = _random(graph) if given is None else _given(given)
    if inputs is None:
        return
    try:
        wanted = _wanted(model, graph, inputs, batch)
    except Exception as error:
        if given is None:
            return
        raise VerificationError(f"{name} fails on the inputs given as verify: {described(error)}") from error
    if wanted is None:
        return
    try:
        found = _outputs(network, inputs)
    except Exception as error:
        raise VerificationError(f"{name} was read, but the network fails with {described(error)}.") from error
    for index, (end, one, other) in enumerate(zip(ends, found, wanted, strict=True)):
        difference, largest = _difference(one, other)
        allowed = max(TOLERANCE * largest, ROUNDING)
        if difference > allowed and difference > NOISE * _rounding(network, inputs, index, one):
            raise VerificationError(
                f"{name} was read, but the output {end!r} is not what the file says: it differs by "
                f"{difference / (largest or 1):.2g} of the largest value. Please report this, with the file. "
                "from_onnx(verify=False) skips the comparison; the network then does not compute what the file says."
            )


def _outputs(network: nn.Module, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        output = network(*(torch.from_numpy(one) for one in inputs))
    return [np.asarray(one.detach().numpy(), np.float64) for one in output]


def _rounding(
    network: nn.Module, inputs: Sequence[np.ndarray[Any, Any]], index: int, found: np.ndarray[Any, Any]
) -> float:
    """How far an output is from that in double precision: what the order of sums may change."""
    exact = copy.deepcopy(network).double()
    doubled = [one.astype(np.float64) if one.dtype.kind == "f" else one for one in inputs]
    try:
        difference, _ = _difference(_outputs(exact, doubled)[index], found)
    except Exception:
        return 0.0
    return difference if math.isfinite(difference) else 0.0


def _random(graph: Graph) -> list[np.ndarray[Any, Any]] | None:
    from onnx import helper

    generator = np.random.default_rng(0)
    found = []
    for name in graph.inputs:
        shape = graph.shapes.get(name)
        if shape is None:
            return None
        sizes = [size if isinstance(size, int) else SIZE if axis else SAMPLES for axis, size in enumerate(shape)]
        dtype = helper.tensor_dtype_to_np_dtype(graph.types[name])
        if math.prod(sizes) * dtype.itemsize > LARGEST_INPUT:
            return None
        if dtype.kind == "f":
            found.append(generator.random(sizes).astype(dtype))
        elif dtype.kind in "iu":
            found.append(generator.integers(0, 2, sizes).astype(dtype))
        else:
            return None
    return found


def _given(batch: Any) -> list[np.ndarray[Any, Any]]:
    return [_array(one) for one in (batch if isinstance(batch, (tuple, list)) else [batch])]


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)


def _wanted(
    model: Any, graph: Graph, inputs: Sequence[np.ndarray[Any, Any]], batch: int | None
) -> list[np.ndarray[Any, Any]] | None:
    """The outputs of the file, computed in pieces of the number of samples that it takes."""
    run = _runner(model)
    count = len(inputs[0])
    size = batch or count
    if count % size:
        return None
    pieces = [
        run(dict(zip(graph.inputs, (one[start : start + size] for one in inputs), strict=True)))
        for start in range(0, count, size)
    ]
    return pieces[0] if len(pieces) == 1 else [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def _runner(model: Any) -> Any:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)

        def refer(feeds: dict[str, Any]) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return evaluator.run(None, feeds)

        return refer
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def _difference(found: np.ndarray[Any, Any], wanted: Any) -> tuple[float, float]:
    """The largest difference, and the largest value that is wanted."""
    other = np.asarray(wanted, np.float64)
    if found.shape != other.shape:
        return math.inf, 1.0
    finite = np.isfinite(found) & np.isfinite(other)
    if not ((found == other) | (np.isnan(found) & np.isnan(other)) | finite).all():
        return math.inf, 1.0
    if not finite.any():
        return 0.0, 0.0
    return float(np.abs(found - other)[finite].max()), float(np.abs(other[finite]).max())
