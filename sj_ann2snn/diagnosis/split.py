"""The error of a spiking layer as a sum of four terms, and sums of their squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["TERMS", "TermSums", "split"]

TERMS = ("inherited", "clipping", "rounding", "unevenness")
"""The parts of a layer's error, in the order of their sum."""


def split(
    activation: Tensor,
    wanted: Tensor,
    rate: Tensor,
    largest: Tensor,
    staircase: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """The four terms, which add up to ``activation - rate``.

    >>> import torch
    >>> terms = split(torch.tensor([2.0]), torch.tensor([1.5]), torch.tensor([0.75]), torch.tensor([1.0]), lambda x: x)
    >>> {name: term.item() for name, term in terms.items()}
    {'inherited': 0.5, 'clipping': 0.5, 'rounding': 0.0, 'unevenness': 0.25}

    Args:
        activation: The ANN's activation a, in units of a spike.
        wanted: f(x̄): the activation for the mean current that really arrived.
        rate: The mean output r.
        largest: The largest mean output that the neuron can have: λ, in units of a spike.
        staircase: Q_T: the mean output for a constant current.
    """
    clipped = wanted.minimum(largest)
    rounded = staircase(clipped)
    return {
        "inherited": activation - wanted,
        "clipping": wanted - clipped,
        "rounding": clipped - rounded,
        "unevenness": rounded - rate,
    }


@dataclass
class TermSums:
    """Sums over the samples and positions of every channel ``[C]``, in the ANN's units.

    Attributes:
        squares: Of every term, of the error, the activation and the rate.
        means: The sum of every term and of the error, with its sign.
        product: Of the activation and the rate.
        count: Number of elements per channel.
    """

    squares: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
    product: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    count: int = 0

    def add(self, activation: Tensor, rate: Tensor, terms: dict[str, Tensor], unit: Tensor, axis: int | None) -> None:
        """Take in ``[N, ...]``, in units of a spike.

        Args:
            activation: a.
            rate: r.
            terms: As `split` returns them.
            unit: The value of a spike; broadcasts to a sample.
            axis: The dimension of a sample that holds the channels.
        """
        others = [dim for dim in range(activation.dim()) if axis is None or dim != axis + 1]

        def total(x: Tensor) -> Tensor:
            return x.sum(others).cpu()

        for name, term in (*terms.items(), ("error", activation - rate)):
            value = term * unit
            _accumulate(self.squares, name, total(value.square()))
            _accumulate(self.means, name, total(value))
        for name, value in (("activation", activation * unit), ("rate", rate * unit)):
            _accumulate(self.squares, name, total(value.square()))
        self.product = self.product + total(activation * unit * rate * unit)
        channels = 1 if axis is None else activation.shape[axis + 1]
        self.count += activation.numel() // channels

    def merge(self, other: TermSums) -> None:
        """Take in the sums over other samples."""
        for mine, theirs in ((self.squares, other.squares), (self.means, other.means)):
            for name, value in theirs.items():
                _accumulate(mine, name, value)
        self.product = self.product + other.product
        self.count += other.count

    def norm(self, name: str) -> float:
        """The norm of a term, an activation or a rate over all channels."""
        return float(self.squares[name].sum().sqrt())


def _accumulate(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
