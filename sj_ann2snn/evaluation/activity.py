"""Counts how often inputs are active, and how many connections each input has."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["fan_out", "times_active"]


def times_active(x: Tensor) -> Tensor:
    """How often each element of a sample is nonzero, over all steps and samples of ``[T, N, ...]``, in float64.

    >>> times_active(torch.tensor([[[0.0, 0.5], [2.0, 0.0]], [[0.0, -1.0], [0.0, 0.0]]]))
    tensor([1., 2.], dtype=torch.float64)
    """
    active = x.sign().abs_()
    if active.dtype not in (torch.float32, torch.float64):
        active = active.float()
    # A product with ones runs at memory speed, with channels_last images in their own order.
    order = [0, 1, *range(3, x.dim()), 2] if x.dim() > 3 else list(range(x.dim()))
    active = active.permute(order)
    rows = active.reshape(-1, active[0, 0].numel())
    counts = (rows.new_ones(len(rows)) @ rows).view(active.shape[2:]).double()
    return counts.movedim(-1, 0) if x.dim() > 3 else counts


def fan_out(module: nn.Module, x: Tensor) -> Tensor:
    """Number of connections of each input element in a Linear or Conv layer, taking borders into account.

    Args:
        module: The layer.
        x: An input ``[1, ...]``, for its shape.
    """
    ones = copy.copy(module)
    ones._parameters = {
        name: None
        if value is None
        else nn.Parameter(torch.ones_like(value) if name == "weight" else torch.zeros_like(value))
        for name, value in module._parameters.items()
    }
    ones.step_mode = "s"  # type: ignore[assignment]
    with torch.enable_grad():
        # With all weights one, the gradient of the sum counts the connections. Hooks, also global ones, see nothing.
        probe = torch.zeros_like(x, requires_grad=True)
        (gradient,) = torch.autograd.grad(ones.forward(probe).sum(), probe)
    return gradient[0].double()
