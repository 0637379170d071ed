"""From the description of a network to the graph of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sj_ann2snn import ExportError, NetworkDescription, NodeDescription, tensors

from . import arithmetic, movement, neurons, resizing, traced, windows
from .drawing import Drawing, NoFormError
from .recording import batch_first, record
from .work import Made, Work, label_of, named_results, plain_name, references

__all__ = ["draw_network"]

Translate = Callable[[Work, NodeDescription], Made]

LAYERS: dict[str, Translate] = {
    "AdaptiveAvgPool1d": windows.adaptive_pool,
    "AdaptiveAvgPool2d": windows.adaptive_pool,
    "AdaptiveAvgPool3d": windows.adaptive_pool,
    "AvgPool1d": windows.average_pool,
    "AvgPool2d": windows.average_pool,
    "AvgPool3d": windows.average_pool,
    "ChannelAffine": arithmetic.channel_affine,
    "Conv1d": windows.convolution,
    "Conv2d": windows.convolution,
    "Conv3d": windows.convolution,
    "ConvTranspose1d": windows.transposed,
    "ConvTranspose2d": windows.transposed,
    "ConvTranspose3d": windows.transposed,
    "CumulativeMax": windows.cumulative_max,
    "CumulativeMaxPool": windows.cumulative_max_pool,
    "IFNode": neurons.if_neuron,
    "InitialPotential": neurons.initial_potential,
    "Linear": windows.linear,
    "MaxPool1d": windows.max_pool,
    "MaxPool2d": windows.max_pool,
    "MaxPool3d": windows.max_pool,
    "MomentumMaxPool": windows.momentum_max_pool,
    "Scaler": arithmetic.scaler,
    "StepBias": neurons.step_bias,
    "SumPool": windows.sum_pool,
    "Upsample": resizing.interpolated,
    "UpsamplingBilinear2d": resizing.interpolated,
    "UpsamplingNearest2d": resizing.interpolated,
}
"""How layers are written, by their type."""

CALLS: dict[str, Translate] = {
    "adaptive_avg_pool1d": windows.adaptive_pool,
    "adaptive_avg_pool2d": windows.adaptive_pool,
    "adaptive_avg_pool3d": windows.adaptive_pool,
    "avg_pool1d": windows.average_pool,
    "avg_pool2d": windows.average_pool,
    "avg_pool3d": windows.average_pool,
    "bmm": arithmetic.matrix_product,
    "cat": movement.concatenation,
    "concat": movement.concatenation,
    "concatenate": movement.concatenation,
    "einsum": arithmetic.matrix_product,
    "interpolate": resizing.interpolated,
    "matmul": arithmetic.matrix_product,
    "max_pool1d": windows.max_pool,
    "max_pool2d": windows.max_pool,
    "max_pool3d": windows.max_pool,
    "mean": arithmetic.reduction,
    "mm": arithmetic.matrix_product,
    "sum": arithmetic.reduction,
    "upsample": resizing.interpolated,
}
"""How functions and methods are written, by the last part of their name."""

for names, translate in (
    (arithmetic.BINARY, arithmetic.binary),
    (arithmetic.UNARY, arithmetic.unary),
    (movement.RESHAPES, movement.reshaped),
    (movement.SAME, movement.same),
    (movement.TURNS, movement.turned),
):
    for one in names:
        (LAYERS if one[0].isupper() else CALLS)[one] = translate


UNKNOWN = "unknown"
"""Stands for the result of what has no form, so that what is behind it is examined as well; nothing is written then."""


def draw_network(network: NetworkDescription, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Drawing:
    """The graph of a step of `network`.

    Args:
        network: The network.
        shapes: Of a sample, by the name of the input's node.
        dtype: In which the network computes.

    Raises:
        ExportError: Something in the network has no form in ONNX; the message names all of it.
    """
    problems: list[tuple[str, str]] = []
    work = Work(Drawing(torch.empty(0, dtype=dtype).numpy().dtype), record(network, shapes, dtype))
    for node in network.nodes:
        try:
            _draw(work, node, shapes)
        except NoFormError as error:
            problems.append((label_of(node), str(error)))
            several = isinstance(work.recording.few.get(node.name), (tuple, list))
            work.made[node.name] = [UNKNOWN] * len(work.recording.few[node.name]) if several else UNKNOWN
    _require_none(problems)
    if not work.drawing.outputs:
        raise ExportError("it returns nothing that depends on the input")
    return work.drawing


def _draw(work: Work, node: NodeDescription, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if node.kind == "input":
        if node.name in shapes:
            work.made[node.name] = name = work.drawing.name(node.label or node.name)
            work.drawing.inputs[name] = shapes[node.name]
        return
    reads = [one for one in references((node.args, dict(node.kwargs))) if one in work.made]
    if node.kind == "output":
        _outputs(work, node.args[0])
    elif reads and tensors(work.recording.few[node.name]):
        work.made[node.name] = made = _translated(work, node)
        if (node.operation == "IFNode" or _is_foreign(node)) and isinstance(made, str):
            work.drawing.spikes[label_of(node)] = (made, work.shape(node.name))


def _translated(work: Work, node: NodeDescription) -> Made:
    own = movement.picked(work, node)
    if own is not None:
        return own
    kind = plain_name(node)
    if _is_foreign(node):
        return traced.neuron(work, node, work.recording.network.get_submodule(node.label))
    translate = (LAYERS if node.kind == "layer" else CALLS).get(kind)
    if translate is not None:
        return translate(work, node)
    made = movement.moved(work, node)
    if made is None:
        raise NoFormError(f"{kind} has no form in ONNX here")
    return made


def _outputs(work: Work, returned: Any) -> None:
    for name, reference in named_results(returned):
        few = work.recording.few[reference.name]
        if not tensors(few):
            continue  # a size
        if reference.name not in work.made:
            raise NoFormError(f"it returns {reference.name}, which does not depend on the input")
        made = work.made[reference.name]
        if isinstance(made, list):
            raise NoFormError(f"it returns the {len(made)} results of {reference.name} as one; return them apart")
        work.drawing.output(name, made, batch_first(work.sizes(reference.name)))


def _require_none(problems: list[tuple[str, str]]) -> None:
    if problems:
        listed = "".join(f"\n  {where}: {why}." for where, why in problems)
        raise ExportError(f"ONNX cannot hold the network:{listed}", tuple(problems))


def _is_foreign(node: NodeDescription) -> bool:
    return node.kind == "layer" and "." in node.operation
