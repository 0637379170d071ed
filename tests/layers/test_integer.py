"""Modules of integer networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional

from sj_ann2snn import IntegerIF, IntegerInput, OptionError, SumPool

from ..helpers.networks import multi_step, run_by_hand


def test_an_input_is_rounded_to_even_and_kept_in_its_range() -> None:
    module = IntegerInput(scale=0.5, low=-3, high=3, shape=(6,))
    x = torch.tensor([[-9.0, -0.25, 0.25, 0.75, 1.0, 9.0]])
    assert module(x).tolist() == [[-3.0, 0.0, 0.0, 2.0, 2.0, 3.0]]
    assert not torch.signbit(module(x)[0, 1])


def test_a_neuron_integrates_fires_and_subtracts_its_channels_threshold() -> None:
    neuron = IntegerIF(torch.tensor([3.0, 100.0]).view(2, 1, 1), torch.tensor([1.0, 50.0]).view(2, 1, 1))
    x = torch.randint(-2, 60, (1, 2, 4, 4)).float()
    v = torch.tensor([1.0, 50.0]).view(2, 1, 1).expand(1, 2, 4, 4)
    found = run_by_hand(neuron, x, 7)
    for spikes in found:
        v = v + x
        wanted = (v >= neuron.threshold).float()
        v = v - wanted * neuron.threshold
        assert torch.equal(spikes, wanted)
    assert torch.equal(multi_step(neuron, x, 7), found)
    assert neuron.v is None  # reset


def test_a_potential_saturates_at_its_width() -> None:
    neuron = IntegerIF(torch.tensor(100.0), bits=8)
    assert (neuron.low, neuron.high) == (-128, 127)
    neuron(torch.tensor([[-1000.0, 1000.0]]))
    assert neuron.v is not None
    assert neuron.v.tolist() == [[-128.0, 27.0]]
    functional.reset_net(neuron)


def test_potentials_stay_exact_over_any_number_of_steps() -> None:
    neuron = IntegerIF(torch.tensor(5.0))
    neuron.step_mode = "m"
    spikes = neuron(torch.full((40, 1, 1), -1048573.0))
    assert not spikes.any()
    assert neuron.v is not None
    assert neuron.v.item() == -(2**24)
    assert neuron(torch.full((1, 1, 1), 2.0**24 - 3.0)).item() == 0
    assert neuron.v.item() == -3.0


@pytest.mark.parametrize("bits", [1, 26, 8.0, True, None])
def test_a_width_that_cannot_be_is_refused(bits: object) -> None:
    with pytest.raises(OptionError, match=r"bits=.* is not allowed as the width.*from 2 to 25"):
        IntegerIF(torch.tensor(3.0), bits=bits)  # type: ignore[arg-type]


def test_sums_are_averages_times_the_window() -> None:
    x = torch.randint(0, 2, (2, 3, 7, 8)).float()
    assert torch.equal(SumPool(2, (3, 2), 2, 1)(x), (F.avg_pool2d(x, (3, 2), 2, 1) * 6).round())
    assert torch.equal(SumPool(1, 3)(x[:, :, 0]), (F.avg_pool1d(x[:, :, 0], 3) * 3).round())


def test_texts_say_what_a_layer_does() -> None:
    assert "threshold=3 to 5, bits=25" in repr(IntegerIF(torch.tensor([3.0, 5.0])))
    assert "threshold=4, bits=16" in repr(IntegerIF(torch.tensor(4.0), bits=16))
    assert "scale=0.5, low=0, high=255" in repr(IntegerInput(scale=0.5, low=0, high=255, shape=(1,)))
    assert "kernel_size=(2, 2)" in repr(SumPool(2, 2))
