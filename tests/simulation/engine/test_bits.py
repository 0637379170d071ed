"""Spikes in bits: the same spikes as layer by layer in numbers, to the last one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter, IntegerIF, evaluate, simulate
from sj_ann2snn.conversion.round_weights import round_to_grid
from sj_ann2snn.layers import CumulativeMaxPool
from sj_ann2snn.simulation.engine import runner
from sj_ann2snn.simulation.engine.bits import convolutions, layers
from sj_ann2snn.simulation.engine.bits.dilated import dilated_convolution
from sj_ann2snn.simulation.engine.bits.transposed import transposed_convolution
from sj_ann2snn.simulation.engine.bits.values import PackedCounts, PackedSpikes
from sj_ann2snn.simulation.engine.flow import Flow
from sj_ann2snn.simulation.engine.packed import neurons, pools
from sj_ann2snn.simulation.engine.packing import parts, remembered
from sj_ann2snn.simulation.engine.packing.packers import BITS
from sj_ann2snn.simulation.engine.tiling import Tiling

from ...helpers.networks import StepBiases, relative_error, using_threads
from .networks import averaging, branching, decoder, dilated, grouped, inverted, lines, network, stem, two_sided
from .spikes import SAMPLES, STEPS, Neuron, fire, packed, random_spikes

pytest.importorskip("numba", reason="numba is not installed")


def test_there_and_back() -> None:
    for shape in ((8,), (24, 3, 5), (64, 2, 2), (13, 4), (5, 3, 3), (20,)):
        spikes = random_spikes(*shape)
        found = packed(spikes)
        assert found.shape == spikes.shape
        assert torch.equal(found.unpacked(), spikes)
        assert found.per_step().tolist() == spikes.flatten(1).sum(1).tolist()
        in_bytes = F.pad(spikes.movedim(2, -1), (0, -shape[0] % 8))
        assert abs(found.share() - float(in_bytes.mean())) < 1e-6
    weights = torch.arange(15).view(3, 5)
    spikes = random_spikes(8, 3, 5)
    assert packed(spikes).per_step(weights).tolist() == (spikes * weights).flatten(1).sum(1).tolist()


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "window", "stride", "padding", "groups"),
    [
        (16, 16, (6, 7), (3, 3), (1, 1), (1, 1), 1),
        (8, 24, (7, 5), (5, 5), (1, 1), (2, 2), 1),
        (24, 40, (5, 5), (1, 1), (2, 2), (0, 0), 1),
        (32, 64, (9, 8), (3, 3), (2, 2), (1, 1), 1),
        (64, 32, (4, 6), (2, 3), (2, 1), (0, 2), 1),
        (128, 8, (3, 3), (3, 3), (1, 1), (0, 0), 1),
        (6, 16, (6, 5), (5, 5), (1, 1), (0, 0), 1),
        (20, 10, (5, 5), (3, 3), (1, 1), (1, 1), 1),
        (9, 1, (5, 4), (3, 3), (2, 1), (1, 1), 1),
        (48, 96, (7, 6), (3, 3), (1, 1), (1, 1), 2),
        (64, 64, (5, 7), (3, 3), (2, 2), (1, 1), 16),  # four groups fill a vector
        (24, 48, (6, 4), (3, 3), (1, 1), (0, 1), 3),
        (16, 32, (5, 6), (2, 3), (2, 1), (0, 0), 16),  # one channel each
        (192, 96, (4, 4), (1, 1), (1, 1), (0, 0), 3),
        (12, 18, (5, 5), (3, 3), (1, 1), (1, 1), 6),  # no joined groups fill bytes: one group of them all
        (80, 240, (4, 5), (3, 2), (1, 2), (1, 0), 5),
    ],
)
def test_convolutions(
    monkeypatch: pytest.MonkeyPatch,
    by_rows: bool,
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> None:
    torch.manual_seed(inputs)
    conv: Any = round_to_grid(nn.Conv2d(inputs, outputs, window, stride, padding, groups=groups))
    x = random_spikes(inputs, *size)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    layer = convolutions.packed_convolution(conv)
    assert layer is not None
    monkeypatch.setattr(layer, "_is_faster_by_rows", lambda *_: by_rows)
    assert torch.equal(layer(packed(x)), currents)  # type: ignore[arg-type]

    numbers, shortcut, factors = torch.randn(currents.shape), random_spikes(*currents.shape[2:]), torch.rand(outputs)
    scaled = torch.addcmul(currents, shortcut, factors[:, None, None])
    for addend, scale, wanted in (
        (None, None, currents),
        (numbers, None, currents + numbers),
        (packed(shortcut), factors, scaled),
    ):
        neuron = Neuron()
        found: Any = layer(packed(x), addend, scale, neuron)
        spikes, potential = fire(wanted)
        assert torch.equal(found.unpacked(), spikes)
        assert torch.equal(neuron.v, potential)


def counts(spikes: Tensor, window: int | tuple[int, int], stride: int | None = None) -> PackedCounts:
    """What an average pool makes of them."""
    found = layers.average_packed(nn.AvgPool2d(window, stride), packed(spikes))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("channels", "size", "window", "stride"),
    [
        (8, (6, 6), 2, None),
        (64, (7, 9), 2, None),
        (24, (8, 8), 4, None),
        (32, (5, 8), (1, 2), None),
        (16, (9, 7), 4, 1),
        (12, (6, 6), 2, None),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_average_pools(
    channels: int, size: tuple[int, int], window: int | tuple[int, int], stride: int | None, rate: float
) -> None:
    torch.manual_seed(channels)
    spikes = random_spikes(channels, *size, rate=rate)
    found, wanted = counts(spikes, window, stride), F.avg_pool2d(spikes.flatten(0, 1), window, stride)
    assert torch.equal(found.unpacked().flatten(0, 1), wanted)
    assert torch.equal(found.active().unpacked().flatten(0, 1), (wanted > 0).float())


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (0, 1)), (2, 3, 0), (3, 3, 1)]
)
@pytest.mark.parametrize("channels", [8, 64, 10])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_cumulative_max_pools(channels: int, window: Any, stride: Any, padding: Any, ceil_mode: bool) -> None:
    torch.manual_seed(channels)
    pool, reference = (CumulativeMaxPool(2, window, stride, padding, ceil_mode=ceil_mode) for _ in range(2))
    assert pools.pools_packed(pool)
    for _ in range(2):  # the second time, it goes on with what it has counted
        spikes = random_spikes(channels, 7, 10)
        found = layers.pool_packed(pool, packed(spikes))
        assert found is not None
        reference.step_mode = "m"
        assert torch.equal(found.unpacked(), reference(spikes))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3),
        nn.AvgPool2d(8),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=2),
        nn.AvgPool2d(1),
        nn.AvgPool1d(3),
        nn.AvgPool3d(2),
        nn.MaxPool2d(2),
    ],
)
def test_pools_that_stay_in_numbers(pool: nn.Module) -> None:
    assert not pools.averages_packed(pool)


def test_a_window_larger_than_the_image_is_left_to_the_pool() -> None:
    assert layers.average_packed(nn.AvgPool2d(4), packed(random_spikes(8, 3, 5))) is None


@pytest.mark.parametrize("averaged", [1, 4])
@pytest.mark.parametrize(
    ("channels", "window", "stride", "padding"),
    [(8, 3, 1, 1), (64, (2, 3), (1, 2), (1, 0)), (96, 5, 2, 2), (58, 3, 1, 1)],
)
def test_depthwise_convolutions(channels: int, window: Any, stride: Any, padding: Any, averaged: int) -> None:
    torch.manual_seed(channels)
    spikes = random_spikes(channels, 10, 12, rate=0.4)
    x = packed(spikes) if averaged == 1 else counts(spikes, 2)
    conv: Any = round_to_grid(nn.Conv2d(channels, channels, window, stride, padding, groups=channels), averaged)
    layer = convolutions.packed_convolution(conv, averaged)
    assert layer is not None
    currents, neuron = conv(x.unpacked().flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES)), Neuron()
    assert torch.equal(layer(x), currents)  # type: ignore[arg-type]
    assert layer.loop == "masks"
    shortcut = torch.randn(currents.shape)
    found: Any = layer(x, shortcut, neuron=neuron)
    assert torch.equal(found.unpacked(), fire(currents + shortcut)[0])
    assert layer(packed(random_spikes(8 + channels, 10, 12))) is None


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("rate", [0.02, 0.4, 1.0])
@pytest.mark.parametrize(
    ("inputs", "window", "groups", "stride"),
    [(16, 2, 1, 1), (64, 4, 1, 1), (8, (2, 1), 1, 1), (6, 2, 1, 1), (48, 2, 3, 1), (64, 2, 2, 2)],
)
def test_convolutions_behind_average_pools(
    inputs: int, window: int | tuple[int, int], groups: int, stride: int, rate: float, by_rows: bool
) -> None:
    torch.manual_seed(inputs)
    x = counts(random_spikes(inputs, 12, 9, rate=rate), window)
    averaged = int(1 / x.unit)
    conv: Any = round_to_grid(nn.Conv2d(inputs, 24 * groups, 3, stride, 1, groups=groups), averaged)
    layer = convolutions.packed_convolution(conv, averaged)
    assert layer is not None
    assert convolutions.packed_convolution(round_to_grid(nn.Conv2d(inputs, 24, 3)), averaged) is None
    currents, neuron = conv(x.unpacked().flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES)), Neuron()
    assert torch.equal(layer(x, by_rows=by_rows), currents)  # type: ignore[arg-type]
    found: Any = layer(x, neuron=neuron, by_rows=by_rows)
    assert torch.equal(found.unpacked(), fire(currents)[0])
    assert torch.equal(neuron.v, fire(currents)[1])


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 2), (0, 2), (3, 0)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "height"), [(8, 8, 1), (16, 64, 3), (24, 40, 2), (64, 128, 5)])
def test_lookup_of_small_integers_by_columns(
    inputs: int, outputs: int, height: int, stride: int, padding: tuple[int, int]
) -> None:
    torch.manual_seed(inputs + stride)
    conv = nn.Conv2d(inputs, outputs, (height, 3), (stride, 1), padding)
    with torch.no_grad():
        for value in conv.parameters():
            value.copy_(torch.randint(-15, 16, value.shape))
    layer = convolutions.packed_convolution(conv)
    assert layer is not None
    assert convolutions.fits_short(conv.weight.detach())
    for places in ((5, 3), (6, 7), (5, 4)):
        x = random_spikes(inputs, *places, rate=0.3)
        currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
        assert torch.equal(layer(packed(x), by_rows=False), currents)  # type: ignore[arg-type]


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 2), (4, 2), ((3, 5), (1, 3)), (2, 3)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 8), (12, 5)])
def test_transposed_convolutions(window: Any, stride: Any, padding: int, more: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(inputs)
    given = stride if isinstance(stride, tuple) else (stride, stride)
    conv: Any = round_to_grid(nn.ConvTranspose2d(inputs, outputs, window, stride, padding, min(more, min(given) - 1)))
    layer = transposed_convolution(conv)
    if window == 1 and padding:
        assert layer is None  # outputs that no input reaches are cut off
        return
    assert layer is not None
    for places in ((4, 5), (1, 3)):
        x = random_spikes(inputs, *places)
        if places[0] == 1 and conv.padding[0]:
            continue  # torch refuses some of them
        currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
        assert torch.equal(layer(packed(x)), currents)  # type: ignore[arg-type]
    assert layer.loop in ("rows of weights", "table lookup")
    assert layer(packed(random_spikes(inputs, 4))) is None
    assert layer(packed(random_spikes(inputs + 8, 4, 4))) is None
    assert layer(packed(x), torch.zeros(())) is None


@pytest.mark.parametrize(
    "module",
    [
        nn.ConvTranspose2d(16, 16, 3),  # sums are rounded
        round_to_grid(nn.ConvTranspose2d(16, 16, 3, groups=2)),
        round_to_grid(nn.ConvTranspose2d(16, 16, 3, dilation=2)),
        round_to_grid(nn.ConvTranspose2d(16, 16, 3).double()),
        round_to_grid(nn.ConvTranspose3d(16, 16, 3)),
        nn.Conv2d(16, 16, 3),
    ],
)
def test_transposed_convolutions_that_stay_in_numbers(module: nn.Module) -> None:
    assert transposed_convolution(module) is None


@pytest.mark.parametrize("averaged", [1, 4])
@pytest.mark.parametrize(("window", "gaps"), [(3, 2), (2, 3), ((1, 3), (1, 4)), (1, 2), (5, (2, 1))])
@pytest.mark.parametrize("padding", [0, 1, (4, 2)])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 8), (12, 5)])
def test_dilated_convolutions(window: Any, gaps: Any, padding: Any, inputs: int, outputs: int, averaged: int) -> None:
    torch.manual_seed(inputs)
    conv: Any = round_to_grid(nn.Conv2d(inputs, outputs, window, 1, padding, gaps), averaged)
    layer = dilated_convolution(conv, averaged)
    assert layer is not None
    x: Any = counts(random_spikes(inputs, 20, 26), 2) if averaged > 1 else packed(random_spikes(inputs, 10, 13))
    currents = conv(x.unpacked().flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    assert torch.equal(layer(x), currents)  # type: ignore[arg-type]
    assert layer.loop in ("rows of weights", "table lookup")
    assert layer(packed(random_spikes(inputs, 13))) is None
    assert layer(packed(random_spikes(inputs + 8, 10, 13))) is None
    assert layer(x, torch.zeros(())) is None


def test_a_dilated_window_larger_than_the_image_is_left_to_the_layer() -> None:
    layer = dilated_convolution(round_to_grid(nn.Conv2d(8, 8, 3, dilation=4)))
    assert layer is not None
    assert layer(packed(random_spikes(8, 9, 9))) is not None
    assert layer(packed(random_spikes(8, 9, 8))) is None


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(16, 16, 3, dilation=2),  # sums are rounded
        round_to_grid(nn.Conv2d(16, 16, 3)),
        round_to_grid(nn.Conv2d(16, 16, 3, 2, dilation=2)),
        round_to_grid(nn.Conv2d(16, 16, 3, dilation=2, groups=2)),
        round_to_grid(nn.Conv2d(16, 16, 2, dilation=3, padding="same")),
        round_to_grid(nn.Conv2d(16, 16, 3, 1, 1, 2, padding_mode="circular")),
        round_to_grid(nn.Conv2d(16, 16, 3, dilation=2).double()),
        nn.ReLU(),
    ],
)
def test_dilated_convolutions_that_stay_in_numbers(module: nn.Module) -> None:
    assert dilated_convolution(module) is None


def integers(neuron: IntegerIF, currents: Tensor) -> tuple[Tensor, Tensor]:
    """The spikes of integer neurons, and their potentials at the end."""
    v, spikes = neuron.potential.expand(currents.shape[1:]), []
    for x in currents:
        v = (v + x).clamp(neuron.low, neuron.high)
        spikes.append((v >= neuron.threshold).float())
        v = v - spikes[-1] * neuron.threshold
    return torch.stack(spikes), v


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize(("bits", "times"), [(25, 1), (8, 1), (25, 1000)])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_integer_neurons(monkeypatch: pytest.MonkeyPatch, channels: int, bits: int, times: int, by_rows: bool) -> None:
    torch.manual_seed(channels)
    conv: Any = nn.Conv2d(16, channels, 3, padding=1)
    with torch.no_grad():
        for value in conv.parameters():
            value.copy_(torch.randint(-40, 50, value.shape) * times)
    thresholds = torch.randint(20, 128, (channels, 1, 1)).float()
    x, shortcut = random_spikes(16, 5, 6), random_spikes(channels, 5, 6)
    factors = torch.randint(1, 100, (channels,)).float()
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    layer = convolutions.packed_convolution(conv)
    assert layer is not None
    assert convolutions.fits_short(conv.weight.detach()) == (times == 1)  # both kinds of sums
    monkeypatch.setattr(layer, "_is_faster_by_rows", lambda *_: by_rows)
    for threshold in (thresholds, torch.tensor(30.0)):
        for addend, scale, wanted in (
            (None, None, currents),
            (packed(shortcut), factors, torch.addcmul(currents, shortcut, factors[:, None, None])),
        ):
            neuron = IntegerIF(threshold, (threshold / 2).round(), bits=bits)
            assert neurons.fires_packed(neuron)
            spikes, potential = integers(neuron, wanted)
            found: Any = layer(packed(x), addend, scale, neuron)
            assert torch.equal(found.unpacked(), spikes)
            assert torch.equal(neuron.v, potential)  # type: ignore[arg-type]
            neuron.reset()
            alone = layers.fire_packed(neuron, wanted)
            assert torch.equal(alone.unpacked(), spikes)
            assert torch.equal(neuron.v, potential)  # type: ignore[arg-type]


def test_integer_networks_are_packed() -> None:
    ann = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    snn = Converter([torch.rand(20, 3, 8, 8)], weights="int8", progress=False)(ann.eval())
    flow = Flow.of(snn)
    assert flow is not None
    found = parts.Parts(flow, flow.modules, 8, packers=BITS)
    assert {str(node.target) for node in found.chains} == {"1", "3"}
    off = IntegerIF(torch.ones(5, 6), bits=16)  # thresholds of single neurons
    assert not neurons.fires_packed(off)


def test_linear_layers_and_the_initial_potential() -> None:
    torch.manual_seed(1)
    linear: Any = round_to_grid(nn.Linear(16, 24, bias=False))
    x, initial, neuron = random_spikes(16, rate=0.5), torch.rand(24), Neuron()
    currents = linear(x).detach()
    layer = convolutions.packed_convolution(linear)
    assert layer is not None
    found: Any = layer(packed(x), None, None, neuron, initial)
    currents[0] += initial
    assert torch.equal(found.unpacked(), fire(currents)[0])
    assert layer(packed(random_spikes(16, 3, 3))) is None  # it takes the last dimension, which is not the channels


class Doubled(nn.Conv2d):
    """Computes something else with its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3),  # sums are rounded
        round_to_grid(Doubled(16, 16, 3)),
        round_to_grid(nn.Conv2d(99, 99, 3, groups=9)),  # groups of which eight do not fill bytes
        round_to_grid(nn.Conv2d(16, 16, 3, dilation=2)),
        round_to_grid(nn.Conv2d(16, 16, 4, padding="same")),  # more zeros at one end
        round_to_grid(nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")),
        round_to_grid(nn.Conv3d(16, 16, 3)),
        round_to_grid(nn.Conv2d(16, 16, 3).double()),
        nn.ReLU(),
    ],
)
def test_what_stays_in_numbers(layer: nn.Module) -> None:
    assert convolutions.packed_convolution(layer) is None


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (convolutions.packed_convolution, nn.Conv2d(16, 24, (3, 5), padding="same")),
        (convolutions.packed_convolution, nn.Conv2d(16, 24, (3, 5), padding="valid")),
        (dilated_convolution, nn.Conv2d(16, 24, (3, 2), padding="same", dilation=2)),
    ],
)
def test_margins_by_name(make: Any, layer: nn.Module) -> None:
    conv, x = round_to_grid(layer), random_spikes(16, 7, 8)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    assert torch.equal(make(conv)(packed(x)), currents)


def test_weights_that_are_not_finite_stay_in_numbers() -> None:
    conv: Any = round_to_grid(nn.Conv2d(16, 16, 3))
    conv.weight.data[0, 0, 0, 0] = torch.inf
    assert convolutions.packed_convolution(conv) is None


def test_images_too_wide_for_places_of_32_bits_stay_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = convolutions.packed_convolution(round_to_grid(nn.Conv2d(16, 16, 3, padding=1)))
    monkeypatch.setattr(convolutions, "FARTHEST", (9 + 5 + 2) * 16 * 16 * 4)
    assert layer(packed(random_spikes(16, 7, 5))) is not None
    assert layer(packed(random_spikes(16, 7, 6))) is None
    assert layer(counts(random_spikes(16, 14, 10), 2)) is None  # three planes


def test_a_very_wide_image(in_numbers: Any) -> None:
    """The places of rows at its last columns do not fit into 32 bits."""
    torch.manual_seed(1)
    ann = nn.Sequential(
        nn.Conv2d(1, 512, 1), nn.ReLU(), nn.Conv2d(512, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    snn, x = Converter([torch.rand(4, 1, 1, 50)], progress=False)(ann.eval()), torch.rand(1, 1, 1, 33_000)
    assert relative_error(simulate(snn, x, 2), in_numbers(lambda: simulate(snn, x, 2))) < 1e-5


def test_tiles_of_bits_are_large_and_let_samples_leave_soon() -> None:
    tiling = Tiling("cpu", 64)
    tiling.note(packed(torch.zeros(4, 1, 1 << 16)))
    tiling.lengthen(16)
    assert (tiling.samples(), tiling.steps(16)) == (16, 16)  # a quarter of a byte for each
    assert tiling.steps(16, leaving=True) == 16
    assert (tiling.steps(4), tiling.steps(4, leaving=True)) == (64, 16)
    short = Tiling("cpu", 64)
    short.restore({**tiling.state(), "few_steps": 4})
    assert (short.samples(), short.steps(16, leaving=True)) == (64, 4)


def test_tiles_on_a_cuda_device_are_large_already() -> None:
    tiling = Tiling("cuda", 64)
    tiling.note(torch.empty(1, 1, 1 << 26, device="meta"))
    assert tiling.steps(1) == 8
    tiling.lengthen(16)
    assert tiling.steps(1) == 8


OPTIONS: dict[str, dict[str, Any]] = {
    "99.9%": {"mode": "99.9%"},
    "per channel from θ/2": {"mode": "99.9%", "channel_wise": True, "initial_potential": 0.5},
    "low": {"mode": 0.3},
    "biases per step": {"mode": 0.8, "channel_wise": True, "corrections": StepBiases()},
}


@pytest.mark.parametrize(
    "make", [network, averaging, stem, grouped, inverted, branching, lines, decoder, two_sided, dilated]
)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_network_spikes_the_same(options: dict[str, Any], make: Any, x: Tensor, in_numbers: Any) -> None:
    snn = Converter([x], progress=False, **options)(make())
    data = [(x, torch.arange(11) % 5)]

    def work() -> Any:
        return simulate(snn, x, 17), evaluate(snn, data, 17, progress=False)

    (answer, result), (wanted, expected) = work(), in_numbers(work)
    assert relative_error(answer, wanted) < 1e-6  # outputs are sums over steps, in torch's order
    for field in ("accuracy", "spikes_over_time", "emissions_over_time", "synops_over_time", "spikes_per_sample"):
        assert getattr(result, field) == getattr(expected, field), field
    assert result.layers == expected.layers


def test_bits_are_used(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution and linear layer that may read bits does, and the shortcuts are added as bits."""
    kinds: list[tuple[int, int, bool]] = []
    original = convolutions.PackedConvolution.__call__

    def seen(
        self: Any, spikes: Any, addend: Any = None, factors: Any = None, neuron: Any = None, *rest: Any, **trial: Any
    ) -> Any:
        found = original(self, spikes, addend, factors, neuron, *rest, **trial)
        if trial:  # of the loops, which is faster
            return found
        assert found is not None
        kinds.append((spikes.shape[2], found.shape[2], isinstance(addend, PackedSpikes)))
        return found

    monkeypatch.setattr(convolutions.PackedConvolution, "__call__", seen)
    simulate(Converter([x], progress=False)(network()), x, 4)
    residual = {(16, 16, False), (16, 16, True), (16, 32, False), (32, 32, False)}
    assert residual | {(32, 20, False), (20, 16, False), (16, 24, False), (24, 16, False), (16, 5, False)} == set(kinds)
    kinds.clear()
    simulate(Converter([x], progress=False)(averaging()), x, 4)
    assert {(16, 24, False), (24, 24, False), (24, 24, True), (48, 5, False)} >= set(kinds)
    assert {(16, 24, False), (24, 24, False), (48, 5, False)} <= set(kinds)
    kinds.clear()
    with using_threads(1):
        simulate(Converter([x], progress=False)(stem()), x, 4)
    blocks = [(16, 16, False), (16, 16, True)]
    assert kinds == 2 * [*blocks, (16, 12, False), (12, 16, False), (12, 16, False), (16, 16, False), *blocks]


def test_differences_of_spikes_are_made_in_one_pass(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the negated currents nor the scaled spikes of an activation of both signs are made."""
    snn = Converter([x], progress=False, channel_wise=True)(two_sided())
    made: list[Any] = []
    original = runner.Runner._call

    def seen(self: Any, node: Any, *rest: Any, **mode: Any) -> Any:
        made.append(str(node.target))
        return original(self, node, *rest, **mode)

    monkeypatch.setattr(runner.Runner, "_call", seen)
    simulate(snn, x, 4)
    assert made
    # Of currents that are the same at every step, and along lines, which numbers store the other way round.
    others = {"first_negated", "third_negated", "third_slope", "third_difference"}
    assert {name for name in made if name.endswith(("_negated", "_slope", "_difference"))} == others


def test_convolutions_are_remembered_on_a_cpu(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = Converter([x], progress=False)(network())
    before, known = simulate(snn, x, 9), remembered.remembered_convolutions(snn)
    assert known
    assert torch.equal(simulate(snn, x, 9), before)
    assert remembered.remembered_convolutions(snn) is known
    conv: Any = next(module for name, module in snn.named_modules() if name.endswith("two"))
    conv.weight.data.mul_(2)  # torch counts no such write
    after = simulate(snn, x, 9)
    assert torch.equal(after, simulate(copy.deepcopy(snn), x, 9))
    assert not torch.equal(after, before)
    conv.padding = (0, 0)
    conv.stride = (1, 1)
    assert remembered.remembered_convolutions(snn) is not known
    conv.padding = (1, 1)
    others = [copy.deepcopy(snn) for _ in range(remembered.MOST)]
    found = [remembered.remembered_convolutions(one) for one in (snn, *others)]
    assert [remembered.remembered_convolutions(one) is what for one, what in zip(others, found[1:], strict=True)] == [
        True
    ] * remembered.MOST
    assert remembered.remembered_convolutions(snn) is not found[0]  # it was the oldest one
    monkeypatch.setattr(remembered, "LARGEST", 1 << 10)
    assert remembered.remembered_convolutions(snn) == {}
    assert torch.equal(simulate(snn, x, 9), after)


def test_a_transposed_convolution_whose_settings_change(in_numbers: Any) -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 3, 6, 6)
    ann = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 5, 3, 2)).eval()
    snn = Converter([x], progress=False)(ann)
    before = simulate(snn, x, 5)
    last: Any = next(one for one in snn.modules() if isinstance(one, nn.ConvTranspose2d))
    for name, value, size in (("output_padding", (1, 1), 10), ("padding", (1, 1), 8), ("stride", (3, 2), 11)):
        setattr(last, name, value)
        after = simulate(snn, x, 5)
        assert after.shape[2] == size != before.shape[2]
        assert relative_error(after, in_numbers(lambda: simulate(snn, x, 5))) < 1e-6


def test_samples_may_leave(x: Tensor, in_numbers: Any) -> None:
    snn = Converter([x], progress=False)(network())
    data = [(x, torch.arange(11) % 5)]

    def work() -> Any:
        found = evaluate(snn, data, 24, progress=False, early_exit="margin")
        return found.accuracy, found.spikes_over_time, found.steps_per_sample

    assert work() == in_numbers(work)


def test_the_choice_between_the_loops_changes_nothing(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = Converter([x], progress=False)(network())
    wanted = simulate(snn, x, 9)
    for rate in (0.0, 1.0):
        monkeypatch.setattr(convolutions, "_crossover", lambda *_, rate=rate: rate)
        assert relative_error(simulate(snn, x, 9), wanted) < 1e-6


def test_the_default_dtype_may_be_another() -> None:
    ann = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)
    )
    data = torch.rand(5, 3, 10, 10)
    snn = Converter([data], initial_potential=0.5, progress=False)(ann.eval())
    wanted = simulate(snn, data, T=9)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(simulate(snn, data, T=9), wanted)
    finally:
        torch.set_default_dtype(torch.float32)
