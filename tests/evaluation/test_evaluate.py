"""evaluate against loops that count one sample, one spike and one connection at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sj_ann2snn import InputError, evaluate
from sj_ann2snn.evaluation.activity import fan_out
from sj_ann2snn.evaluation.evaluate import accuracy_of
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import Written, convert, run_by_hand, spikes_of, watched

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Linear": (nn.Linear(5, 3), (5,)),
    "Linear over tokens": (nn.Linear(3, 4), (2, 3)),
    "Conv1d": (nn.Conv1d(2, 3, 3), (2, 6)),
    "Conv1d, stride beyond the kernel": (nn.Conv1d(1, 2, 2, stride=3), (1, 8)),
    "Conv2d": (nn.Conv2d(2, 3, 3), (2, 5, 4)),
    "Conv2d, padded": (nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 4, 4)),
    "Conv2d, strided": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 5)),
    "Conv2d, dilated": (nn.Conv2d(1, 2, 2, dilation=2), (1, 5, 5)),
    "Conv2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 4, 4)),
    "Conv2d, depthwise": (nn.Conv2d(3, 3, 3, groups=3, padding=1), (3, 4, 4)),
    "Conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "ConvTranspose1d": (nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 4)),
    "ConvTranspose2d": (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), (2, 3, 3)),
    "ConvTranspose2d, grouped": (nn.ConvTranspose2d(4, 2, 2, groups=2), (4, 3, 3)),
}


def connections(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """For every element of the input the number of outputs that change with it: one element at a time."""
    layer = layer.double()
    nn.init.uniform_(layer.weight, 0.5, 1.0)
    counts = torch.zeros(shape)
    with torch.no_grad():
        base_line = layer(torch.zeros(1, *shape, dtype=torch.float64))
        for place in itertools.product(*map(range, shape)):
            x = torch.zeros(1, *shape, dtype=torch.float64)
            x[(0, *place)] = 1.0
            counts[place] = (layer(x) != base_line).sum()
    return counts


@pytest.mark.parametrize("name", LAYERS)
def test_connections_are_those_that_change_an_output(name: str) -> None:
    layer, shape = LAYERS[name]
    wanted = connections(layer, shape)
    weight = layer.weight.detach().clone()
    x = torch.rand(1, *shape, dtype=torch.float64)
    assert fan_out(layer, x, layer(x)).tolist() == wanted.tolist()
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("name", [name for name in LAYERS if "tokens" not in name])
def test_synaptic_operations_are_counted_one_by_one(name: str) -> None:
    layer, shape = LAYERS[name]
    wanted_connections = connections(layer, shape).double()
    data = torch.randn(6, *shape, dtype=torch.float64)
    ann = nn.Sequential(nn.ReLU(), layer, nn.Flatten(), nn.Linear(layer(data)[0].numel(), 2)).double()
    snn = convert(ann, data)
    spikes = spikes_of(snn, data, 9)["0"]
    with watched(snn, nn.Flatten) as seen:
        run_by_hand(snn, data, 9)
    (flat,) = seen.values()
    dense = sum(int((one != 0).sum()) for one in flat) * 2
    wanted = (spikes * wanted_connections).sum().item() + dense
    result = evaluate(snn, [(data, torch.zeros(6, dtype=torch.int64))], T=9, progress=False)
    assert result.synops_per_sample * 6 == pytest.approx(wanted)
    assert result.spikes_per_sample * 6 == spikes.sum().item()


def classifier() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()


def samples(count: int = 23) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64) * 2, torch.randint(3, (count,))


@pytest.fixture
def snn() -> Any:
    ann, (x, _) = classifier(), samples(60)
    with torch.no_grad():
        ann[-1].bias -= ann(x).mean(0)  # so that no class wins everywhere
    return convert(ann, x)


def accuracies(snn: nn.Module, x: Tensor, labels: Tensor, steps: int) -> list[float]:
    """By hand: after every step, which class has the largest sum so far."""
    right = [0] * steps
    for one, label in zip(x, labels.tolist(), strict=True):
        total = torch.zeros(3, dtype=torch.float64)
        for step, out in enumerate(run_by_hand(snn, one[None], steps)):
            total = total + out[0]
            right[step] += int(total.tolist().index(max(total.tolist())) == label)
    return [count / len(x) for count in right]


def test_accuracy_at_every_step_is_that_of_a_loop(snn: Any) -> None:
    x, _ = samples()
    labels = run_by_hand(snn, x, 300).mean(0).argmax(1)  # what it settles on
    wanted = accuracies(snn, x, labels, 25)
    assert len(set(wanted)) > 2
    loader = DataLoader(TensorDataset(x, labels), batch_size=10)  # the last batch is smaller
    result = evaluate(snn, loader, T=25, progress=False)
    assert list(result.accuracy) == pytest.approx(wanted)
    assert result.samples == 23


def test_nothing_depends_on_the_batches(snn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = samples()
    found = set()
    for size, budget in ((1, 1 << 22), (23, 1 << 22), (23, 1), (7, 3000)):
        monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
        batches = list(zip(x.split(size), labels.split(size), strict=True))
        result = evaluate(snn, batches, T=12, progress=False)
        found.add((result.accuracy, result.spikes_per_sample, result.synops_per_sample, result.layers))
    assert len(found) == 1


def test_layers_add_up(snn: Any) -> None:
    x, labels = samples()
    result = evaluate(snn, [(x, labels)], T=10, progress=False)
    spikes = spikes_of(snn, x, 10)
    assert [one.name for one in result.layers] == list(spikes)
    assert result.layers
    for one in result.layers:
        assert one.spikes_per_sample == pytest.approx(spikes[one.name].sum().item() / 23)
        assert one.firing_rate == pytest.approx(spikes[one.name].mean().item())
        assert one.neurons == spikes[one.name][0, 0].numel()
        assert one.emissions_per_sample == one.spikes_per_sample
    assert result.spikes_per_sample == pytest.approx(sum(one.spikes_per_sample for one in result.layers))
    assert result.emissions_per_sample == result.spikes_per_sample
    assert "emissions" not in str(result)


def test_what_is_computed_once_costs_no_synaptic_operation(snn: Any) -> None:
    x, labels = samples()
    with watched(snn, neuron.BaseNode):
        result = evaluate(snn, [(x, labels)], T=10, progress=False)
    rates = spikes_of(snn, x, 10)
    pooled = nn.functional.avg_pool2d(rates["1"].flatten(0, 1), 2)
    wanted = (pooled != 0).sum().item() * 8 + rates["5"].sum().item() * 3
    assert result.synops_per_sample * 23 == pytest.approx(wanted)


@pytest.mark.parametrize("key", ["label", "labels", "target", "targets", "y"])
def test_labels_of_dicts(snn: Any, key: str) -> None:
    x, labels = samples()
    wanted = evaluate(snn, [(x, labels)], T=5, progress=False).accuracy
    assert evaluate(snn, [{key: labels, "image": x}], T=5, progress=False).accuracy == wanted
    assert evaluate(snn, [{key: labels, "input": x, "index": torch.arange(23)}], T=5, progress=False).accuracy == wanted


def test_labels_of_any_kind(snn: Any) -> None:
    x, labels = samples()
    wanted = evaluate(snn, [(x, labels)], T=5, progress=False).accuracy
    one_hot = nn.functional.one_hot(labels, 3)
    for given in (labels.tolist(), labels.int(), labels[:, None], labels.numpy(), one_hot, one_hot.double()):
        assert evaluate(snn, [(x, given)], T=5, progress=False).accuracy == wanted


def test_more_steps_than_the_labels_type_can_count(snn: Any) -> None:
    x, labels = samples()
    narrow = evaluate(snn, [(x, labels.to(torch.uint8))], T=300, progress=False)
    assert narrow.steps_per_sample == 300
    assert narrow.accuracy == evaluate(snn, [(x, labels)], T=300, progress=False).accuracy


@pytest.mark.parametrize("count", [9, 11, 0])
def test_another_number_of_labels(snn: Any, count: int) -> None:
    x, _ = samples(10)
    with pytest.raises(InputError, match=rf"10 .*{count}|{count} .*10"):
        evaluate(snn, [(x, torch.zeros(count, dtype=torch.int64))], T=2, progress=False)


def test_one_label_for_many_samples(snn: Any) -> None:
    x, _ = samples(10)
    with pytest.raises(InputError, match="Batch 0 .*holds 10 samples but 1 label"):
        evaluate(snn, [(x, torch.zeros(1, dtype=torch.int64))], T=2, progress=False)


def test_outputs_of_a_classifier_with_several_heads_are_refused() -> None:
    ann = Written(lambda net, x: (net.a(torch.relu(x)), net.b(x)), a=nn.Linear(4, 3), b=nn.Linear(4, 3))
    snn = convert(ann, torch.randn(9, 4))
    with pytest.raises(
        InputError, match=r"a classifier with one output \[N, classes\]; this network's output is a tuple"
    ):
        evaluate(snn, [(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64))], T=2, progress=False)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_step_modes_and_state_are_put_back(snn: Any, mode: str) -> None:
    modules = [module for module in snn.modules() if isinstance(module, base.StepModule)]
    for module in modules:
        module.step_mode = mode
    x, labels = samples()
    evaluate(snn, [(x, labels)], T=3, progress=False)
    with pytest.raises(InputError, match="Batch 1 cannot be evaluated. The network cannot take"):
        evaluate(snn, [(x, labels), (x[:, :, :5], labels)], T=3, progress=False)
    assert {module.step_mode for module in modules} == {mode}
    assert {node.v for node in snn.modules() if isinstance(node, neuron.IFNode)} == {0.0}


def test_the_result_reads_as_a_line(snn: Any) -> None:
    x, labels = samples()
    result = evaluate(snn, [(x, labels)], T=10, progress=False)
    text = str(result)
    for step in (1, 2, 4, 8, 10):
        assert f"{result.accuracy[step - 1]:.4f} (T={step})" in text
    assert "(T=3)" not in text
    assert "23 samples" in text
    assert f"{result.spikes_per_sample:.4g} spikes" in text
    assert f"{result.synops_per_sample:.4g} synaptic operations per sample" in text


def test_other_stateful_networks_are_evaluated_step_by_step() -> None:
    snn = nn.Sequential(nn.Linear(4, 6), neuron.IFNode(v_threshold=1.0, v_reset=None), nn.Linear(6, 3)).double()
    x, labels = torch.rand(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    assert list(evaluate(snn, [(x, labels)], T=9, progress=False).accuracy) == pytest.approx(
        accuracies(snn, x, labels, 9)
    )


def test_spikes_of_other_stateful_networks() -> None:
    snn = nn.Sequential(nn.Linear(4, 6), neuron.IFNode(v_threshold=1.0, v_reset=None), nn.Linear(6, 3)).double()
    x = torch.rand(20, 4, dtype=torch.float64) * 3
    spikes = spikes_of(snn, x, 9)["1"].sum().item()
    assert spikes > 0
    result = evaluate(snn, [(x, torch.zeros(20, dtype=torch.int64))], T=9, progress=False)
    assert result.spikes_per_sample == pytest.approx(spikes / 20)


def test_accuracy_of_the_ann() -> None:
    ann = nn.Sequential(classifier(), nn.Dropout(0.9))
    ann.train()
    ann[0][1].eval()
    modes = [module.training for module in ann.modules()]
    x, labels = samples()
    wanted = (ann[0](x).argmax(1) == labels).double().mean().item()
    loader = DataLoader(TensorDataset(x, labels), batch_size=10)
    assert accuracy_of(ann, loader) == pytest.approx(wanted)
    assert accuracy_of(ann, [{"image": x, "label": labels}]) == pytest.approx(wanted)
    assert [module.training for module in ann.modules()] == modes
    with pytest.raises(InputError, match="The loader is empty"):
        accuracy_of(ann, [])
    with pytest.raises(InputError, match="but no labels"):
        accuracy_of(ann, [x])
    assert [module.training for module in ann.modules()] == modes
