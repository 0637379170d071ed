"""The weights of a layer that come closest to the ANN's results on the spikes that arrive."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import TrialLayer

__all__ = ["fitted_weight"]

RIDGES = tuple(10.0**power for power in range(-4, 3))
"""How strongly weights may be held where they are: the share of the inputs' mean variance that is added to each."""

ROWS = 1 << 16
"""Results of a channel to fit to, at most; neighbouring ones tell little more."""

CHUNK = 1 << 23
"""Numbers to gather at a time."""

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def fitted_weight(layer: TrialLayer, inputs: Tensor, wanted: Tensor) -> Tensor:
    """The weights W with the least ``mean (W x + c - z)² + ridge * s * |W - W₀|²``, for the ridge that predicts best.

    >>> layer = TrialLayer("fc", torch.nn.Linear(2, 1))
    >>> x, weight = torch.rand(50, 2), torch.tensor([[1.0, -2.0]])
    >>> torch.allclose(fitted_weight(layer, x, x @ weight.T + 3), weight, atol=0.01)
    True

    The constant c is free, because the mean error is corrected behind the layer. s is the mean variance of the inputs.
    Each half of the samples is predicted by weights that are fitted to the other half; the ridge with the least error
    is taken for all samples. If none predicts better than W₀, the weights stay.

    Args:
        layer: With the weights W₀.
        inputs: x, ``[N, ...]``: the mean over time of what arrives.
        wanted: z, ``[N, ...]``: the ANN's results.
    """
    module: Any = layer.module
    samples = max(2, min(len(inputs), ROWS * wanted.shape[_axis(module, wanted)] // max(1, wanted[0].numel())))
    inputs, wanted = inputs[:samples], wanted[:samples]
    if len(inputs) < 2:
        return layer.weight
    errors = (wanted - layer.compute(inputs)).movedim(_axis(module, wanted), -1)
    even, odd = (_sums(module, inputs[half::2], errors[half::2]) for half in (0, 1))
    least, best = even.error() + odd.error(), None
    for ridge in RIDGES:
        error = even.error(odd.solution(ridge)) + odd.error(even.solution(ridge))
        if error < least:
            least, best = error, ridge
    if best is None:
        return layer.weight
    return layer.weight + _as_weight(module, (even + odd).solution(best), layer.shape).to(layer.weight)


@dataclass
class _Sums:
    """What a regression needs to know of inputs x and errors e: sums over results, ``[groups, ...]``."""

    rows: int
    x: Tensor
    xx: Tensor
    e: Tensor
    xe: Tensor
    ee: Tensor

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def covariance(self) -> Tensor:
        """Of the inputs, ``[groups, size, size]``."""
        mean = self.x / self.rows
        return self.xx / self.rows - mean.unsqueeze(2) * mean.unsqueeze(1)

    @property
    def shared(self) -> Tensor:
        """The covariance of inputs and errors, ``[groups, size, outputs]``."""
        return self.xe / self.rows - (self.x / self.rows).unsqueeze(2) * (self.e / self.rows).unsqueeze(1)

    def solution(self, ridge: float) -> Tensor:
        """The change of the weights, ``[groups, size, outputs]``."""
        covariance = self.covariance
        held = ridge * covariance.diagonal(dim1=1, dim2=2).mean()
        if not bool(held > 0):
            return torch.zeros_like(self.xe)  # nothing arrives that varies
        diagonal = held * torch.eye(covariance.shape[1]).to(covariance)
        change: Tensor = torch.linalg.solve(covariance + diagonal, self.shared)
        return change

    def error(self, change: Tensor | None = None) -> float:
        """The variance of the errors that remain after a change of the weights, summed over the outputs."""
        variance = (self.ee / self.rows - (self.e / self.rows).square()).sum()
        if change is not None:
            variance = variance + (change * (self.covariance @ change - 2 * self.shared)).sum()
        return float(variance)


def _sums(module: Any, x: Tensor, errors: Tensor) -> _Sums:
    """The sums over all results, in double precision, some samples at a time.

    Args:
        module: The layer.
        x: Its inputs.
        errors: Of its results, with the channels last.
    """
    groups, outputs = getattr(module, "groups", 1), errors.shape[-1]
    places = max(1, errors[0].numel() // outputs)
    size = module.weight.numel() // outputs
    samples = max(1, CHUNK // (places * size * groups))
    total: _Sums | None = None
    for start in range(0, len(x), samples):
        rows = _gathered(module, x[start : start + samples])
        by_group = rows.reshape(len(rows), groups, size).transpose(0, 1)
        error = errors[start : start + samples].reshape(len(rows), groups, -1).transpose(0, 1)
        products = by_group.transpose(1, 2) @ by_group, by_group.transpose(1, 2) @ error
        sums = by_group.sum(1), products[0], error.sum(1), products[1], error.square().sum(1)
        part = _Sums(len(rows), *(value.double() for value in sums))
        total = part if total is None else total + part
    assert total is not None
    return total


def _gathered(module: Any, x: Tensor) -> Tensor:
    """The inputs that each result is a weighted sum of, ``[results, inputs of a group one after the other]``."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    taps, channels = math.prod(module.kernel_size), x.shape[1]
    found: Tensor
    spatial = len(module.kernel_size)
    # One output per input channel and place in the window, which shows what lies there.
    each = torch.eye(taps).to(x).reshape(taps, *module.kernel_size)
    if isinstance(module, TRANSPOSED):
        convolve = getattr(F, f"conv_transpose{spatial}d")
        found = convolve(
            x,
            each.expand(channels, *each.shape),
            None,
            module.stride,
            module.padding,
            module.output_padding,
            channels,
            module.dilation,
        )
    else:
        padding = module.padding
        if module.padding_mode != "zeros":
            x, padding = F.pad(x, module._reversed_padding_repeated_twice, module.padding_mode), 0
        kernels = each.unsqueeze(1).repeat(channels, *(1,) * (spatial + 1))
        convolve = getattr(F, f"conv{spatial}d")
        found = convolve(x, kernels, None, module.stride, padding, module.dilation, channels)
    return found.movedim(1, -1).reshape(-1, channels * taps)


def _as_weight(module: Any, change: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A change ``[groups, size, outputs]`` in the shape of the weights."""
    if not isinstance(module, TRANSPOSED):
        return change.transpose(1, 2).reshape(shape)
    groups, _, outputs = change.shape
    by_tap = change.reshape(groups, shape[0] // groups, -1, outputs)
    return by_tap.transpose(2, 3).reshape(shape)


def _axis(module: nn.Module, value: Tensor) -> int:
    """The dimension of the channels of a layer's result."""
    return value.dim() - 1 if isinstance(module, nn.Linear) else 1
