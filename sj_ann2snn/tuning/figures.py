"""What is measured of a conversion after some number of steps."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figures"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one conversion.

    Attributes:
        T: Number of steps.
        drop: Points lost against the ANN.
        cost: Per sample, in units of the budget.
        spikes, synops: Per sample.
        samples: Number of samples that it was measured on.
        error: Standard error of the drop; zero if it is not known.
    """

    T: int
    drop: float
    cost: float
    spikes: float
    synops: float
    samples: int
    error: float = 0.0
