"""Whether an integer network computes the same spikes wherever it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import IntegerIF, IntegerRun, integer_network, simulate, tensors
from sj_ann2snn.simulation.engine import OverTime, Simulator
from sj_ann2snn.simulation.engine.collectors import Call

from .networks import watched

__all__ = ["assert_agrees", "simulated_spikes"]


def simulated_spikes(snn: nn.Module, inputs: tuple[Tensor, ...], steps: int) -> dict[str, Any]:
    """Spikes ``[T, N, ...]`` of every neuron of integers, as the simulator computes them."""

    class Spikes(OverTime):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, list[Tensor]] = {}

        def watch(self, call: Call) -> None:
            if isinstance(call.operation, IntegerIF):
                self.seen.setdefault(call.name, []).append(call.result.clone())

        def result(self) -> dict[str, Tensor]:
            return {name: torch.cat(spikes) for name, spikes in self.seen.items()}

    tiles = list(Simulator(snn, steps).run_all(inputs, lambda _: Spikes()))
    return {name: torch.cat([tile[name] for tile in tiles], dim=1).numpy() for name in tiles[0]}


@torch.no_grad()
def assert_agrees(snn: nn.Module, *inputs: Tensor, steps: int) -> IntegerRun:
    """The reference interpreter, the simulator and the loops in both step modes compute the same spikes, all of them.

    Returns:
        What the reference has computed.
    """
    run = integer_network(snn).run(*inputs, T=steps)
    with watched(snn, IntegerIF) as seen:
        functional.reset_net(snn)
        by_hand = [tensors(snn(*inputs)) for _ in range(steps)]
        functional.reset_net(snn)
        functional.set_step_mode(snn, "m")
        once = tensors(snn(*(x.expand(steps, *x.shape).contiguous() for x in inputs)))
        functional.set_step_mode(snn, "s")
        functional.reset_net(snn)
    assert seen.keys() == run.spikes.keys()
    for name, spikes in run.spikes.items():
        *step_by_step, whole = seen[name]
        assert np.array_equal(torch.stack(step_by_step).numpy(), spikes), name
        assert np.array_equal(whole.numpy(), spikes), name
    for name, spikes in simulated_spikes(snn, inputs, steps).items():
        assert np.array_equal(spikes, run.spikes[name]), name
    for mean, answer in zip(tensors(simulate(snn, inputs, T=steps)), run.answers, strict=True):
        scale = max(1.0, float(np.abs(answer).max()))
        assert float(np.abs(mean.numpy() - answer).max()) < 1e-5 * scale
    for number, together in enumerate(once):
        assert torch.equal(torch.stack([step[number] for step in by_hand]), together)
    return run
