"""Compares a network that was read with what the ONNX file computes."""

from __future__ import annotations

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

SAMPLES = 2
"""Samples of a random input where the file leaves their number open."""

SIZE = 64
"""Other sizes of a random input that the file leaves open."""

LARGEST_INPUT = 1 << 28
"""Bytes of a random input, at most."""


def check_outputs(model: Any, graph: Graph, network: nn.Module, given: Any, batch: int | None, name: str) -> None:
    """Compare the network's outputs with those of onnxruntime or of ONNX's reference implementation.

    Args:
        model: The `onnx.ModelProto`.
        graph: Its graph.
        network: What was read from it.
        given: The inputs; None for random ones.
        batch: The number of samples that the file takes; None for any.
        name: What to call the file.

    Raises:
        VerificationError: The network fails on these inputs, or computes something else.
    """
    inputs = (
        _random(graph)
        if given is None
        else [_array(one) for one in (given if isinstance(given, (tuple, list)) else [given])]
    )
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
        with torch.no_grad():
            output = network(*(torch.from_numpy(one) for one in inputs))
    except Exception as error:
        raise VerificationError(f"{name} was read, but the network fails with {described(error)}.") from error
    found = output if isinstance(output, tuple) else (output,)
    for end, one, other in zip(graph.outputs, found, wanted, strict=True):
        difference = _difference(one, other)
        if difference > TOLERANCE:
            raise VerificationError(
                f"{name} was read, but the output {end!r} is not what the file says: it differs by {difference:.2g} of "
                "the largest value. Please report this, with the file. from_onnx(verify=False) skips the comparison; "
                "the network then does not compute what the file says."
            )


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


def _difference(found: Any, wanted: Any) -> float:
    one, other = np.asarray(found.detach().numpy(), np.float64), np.asarray(wanted, np.float64)
    if one.shape != other.shape:
        return math.inf
    if not one.size:
        return 0.0
    largest = float(np.abs(other).max())
    difference = float(np.abs(one - other).max())
    return difference / largest if largest else difference
