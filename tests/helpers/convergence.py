"""How near a spiking network's mean output comes to its ANN, and whether it gets there as T grows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sj_ann2snn import simulate

STEPS = (64, 256, 1024, 4096, 16384, 65536)
NEAR = 0.01
"""Relative L2 error that counts as met."""


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of an output, dicts in the order of their keys."""
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree
    return [tensor for item in items for tensor in tensors(item)]


def relative_error(got: Any, wanted: Any) -> float:
    """Largest relative L2 error over the outputs, which must have the same structure."""
    assert isinstance(got, type(wanted)), f"{type(got).__name__} instead of {type(wanted).__name__}"
    if isinstance(wanted, dict):
        assert list(got) == list(wanted)
    errors = []
    for one, other in zip(tensors(got), tensors(wanted), strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        # An output that vanishes (h - h) is measured against one.
        norm = other.double().norm().item()
        errors.append((one.double() - other.double()).norm().item() / (norm if norm > 1e-6 else 1.0))
    return max(errors)


def answer(ann: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """What the ANN makes of the inputs; some of the networks here change theirs in place."""
    with torch.no_grad():
        return ann(*(x.clone() for x in inputs))


def assert_converges(snn: nn.Module, inputs: tuple[Tensor, ...], wanted: Any) -> None:
    """The error falls below `NEAR` at some number of steps, and the next number is only tried where it has not.

    With a calibration on exactly these inputs no rate saturates, so the cumulative output of every neuron stays
    within a constant of its target, and the error of a right conversion is O(1/T): it ends below any limit. Most
    networks get there within 256 steps; the constant is large where a layer is all but dead beside its currents.
    What a wrong conversion adds to the output does not depend on T.
    """
    errors: list[float] = []
    for steps in STEPS:
        errors.append(relative_error(simulate(snn, inputs, T=steps), wanted))
        if errors[-1] < NEAR:
            return
    raise AssertionError(f"relative errors at T={STEPS}: {errors}")
