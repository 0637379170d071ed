"""Firing in place is the same arithmetic as the neuron's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import make_if_neuron, simulate
from sj_ann2snn.simulation.engine import tiling
from sj_ann2snn.simulation.engine.numbers import firing
from sj_ann2snn.simulation.engine.numbers.firing import can_fire_in_place, fire
from sj_ann2snn.simulation.engine.packing import parts

from ...helpers.networks import convert, relative_error, run_by_hand
from ...helpers.neurons import run, spikes_in_python


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "one step repeated"])
def test_firing_in_place_is_the_neurons_own_arithmetic(
    dtype: torch.dtype, overwrite: bool, start: float, layout: str
) -> None:
    x = torch.randn(9, 4, 3, 5, 5, dtype=dtype)
    if layout == "channels_last":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (9, 4))
    if layout == "one step repeated":
        if overwrite:
            pytest.skip("memory that steps share is not overwritten")
        x = x[:1].expand(9, -1, -1, -1, -1)
    own, other = make_if_neuron(initial_potential=start), make_if_neuron(initial_potential=start)
    wanted = torch.stack([own(one) for one in x])
    given_to = x.clone(memory_format=torch.preserve_format) if overwrite else x
    before = x.clone()
    got = fire(other, given_to, overwrite=overwrite)
    assert torch.equal(got, wanted)
    assert (got.data_ptr() == given_to.data_ptr()) is overwrite
    assert torch.equal(x, before)
    assert torch.equal(other.v, own.v)
    # The potential is carried on to the next stretch of time, by either.
    more = torch.randn(4, 4, 3, 5, 5, dtype=dtype)
    assert torch.equal(fire(other, more, overwrite=False), torch.stack([own(one) for one in more]))
    assert other(more[0]).shape == more[0].shape


def test_potentials_exactly_at_the_threshold_fire_everywhere() -> None:
    # Quarters add up without rounding, so that the threshold is met and not passed.
    currents = [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    wanted = spikes_in_python(currents, 12)
    x = torch.tensor(currents)
    assert run(make_if_neuron(), x, 12).tolist() == wanted
    assert fire(make_if_neuron(), x.expand(12, -1), overwrite=False).tolist() == wanted
    snn = convert(nn.Sequential(nn.ReLU()), torch.tensor([[1.0]]))
    for current in currents:
        rate = sum(row[currents.index(current)] for row in wanted) / 12
        assert simulate(snn, torch.tensor([[current]]), T=12).item() == pytest.approx(rate, abs=1e-6)


class Leaky(neuron.IFNode):
    """A user's neuron with dynamics of its own."""

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = 0.5 * self.v + x


def test_only_plain_neurons_fire_in_place() -> None:
    x = torch.rand(3, 2, 4)
    assert can_fire_in_place(make_if_neuron(), x)
    assert not can_fire_in_place(Leaky(v_threshold=1.0, v_reset=None), x)
    assert not can_fire_in_place(neuron.LIFNode(v_reset=None), x)
    assert not can_fire_in_place(neuron.IFNode(v_threshold=1.0, v_reset=0.0), x)
    assert not can_fire_in_place(nn.ReLU(), x)
    assert not can_fire_in_place(make_if_neuron(), x.half())
    hooked = make_if_neuron()
    hooked.register_forward_hook(lambda module, inputs, output: None)
    assert not can_fire_in_place(hooked, x)


def test_a_neuron_whose_potentials_are_recorded_records_them() -> None:
    ann, data = small(), torch.randn(20, 4, dtype=torch.float64)
    snn = convert(ann, data)
    node = snn.get_submodule("1")
    node.store_v_seq = True
    seen: list[Any] = []
    node.register_forward_hook(lambda module, inputs, output: seen.append(module.v_seq.shape))
    simulate(snn, data, T=5)
    assert seen
    assert sum(shape[0] * shape[1] for shape in seen) == 5 * 20


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_another_threshold_set_by_hand_is_respected(threshold: float) -> None:
    ann, data = small(), torch.randn(20, 4, dtype=torch.float64)
    snn = convert(ann, data)
    snn.get_submodule("1").v_threshold = threshold
    assert relative_error(simulate(snn, data, T=40), run_by_hand(snn, data, 40).mean(0)) < 1e-12


def test_a_hard_reset_set_by_hand_is_respected() -> None:
    ann, data = small(), torch.randn(20, 4, dtype=torch.float64)
    snn = convert(ann, data)
    soft = run_by_hand(snn, data, 40).mean(0)
    snn.get_submodule("1").v_reset = 0.0
    hard = run_by_hand(snn, data, 40).mean(0)
    assert not torch.equal(hard, soft)
    assert relative_error(simulate(snn, data, T=40), hard) < 1e-12


@pytest.fixture
def on_one_core() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("on_one_core")
@pytest.mark.parametrize("pool", [nn.Identity(), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)])
@pytest.mark.parametrize("samples", [1, 3])
def test_potential_and_current_share_a_layout_when_an_image_leaves_room_for_one_step(
    pool: nn.Module, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = (nn.Conv2d(3, 10, 3), nn.ReLU(), pool, nn.Conv2d(10, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.ReLU())
    x = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    snn = convert(nn.Sequential(*layers, nn.Conv2d(12, 2, 1)), x)
    wanted = simulate(snn, x[:samples], T=9)
    layouts: list[tuple[Any, ...]] = []
    integrate = firing._integrate

    def watched(x_seq: Tensor, spikes: Tensor, potential: Tensor, threshold: float) -> None:
        layouts.append((len(x_seq), potential.stride(), x_seq.stride()[1:], spikes.stride()[1:]))
        integrate(x_seq, spikes, potential, threshold)

    monkeypatch.setattr(firing, "_integrate", watched)
    monkeypatch.setattr(parts, "MOST_STEPS", 0)  # nothing is packed
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", 1 << 10)
    # The first group of steps is small, whatever the memory; with the size of a step known, they come one by one.
    assert torch.allclose(simulate(snn, x[:samples], T=9), wanted, atol=1e-5)
    assert {steps for steps, *_ in layouts} == {1, 4}
    assert all(potential == current == spikes for _, potential, current, spikes in layouts)
