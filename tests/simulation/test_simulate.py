"""simulate runs layer by layer what the loop runs step by step: the same spikes, the same outputs, the same errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, layer, neuron
from torch import Tensor, nn

from sj_ann2snn import InputError, simulate
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import Written, convert, relative_error, run_by_hand, spikes_of, watched


class Net(nn.Module):
    """Residual, concatenation, pools, a static gate and reshaping by sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.wide, self.head = nn.Conv2d(8, 4, 3), nn.Linear(4 * 3 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.stem(x)
        h = F.relu(current)
        h = F.relu(self.one(h) + h) * torch.sigmoid(current)
        h = torch.cat([F.max_pool2d(h, 2), F.avg_pool2d(F.relu(self.two(h)), 2)], 1)
        h = F.relu(self.wide(h))
        return self.head(h.view(x.size(0), -1))


def images(count: int = 11) -> Tensor:
    return torch.randn(count, 2, 10, 10, dtype=torch.float64)


@pytest.fixture
def snn() -> Any:
    return convert(Net().double(), images(40), mode="99%")


def joined(pieces: list[Tensor], steps: int) -> Tensor:
    """The spikes of all samples; tiles of samples follow one another, each in one or several stretches of time."""
    tiles: list[list[Tensor]] = [[]]
    for piece in pieces:
        if sum(len(one) for one in tiles[-1]) == steps:
            tiles.append([])
        tiles[-1].append(piece)
    return torch.cat([torch.cat(stretches) for stretches in tiles], dim=1)


def test_every_spike_is_that_of_the_loop(snn: Any) -> None:
    x = images()
    wanted = spikes_of(snn, x, 17)
    assert len(wanted) == 4
    with watched(snn, neuron.BaseNode) as seen:
        got = simulate(snn, x, T=17)
    for name, spikes in wanted.items():
        assert torch.equal(joined(seen[name], 17), spikes)
        assert spikes.sum() > 0
    assert relative_error(got, run_by_hand(snn, x, 17).mean(0)) < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 40])
@pytest.mark.parametrize("budget", [1, 3000, 100_000, None])
def test_tiles_of_any_size_give_the_same(
    snn: Any, budget: int | None, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images()
    wanted = run_by_hand(snn, x, steps).mean(0)
    if budget is not None:
        monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    assert relative_error(simulate(snn, x, T=steps), wanted) < 1e-12


def test_one_tile_is_small_whatever_the_batch(snn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    budget = 40_000
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, output.numel() * output.element_size())

    for module in snn.modules():
        if isinstance(module, (nn.Conv2d, neuron.BaseNode)):
            module.register_forward_hook(note)
    simulate(snn, images(60), T=40)
    assert largest <= budget


def test_a_single_sample_and_many_are_the_same(snn: Any) -> None:
    x = images()
    together = simulate(snn, x, T=20)
    apart = torch.cat([simulate(snn, one[None], T=20) for one in x])
    assert relative_error(apart, together) < 1e-12


def test_neurons_that_are_not_reset_before_are_reset(snn: Any) -> None:
    x = images()
    wanted = simulate(snn, x, T=10)
    with torch.no_grad():
        snn(images(3))
    assert torch.equal(simulate(snn, x, T=10), wanted)


def test_no_gradients_are_recorded(snn: Any) -> None:
    assert not simulate(snn, images(), T=3).requires_grad
    with torch.enable_grad():
        assert not simulate(snn, images().requires_grad_(), T=3).requires_grad


def test_modules_stay_in_their_training_mode(snn: Any) -> None:
    snn.get_submodule("head").train()
    before = {name: module.training for name, module in snn.named_modules()}
    simulate(snn, images(), T=3)
    assert {name: module.training for name, module in snn.named_modules()} == before


def test_step_modes_are_put_back_one_by_one(snn: Any) -> None:
    modules = [module for module in snn.modules() if isinstance(module, base.StepModule)]
    for index, module in enumerate(modules):
        module.step_mode = "sm"[index % 2]
    before = [module.step_mode for module in modules]
    simulate(snn, images(), T=3)
    assert [module.step_mode for module in modules] == before


class Failing(nn.Module):
    """Fails on one sample of a batch."""

    def forward(self, h: Tensor) -> Tensor:
        if (h > 1e6).any():
            raise ArithmeticError("too large")
        return h


@pytest.mark.parametrize("mode", ["s", "m"])
def test_state_is_put_back_after_an_error_inside(mode: str) -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), Failing(), nn.Linear(6, 2))
    snn = convert(ann, torch.rand(20, 4), leaf_modules=["4"])
    x = torch.rand(8, 4)
    wanted = simulate(snn, x, T=6)
    modules = [module for module in snn.modules() if isinstance(module, base.StepModule)]
    for module in modules:
        module.step_mode = mode
    snn.get_submodule("2").weight.data.mul_(1e9)
    snn.get_submodule("3").v_threshold = 1e-9
    failing = next(module for module in snn.modules() if isinstance(module, Failing))
    failing.forward = lambda h: _fail()  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError, match="too large"):
        simulate(snn, x, T=6)
    assert {module.step_mode for module in modules} == {mode}
    assert {node.v for node in snn.modules() if isinstance(node, neuron.IFNode)} == {0.0}
    assert torch.is_grad_enabled()
    del failing.forward
    snn.get_submodule("2").weight.data.div_(1e9)
    snn.get_submodule("3").v_threshold = 1.0
    assert torch.allclose(simulate(snn, x, T=6), wanted, atol=1e-5)


def _fail() -> Tensor:
    raise ArithmeticError("too large")


# Inputs and outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_raised(dtype: torch.dtype) -> None:
    snn = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(20, 4))
    x = torch.rand(5, 4).to(dtype)
    got = simulate(snn, x, T=20)
    assert got.dtype == torch.float32
    assert torch.equal(got, simulate(snn, x.float(), T=20))


def test_optional_inputs_stay_at_their_defaults() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

        def forward(self, x: Tensor, factor: float = 2.0) -> Tensor:
            return self.body(x) * factor

    ann, data = Scaled(), torch.rand(20, 4)
    assert relative_error(simulate(convert(ann, data), (data,), T=400), ann(data).detach()) < 0.02


def test_outputs_that_do_not_vary() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        return net.head(torch.relu(net.one(x))), net.one(x), x

    ann = Written(forward, one=nn.Linear(4, 6), head=nn.Linear(6, 2)).double()
    data = torch.rand(20, 4, dtype=torch.float64)
    _, current, given = simulate(convert(ann, data), data, T=30)
    assert relative_error(current, ann.one(data).detach()) < 1e-12
    assert relative_error(given, data) < 1e-12


def test_outputs_that_do_not_depend_on_the_input() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        return net.head(torch.relu(net.one(x))), net.head.bias, net.head.weight

    ann = Written(forward, one=nn.Linear(4, 6), head=nn.Linear(6, 2))
    snn = convert(ann, torch.rand(20, 4))
    _, bias, weight = simulate(snn, torch.rand(5, 4), T=30)
    assert torch.equal(bias, ann.head.bias)
    assert torch.equal(weight, ann.head.weight)


def test_outputs_that_are_sizes_are_refused() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        h = torch.relu(net.one(x))
        return net.head(h), h.size(0)

    snn = convert(Written(forward, one=nn.Linear(4, 6), head=nn.Linear(6, 2)), torch.rand(20, 4))
    with pytest.raises(InputError, match=r"returns \d+ \(size\), a size .*Return only tensors"):
        simulate(snn, torch.rand(5, 4), T=30)


def test_a_network_that_stays_as_it_is_over_time() -> None:
    static = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(20, 4))
    static.get_submodule("2").weight.data.zero_()
    x = torch.rand(5, 4)
    assert torch.allclose(simulate(static, x, T=7), static.get_submodule("2").bias.expand(5, 2))


def test_an_input_that_does_not_fit() -> None:
    snn = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(20, 4))
    with pytest.raises(InputError, match=r"shape \(5, 3\)"):
        simulate(snn, torch.rand(5, 3), T=3)


def test_too_many_inputs() -> None:
    snn = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(20, 4))
    with pytest.raises(InputError, match="takes 1"):
        simulate(snn, (torch.rand(5, 4), torch.rand(5, 4)), T=3)


def test_what_was_given_instead_of_a_tensor_is_described_and_not_printed() -> None:
    snn = convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(20, 4))
    with pytest.raises(InputError) as caught:
        simulate(snn, [torch.rand(200, 4)], T=3)
    assert len(str(caught.value)) < 400


# Networks that are no converted graph ---------------------------------------------------------------


def stateful() -> nn.Sequential:
    return nn.Sequential(
        layer.Conv2d(2, 4, 3),
        neuron.LIFNode(tau=2.0, v_reset=None),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(64, 5),
        neuron.IFNode(),
    ).double()


@pytest.mark.parametrize("mode", ["s", "m"])
def test_any_stateful_network_runs_step_by_step(mode: str) -> None:
    snn, x = stateful(), images(7) * 3
    wanted = run_by_hand(snn, x, 12).mean(0)
    modules = [module for module in snn.modules() if isinstance(module, base.StepModule)]
    for module in modules:
        module.step_mode = mode
    assert relative_error(simulate(snn, x, T=12), wanted) < 1e-12
    assert {module.step_mode for module in modules} == {mode}
    assert {type(module.v) for module in snn.modules() if isinstance(module, neuron.BaseNode)} == {float}


def test_any_stateful_network_runs_on_batches() -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x

    simulate(nn.Sequential(Counting(), stateful()), images(32), T=4)
    assert sum(sizes) == 32 * 4
    assert len(sizes) < 32
