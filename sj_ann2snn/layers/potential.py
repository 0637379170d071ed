"""The initial membrane potential of single neurons."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .memory import MemoryLayer

__all__ = ["InitialPotential"]


class InitialPotential(MemoryLayer):
    """Gives the next neuron an initial membrane potential, added to the current of the first step after a reset.

    >>> import torch
    >>> potential = InitialPotential(torch.tensor([0.25, -0.5]))
    >>> potential.step_mode = "m"
    >>> potential(torch.ones(2, 1, 2)).squeeze(1)
    tensor([[1.2500, 0.5000],
            [1.0000, 1.0000]])

    Any neuron, whatever its kernel, then starts as if its potential had been set. The values move with the network and
    are saved with it.

    Args:
        potential: Potential in units of the neuron's threshold, in addition to its own initial potential. It has no
            sample dimension and broadcasts to a sample of the current.
    """

    potential: Tensor
    waiting: bool

    def __init__(self, potential: Tensor) -> None:
        super().__init__()
        self.register_buffer("potential", potential.detach().clone())
        self.register_memory("waiting", True)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.start_(x_seq.clone()) if self.waiting else x_seq

    def start_(self, x_seq: Tensor) -> Tensor:
        """The same, but adds the potential in place."""
        if self.waiting:
            x_seq[0] += self.potential
            self.waiting = False
        return x_seq

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"potential": self.potential}

    def extra_repr(self) -> str:
        return f"shape={tuple(self.potential.shape)}, step_mode={self.step_mode}"
