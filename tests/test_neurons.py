"""The IF neuron: its rate, its initial potential, its backends, and the same arithmetic wherever it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from sj_ann2snn import BackendError, Converter, OptionError, compat, evaluate, make_if_neuron, simulate
from sj_ann2snn.compat import NEURONS_TAKE_BACKEND
from sj_ann2snn.simulation.engine.firing import can_fire_in_place, fire

from .networks import Graded, GradedMaker, convert, multi_step, relative_error, run_by_hand, spikes_of


def spikes_in_python(currents: list[float], steps: int, start: float = 0.0) -> list[list[float]]:
    """Integrate, fire at 1, subtract 1: in plain Python."""
    potentials, spikes = [start] * len(currents), []
    for _ in range(steps):
        row = []
        for index, current in enumerate(currents):
            potentials[index] += current
            fired = potentials[index] >= 1.0
            potentials[index] -= 1.0 if fired else 0.0
            row.append(1.0 if fired else 0.0)
        spikes.append(row)
    return spikes


def run(node: nn.Module, currents: Tensor, steps: int) -> Tensor:
    functional.reset_net(node)
    return torch.stack([node(currents) for _ in range(steps)])


@pytest.mark.parametrize("start", [0.0, 0.5, 0.9])
def test_the_neuron_does_what_plain_python_does(start: float) -> None:
    currents = torch.rand(50, dtype=torch.float64) * 1.4 - 0.2
    got = run(make_if_neuron(initial_potential=start), currents, 40)
    assert got.tolist() == spikes_in_python(currents.tolist(), 40, start)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=20), st.integers(1, 60), st.floats(0, 0.99))
def test_any_constant_drive_is_met_within_one_spike(currents: list[float], steps: int, start: float) -> None:
    drive = torch.tensor(currents, dtype=torch.float64)
    rate = run(make_if_neuron(initial_potential=start), drive, steps).mean(0)
    # k/T of the steps fire, where k is the number of thresholds that start + T * drive has passed.
    error = rate - drive.clamp(0.0, 1.0)
    assert (error.abs() <= (1.0 + 1e-9) / steps).all()


def test_without_initial_potential_the_rate_is_rounded_down() -> None:
    drive = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    rate = run(make_if_neuron(), drive, 10).mean(0)
    assert torch.allclose(rate, (drive * 10 + 1e-9).floor() / 10, atol=1e-12)


def test_half_a_threshold_rounds_the_rate_to_the_nearest() -> None:
    drive = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    rate = run(make_if_neuron(initial_potential=0.5), drive, 10).mean(0)
    assert torch.allclose(rate, (drive * 10 + 0.5).floor() / 10, atol=1e-12)
    assert (rate - drive).abs().max() <= 0.05 + 1e-9


def test_negative_currents_never_fire_and_count_against_later_ones() -> None:
    node = make_if_neuron()
    functional.reset_net(node)
    assert [node(torch.tensor([current])).item() for current in (-1.5, 1.0, 1.0, 1.0)] == [0.0, 0.0, 0.0, 1.0]


def test_the_neuron_is_spikingjellys_with_threshold_one_and_soft_reset() -> None:
    node = make_if_neuron()
    assert type(node) is neuron.IFNode
    assert (node.v_threshold, node.v_reset, node.step_mode) == (1.0, None, "s")


@pytest.mark.parametrize("start", [0.25, 0.5])
def test_the_initial_potential_comes_back_with_every_reset(start: float) -> None:
    node = make_if_neuron(initial_potential=start)
    assert node.v == start
    node(torch.tensor([0.4]))
    assert not isinstance(node.v, float)
    functional.reset_net(node)
    assert node.v == start
    functional.set_step_mode(node, "m")
    out = node(torch.full((4, 1), 0.5))
    assert out.flatten().tolist() == torch.tensor(spikes_in_python([0.5], 4, start)).flatten().tolist()


# In a converted network -----------------------------------------------------------------------------


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def test_the_rate_of_the_first_layer_is_within_one_spike() -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    converter = Converter([data], progress=False)
    snn = converter(ann)
    scale = converter.report["1"].scale[0]
    wanted = torch.relu(ann[0](data)).detach() / scale
    for steps in (1, 7, 50, 333):
        rate = spikes_of(snn, data, steps)["1"].mean(0)
        assert (rate - wanted).abs().max().item() <= (1 + 1e-9) / steps
        assert set(rate.mul(steps).round().unique().tolist()) <= set(range(steps + 1))


def test_rates_above_one_saturate() -> None:
    ann = nn.Sequential(nn.ReLU())
    snn = convert(ann, torch.rand(100, 1), mode=0.5)
    assert simulate(snn, torch.tensor([[5.0]]), T=20).item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("start", [0.25, 0.5, 0.75])
def test_the_initial_potential_reaches_every_neuron(start: float) -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    snn = convert(ann, data, initial_potential=start)
    nodes = [module for module in snn.modules() if isinstance(module, neuron.IFNode)]
    assert [node.v for node in nodes] == [start, start]
    by_hand = run_by_hand(snn, data, 30)
    assert relative_error(multi_step(snn, data, 30), by_hand) < 1e-12
    assert relative_error(simulate(snn, data, T=30), by_hand.mean(0)) < 1e-12
    assert [node.v for node in nodes] == [start, start]


def test_half_a_threshold_makes_few_steps_more_accurate() -> None:
    ann, data = small(), torch.randn(200, 4, dtype=torch.float64)
    errors = [
        (simulate(convert(ann, data, initial_potential=start), data, T=8) - ann(data).detach()).abs().mean().item()
        for start in (0.0, 0.5)
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("start", [-0.1, 1.0, 7, float("nan")])
def test_initial_potentials_out_of_range(start: float) -> None:
    with pytest.raises(OptionError, match=r"initial_potential=.* is a fraction of the threshold in \[0, 1\)"):
        Converter(initial_potential=start)


# Firing without temporaries -------------------------------------------------------------------------


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


# Backends -------------------------------------------------------------------------------------------


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendError, match="backend='tpu' is not known. Allowed are None, 'torch' and 'cupy'"):
        make_if_neuron(backend="tpu")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_the_neuron_on_torch_is_the_default_one() -> None:
    node = make_if_neuron(backend="torch")
    assert (node.backend, node.step_mode) == ("torch", "s")
    drive = torch.rand(20, dtype=torch.float64)
    assert torch.equal(run(node, drive, 20), run(make_if_neuron(), drive, 20))


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cupy_without_cuda_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(BackendError, match="needs the package CuPy, which cannot be imported here") as caught:
        make_if_neuron(backend="cupy")
    assert "leave the argument out" in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "cupy", object())
    with pytest.raises(BackendError, match="needs a CUDA device; torch sees none here"):
        make_if_neuron(backend="cupy")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_set_backend_works_on_a_converted_network() -> None:
    snn = convert(small(), torch.randn(20, 4, dtype=torch.float64))
    functional.set_step_mode(snn, "m")
    functional.set_backend(snn, "torch")
    assert {module.backend for module in snn.modules() if isinstance(module, neuron.BaseNode)} == {"torch"}


@pytest.mark.skipif(NEURONS_TAKE_BACKEND, reason="these neurons take a backend")
@pytest.mark.parametrize("backend", ["torch", "cupy"])
def test_a_backend_warns_where_neurons_choose_themselves(backend: str) -> None:
    with pytest.warns(compat.BackendWarning, match=f"backend={backend!r} has no effect on SpikingJelly") as caught:
        node = make_if_neuron(backend=backend)
    assert "Leave the argument out" in str(caught[0].message)
    assert (node.v_threshold, node.v_reset) == (1.0, None)


def test_the_version_in_messages_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compat.spikingjelly_version().split(".")[0].isdigit()

    def missing(name: str) -> str:
        raise compat.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.importlib.metadata, "version", missing)
    assert compat.spikingjelly_version() == "unknown"


# Neurons of one's own -------------------------------------------------------------------------------


@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_spike_is_worth_what_the_maker_says(channel_wise: bool) -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    plain, graded = (
        Converter([data], channel_wise=channel_wise, neuron=which, progress=False) for which in ("if", GradedMaker())
    )
    snn = graded(ann)
    assert [entry.scale for entry in graded.report.entries] == [None, *(e.scale for e in plain_entries(plain, ann)[1:])]
    wanted = ann(data).detach()
    assert relative_error(simulate(snn, data, T=400), wanted) < 0.02
    few = [relative_error(simulate(each, data, T=12), wanted) for each in (plain(ann), snn)]
    assert few[1] < 0.5 * few[0]


def plain_entries(converter: Converter, ann: nn.Module) -> tuple[Any, ...]:
    converter(ann)
    return converter.report.entries


def test_a_graded_neuron_runs_by_hand_in_both_step_modes_and_simulated_alike() -> None:
    ann, data = small(), torch.randn(60, 4, dtype=torch.float64)
    snn = convert(ann, data, neuron=GradedMaker())
    by_hand = run_by_hand(snn, data, 30)
    assert by_hand.max() > 0
    assert relative_error(multi_step(snn, data, 30), by_hand) < 1e-12
    assert relative_error(simulate(snn, data, T=30), by_hand.mean(0)) < 1e-12
    assert all(node.v is None and node.emitted is None for node in snn.modules() if isinstance(node, Graded))


def test_a_graded_neuron_starts_anew_for_another_batch_size() -> None:
    node = Graded()
    node(torch.ones(3))
    assert node(torch.full((2,), 0.6)).tolist() == [1.0, 1.0]
    assert node.emitted.tolist() == [1.0, 1.0]


def test_a_graded_neuron_leaves_its_currents_alone() -> None:
    node, drive = Graded(), torch.full((4, 2), 0.75)
    node.step_mode = "m"
    node(drive)
    assert drive.eq(0.75).all()


def test_graded_spikes_count_by_their_value() -> None:
    ann, data = nn.Sequential(nn.ReLU(), nn.Linear(1, 2)), torch.tensor([[0.2], [0.4], [0.6]])
    converted = convert(ann, data, neuron=GradedMaker())
    result = evaluate(converted, [(data, torch.zeros(3, dtype=torch.int64))], T=10, progress=False)
    assert result.spikes_per_sample == pytest.approx((10 + 20 + 30) / 3)
    assert result.layers[0].firing_rate == pytest.approx(2.0)
    assert result.emissions_per_sample == result.layers[0].emissions_per_sample == 10
    assert "20 spikes in 10 emissions and" in str(result)


def test_a_neuron_with_a_hook_is_called_so_that_the_hook_sees_its_spikes() -> None:
    ann, data = small(), torch.randn(20, 4, dtype=torch.float64)
    snn = convert(ann, data, neuron=GradedMaker())
    seen: list[Tensor] = []
    next(m for m in snn.modules() if isinstance(m, Graded)).register_forward_hook(lambda _m, _x, y: seen.append(y))
    simulate(snn, data, T=8)
    assert sum(len(y) for y in seen) >= 8
