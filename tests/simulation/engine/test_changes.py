"""Changes instead of outputs: the same values as layer by layer in numbers, to the last bit where sums are exact."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    ChangeLoop,
    Converter,
    Margin,
    NonFiniteError,
    PluginError,
    evaluate,
    simulate,
)
from sj_ann2snn.layers import CumulativeMaxPool, Scaler
from sj_ann2snn.simulation.engine import runner
from sj_ann2snn.simulation.engine.changes import layers
from sj_ann2snn.simulation.engine.changes.convolutions import ChangeConvolution, change_convolution
from sj_ann2snn.simulation.engine.changes.values import Changes
from sj_ann2snn.simulation.engine.packing import parts
from sj_ann2snn.simulation.engine.tiling import Tiling
from sj_ann2snn.testing.running import tiled

from ...helpers.networks import StepBiases, relative_error, run_by_hand, watched
from .agreement import require_the_same_in_numbers
from .networks import averaging, branching, decoder, lines, network, stem
from .valued import UNIT, Maker, Valued, exactly, nearest

pytest.importorskip("numba", reason="numba is not installed")

STEPS, SAMPLES = 9, 3


def fired(currents: Tensor, *, constant: bool = False) -> tuple[Changes, Tensor]:
    """What a neuron alone makes of currents ``[T, N, C, ...]``: changes, and the outputs of its own steps."""
    changes = layers.fire_changes(Valued(), currents, constant=constant)
    assert changes is not None
    outputs = torch.empty_like(currents.contiguous())
    Valued().fire(currents, outputs)
    return changes, outputs


def random_currents(channels: int, *places: int) -> Tensor:
    """Some settle at once, some late, in eighths of a power of two so that sums are exact."""
    torch.manual_seed(channels)
    currents = torch.randint(-64, 64, (STEPS, SAMPLES, channels, *places)) / 32.0
    currents[2:, :, ::2] = currents[:1, :, ::2]
    return currents


@pytest.mark.parametrize(("channels", "places"), [(8, ()), (16, (5, 4)), (24, (1, 7)), (40, (3, 3))])
@pytest.mark.parametrize("same", [True, False])
def test_neurons_alone(channels: int, places: tuple[int, ...], same: bool) -> None:
    """In front of them may be what does not vary over time."""
    currents = random_currents(channels, *places)
    currents = currents[:1].expand(STEPS, *currents.shape[1:]) if same else currents
    changes, outputs = fired(currents, constant=same)
    assert torch.equal(changes.unpacked(), outputs)
    neuron = Valued()
    neuron.fire(currents, torch.empty_like(outputs))
    assert changes.per_step().tolist() == neuron.spikes_per_step(outputs).tolist()
    if same:
        assert changes.images[-1].max() == -1  # settled
    weights = torch.arange(1, 1 + outputs[0, 0, 0].numel()).view(places)
    active = ((outputs != 0).sum(2) * weights).flatten(1).sum(1)
    assert changes.active_per_step(weights).tolist() == active.tolist()


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "window", "stride", "padding"),
    [
        (16, 16, (6, 7), (3, 3), (1, 1), (1, 1)),
        (8, 24, (7, 5), (5, 5), (1, 1), (2, 2)),
        (24, 40, (5, 5), (1, 1), (2, 2), (0, 0)),
        (32, 64, (9, 8), (3, 3), (2, 2), (1, 1)),
        (64, 32, (4, 12), (2, 3), (2, 1), (0, 2)),
        (128, 8, (3, 3), (3, 3), (1, 1), (0, 0)),
        (16, 104, (6, 6), (3, 3), (1, 1), (1, 0)),
        (8, 16, (11, 10), (7, 5), (3, 2), (3, 1)),
        (40, 8, (7, 7), (1, 2), (3, 3), (0, 0)),
        (10, 7, (6, 5), (3, 3), (1, 1), (1, 1)),
        (3, 12, (5, 6), (3, 3), (2, 1), (0, 1)),
    ],
)
def test_convolutions(
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    x, numbers = fired(random_currents(inputs, *size))
    conv = exactly(nn.Conv2d(inputs, outputs, window, stride, padding))
    currents = conv(numbers.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    layer = change_convolution(conv)
    assert layer is not None
    shortcut, of_shortcut = fired(random_currents(*currents.shape[2:]))
    factors = torch.randint(-64, 64, (outputs,)) / 64.0
    height, columns = currents.shape[3:]
    wide, of_wide = fired(random_currents(8, 3 * height - 1, 2 * columns))
    other = exactly(nn.Conv2d(8, outputs, (2, 3), (3, 2), (0, 1)))
    beside = other(of_wide.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    assert beside.shape == currents.shape
    second = change_convolution(other)
    for addend, scale, behind, wanted in (
        (None, None, None, currents),
        (shortcut, None, None, currents + of_shortcut),
        (shortcut, factors, None, currents + of_shortcut * factors[:, None, None]),
        (wide, None, second, currents + beside),
    ):
        require_the_same_changes(layer, (x, addend, scale, behind), wanted)


def require_the_same_changes(layer: ChangeConvolution, given: tuple[Any, ...], currents: Tensor) -> None:
    """A neuron behind the layer does what it does with these currents."""
    by_steps, by_changes = Valued(), Valued()
    values = torch.empty_like(currents)
    by_steps.fire(currents, values)
    found = layer(*given, by_changes)
    assert found is not None
    assert torch.equal(found.unpacked(), values)
    assert torch.equal(by_changes.value, by_steps.value)  # type: ignore[arg-type]
    assert torch.equal(by_changes.v, by_steps.v)  # type: ignore[arg-type]
    assert by_changes.steps == by_steps.steps


@pytest.mark.parametrize(
    ("layer", "places"), [(nn.Linear(24, 10), ()), (nn.Conv1d(16, 6, 5, 2, 1), (23,)), (nn.Conv1d(5, 16, 3), (3,))]
)
def test_lines_and_features(layer: nn.Module, places: tuple[int, ...]) -> None:
    conv: Any = copy.deepcopy(layer)
    with torch.no_grad():
        for number in conv.parameters():
            number.copy_((number * 64).round() / 64)
    inputs = conv.weight.shape[1]
    x, numbers = fired(random_currents(inputs, *places))
    currents = conv(numbers.flatten(0, 1)).detach().unflatten(0, (STEPS, SAMPLES))
    shortcut, of_shortcut = fired(random_currents(*currents.shape[2:]))
    loop = change_convolution(conv)
    assert loop is not None
    for addend, wanted in ((None, currents), (shortcut, currents + of_shortcut)):
        require_the_same_changes(loop, (x, addend, None, None), wanted)
    other, _ = fired(random_currents(inputs, *places, 2))
    assert loop(other, neuron=Valued()) is None


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (0, 1)), (2, 3, 0), (3, 3, 1)]
)
@pytest.mark.parametrize("channels", [8, 40])
def test_cumulative_max_pools(channels: int, window: Any, stride: Any, padding: Any) -> None:
    """The largest value may fall, and the margins never count."""
    pool, reference = (CumulativeMaxPool(2, window, stride, padding) for _ in range(2))
    reference.step_mode = "m"
    changes, outputs = fired(random_currents(channels, 7, 10))
    found = layers.pool_changes(pool, changes)
    assert found is not None
    assert torch.equal(found.unpacked(), reference(outputs))


@pytest.mark.parametrize(("window", "stride"), [(2, None), (4, 1), ((1, 2), None), (2, 3)])
def test_average_pools(window: Any, stride: Any) -> None:
    pool = nn.AvgPool2d(window, stride)
    changes, outputs = fired(random_currents(16, 7, 9))
    found = layers.average_changes(pool, changes)
    assert found is not None
    assert torch.equal(found.unpacked(), pool(outputs.flatten(0, 1)).unflatten(0, (STEPS, SAMPLES)))


def test_a_window_larger_than_the_image_is_left_to_the_layer() -> None:
    changes, _ = fired(random_currents(8, 3, 3))
    assert layers.pool_changes(CumulativeMaxPool(2, 5), changes) is None
    assert layers.average_changes(nn.AvgPool2d(4), changes) is None
    conv = change_convolution(nn.Conv2d(8, 8, 5))
    assert conv is not None
    assert conv(changes, neuron=Valued()) is None


def test_what_does_not_fit_is_left_to_numbers() -> None:
    changes, _ = fired(random_currents(8, 4, 4))
    conv, other = change_convolution(nn.Conv2d(8, 8, 3)), change_convolution(nn.Conv2d(8, 8, 1))
    assert conv is not None
    assert conv(fired(random_currents(16, 4, 4))[0], neuron=Valued()) is None
    assert conv(changes, changes, neuron=Valued()) is None  # the shortcut is larger
    assert conv(changes, changes, second=other, neuron=Valued()) is None
    going_on = Valued()
    going_on.fire(torch.ones(2, SAMPLES, 8, 2, 2), torch.empty(2, SAMPLES, 8, 2, 2))
    assert conv(changes, neuron=going_on) is None  # it has the sum of its currents, rounded
    double = Valued()
    double.start(torch.zeros(SAMPLES, 8, 2, 2, dtype=torch.float64))
    assert conv(changes, neuron=double) is None
    received = Valued()
    assert conv(changes, neuron=received) is not None
    assert layers.fire_changes(received, torch.randn(2, SAMPLES, 8, 2, 2), constant=False) is None
    received.fire(torch.zeros(1, SAMPLES, 8, 2, 2), torch.empty(1, SAMPLES, 8, 2, 2))  # numbers go on from changes
    assert received.mean is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(8, 8, 4, padding="same"),
        nn.Conv2d(8, 8, 3).double(),
        nn.Linear(8, 8).double(),
    ],
)
def test_what_stays_in_numbers(layer: nn.Module) -> None:
    assert change_convolution(layer) is None


class Otherwise(Valued):
    """Another step, for which the loop does not stand."""

    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_(x)


def test_which_neurons_send_changes() -> None:
    assert layers.emits_changes(Valued())
    assert not layers.emits_changes(Otherwise())
    hooked, charged = Valued(), Valued()
    hooked.register_forward_hook(lambda *_: None)
    charged.initial_potential = 0.5
    assert not layers.emits_changes(hooked)
    assert not layers.emits_changes(charged)


# Networks --------------------------------------------------------------------------------------


OPTIONS: dict[str, dict[str, Any]] = {
    "99.9%": {"mode": "99.9%"},
    "per channel": {"mode": "max", "channel_wise": True},
    "biases per step": {"mode": 0.8, "channel_wise": True, "corrections": StepBiases()},
}


@pytest.mark.parametrize("make", [network, averaging, stem, branching, lines, decoder])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_network_does_the_same(options: dict[str, Any], make: Any, short: Tensor, in_numbers: Any) -> None:
    snn = exactly(Converter([short], neuron=Maker(), progress=False, **options)(make()))
    require_the_same_in_numbers(snn, short, 17, in_numbers)


def test_groups_of_steps_go_on_from_each_other(short: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, mean currents and the largest values of pools at the beginning of a group are those before it. A constant
    current is one in a group of a single step, too."""
    for make in (network, averaging, stem):
        snn = exactly(Converter([short], neuron=Maker(), progress=False)(make()))
        wanted = simulate(snn, short, 24)
        for groups in ([1], [5], [2, 1, 5], [3, 1], [23, 1]):
            turns = itertools.cycle(groups)
            with monkeypatch.context() as patch:
                patch.setattr(runner.Tiling, "steps", lambda self, samples, turns=turns, **_: next(turns))
                patch.setattr(runner.Tiling, "samples", lambda self: 4)
                with tiled(1 << 26, 1):
                    assert torch.equal(simulate(snn, short[:4], 24), wanted[:4])


def test_every_output_is_that_of_the_hand_written_loop(short: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = runner.Runner._compute

    def noted(self: Any, node: Any, stretch: Any) -> None:
        original(self, node, stretch)
        value = stretch.values[node]
        if isinstance(value, Changes) and "relu" in str(node.target):
            seen.append(value.unpacked().clone())

    monkeypatch.setattr(runner.Runner, "_compute", noted)
    monkeypatch.setattr(runner.Tiling, "steps", lambda self, samples, **_: 8)
    snn = exactly(Converter([short], neuron=Maker(), progress=False)(stem()))
    with tiled(1 << 26, 1):
        simulate(snn, short[:1], 8)
    with watched(snn, Valued) as outputs:
        run_by_hand(snn, short[:1], 8)
    by_hand = [torch.stack(one) for one in outputs.values()]
    assert seen
    assert all(any(torch.equal(one, other) for other in by_hand) for one in seen)


def test_changes_are_used(short: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution that may read them does, and shortcuts are added as such or together with their convolution."""
    kinds: list[tuple[int, int, str]] = []
    original = ChangeConvolution.__call__

    def seen(self: Any, changes: Any, addend: Any, factors: Any, second: Any, neuron: Any) -> Any:
        found = original(self, changes, addend, factors, second, neuron)
        assert found is not None
        kind = "none" if addend is None else "scaled" if second is None else "convolved"
        kinds.append((changes.shape[2], found.shape[2], kind))
        return found

    monkeypatch.setattr(ChangeConvolution, "__call__", seen)
    monkeypatch.setattr(runner.Tiling, "steps", lambda self, samples, **_: 8)
    block = [(16, 16, "none"), (16, 16, "scaled")]
    for make, wanted in (
        (
            stem,
            [(16, 16, "none"), (16, 16, "scaled"), (16, 12, "none"), (12, 16, "none"), (16, 16, "convolved"), *block],
        ),
        (
            network,
            [
                (16, 16, "none"),
                (16, 16, "scaled"),
                (16, 32, "none"),
                (32, 32, "convolved"),
                (32, 20, "none"),
                (20, 16, "none"),
                (24, 16, "none"),
            ],
        ),
        (averaging, [(16, 24, "none"), (24, 24, "none"), (24, 24, "scaled")]),
    ):
        kinds.clear()
        snn = Converter([short], neuron=Maker(), progress=False)(make())
        with tiled(1 << 26, 1):
            simulate(snn, short[:1], 8)
            assert kinds == wanted
            kinds.clear()
            simulate(snn, short[:1], parts.FEWEST_STEPS - 1)  # so few that outputs are faster
            assert not kinds


@pytest.mark.parametrize("early_exit", [Margin(threshold=1), Margin(threshold=4)])
def test_samples_may_leave(early_exit: Any, short: Tensor, in_numbers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups as short as those of outputs, so that what they no longer cost is the same."""
    snn = exactly(Converter([short], neuron=Maker(), progress=False)(network()))
    data = [(short, torch.arange(11) % 5)]

    # Sizes in bytes differ, and with them the groups.
    monkeypatch.setattr(runner.Tiling, "steps", lambda self, samples, **_: self._few_steps)
    monkeypatch.setattr(runner.Tiling, "samples", lambda self: 5)

    def work() -> Any:
        found = evaluate(snn, data, 24, progress=False, early_exit=early_exit)
        assert found.steps_per_sample < 24
        return found.accuracy, found.spikes_over_time, found.synops_over_time, found.steps_per_sample

    with tiled(1 << 26, 1):
        assert work() == in_numbers(work)


def test_the_network_stays_as_it_is() -> None:
    """A bias for one sample and one position has the shape of the mean currents that loops change."""
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    )
    x = (torch.rand(4, 3, 5, 5) * 16).round() / 16
    snn = exactly(Converter([x], neuron=Maker(), progress=False)(ann))
    before = copy.deepcopy(snn.state_dict())
    first = simulate(snn, x, 16)
    assert torch.equal(simulate(snn, x, 16), first)
    assert relative_error(first, run_by_hand(snn, x, 16).mean(0)) < 1e-6
    after = snn.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_scaled_convolution_beside_the_main_branch_is_left_to_numbers(short: Tensor, in_numbers: Any) -> None:
    snn = exactly(Converter([short], neuron=Maker(), progress=False)(network()))
    (name,) = (node.name for node in snn.graph.nodes if "shortcut" in str(node.target) and "scaler" not in node.name)
    node = next(node for node in snn.graph.nodes if node.name == name)
    snn.add_submodule("beside", Scaler(torch.tensor(0.5)))
    with snn.graph.inserting_after(node):
        beside = snn.graph.call_module("beside", (node,))
    node.replace_all_uses_with(beside, delete_user_cb=lambda user: user is not beside)
    snn.recompile()
    wanted = in_numbers(lambda: simulate(snn, short, 12))
    assert torch.equal(simulate(snn, short, 12), wanted)


class Forgetful(Valued):
    """Its mean current is no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_current = None

    def loop(self, dtype: torch.dtype) -> ChangeLoop:
        return ChangeLoop(nearest, (0, UNIT, self.largest), mean="mean_current")


def test_a_loop_names_memories() -> None:
    with pytest.raises(PluginError, match=r"of Forgetful names 'mean_current', .* does not remember.*register_memory"):
        layers.emits_changes(Forgetful())


def test_sums_that_are_rounded_are_off_by_little(x: Tensor, in_numbers: Any) -> None:
    """The mean current comes from changes, not from a sum of currents; both are rounded."""
    snn = Converter([x], neuron=Maker(), progress=False)(network())
    double = copy.deepcopy(snn).double()
    wanted = run_by_hand(double, x.double(), 32).mean(0).float()
    by_changes = relative_error(simulate(snn, x, 32), wanted)
    by_numbers = relative_error(in_numbers(lambda: simulate(snn, x, 32)), wanted)
    assert by_changes < max(0.02, 2 * by_numbers)


def test_nan_is_not_silent(x: Tensor, in_numbers: Any) -> None:
    snn = Converter([x], neuron=Maker(), progress=False)(network())
    bad = x.clone()
    bad[3, 0, 2, 2] = torch.nan

    def said() -> str:
        with pytest.raises(NonFiniteError, match=r"The input is NaN in 1 value\(s\).*: 3\)") as raised:
            simulate(snn, bad, 12)
        return str(raised.value)

    assert said() == in_numbers(said)


def test_a_part_of_a_network_may_have_other_neurons(short: Tensor, in_numbers: Any) -> None:
    snn = exactly(Converter([short], neuron=Maker(), progress=False)(network()))
    binary = exactly(Converter([short], progress=False)(network()))
    for mixed in (copy.deepcopy(snn), copy.deepcopy(binary)):
        other = binary if any(isinstance(module, Valued) for module in mixed.modules()) else snn
        names = [name for name, module in mixed.named_modules() if hasattr(module, "v")]
        for name in names[1::2]:
            mixed.set_submodule(name, copy.deepcopy(other.get_submodule(name)))
        wanted = in_numbers(lambda mixed=mixed: simulate(mixed, short, 9))
        assert relative_error(simulate(mixed, short, 9), wanted) < 1e-6


def test_tiles_take_many_steps_once_their_size_is_known() -> None:
    """Not before: a first image may be large. After a shortage of memory, they take at most half as much."""
    tiling = Tiling("cpu", 64)
    assert (tiling.samples(), tiling.steps(1)) == (1, 4)
    tiling.lengthen(32)
    assert tiling.steps(1) == 4
    tiling.note(torch.empty(4, 1, 1 << 14))
    assert (tiling.samples(), tiling.steps(2)) == (2, 32)
    tiling.note(torch.empty(4, 1, 1 << 18))
    assert (tiling.samples(), tiling.steps(1)) == (1, 16)
    other = Tiling("cpu", 64)
    other.restore(tiling.state())
    for one in (tiling, other):
        one.shrink(1)
        one.lengthen(32)  # another worker begins
        assert one.steps(1) <= 8


def test_a_system_that_does_not_know_its_processor_has_few_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    from llvmlite import binding

    from sj_ann2snn.simulation.engine.compiled.row_sums import has_feature

    assert isinstance(has_feature("avx512f"), bool)

    def unknown() -> Any:
        raise RuntimeError("failed to get host cpu features.")

    monkeypatch.setattr(binding, "get_host_cpu_features", unknown)
    assert not has_feature("avx512f")
