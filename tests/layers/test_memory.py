"""The base class of layers with memory: one method gives both step modes, whatever SpikingJelly is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, functional
from torch import Tensor, nn

from sj_ann2snn import (
    Analog,
    Converter,
    LayerMapper,
    MemoryLayer,
    Stateful,
    evaluate,
    simulate,
)
from sj_ann2snn.testing.stateful import (
    assert_copies_are_independent,
    assert_leaves_inputs_alone,
    assert_reset_clears,
    assert_rows_can_be_dropped,
    assert_samples_are_apart,
    assert_step_modes_agree,
)

from ..helpers.networks import convert, multi_step, relative_error, run_by_hand


class Growth(MemoryLayer):
    """Emits the growth of an operation's result for the summed input."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation
        self.register_memory("total", 0.0)
        self.register_memory("emitted", 0.0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x
        reached: Tensor = self.operation(self.total)
        growth = reached - self.emitted
        self.emitted = reached
        return growth


class Running(MemoryLayer):
    """The sums so far of two inputs, the first times a parameter, as a tuple and a number."""

    def __init__(self) -> None:
        super().__init__(sequences=(0, 2))
        self.register_memory("first", 0.0)
        self.register_memory("second", 0.0)

    def single_step_forward(self, x: Tensor, factor: Tensor, *, other: Tensor) -> Any:
        self.first, self.second = self.first + factor * x, self.second + other
        return {"sums": (self.first, self.second), "number": 3}


CHECKS = [
    assert_copies_are_independent,
    assert_leaves_inputs_alone,
    assert_reset_clears,
    assert_rows_can_be_dropped,
    assert_samples_are_apart,
    assert_step_modes_agree,
]


@pytest.mark.parametrize("check", CHECKS)
def test_one_method_is_enough_for_the_contract(check: Any) -> None:
    torch.manual_seed(0)
    check(lambda: Growth(nn.LPPool1d(2.0, 2)), torch.rand(9, 4, 3, 6, dtype=torch.float64))


def test_it_is_a_memory_module_that_reset_net_and_set_step_mode_know() -> None:
    layer = Growth(nn.Identity())
    assert isinstance(layer, base.MemoryModule)
    network = nn.Sequential(layer)
    functional.set_step_mode(network, "m")
    x = torch.rand(4, 2, 3)
    torch.testing.assert_close(network(x), x)
    assert isinstance(layer.total, Tensor)
    functional.reset_net(network)
    assert layer.total == layer.emitted == 0.0


def test_several_arguments_and_results() -> None:
    x, other, factor = torch.rand(5, 2, 3), torch.rand(5, 2, 3), torch.rand(3)
    layer = Running()
    layer.step_mode = "m"
    together = layer(x, factor, other=other)
    functional.reset_net(layer)
    layer.step_mode = "s"
    apart = [layer(x[t], factor, other=other[t]) for t in range(5)]
    assert together["number"] == 3
    for part in (0, 1):
        torch.testing.assert_close(together["sums"][part], torch.stack([one["sums"][part] for one in apart]))
    torch.testing.assert_close(together["sums"][1], other.cumsum(0))


def test_gradients_pass_over_time() -> None:
    layer = Growth(nn.Identity())
    layer.step_mode = "m"
    x = torch.rand(4, 2, 3, requires_grad=True)
    layer(x).cumsum(0)[-1].sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_without_the_method_the_error_names_the_layer() -> None:
    class Empty(MemoryLayer):
        pass

    with pytest.raises(NotImplementedError, match=r"^Empty must define single_step_forward"):
        Empty()(torch.rand(1, 2))


class LPPoolMapper(LayerMapper):
    name = "lp-pool"
    claims = (nn.LPPool2d,)

    def map(self, site: Any) -> Stateful:
        pool = site.module
        return Stateful(lambda: Growth(pool), "growth of the LP pool")


def test_a_stateful_layer_in_a_network() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.LPPool2d(2, 2), nn.Flatten(), nn.Linear(36, 3)).eval()
    x = torch.rand(12, 1, 8, 8)
    converter = Converter([x], mappers={"2": LPPoolMapper()}, progress=False)
    snn = converter(ann)
    assert converter.report["2"].becomes == "growth of the LP pool"
    assert relative_error(simulate(snn, x, T=400), ann(x).detach()) < 0.03
    assert relative_error(multi_step(snn, x, 12), run_by_hand(snn, x, 12)) < 1e-5
    result = evaluate(snn, [(x, ann(x).argmax(1))], T=64, progress=False, early_exit=0.2)
    assert result.accuracy[-1] > 0.8


class MultiplyRates(MemoryLayer):
    """The product of two running means, times the steps, minus what was emitted."""

    def __init__(self, sequences: tuple[int, ...]) -> None:
        super().__init__(sequences)
        for name in ("steps", "first", "second", "emitted"):
            self.register_memory(name, 0.0)

    def single_step_forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.steps, self.first, self.second = self.steps + 1, self.first + x, self.second + y
        reached = self.first * self.second / self.steps
        growth, self.emitted = reached - self.emitted, reached
        return growth


class Gate(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class GateMapper(LayerMapper):
    name = "gate"
    claims = (Gate,)

    def map(self, site: Any) -> Analog:
        return Analog(lambda operation, sequences: MultiplyRates(sequences), "product of means")


def test_an_analog_layer_of_two_arguments_in_a_network() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.gate, self.head = nn.Linear(4, 6), nn.Linear(4, 6), Gate(), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.gate(torch.relu(self.one(x)), torch.relu(self.other(x))))

    torch.manual_seed(0)
    ann, x = Gated().eval(), torch.rand(12, 4)
    snn = convert(ann, x, mappers={"gate": GateMapper()})
    assert relative_error(simulate(snn, x, T=400), ann(x).detach()) < 0.03
    assert relative_error(multi_step(snn, x, 12), run_by_hand(snn, x, 12)) < 1e-5
