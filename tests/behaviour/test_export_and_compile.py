"""Converted networks in torch.export and torch.compile: one step, and step mode "m"."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, InitialPotential, InputError, MemoryLayer, functional_step

from ..helpers.networks import StepBiases

STEPS = 6

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"maxpool": "momentum"},
    "initial potential": {"initial_potential": 0.5, "channel_wise": True},
    "single potentials": {},
    "integers": {"weights": "int8"},
    "biases per step": {"channel_wise": True, "corrections": StepBiases()},
}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.pool(torch.relu(self.second(x) + x))
        return torch.relu(self.last(x.flatten(1)))


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=list(OPTIONS))
def made(request: pytest.FixtureRequest) -> tuple[Any, Tensor, Tensor]:
    """A network, samples, and its outputs at every step."""
    torch.manual_seed(0)
    x = torch.rand(16, 2, 8, 8)
    snn = Converter([x], progress=False, **OPTIONS[request.param])(Residual())
    if request.param == "single potentials":
        snn.add_submodule("start", InitialPotential(torch.rand(4, 8, 8)))
        neuron = next(node for node in snn.graph.nodes if node.target == "relu")
        with snn.graph.inserting_before(neuron):
            neuron.args = (snn.graph.call_module("start", neuron.args),)
        snn.recompile()
    with torch.no_grad():
        return snn, x, by_steps(snn, x)


def by_steps(network: Any, x: Tensor) -> Tensor:
    outputs = torch.stack([network(x) for _ in range(STEPS)])
    functional.reset_net(network)
    assert 0 < float(outputs.mean()) < 1
    return outputs


@torch.no_grad()
def test_a_compiled_step(made: tuple[Any, Tensor, Tensor]) -> None:
    snn, x, wanted = made
    compiled = torch.compile(snn, backend="eager", fullgraph=True)
    for _ in range(2):  # a reset is noticed
        assert torch.equal(by_steps(compiled, x), wanted)


@torch.no_grad()
def test_all_steps_compiled_at_once(made: tuple[Any, Tensor, Tensor]) -> None:
    snn, x, wanted = made
    functional.set_step_mode(snn, "m")
    compiled = torch.compile(snn, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(compiled(x.expand(STEPS, *x.shape)), wanted)
        functional.reset_net(snn)


@torch.no_grad()
@pytest.mark.parametrize("made", ["initial potential"], indirect=True)
def test_compiled_with_autograd_traced_ahead(made: tuple[Any, Tensor, Tensor]) -> None:
    snn, x, wanted = made
    assert torch.equal(by_steps(torch.compile(snn, backend="aot_eager", fullgraph=True), x), wanted)


@torch.no_grad()
def test_an_exported_step(made: tuple[Any, Tensor, Tensor]) -> None:
    """For any number of samples; the states pass from step to step."""
    snn, x, wanted = made
    step, states = functional_step(snn, x[:5])
    samples = torch.export.Dim("samples", min=2)
    dynamic = ({name: {0: samples} for name in states}, ({0: samples},))
    program = torch.export.export(step, (states, x[:5]), dynamic_shapes=dynamic).module()
    for count in (5, 16):
        _, states = functional_step(snn, x[:count])
        for t in range(STEPS):
            out, states = program(states, x[:count])
            assert torch.equal(out, wanted[t, :count])
    assert torch.equal(by_steps(snn, x), wanted), "the network is left as it is"


@torch.no_grad()
def test_all_steps_exported_at_once(made: tuple[Any, Tensor, Tensor]) -> None:
    """Twice the steps are two calls, because the states are returned."""
    snn, x, wanted = made
    functional.set_step_mode(snn, "m")
    x_seq = x.expand(STEPS // 2, *x.shape)
    step, states = functional_step(snn, x_seq)
    program = torch.export.export(step, (states, x_seq)).module()
    first, states = program(states, x_seq)
    second, _ = program(states, x_seq)
    assert torch.equal(torch.cat([first, second]), wanted)


@torch.no_grad()
@pytest.mark.parametrize("made", ["single potentials", "biases per step", "integers"], indirect=True)
def test_a_functional_step_keeps_nothing(made: tuple[Any, Tensor, Tensor]) -> None:
    snn, x, wanted = made
    snn(x)  # whatever state it is in
    step, states = functional_step(snn, x)
    functional.reset_net(snn)
    before = copy.deepcopy(states)
    for _ in range(2):
        out, _ = step(states, x)
        assert torch.equal(out, wanted[0])
    assert all(torch.equal(states[name], before[name]) for name in before)


def test_layers_that_count_are_told() -> None:
    class Counting(MemoryLayer):
        def __init__(self) -> None:
            super().__init__()
            self.register_memory("steps", 0)

        def single_step_forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            return x / self.steps

    network = nn.Sequential(nn.Linear(4, 3), Counting())
    with pytest.raises(InputError, match=r"1 \(Counting: steps = 1\) after a step is no tensor. Convert with layers"):
        functional_step(network, torch.rand(2, 4))
