"""Packed networks do what they do in numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import evaluate, simulate
from sj_ann2snn.testing.running import tiled

from ...helpers.networks import relative_error


def require_the_same_in_numbers(snn: Any, x: Tensor, steps: int, in_numbers: Any, within: float = 1e-6) -> None:
    """The answers agree, and all that is counted is the same, whatever the tiles."""
    data = [(x, torch.arange(len(x)) % 5)]

    def work() -> Any:
        return simulate(snn, x, steps), evaluate(snn, data, steps, progress=False)

    wanted, expected = in_numbers(work)
    for budget, threads in ((1, 1), (100_000, 2), (1 << 22, 1)):
        with tiled(budget, threads):
            answer, result = work()
        assert relative_error(answer, wanted) < within
        for field in ("accuracy", "spikes_over_time", "emissions_over_time", "synops_over_time"):
            assert getattr(result, field) == getattr(expected, field), field
        assert result.layers == expected.layers
