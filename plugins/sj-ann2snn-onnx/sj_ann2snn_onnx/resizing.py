"""Interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np

from sj_ann2snn import NodeDescription

from .drawing import NoFormError
from .movement import moved
from .work import Made, Work, label_of, plain_name

__all__ = ["interpolated"]

NAMES = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")


def interpolated(work: Work, node: NodeDescription) -> Made:
    """To the nearest element, or bilinear."""
    if node.kind == "layer":
        options: dict[str, Any] = dict(node.options)
        options.setdefault("mode", "bilinear" if "Bilinear" in node.operation else "nearest")
        options.setdefault("align_corners", "Bilinear" in node.operation)
    else:
        options = {key: work.argument(node, place, key) for place, key in enumerate(NAMES, 1)}
    mode = options.get("mode") or "nearest"
    if mode.startswith("nearest"):
        made = moved(work, node)
        if made is not None:
            return made
    if mode != "bilinear":
        raise NoFormError(f"{plain_name(node)} with mode={mode!r} has no form in ONNX here; nearest and bilinear have")
    given, result = work.shape_of_input(node)[2:], work.shape(node.name)[2:]
    scales = np.array([after / before for before, after in zip(given, result, strict=True)])
    factor, aligned = options.get("scale_factor"), bool(options.get("align_corners"))
    if factor is not None and not aligned and not options.get("recompute_scale_factor"):
        factors = np.broadcast_to(np.asarray(factor, np.float64), scales.shape)
        if (factors != scales).any():  # torch then takes places by the factor, and ends elsewhere
            raise NoFormError(
                f"{plain_name(node)} by {factor} turns {list(given)} into {list(result)}. Give the size, or a factor "
                "that divides evenly"
            )
    return work.drawing.put(
        "Resize",
        [
            work.input_of(node),
            "",
            work.drawing.weight(f"{label_of(node)}.scales", np.array([1, 1, *scales], np.float32)),
        ],
        label_of(node),
        mode="linear",
        coordinate_transformation_mode="align_corners" if aligned else "pytorch_half_pixel",
    )
