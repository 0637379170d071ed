"""Max pooling of spike trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OptionError
from ..support.wording import shown
from .memory import MemoryLayer

__all__ = ["CumulativeMax", "CumulativeMaxPool", "MomentumMaxPool"]

_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

Size = int | Sequence[int]


class _SpikingMaxPool(MemoryLayer):
    """Window geometry shared by the spiking max pools; `spatial` is 1, 2 or 3."""

    def __init__(
        self,
        spatial: int,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def _pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = _POOLS[self.spatial](x, **self._geometry())
        return pooled

    def _pool_with_indices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled: tuple[Tensor, Tensor] = _POOLS[self.spatial](x, **self._geometry(), return_indices=True)
        return pooled

    def _geometry(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
        }

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"spatial": self.spatial, **self._geometry()}

    def extra_repr(self) -> str:
        geometry = ", ".join(f"{name}={value}" for name, value in self._geometry().items())
        return f"{geometry}, step_mode={self.step_mode}"


class _Cumulative(MemoryLayer):
    """Emits the growth of the maximum of the cumulative input; `_pool` takes the maximum."""

    cumulative: Tensor | float
    emitted: Tensor | float
    _pool: Callable[[Tensor], Tensor]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_memory("cumulative", 0.0)
        self.register_memory("emitted", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        cumulative = self.cumulative + x
        self.cumulative = cumulative
        largest = self._pool(cumulative)
        out: Tensor = largest - self.emitted
        self.emitted = largest
        return out

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled() and x_seq.requires_grad:
            return torch.stack([self.single_step_forward(x) for x in x_seq])
        return self.pool_(x_seq.clone())

    def runs_forward(self, runs: Sequence[int], x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows: list[Tensor] = []
        for x, count in zip(x_seq, runs, strict=True):
            # The largest sum grows by the same at each of these steps.
            rows.append(self.single_step_forward(count * x) / count)
        return torch.stack(rows)

    @torch.no_grad()
    def pool_(self, x_seq: Tensor) -> Tensor:
        """All steps ``[T, N, ...]`` with one pooling call, without gradients; overwrites `x_seq`."""
        # The outputs up to a step depend only on the inputs.
        x_seq[0] += self.cumulative
        for before, now in itertools.pairwise(x_seq.unbind(0)):
            now += before
        self.cumulative = x_seq[-1].clone()
        pooled = self._pool(x_seq.flatten(0, 1))
        out: Tensor = pooled.view(*x_seq.shape[:2], *pooled.shape[1:])
        emitted = out[-1].clone()
        for now, before in itertools.pairwise(reversed(out.unbind(0))):
            now -= before
        out[0] -= self.emitted
        self.emitted = emitted
        return out


class CumulativeMax(_Cumulative):
    """Emits the growth of any maximum of the cumulative input: ``max C(t) - max C(t-1)``.

    >>> import torch
    >>> pool = CumulativeMax(torch.nn.AdaptiveMaxPool1d(1))
    >>> pool(torch.tensor([[[1.0, 0.0, 0.0]]])), pool(torch.tensor([[[0.0, 1.0, 0.0]]]))
    (tensor([[[1.]]]), tensor([[[0.]]]))

    The outputs up to any step add up to the maximum of the summed inputs, so their mean is the maximum of the mean
    input. For binary input, the output is binary.

    Args:
        maximum: A module that takes maxima over parts of ``[N, C, ...]``, without memory.
    """

    def __init__(self, maximum: nn.Module) -> None:
        super().__init__()
        self.maximum = maximum

    def _pool(self, x: Tensor) -> Tensor:
        largest: Tensor = self.maximum(x)
        return largest

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"maximum": self.maximum}


class CumulativeMaxPool(_Cumulative, _SpikingMaxPool):
    """Emits the growth of the largest cumulative input: ``max_i C_i(t) - max_i C_i(t-1)``.

    >>> import torch
    >>> pool = CumulativeMaxPool(1, kernel_size=2)
    >>> pool(torch.tensor([[[1.0, 0.0]]])), pool(torch.tensor([[[0.0, 1.0]]]))
    (tensor([[[1.]]]), tensor([[[0.]]]))

    The sum of its outputs up to any step is exactly the maximum of the summed inputs, so the mean is the maximum of
    the mean rates. For binary input, the output is binary.

    The first argument is the number of spatial dimensions, 1, 2 or 3; the others are those of `torch.nn.MaxPool2d`.
    """


class MomentumMaxPool(_SpikingMaxPool):
    """A gate that passes, per window, the spikes of the input with the highest momentum-averaged rate.

    >>> import torch
    >>> gate = MomentumMaxPool(1, kernel_size=2, momentum=0.5)
    >>> gate(torch.tensor([[[1.0, 0.0]]])), gate(torch.tensor([[[0.0, 0.0]]]))
    (tensor([[[1.]]]), tensor([[[0.]]]))

    The rate is ``r <- momentum * r + (1 - momentum) * s``, including the current spike.

    The first argument is the number of spatial dimensions, 1, 2 or 3; the others are those of `torch.nn.MaxPool2d`.

    Args:
        momentum: In [0, 1).

    Raises:
        OptionError: `momentum` is outside [0, 1).

    Source: Rueckauer et al. 2017, section 2.2.4, spiking max-pooling by a gating function on firing rates.
    """

    rate: Tensor | float

    def __init__(self, spatial: int, kernel_size: Size, *geometry: Any, momentum: float = 0.9, **named: Any) -> None:
        if not 0 <= momentum < 1:
            raise OptionError(f"maxpool_momentum={shown(momentum)} is not allowed: it must be in [0, 1).")
        super().__init__(spatial, kernel_size, *geometry, **named)
        self.momentum = momentum
        self.register_memory("rate", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rate = self.momentum * self.rate + (1 - self.momentum) * x
        self.rate = rate
        _, index = self._pool_with_indices(rate)
        flat = x.flatten(-self.spatial)
        return flat.gather(-1, index.flatten(-self.spatial)).view_as(index)

    def export_options(self) -> dict[str, Any]:
        return {**super().export_options(), "momentum": self.momentum}

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}, {super().extra_repr()}"
