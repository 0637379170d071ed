"""simulate and evaluate against the hand-written loop, and their counts against naive ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn

from sj_ann2snn import InputError, evaluate, simulate, simulation

from .networks import convert, relative_error, run_by_hand


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    ).eval()


def images(count: int = 23) -> Tensor:
    return torch.rand(count, 1, 10, 10)


@pytest.fixture
def snn() -> nn.Module:
    spiking: nn.Module = convert(network(), images(60), mode="99%")
    return spiking


def test_simulate_is_the_mean_of_the_loop(snn: nn.Module) -> None:
    x = images()
    by_hand = run_by_hand(snn, x, 40).mean(0)
    assert relative_error(simulate(snn, x, T=40), by_hand) < 1e-3


@pytest.mark.parametrize("budget", [1, 4000, 40_000, 1 << 30])
def test_tiles_do_not_change_the_result(snn: nn.Module, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    wanted = run_by_hand(snn, x, 25).mean(0)
    monkeypatch.setitem(simulation.TILE_BYTES, "cpu", budget)
    assert relative_error(simulate(snn, x, T=25), wanted) < 1e-3


def test_the_network_is_left_reset_and_in_its_step_mode(snn: nn.Module) -> None:
    for mode in ("s", "m"):
        for module in snn.modules():
            if isinstance(module, base.StepModule):
                module.step_mode = mode
        simulate(snn, images(), T=5)
        assert {module.step_mode for module in snn.modules() if isinstance(module, base.StepModule)} == {mode}
        assert all(module.v == 0.0 for module in snn.modules() if isinstance(module, neuron.IFNode))


def test_a_failure_inside_leaves_the_network_as_it_was(snn: nn.Module) -> None:
    simulate(snn, images(3), T=5)
    with pytest.raises(RuntimeError):
        simulate(snn, torch.rand(3, 2, 10, 10), T=5)
    assert {module.step_mode for module in snn.modules() if isinstance(module, base.StepModule)} == {"s"}
    assert all(module.v == 0.0 for module in snn.modules() if isinstance(module, neuron.IFNode))
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_the_input_is_left_as_it_was(snn: nn.Module) -> None:
    x = images()
    given = x.clone()
    simulate(snn, x, T=5)
    assert torch.equal(x, given)


def test_hooks_of_the_user_see_every_spike(snn: nn.Module) -> None:
    seen: list[Tensor] = []
    module = snn.get_submodule("2")
    handle = module.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    simulate(snn, images(4), T=10)
    handle.remove()
    assert sum(spikes.sum().item() for spikes in seen) > 0
    assert sum(spikes.shape[0] * spikes.shape[1] for spikes in seen) == 4 * 10


def test_other_networks_run_step_by_step() -> None:
    snn = nn.Sequential(nn.Linear(4, 6), neuron.IFNode(v_threshold=1.0, v_reset=None), nn.Linear(6, 2))
    x = torch.rand(5, 4)
    assert torch.allclose(simulate(snn, x, T=30), run_by_hand(snn, x, 30).mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "one-hot"])
def test_accuracy_at_every_step(snn: nn.Module, kind: str) -> None:
    x, labels = images(23), torch.randint(3, (23,))
    batches: list[Any] = []
    for start in range(0, 23, 10):  # the last one is smaller
        part, told = x[start : start + 10], labels[start : start + 10]
        batches.append(
            {
                "tuple": (part, told),
                "list": [part, told],
                "dict": {"image": part, "label": told},
                "one-hot": (part, F.one_hot(told, 3)),
            }[kind]
        )
    result = evaluate(snn, batches, T=30, progress=False)
    sums = run_by_hand(snn, x, 30).cumsum(0)
    wanted = [(out.argmax(1) == labels).double().mean().item() for out in sums]
    # Right at a threshold another order of summation moves a spike by a step: one sample of 23.
    assert result.accuracy == pytest.approx(wanted, abs=1.01 / 23)
    assert sum(abs(one - other) > 1e-9 for one, other in zip(result.accuracy, wanted, strict=True)) <= 3
    assert (result.samples, len(result.accuracy)) == (23, 30)
    assert result.seconds > 0
    assert f"{result.accuracy[-1]:.4f} (T=30)" in str(result)


def test_spikes_and_synaptic_operations_are_those_of_a_naive_count(snn: nn.Module) -> None:
    x = images(6)
    layers = {name: snn.get_submodule(name) for name in ("2", "5", "9", "4", "8", "10")}
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():

        def keep(module: nn.Module, args: tuple[Tensor, ...], out: Tensor, name: str = name) -> None:
            inputs[name].append(args[0].clone())
            outputs[name].append(out.clone())

        layer.register_forward_hook(keep)
    run_by_hand(snn, x, 12)
    for layer in layers.values():
        layer._forward_hooks.clear()
    spikes = sum(int(out.count_nonzero()) for name in ("2", "5", "9") for out in outputs[name])
    synops = 0
    for name in ("4", "8", "10"):
        for value in inputs[name]:
            active = (value != 0).double()
            if isinstance(layers[name], nn.Linear):
                synops += int(active.sum()) * layers[name].out_features
            else:
                # Every active input reaches as many outputs as ones convolved with ones say.
                synops += int(F.conv2d(active, torch.ones(6, 4, 3, 3).double(), stride=2, padding=1).sum())
    result = evaluate(snn, [(x, torch.zeros(6))], T=12, progress=False)
    assert result.spikes_per_sample == pytest.approx(spikes / 6, rel=1e-3)
    assert result.synops_per_sample == pytest.approx(synops / 6, rel=1e-3)
    assert [layer.name for layer in result.layers] == ["2", "5", "9"]
    assert [layer.neurons for layer in result.layers] == [4 * 8 * 8, 6 * 2 * 2, 5]
    for layer in result.layers:
        assert layer.firing_rate == pytest.approx(layer.spikes_per_sample / (12 * layer.neurons))


def test_a_wrong_number_of_inputs(snn: nn.Module) -> None:
    with pytest.raises(InputError, match="and no labels"):
        evaluate(snn, [(images(),)], T=2, progress=False)
