"""Operators with weights: convolutions, normalizations, matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import operation
from .call import Call, Made
from .library import Unreadable, tensor
from .operation import Operation
from .pooling import same_pads

__all__ = ["WEIGHT_LAYERS"]

_BATCHNORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _needs_weights(call: Call) -> Made:
    """Convolutions, which the library reads if their weights are constants."""
    if call.varies(1) or call.varies(2):
        raise Unreadable("its weights are computed from the network's inputs", "A spiking network needs fixed weights")
    weight = call.constant(1)
    kernel = [] if weight is None else list(weight.shape[2:])
    attributes = call.node.attributes
    found = attributes.get("auto_pad", "NOTSET")
    if found == "VALID":
        attributes.pop("auto_pad")
        attributes["pads"] = [0] * 2 * len(kernel)
    elif found in ("SAME_UPPER", "SAME_LOWER") and call.node.operator == "Conv":
        pads = same_pads(call, kernel)
        if pads is not None:
            attributes.pop("auto_pad")
            attributes["pads"] = pads
    return None


def _batchnorm(call: Call) -> Made:
    if call.attribute("training_mode", 0) or len([name for name in call.node.outputs[1:] if name]) > 0:
        raise Unreadable(
            "it normalizes by the statistics of the current batch, as in training",
            "Export the network in eval mode (network.eval(), training=TrainingMode.EVAL)",
        )
    values = [call.constant(position) for position in range(1, 5)]
    if any(value is None for value in values):
        raise Unreadable("its statistics are computed from the network's inputs", "Export fixed running statistics")
    scale, shift, mean, variance = (tensor(value) for value in values if value is not None)
    if not call.attribute("spatial", 1) and scale.dim() > 1:
        raise Unreadable("it has statistics per element (spatial=0)", "Export it with statistics per channel")
    rank = call.graph.rank(call.name(0))
    if rank not in _BATCHNORMS:
        taken = "a number of dimensions that only its inputs decide" if rank is None else f"{rank} dimensions"
        raise Unreadable(f"it takes {taken}", "BatchNorm takes two to five dimensions")
    layer = _BATCHNORMS[rank](len(mean), eps=call.attribute("epsilon", 1e-5))
    layer.weight, layer.bias = nn.Parameter(scale), nn.Parameter(shift)
    layer.running_mean, layer.running_var = mean, variance
    return layer


def _instancenorm(call: Call) -> Made:
    if call.varies(1) or call.varies(2):
        raise Unreadable("its scale is computed from the network's inputs", "Export it with a fixed scale")
    return None


def _gemm(call: Call) -> Made:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    flip = (bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0)))
    matrix, bias = call.constant(1), call.constant(2)
    if call.varies(0) and not flip[0] and matrix is not None and not call.varies(2):
        weight = tensor(matrix if flip[1] else matrix.T) * alpha
        if bias is None:
            return _linear(weight, None)
        if bias.size in (1, len(weight)) and bias.shape[:-1] in ((), (1,)):
            return _linear(weight, tensor(bias).reshape(-1).expand(len(weight)).clone() * beta)
    arguments = [call.argument(position) for position in range(3)]
    return Operation(operation.gemm, [*arguments, alpha, beta, flip])


def _matmul(call: Call) -> Made:
    matrix = call.constant(1)
    if call.varies(0) and matrix is not None and matrix.ndim == 2:
        return _linear(tensor(matrix.T), None)
    return Operation(torch.matmul, [call.argument(0), call.argument(1)])


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


WEIGHT_LAYERS: dict[str, Callable[[Call], Made]] = {
    "BatchNormalization": _batchnorm,
    "Conv": _needs_weights,
    "ConvTranspose": _needs_weights,
    "Gemm": _gemm,
    "InstanceNormalization": _instancenorm,
    "MatMul": _matmul,
}
