"""A bias of its own at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .memory import MemoryLayer

__all__ = ["StepBias"]


class StepBias(MemoryLayer):
    """Adds another bias to the current at each of the first steps after a reset, and nothing to the steps after them.

    >>> import torch
    >>> steps = StepBias(torch.tensor([[0.5, 0.0], [-0.5, 0.25]]))
    >>> steps.step_mode = "m"
    >>> steps(torch.ones(3, 1, 2)).squeeze(1)
    tensor([[1.5000, 1.0000],
            [0.5000, 1.2500],
            [1.0000, 1.0000]])

    The values move with the network and are saved with it.

    Args:
        bias: ``[T, ...]``, in units of the current: the bias of step t, without a sample dimension, broadcasts to a
            sample.
    """

    bias: Tensor
    done: Any

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias.detach().clone())
        # A tensor from the first step on: torch.compile makes a graph for every value of a number.
        self.register_memory("done", 0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x_seq + self._next(x_seq)

    def add_(self, x_seq: Tensor) -> Tensor:
        """The same, but adds in place."""
        x_seq += self._next(x_seq)
        return x_seq

    def _next(self, x_seq: Tensor) -> Tensor:
        """The biases of the next steps, in a shape that broadcasts over ``[T, N, ...]``."""
        steps = torch.arange(len(x_seq), device=self.bias.device) + self.done
        self.done = steps[-1] + 1
        found: Tensor = self.bias[steps.clamp(max=len(self.bias) - 1)]
        within = (steps < len(self.bias)).to(found.dtype)
        found = found * within.reshape(-1, *(1,) * (found.dim() - 1))
        return found.reshape(len(found), *(1,) * (x_seq.dim() - found.dim()), *found.shape[1:])

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"bias": self.bias}

    def extra_repr(self) -> str:
        return f"steps={len(self.bias)}, shape={tuple(self.bias.shape[1:])}, step_mode={self.step_mode}"
