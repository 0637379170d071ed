"""The IF neuron over all its steps, with gradients for its current, threshold, bias and initial potential."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .loops import Frame, frame_of, loops

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
        if len(currents) > 1 and currents.stride(0) == 0:  # a constant current
            currents = _like_steps(currents).copy_(currents)
        v = torch.empty_like(currents[0], dtype=torch.promote_types(currents.dtype, potential.dtype))
        v.copy_(potential.expand_as(v))
        emitted, near = _like_steps(currents), _like_steps(currents, torch.bool)
        scale = log_scale.exp()
        frame = frame_of(currents)
        (_forward if frame is None else partial(_forward_compiled, frame))(currents, v, scale, bias, emitted, near)
        ctx.save_for_backward(currents, scale, bias, near, emitted)
        ctx.potential_shape, ctx.frame = potential.shape, frame
        return emitted

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        currents, scale, bias, near, emitted = ctx.saved_tensors
        backward = _backward if ctx.frame is None else partial(_backward_compiled, ctx.frame)
        into, later, to_log, to_bias = backward(grad, currents, scale, bias, emitted, near)
        return into, to_log, to_bias, later.sum_to_size((1, *ctx.potential_shape)).squeeze(0)


def _forward(currents: Tensor, v: Tensor, scale: Tensor, bias: Tensor, emitted: Tensor, near: Tensor) -> None:
    scale, bias = (_along_channels(value, v) for value in (scale, bias))
    for z, out, close in zip(currents, emitted, near, strict=True):
        v += (z + bias).div_(scale)
        torch.lt((v - 1).abs_(), 0.5, out=close)
        spikes = (v >= 1).to(v.dtype)
        v -= spikes
        torch.mul(spikes, scale, out=out)


def _forward_compiled(
    frame: Frame, currents: Tensor, v: Tensor, scale: Tensor, bias: Tensor, emitted: Tensor, near: Tensor
) -> None:
    given = frame.array(currents, len(currents)), frame.array(v), frame.spread(scale), frame.spread(bias)
    frame.run(loops().forward, *given, frame.array(emitted, len(currents)), frame.array(near, len(currents)))


def _backward(
    grad: Tensor, currents: Tensor, scale: Tensor, bias: Tensor, emitted: Tensor, near: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients for the currents, each first potential, the logarithms of the scales and the biases."""
    into = _like_steps(currents)
    along, shift = (_along_channels(value, currents[0]) for value in (scale, bias))
    later = torch.zeros_like(currents[0], dtype=scale.dtype)
    to_bias, to_log = torch.zeros_like(later), torch.zeros_like(later)
    for step in reversed(range(len(currents))):
        z, g, out, close = (x[step] for x in (currents, grad, emitted, near))
        # A spike adds to the output and, through the reset, lowers the later potential.
        later = later + (g * along - later) * close
        result = later / along
        into[step] = result
        to_bias += result
        to_log += g * out
        to_log.addcmul_(result, z + shift, value=-1)
    dims = [0, *range(2, later.dim())]
    return into, later, to_log.sum(dims), to_bias.sum(dims)


def _backward_compiled(
    frame: Frame, grad: Tensor, currents: Tensor, scale: Tensor, bias: Tensor, emitted: Tensor, near: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps = len(currents)
    if grad.dtype != currents.dtype or grad.stride() != currents.stride():
        grad = _like_steps(currents).copy_(grad)
    into, later = _like_steps(currents), torch.zeros_like(currents[0], dtype=scale.dtype)
    given = (grad, currents), (emitted, near, into)
    to_log, to_bias = frame.run(
        loops().backward,
        *(frame.array(value, steps) for value in given[0]),
        frame.spread(scale),
        frame.spread(bias),
        *(frame.array(value, steps) for value in given[1]),
        frame.array(later),
        sums=2,
    )
    return into, later, frame.collect(to_log, scale), frame.collect(to_bias, scale)


def _along_channels(value: Tensor, step: Tensor) -> Tensor:
    return value.view(-1, *(1,) * (step.dim() - 2))


def _like_steps(currents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for as many steps, each laid out like a step of `currents`."""
    step = torch.empty_like(currents[0], dtype=dtype)
    return torch.empty_strided(currents.shape, (step.numel(), *step.stride()), dtype=step.dtype, device=step.device)
