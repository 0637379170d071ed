"""The modules of integer networks that no other network has: quantized inputs, neurons of integers, sums over windows.

All of them compute with whole numbers in floating point. These are exact as long as none exceeds 2**24 in single
precision, which the converter makes sure of and the neurons' width keeps up over any number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compat import StepModule
from ..errors import OptionError
from ..support.shapes import along
from ..support.wording import shown
from .neuron import InPlaceNeuron

__all__ = ["WIDEST", "IntegerIF", "IntegerInput", "SumPool"]

WIDEST = 25
"""Bits of the widest potential, sign included: all whole numbers of this width are exact in single precision."""

NARROWEST = 2


class IntegerInput(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Rounds the input to integers: ``clamp(round(x / scale), low, high)``.

    >>> import torch
    >>> IntegerInput(scale=0.5, low=0, high=255, shape=(3,))(torch.tensor([[-1.0, 0.6, 1.5]]))
    tensor([[0., 1., 3.]])

    Args:
        scale: Value of one unit.
        low: Smallest integer.
        high: Largest integer.
        shape: Shape of a sample, for which the network was made.
    """

    def __init__(self, *, scale: float, low: int, high: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.scale, self.low, self.high, self.shape = float(scale), int(low), int(high), tuple(map(int, shape))
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.scale).round().clamp(self.low, self.high) + 0.0  # no negative zero

    def get_extra_state(self) -> Tensor:
        """What the calibration data has decided, for `state_dict`: scale, low, high and shape."""
        return torch.tensor([self.scale, self.low, self.high, *self.shape], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what `get_extra_state` has returned."""
        self.scale, low, high, *shape = state.tolist()
        self.low, self.high, self.shape = int(low), int(high), tuple(map(int, shape))

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"scale": self.scale, "low": self.low, "high": self.high, "shape": self.shape}

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}, low={self.low}, high={self.high}, step_mode={self.step_mode}"


class IntegerIF(InPlaceNeuron):
    """Integrate-and-fire on integers: a threshold for each channel, soft reset, a potential of limited width.

    >>> import torch
    >>> neuron = IntegerIF(torch.tensor([3.0, 5.0]))
    >>> [neuron(torch.tensor([[2.0, 4.0]])).tolist() for _ in range(3)]
    [[[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 1.0]]]

    In every step, ``v = clamp(v + x)`` to the width, ``s = v >= threshold``, ``v = v - threshold * s``.

    Args:
        threshold: Positive integers, a scalar or in a shape without samples that broadcasts over a sample, such as
            ``[C, 1, 1]``.
        potential: Membrane potential after a reset, integers in such a shape; zero by default.
        bits: Width of the potential in two's complement. It saturates there.

    Raises:
        OptionError: `bits` is not allowed.
    """

    threshold: Tensor
    potential: Tensor

    def __init__(self, threshold: Tensor, potential: Tensor | None = None, *, bits: int = WIDEST) -> None:
        if type(bits) is not int or not NARROWEST <= bits <= WIDEST:
            raise OptionError(
                f"bits={shown(bits)} is not allowed as the width of a potential: it must be an integer from "
                f"{NARROWEST} to {WIDEST}."
            )
        super().__init__()
        self.register_buffer("threshold", threshold.detach().clone())
        self.register_buffer("potential", torch.zeros_like(threshold) if potential is None else potential.clone())
        self.bits = bits

    @property
    def low(self) -> int:
        """The smallest potential."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The largest potential."""
        return (1 << (self.bits - 1)) - 1

    def get_extra_state(self) -> Tensor:
        """The width of the potential, for `state_dict`."""
        return torch.tensor(self.bits)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what `get_extra_state` has returned."""
        self.bits = int(state)

    def start(self, x: Tensor) -> None:
        self.v = torch.empty_like(x).copy_(self.potential.expand(x.shape))

    def step(self, x: Tensor, out: Tensor) -> None:
        v: Any = self.v
        v += x
        v.clamp_(self.low, self.high)
        torch.ge(v, self.threshold, out=out)
        v.addcmul_(out, self.threshold, value=-1)

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"threshold": self.threshold, "potential": self.potential, "bits": self.bits}

    def extra_repr(self) -> str:
        low, high = int(self.threshold.min()), int(self.threshold.max())
        text = f"{low}" if low == high else f"{low} to {high}"
        return f"threshold={text}, bits={self.bits}, step_mode={self.step_mode}"


class SumPool(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """The sum over windows: an average pool whose division is part of the next weights.

    >>> import torch
    >>> SumPool(2, kernel_size=2)(torch.ones(1, 1, 4, 4))
    tensor([[[[4., 4.],
              [4., 4.]]]])

    Args:
        spatial: Number of spatial dimensions: 1, 2 or 3.
        kernel_size: Of a window, a number or one for each dimension.
        stride: By default, the windows lie side by side.
        padding: Zeros around the image.
    """

    def __init__(
        self,
        spatial: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.kernel_size = along(spatial, kernel_size)
        self.stride = self.kernel_size if stride is None else along(spatial, stride)
        self.padding = along(spatial, padding)
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self.sums(x)
        sums = self.sums(x.flatten(0, 1))
        return sums.view(*x.shape[:2], *sums.shape[1:])

    def sums(self, x: Tensor) -> Tensor:
        """The sums of one step, in either step mode."""
        geometry = self.kernel_size, self.stride, self.padding
        if self.spatial == 1:  # torch lets only the other two replace the divisor
            (size,), (stride,), (padding,) = geometry
            wide = F.avg_pool2d(x.unsqueeze(-2), (1, size), (1, stride), (0, padding), divisor_override=1)
            return wide.squeeze(-2)
        pool = F.avg_pool2d if self.spatial == 2 else F.avg_pool3d
        return pool(x, *geometry, divisor_override=1)

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {
            "spatial": self.spatial,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
        }

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, step_mode={self.step_mode}"
        )
