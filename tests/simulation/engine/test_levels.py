"""Graded spikes in small integers: the same spikes as layer by layer in numbers, to the last one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, InPlaceNeuron, NeuronLoop, NeuronMaker, NeuronSite, evaluate, simulate
from sj_ann2snn.conversion.round_weights import round_to_grid
from sj_ann2snn.layers import CumulativeMaxPool
from sj_ann2snn.simulation.engine.levels import convolutions, layers
from sj_ann2snn.simulation.engine.levels.values import Levels
from sj_ann2snn.simulation.engine.packing import packing
from sj_ann2snn.testing.running import tiled

from ...helpers.networks import StepBiases, relative_error, run_by_hand, watched
from .agreement import require_the_same_in_numbers
from .networks import averaging, branching, decoder, dilated, lines, network, stem

np = pytest.importorskip("numpy")
pytest.importorskip("numba", reason="numba is not installed")

STEPS, SAMPLES = 3, 2


def several(x: Any, v: Any, nothing: Any, levels: Any) -> tuple[Any, Any]:
    v = v + x
    spikes = min(max(np.floor(v), nothing), levels)
    return spikes, v - spikes


def taking_back(x: Any, v: Any, emitted: Any, step: Any, nothing: Any, levels: Any) -> tuple[Any, Any, Any]:
    v = v + x
    spikes = min(max(np.floor(v), -levels), levels)
    emitted = emitted + spikes
    short = min(emitted, nothing)
    spikes = spikes - short
    return spikes, v - spikes, emitted - short


class Several(InPlaceNeuron):
    """Emits up to `levels` spikes in a step."""

    update, states, low = staticmethod(several), ("v",), 0
    clock: Any = None

    def __init__(self, levels: int = 8) -> None:
        super().__init__(initial_potential=0.5)
        self.levels, self.output_range = levels, (self.low * levels, levels)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(0, self.levels)
        self.v -= out

    def loop(self, dtype: torch.dtype) -> NeuronLoop:
        return NeuronLoop(self.update, states=self.states, constants=(0, self.levels), clock=self.clock)


class TakingBack(Several):
    """Emits spikes of either sign, never fewer than none in all, and counts steps."""

    update, states, clock, low = staticmethod(taking_back), ("v", "emitted"), "steps", -1

    def __init__(self, levels: int = 8) -> None:
        super().__init__(levels)
        self.register_memory("emitted", None)
        self.register_memory("steps", 0)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.emitted = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.steps += 1
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(-self.levels, self.levels)
        short = (self.emitted + out).clamp(max=0)
        out -= short
        self.emitted += out
        self.v -= out

    def loop(self, dtype: torch.dtype) -> NeuronLoop:
        return super().loop(dtype)


class Maker(NeuronMaker):
    name = "levels"

    def __init__(self, kind: type[Several] = Several, levels: int = 8) -> None:
        self.kind, self.levels = kind, levels

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.levels

    def make(self, site: NeuronSite) -> nn.Module:
        return self.kind(self.levels)


KINDS = [Several, TakingBack]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images take no time, so which way is faster would be a matter of luck."""
    monkeypatch.setattr(convolutions, "_is_faster", lambda *_: True)


def coded(values: Tensor) -> Levels:
    return Levels(values.movedim(2, -1).to(torch.int16).contiguous())


def random_levels(channels: int, *places: int, low: int = -8, high: int = 8) -> Tensor:
    return torch.randint(low, high + 1, (STEPS, SAMPLES, channels, *places)).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "window", "stride", "padding"),
    [
        (16, 16, (6, 7), (3, 3), (1, 1), (1, 1)),
        (8, 24, (7, 5), (5, 5), (1, 1), (2, 2)),
        (24, 40, (5, 5), (1, 1), (2, 2), (0, 0)),
        (32, 64, (9, 8), (3, 3), (2, 2), (1, 1)),
        (64, 32, (4, 35), (2, 3), (2, 1), (0, 2)),
        (128, 8, (3, 3), (3, 3), (1, 1), (0, 0)),
        (16, 128, (20, 20), (3, 3), (1, 1), (1, 0)),
    ],
)
def test_convolutions(
    kind: type[Several],
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    torch.manual_seed(inputs)
    conv: Any = round_to_grid(nn.Conv2d(inputs, outputs, window, stride, padding), outputs=(-8, 8))
    x = random_levels(inputs, *size)
    currents = conv(x.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    layer = convolutions.level_convolution(conv, (-8, 8))
    assert layer is not None
    assert torch.equal(layer(coded(x)), currents)  # type: ignore[arg-type]

    numbers, shortcut, factors = torch.randn(currents.shape), random_levels(*currents.shape[2:]), torch.rand(outputs)
    factors = (factors * 1024).round() / 1024  # as the converter rounds them
    scaled = torch.addcmul(currents, shortcut, factors[:, None, None])
    for addend, scale, wanted in (
        (None, None, currents),
        (numbers, None, currents + numbers),
        (coded(shortcut), factors, scaled),
    ):
        by_steps, by_loop = kind(), kind()
        for _ in range(2):  # the second time, it goes on from its potentials
            spikes = torch.empty_like(wanted)
            by_steps.fire(wanted, spikes)
            found: Any = layer(coded(x), addend, scale, by_loop)
            assert torch.equal(found.unpacked(), spikes)
            for name in by_steps.states:
                assert torch.equal(getattr(by_loop, name), getattr(by_steps, name))
        assert getattr(by_loop, "steps", 0) == getattr(by_steps, "steps", 0)


@pytest.mark.parametrize("places", [(), (5, 3)])
def test_counting(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    levels = random_levels(24, *places)
    weights = torch.randint(1, 9, places)
    active = ((levels != 0).sum(2) * weights).flatten(1).sum(1)
    assert coded(levels).active_per_step(weights).tolist() == active.tolist()
    assert coded(levels).per_step().tolist() == levels.abs().flatten(1).sum(1).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("same", [True, False])
def test_neurons_alone(kind: type[Several], same: bool) -> None:
    """In front of them may be what does not vary over time."""
    torch.manual_seed(1)
    currents = 4 * torch.randn(1 if same else 5, 7, 16, 30, 30)
    currents = currents.expand(5, *currents.shape[1:])
    by_steps, by_loop = kind(), kind()
    for _ in range(2):
        spikes = torch.empty_like(currents.contiguous())
        by_steps.fire(currents, spikes)
        found = layers.fire_levels(by_loop, currents)
        assert found is not None
        assert torch.equal(found.unpacked(), spikes)


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (0, 1)), (2, 3, 0), (3, 3, 1)]
)
@pytest.mark.parametrize("channels", [8, 64])
def test_cumulative_max_pools(channels: int, window: Any, stride: Any, padding: Any) -> None:
    """Sums may be negative, and the margins never count."""
    torch.manual_seed(channels)
    pool, reference = (CumulativeMaxPool(2, window, stride, padding) for _ in range(2))
    reference.step_mode = "m"
    for _ in range(2):
        levels = random_levels(channels, 7, 10)
        found = layers.pool_levels(pool, coded(levels))
        assert found is not None
        assert torch.equal(found.unpacked(), reference(levels))


def test_a_window_larger_than_the_image_is_left_to_the_layer() -> None:
    assert layers.pool_levels(CumulativeMaxPool(2, 5), coded(random_levels(8, 3, 3))) is None
    conv = convolutions.level_convolution(round_to_grid(nn.Conv2d(8, 8, 5), outputs=(0, 8)), (0, 8))
    assert conv is not None
    assert conv(coded(random_levels(8, 3, 3))) is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 12, 3),
        nn.Conv2d(12, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(8, 8, 4, padding="same"),
        nn.Conv2d(8, 8, 3).double(),
        nn.Linear(8, 8),
    ],
)
def test_what_stays_in_numbers(layer: nn.Module) -> None:
    assert convolutions.level_convolution(round_to_grid(layer, outputs=(0, 8)), (0, 8)) is None


def test_sums_that_may_be_rounded_stay_in_numbers() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 8, 3)
    assert convolutions.level_convolution(conv, (0, 8)) is None
    for_two = round_to_grid(conv, outputs=(0, 2))
    assert convolutions.level_convolution(for_two, (0, 2)) is not None
    assert convolutions.level_convolution(for_two, (0, 64)) is None
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = float("inf")
    assert convolutions.level_convolution(conv, (0, 8)) is None


class Changed(Several):
    """Another step, for which the loop does not stand."""

    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_(x.round().clamp_(0, 8))


def test_which_neurons_emit_levels() -> None:
    assert layers.emits_levels(Several(), 32) == (0, 8)
    assert layers.emits_levels(TakingBack(), 32) == (-8, 8)
    assert layers.emits_levels(Several(64), 511) == (0, 64)
    assert layers.emits_levels(Several(64), 512) is None  # pools add up in 16 bits
    assert layers.emits_levels(Several(65), 1) is None
    assert layers.emits_levels(Changed(), 32) is None
    hooked, undeclared = Several(), Several()
    hooked.register_forward_hook(lambda *_: None)
    undeclared.output_range = None  # type: ignore[assignment]
    assert layers.emits_levels(hooked, 32) is None
    assert layers.emits_levels(undeclared, 32) is None


# Networks --------------------------------------------------------------------------------------


OPTIONS: dict[str, dict[str, Any]] = {
    "99.9%": {"mode": "99.9%"},
    "per channel": {"mode": "99.9%", "channel_wise": True},
    "low": {"mode": 0.3},
    "biases per step": {"mode": 0.8, "channel_wise": True, "corrections": StepBiases()},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [network, averaging, stem, branching, lines, decoder, dilated])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_network_spikes_the_same(
    options: dict[str, Any], make: Any, kind: type[Several], x: Tensor, in_numbers: Any
) -> None:
    snn = Converter([x], neuron=Maker(kind), progress=False, **options)(make())
    require_the_same_in_numbers(snn, x, 17, in_numbers)  # outputs are sums over steps, in torch's order


@pytest.mark.parametrize("kind", KINDS)
def test_every_spike_is_that_of_the_hand_written_loop(
    kind: type[Several], x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    for target in (convolutions.LevelConvolution, packing):
        name = "__call__" if target is not packing else "fire_levels"
        original: Any = getattr(target, name)

        def noted(*given: Any, original: Any = original, **named: Any) -> Any:
            found = original(*given, **named)
            if isinstance(found, Levels):
                seen.append(found.unpacked().clone())
            return found

        monkeypatch.setattr(target, name, noted)
    snn = Converter([x], neuron=Maker(kind), progress=False)(stem())
    with tiled(1 << 26, 1):
        simulate(snn, x[:1], 4)
    with watched(snn, kind) as spikes:
        run_by_hand(snn, x[:1], 4)
    by_hand = [torch.stack(one) for one in spikes.values()]
    assert len(seen) > 4
    assert all(any(torch.equal(one, other) for other in by_hand) for one in seen)


def test_levels_are_used(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution that may read small integers does, and the shortcuts are added as such."""
    kinds: list[tuple[int, int, bool]] = []
    original = convolutions.LevelConvolution.__call__

    def seen(self: Any, levels: Any, addend: Any = None, *rest: Any) -> Any:
        found = original(self, levels, addend, *rest)
        assert found is not None
        kinds.append((levels.shape[2], found.shape[2], isinstance(addend, Levels)))
        return found

    monkeypatch.setattr(convolutions.LevelConvolution, "__call__", seen)
    with tiled(1 << 26, 1):
        simulate(Converter([x], neuron=Maker(), progress=False)(stem()), x, 4)
    # The pool's output is a shortcut; a layer of 12 channels is none for integers.
    assert kinds == 2 * [(16, 16, False), (16, 16, True), (16, 16, False), (16, 16, False), (16, 16, True)]


def test_samples_may_leave(x: Tensor, in_numbers: Any) -> None:
    snn = Converter([x], neuron=Maker(TakingBack), progress=False)(network())
    data = [(x, torch.arange(11) % 5)]

    def work() -> Any:
        found = evaluate(snn, data, 24, progress=False, early_exit="margin")
        return found.accuracy, found.spikes_over_time, found.steps_per_sample

    assert work() == in_numbers(work)


def test_binary_and_graded_spikes_in_one_network(x: Tensor, in_numbers: Any) -> None:
    """Bits where spikes are binary, small integers where they are graded, numbers where they meet."""
    snn = Converter([x], neuron=Maker(), progress=False)(network())
    binary = Converter([x], progress=False)(network())
    for mixed in (copy.deepcopy(snn), copy.deepcopy(binary)):
        other = binary if any(isinstance(module, Several) for module in mixed.modules()) else snn
        names = [name for name, module in mixed.named_modules() if hasattr(module, "v")]
        for name in names[1::2]:
            mixed.set_submodule(name, copy.deepcopy(other.get_submodule(name)))
        wanted = in_numbers(lambda mixed=mixed: simulate(mixed, x, 9))
        assert relative_error(simulate(mixed, x, 9), wanted) < 1e-6


def test_the_trial_chooses_either_way(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the choice changes nothing."""
    snn = Converter([x], neuron=Maker(), progress=False)(network())
    wanted = simulate(snn, x, 9)
    monkeypatch.setattr(convolutions, "_is_faster", lambda *_: False)
    assert relative_error(simulate(snn, x, 9), wanted) < 1e-6
    monkeypatch.undo()
    assert isinstance(convolutions._is_faster((16, 16, 3, 3), (1, 1, 1, 1), 6, 6), bool)
    assert relative_error(simulate(snn, x, 9), wanted) < 1e-6
