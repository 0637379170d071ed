"""Resize and Upsample, as far as torch interpolates in the same way."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import nn

from . import operation
from .call import Call, Made
from .library import Unreadable
from .operation import VARIES, Operation

__all__ = ["resize"]

_LINEAR = ("pytorch_half_pixel", "align_corners")
"""Coordinates of ONNX that torch has for larger outputs."""

_LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Torch's names, by the number of dimensions behind the channels."""


def resize(call: Call) -> Made:
    """The interpolation of a node.

    Raises:
        Unreadable: Torch has none like it.
    """
    old = call.node.operator == "Upsample" or call.graph.opset < 11
    scales = call.constant(1 if old else 2)
    scales = np.asarray(call.attribute("scales")) if scales is None and call.attribute("scales") else scales
    sizes = None if old else call.constant(3)
    shape = call.shape(0)
    if call.varies(1 if old else 2):
        raise Unreadable("its scales are computed from the network's inputs", "Export it with fixed scales")
    if call.attribute("axes") is not None or call.attribute("antialias") or call.attribute("exclude_outside"):
        raise Unreadable(
            "torch cannot resize with these attributes", "Export it without axes, antialias and exclude_outside"
        )
    mode, place = call.attribute("mode", "nearest"), call.attribute("coordinate_transformation_mode", "half_pixel")
    place = "asymmetric" if old else place
    if not old and call.varies(3):
        return _to_size(call, mode, place)
    if scales is not None and scales.size:
        whole = [float(one) for one in scales]
    elif shape is not None and sizes is not None and sizes.size and all(isinstance(one, int) for one in shape[2:]):
        whole = [1.0, 1.0, *(int(to) / int(of or 1) for to, of in zip(sizes[2:], shape[2:], strict=True))]
    else:
        raise Unreadable("it has neither scales nor sizes for inputs of a known size", "Export it with fixed scales")
    if whole[:2] != [1, 1]:
        raise Unreadable("it changes the number of samples or channels", "Resize only what lies behind them")
    return _interpolation(call, mode, place, whole[2:], old)


def _to_size(call: Call, mode: str, place: str) -> nn.Module:
    """The interpolation to a size that is computed when the network runs."""
    rank = call.graph.rank(call.name(0))
    if mode == "nearest" and (place, call.attribute("nearest_mode", "round_prefer_floor")) == ("asymmetric", "floor"):
        return Operation(partial(operation.interpolate_like, mode="nearest", align_corners=None), [VARIES, VARIES])
    if mode == "linear" and rank in (3, 4, 5) and place in ("half_pixel", "align_corners"):
        name = _LINEAR_MODES[rank - 2]
        corners = place == "align_corners"
        return Operation(partial(operation.interpolate_like, mode=name, align_corners=corners), [VARIES, VARIES])
    raise Unreadable(
        f"the size of its output is computed from the network's inputs, which torch cannot do with {mode} and {place}",
        "Export it with fixed scales",
    )


def _interpolation(call: Call, mode: str, place: str, factors: list[float], old: bool) -> nn.Module:
    exact = all(factor == int(factor) >= 1 for factor in factors)
    if mode == "nearest":
        rounding = call.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
        centred = place in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        if (place == "asymmetric" and rounding == "floor") or (centred and rounding.startswith("round") and exact):
            return Operation(partial(F.interpolate, scale_factor=factors, mode="nearest"), [VARIES])
        raise Unreadable(
            f"torch has no nearest-neighbour interpolation with {place} and {rounding} by {factors}",
            "Export it with whole factors, or with asymmetric and floor",
        )
    larger = min(factors) >= 1
    if mode == "linear" and len(factors) in _LINEAR_MODES and (place == "half_pixel" or (place in _LINEAR and larger)):
        corners = place == "align_corners"
        resize = partial(F.interpolate, scale_factor=factors, mode=_LINEAR_MODES[len(factors)], align_corners=corners)
        return Operation(resize, [VARIES])
    raise Unreadable(f"torch has no such interpolation ({mode}, {place})", "Export it as nearest or linear, half_pixel")
