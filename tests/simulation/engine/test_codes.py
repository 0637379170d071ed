"""Spikes in bytes: the same spikes as layer by layer in numbers, to the last one. Triton's interpreter runs the kernels
on a CPU."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter, IntegerIF, evaluate, simulate
from sj_ann2snn.conversion.round_weights import round_to_grid
from sj_ann2snn.layers import CumulativeMaxPool
from sj_ann2snn.simulation.engine import runner
from sj_ann2snn.simulation.engine.codes import convolutions, layers, trial
from sj_ann2snn.simulation.engine.codes.values import Codes
from sj_ann2snn.simulation.engine.packing.packers import BYTES
from sj_ann2snn.simulation.engine.packing.remembered import remembered_convolutions

from ...helpers.networks import Residual, using_threads
from .spikes import SAMPLES, STEPS, Neuron, fire, random_spikes

pytest.importorskip("triton", reason="Triton is not installed")

KERNELS = "sj_ann2snn.simulation.engine.codes.kernels"


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets Triton interpret the kernels, in one thread."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    with using_threads(1):
        yield
    sys.modules.pop(KERNELS, None)


def codes(spikes: Tensor, unit: float = 1.0) -> Codes:
    """``[T, N, C, ...]`` in bytes."""
    return Codes((spikes / unit).to(torch.int8).movedim(2, -1).contiguous(), unit)


def test_there_and_back() -> None:
    for shape in ((5,), (3, 3, 5)):
        spikes = random_spikes(*shape)
        assert codes(spikes).shape == spikes.shape
        assert torch.equal(codes(spikes).unpacked(), spikes)
    assert torch.equal(codes(spikes / 4, 0.25).unpacked(), spikes / 4)


@pytest.mark.parametrize("same", [True, False])
def test_neurons(same: bool) -> None:
    torch.manual_seed(0)
    currents = torch.rand(1 if same else STEPS, SAMPLES, 5, 3, 3).expand(STEPS, -1, -1, -1, -1)
    neuron = Neuron()
    spikes, potential = fire(currents)
    assert torch.equal(layers.fire_codes(neuron, currents).unpacked(), spikes)
    assert torch.equal(neuron.v, potential)
    again = torch.cat((currents, currents))
    assert torch.equal(layers.fire_codes(neuron, currents).unpacked(), fire(again)[0][STEPS:])


@pytest.mark.parametrize("few", [True, False], ids=["few neurons", "many neurons"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "options"),
    [
        (3, 5, (5, 5), {"kernel_size": 3}),
        (16, 72, (4, 6), {"kernel_size": (3, 1), "padding": (1, 0), "bias": False}),
        (40, 16, (6, 5), {"kernel_size": 3, "stride": 2, "padding": 1}),
        (8, 8, (7, 7), {"kernel_size": 3, "dilation": 2, "padding": (2, 1)}),
    ],
)
def test_convolutions(
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    options: dict[str, Any],
    few: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolutions, "FULL", 1 << 30 if few else 0)
    torch.manual_seed(inputs)
    conv: Any = round_to_grid(nn.Conv2d(inputs, outputs, **options))
    x = random_spikes(inputs, *size)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    layer = convolutions.triton_convolution(conv)
    assert layer is not None
    assert torch.equal(layer(codes(x)), currents)  # type: ignore[arg-type]

    numbers, shortcut, factors = torch.randn(currents.shape), random_spikes(*currents.shape[2:]), torch.rand(outputs)
    initial = torch.rand(outputs, 1, 1)
    scaled = torch.addcmul(currents, shortcut, factors[:, None, None])
    late = torch.cat((currents[:1] + initial, currents[1:]))
    for addend, scale, start, wanted in (
        (None, None, None, currents),
        (None, None, initial, late),
        (numbers, None, None, currents + numbers),
        (codes(shortcut), factors, None, scaled),
    ):
        neuron = Neuron()
        found: Any = layer(codes(x), addend, scale, neuron, start)
        spikes, potential = fire(wanted)
        assert torch.equal(found.unpacked(), spikes)
        assert torch.equal(neuron.v, potential)
        again: Any = layer(codes(x), addend, scale, neuron)  # it goes on where it stopped
        assert torch.equal(
            again.unpacked(), fire(torch.cat((wanted, wanted.clone() if start is None else currents)))[0][STEPS:]
        )


@pytest.mark.parametrize("bits", [9, 25])
@pytest.mark.parametrize("few", [True, False], ids=["few neurons", "many neurons"])
def test_neurons_of_integers(few: bool, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold for each channel, and a potential that saturates."""
    monkeypatch.setattr(convolutions, "FULL", 1 << 30 if few else 0)
    torch.manual_seed(bits)
    conv = nn.Conv2d(8, 6, 3)
    for parameter in conv.parameters():
        parameter.data = torch.randint(-127, 128, parameter.shape).float()
    layer = convolutions.triton_convolution(conv)
    assert layer is not None
    assert layer.digits == 1
    threshold = torch.randint(20, 90, (6, 1, 1)).float()
    mine, other = (IntegerIF(threshold, (threshold / 2).round(), bits=bits) for _ in range(2))
    x = random_spikes(8, 5, 5, rate=0.7)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    wanted = torch.stack([other(one) for one in currents])
    found: Any = layer(codes(x), None, None, mine)
    assert torch.equal(found.unpacked(), wanted)
    assert torch.equal(mine.v, other.v)  # type: ignore[arg-type]
    assert bits == 25 or bool((currents.abs() > mine.high).any()), "nothing saturates"


def test_weights_of_four_digits() -> None:
    """A weight that makes up nearly the whole of its sum has 24 significant digits in it."""
    conv = nn.Conv2d(4, 3, 1, bias=False)
    nn.init.constant_(conv.weight, 2**-24)
    conv.weight.data[:, 1] = 1 - 2**-22
    layer = convolutions.triton_convolution(conv)
    assert layer is not None
    assert layer.digits == 4
    x = random_spikes(4, 3, 3, rate=0.6)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    assert torch.equal(layer(codes(x)), currents)  # type: ignore[arg-type]


def test_linear_layers() -> None:
    linear: Any = round_to_grid(nn.Linear(40, 10))
    x = random_spikes(40)
    layer = convolutions.triton_convolution(linear)
    assert layer is not None
    assert torch.equal(layer(codes(x)), linear(x))  # type: ignore[arg-type]
    assert layer(codes(random_spikes(40, 3, 3))) is None  # it takes the last dimension, which is not the channels


@pytest.mark.parametrize("window", [2, 4])
def test_layers_behind_average_pools(window: int) -> None:
    torch.manual_seed(window)
    pool, x = nn.AvgPool2d(window), random_spikes(8, 9, 8, rate=0.6)
    pooled = layers.average_codes(pool, codes(x))
    numbers = pool(x.flatten(0, 1)).unflatten(0, (STEPS, SAMPLES))
    assert pooled is not None
    assert torch.equal(pooled.unpacked(), numbers)
    conv: Any = round_to_grid(nn.Conv2d(8, 9, 2), averaged=window**2)
    layer = convolutions.triton_convolution(conv, window**2)
    assert layer is not None
    currents = conv(numbers.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    assert torch.equal(layer(pooled), currents)  # type: ignore[arg-type]
    assert layers.average_codes(pool, codes(random_spikes(8, window - 1, 8))) is None


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((2, 3), 1, (1, 0))])
def test_max_pools(window: Any, stride: int, padding: Any) -> None:
    torch.manual_seed(0)
    mine, other = (CumulativeMaxPool(2, window, stride, padding) for _ in range(2))
    for _ in range(2):  # the second time, they remember the first
        x = random_spikes(5, 6, 7, rate=0.4)
        found = layers.pool_codes(mine, codes(x))
        assert found is not None
        assert torch.equal(found.unpacked(), torch.stack([other(one) for one in x]))


class Averaged(nn.Module):
    """The average pool's counts are scaled where they meet the convolution's currents."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.relu = nn.Conv2d(6, 6, 2, stride=2), nn.AvgPool2d(2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.conv(x) + self.pool(x))
        return y


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "sums": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), Residual(6), nn.AvgPool2d(2), nn.Conv2d(6, 9, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(36, 4),
    ),
    "averages": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), Averaged(), nn.Flatten(), nn.Linear(54, 4), nn.ReLU(), nn.Linear(4, 4)
    ),
    "pools": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 9, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, {"initial_potential": 0.5}, {"weights": "int8"}], ids=["", "from θ/2", "integers"]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks(network: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    ann, x = NETWORKS[network]().eval(), torch.rand(3, 3, 8, 8)
    snn = Converter([x], mode="99.9%", progress=False, **options)(ann)
    monkeypatch.setattr(runner, "packers_for", lambda device: None)
    numbers = simulate(snn, x, T=12)
    data = [(x, torch.zeros(3).long())]
    counted = evaluate(snn, data, T=12, progress=False).spikes_over_time
    early = evaluate(snn, data, T=12, early_exit=0.05, progress=False)
    monkeypatch.setattr(runner, "packers_for", lambda device: BYTES)
    calls: list[str] = []
    launch = layers.launch

    def noted(kernel: str, *arguments: Any, **constants: Any) -> bool:
        calls.append(kernel)
        return launch(kernel, *arguments, **constants)

    for module in (layers, convolutions):
        monkeypatch.setattr(module, "launch", noted)
    assert torch.equal(simulate(snn, x, T=12), numbers)
    assert {"convolve", "fire", *(["pool"] if network == "pools" else [])} == set(calls)
    assert evaluate(snn, data, T=12, progress=False).spikes_over_time == counted
    stopped = evaluate(snn, data, T=12, early_exit=0.05, progress=False)
    assert stopped.steps_per_sample == early.steps_per_sample < 12
    assert stopped.spikes_over_time == early.spikes_over_time


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3),  # sums are rounded
        round_to_grid(nn.Conv2d(16, 16, 3, groups=2)),
        round_to_grid(nn.Conv2d(16, 16, 4, padding="same")),
        round_to_grid(nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")),
        round_to_grid(nn.Conv2d(16, 16, 3).double()),
        nn.ReLU(),
    ],
    ids=str,
)
def test_what_is_left_to_torch(layer: nn.Module) -> None:
    assert convolutions.triton_convolution(layer) is None


def test_layers_of_another_size_are_left_to_torch() -> None:
    layer = convolutions.triton_convolution(round_to_grid(nn.Conv2d(4, 4, 3)))
    assert layer is not None
    assert layer(codes(random_spikes(4, 2, 2))) is None
    assert layer(codes(random_spikes(5, 4, 4))) is None
    assert layer(codes(random_spikes(4, 4, 4)), torch.zeros(1)) is None


class Refusing:
    """A kernel that the device has too little memory for."""

    def __getitem__(self, blocks: Any) -> Any:
        from triton.runtime.errors import OutOfResources

        raise OutOfResources(300_000, 232_448, "shared memory")


@pytest.mark.parametrize("kernel", ["fire", "convolve", "pool"])
def test_what_triton_cannot_compile_is_left_to_torch(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    ann, x = NETWORKS["pools"]().eval(), torch.rand(3, 3, 8, 8)
    snn = Converter([x], mode="99.9%", initial_potential=0.5, progress=False)(ann)
    monkeypatch.setattr(runner, "packers_for", lambda device: None)
    numbers = simulate(snn, x, T=9)
    monkeypatch.setattr(runner, "packers_for", lambda device: BYTES)
    monkeypatch.setattr(importlib.import_module(KERNELS), kernel, Refusing())
    assert torch.equal(simulate(snn, x, T=9), numbers)


def test_the_trial_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert trial.passes_trial(cpu)
    for kernel in ("fire", "convolve", "pool"):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.import_module(KERNELS), kernel, Refusing())
            assert not trial.passes_trial(cpu)


def test_other_failures_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        def __getitem__(self, blocks: Any) -> Any:
            raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(importlib.import_module(KERNELS), "fire", Exhausted())
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        layers.fire_codes(Neuron(), torch.rand(2, 1, 4))


def test_a_cpu_has_no_kernels() -> None:
    assert not trial.triton_works(torch.device("cpu"))


def test_convolutions_are_remembered_until_something_changes() -> None:
    snn = Converter([torch.rand(4, 3, 8, 8)], progress=False)(NETWORKS["sums"]().eval())
    known = remembered_convolutions(snn)
    assert remembered_convolutions(snn) is known
    assert remembered_convolutions(copy.deepcopy(snn)) is not known
    conv: Any = next(module for module in snn.modules() if isinstance(module, nn.Conv2d))
    conv.weight.data[0, 0, 0, 0] += 1.0  # which torch does not count as a new version
    changed = remembered_convolutions(snn)
    assert changed is not known
    assert remembered_convolutions(snn) is changed
    conv.padding = (1, 1)
    padded = remembered_convolutions(snn)
    assert padded is not changed
    weight = conv.weight.detach().clone()
    del conv.weight
    conv.register_buffer("weight", weight)
    buffers = remembered_convolutions(snn)
    conv.weight.mul_(2)
    assert remembered_convolutions(snn) is not buffers
    assert remembered_convolutions(nn.ReLU()) == {}


def test_zeros_around_images_stay_zeros() -> None:
    """A window over the border reads no other line of the image."""
    conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    layer = convolutions.triton_convolution(conv)
    assert layer is not None
    x = torch.ones(1, 1, 2, 3, 3)
    wanted = F.conv2d(x[0], torch.ones(1, 2, 3, 3), padding=1)
    assert torch.equal(layer(codes(x)), wanted[None])  # type: ignore[arg-type]
