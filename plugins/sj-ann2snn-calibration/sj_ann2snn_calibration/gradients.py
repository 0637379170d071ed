"""The IF neuron over all its steps, with gradients for its current, threshold, bias and initial potential."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["fire"]


def fire(currents: Tensor, log_scale: Tensor, bias: Tensor, potential: Tensor) -> Tensor:
    """The output ``scale * spikes`` of an IF neuron with soft reset that receives ``(z + bias) / scale``.

    >>> z = torch.tensor([[[0.5]], [[0.5]], [[0.5]]])
    >>> fire(z, torch.zeros(1), torch.zeros(1), torch.full((1,), 0.5)).flatten()
    tensor([1., 0., 1.])

    In the backward pass, a spike depends on the potential with slope one within half a threshold of the threshold, and
    not at all elsewhere. The reset is differentiated like the spike, so a neuron's total output changes by as much as
    its current, however the change is spread over the steps.

    Args:
        currents: ``[T, N, C, ...]``.
        log_scale: Logarithm of the scale, ``[C]``.
        bias: ``[C]``.
        potential: Broadcasts to ``[C, ...]``, in units of the scale.

    Source: Neftci et al. 2019, "Surrogate gradient learning in spiking neural networks".
    """
    emitted: Tensor = _Fire.apply(currents, log_scale, bias, potential)
    return emitted


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, currents: Tensor, log_scale: Tensor, bias: Tensor, potential: Tensor) -> Tensor:
        shape = (-1, *(1,) * (currents.dim() - 3))
        scale, shift = log_scale.exp().view(shape), bias.view(shape)
        v = torch.empty_like(currents[0]).copy_(potential.expand_as(currents[0]))
        emitted = _like_steps(currents)
        near = _like_steps(currents, torch.bool)
        for z, out, close in zip(currents, emitted, near, strict=True):
            v += (z + shift).div_(scale)
            torch.lt((v - 1).abs_(), 0.5, out=close)
            torch.ge(v, 1, out=out)
            v -= out
            out *= scale
        ctx.save_for_backward(currents, scale, shift, near, emitted)
        ctx.potential_shape = potential.shape
        return emitted

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        currents, scale, shift, near, emitted = ctx.saved_tensors
        into = _like_steps(currents)
        later = torch.zeros_like(currents[0])
        to_bias = torch.zeros_like(later)
        to_log = torch.zeros_like(later)
        for step in reversed(range(len(currents))):
            z, g, out, close, result = (x[step] for x in (currents, grad, emitted, near, into))
            # A spike adds to the output and, through the reset, lowers the later potential.
            later = later + (g * scale - later) * close
            torch.div(later, scale, out=result)
            to_bias += result
            to_log += g * out
            to_log.addcmul_(result, z + shift, value=-1)
        dims = [0, *range(2, later.dim())]
        to_potential = later.sum_to_size((1, *ctx.potential_shape)).squeeze(0)
        return into, to_log.sum(dims), to_bias.sum(dims), to_potential


def _like_steps(currents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for as many steps, each laid out like a step of `currents`."""
    step = torch.empty_like(currents[0], dtype=dtype)
    return torch.empty_strided(currents.shape, (step.numel(), *step.stride()), dtype=step.dtype, device=step.device)
