"""Bounds of sums and potentials hold, and are reached; potentials saturate where they are told to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import IntegerError, IntegerIF, OptionError, integer_network, saturated, simulate
from sj_ann2snn.integers.reference import Reference
from sj_ann2snn.integers.widths import signed_bits

from ..helpers.cnn import cnn, images
from ..helpers.integers import assert_agrees
from ..helpers.networks import convert
from .test_reference import NETWORKS


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (0, 1, 2), (-1, 0, 1), (-128, 127, 8), (-129, 0, 9), (0, 128, 9), (3, 5, 4)]
)
def test_bits_of_a_range(low: int, high: int, bits: int) -> None:
    assert signed_bits(low, high) == bits
    ends = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert ends[0] <= low
    assert high <= ends[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_leaves_its_bounds(name: str) -> None:
    make, shape = NETWORKS[name]
    x = torch.randn(20, *shape)
    network = integer_network(convert(make().eval(), x, weights="int8", channel_wise=True))
    steps = 12
    widths = {(one.name, one.kind): one for one in network.widths(steps)}
    checked = 0
    for sample in 50 * x[:2]:  # far beyond the calibration data; the inputs saturate
        state = Reference(network.operations, [sample.numpy()])
        for _ in range(steps):
            before = dict(state.memory)
            values = state.step()
            for number, (one, value) in enumerate(zip(network.operations, values, strict=True)):
                width = widths.get((one.name, one.kind))
                if width is None:
                    continue
                charged: Any = value
                if one.kind == "neuron":
                    charged = before.get(number, one.potential) + values[one.sources[0]]  # type: ignore[attr-defined]
                assert width.low <= charged.min()
                assert charged.max() <= width.high
                checked += 1
    assert checked > 2 * steps


def test_the_bound_of_a_sum_is_reached() -> None:
    network = integer_network(
        convert(nn.Sequential(nn.Linear(8, 5), nn.ReLU()).eval(), torch.randn(40, 8), weights="int8")
    )
    rounded, weighted = network.operations[:2]
    (bounds,) = [one for one in network.widths(T=1) if one.kind == "weighted"]
    weight = weighted.weight[:, :, 0]  # type: ignore[attr-defined]
    most = rounded.high * np.sign(weight)  # type: ignore[attr-defined]
    sums = [
        (((weight * sign * most).sum(1) << weighted.shift) + weighted.bias)  # type: ignore[attr-defined]
        for sign in (-1, 1)
    ]
    assert (int(sums[0].min()), int(sums[1].max())) == (bounds.low, bounds.high)


def test_longer_runs_need_wider_potentials_and_the_same_sums() -> None:
    network = integer_network(convert(cnn().eval(), images(), weights="int8"))
    for short, long in zip(network.widths(T=4), network.widths(T=64), strict=True):
        assert (short.name, short.kind) == (long.name, long.kind)
        if short.kind == "neuron":
            assert long.low <= short.low
            assert long.bits >= short.bits
            assert short.threshold is not None
            assert short.width == 25
        else:
            assert short == long


@pytest.mark.parametrize("name", ["average pools", "max pools"])
def test_saturated_networks_agree_everywhere(name: str) -> None:
    make, shape = NETWORKS[name]
    x = torch.randn(20, *shape)
    snn = convert(make().eval(), x, weights="int4", channel_wise=True, initial_potential=0.5)
    largest = max(int(one.threshold.max()) for one in snn.modules() if isinstance(one, IntegerIF))
    narrow = saturated(snn, largest.bit_length() + 1)
    run = assert_agrees(narrow, 3 * x[:2], steps=20)
    wide = integer_network(snn).run(3 * x[:2], T=20)
    assert any(np.any(run.spikes[key] != wide.spikes[key]) for key in wide.spikes)
    assert all(one.bits == 25 for one in snn.modules() if isinstance(one, IntegerIF))


def test_24_bits_are_as_good_as_any_here() -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    x = images(4)
    assert torch.equal(simulate(saturated(snn, 24), x, T=32), simulate(snn, x, T=32))


def test_a_width_that_holds_no_threshold_is_refused() -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    with pytest.raises(
        OptionError, match=r"bits=8 is too narrow: the neurons of 2 have thresholds up to \d+.*ends at 127"
    ):
        saturated(snn, 8)


@pytest.mark.parametrize("bits", [1, 26, 8.0, "16"])
def test_a_width_that_cannot_be_is_refused(bits: Any) -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    with pytest.raises(OptionError, match=r"bits=.* is not allowed: .* from 2 to 25"):
        saturated(snn, bits)


def test_a_float_network_has_no_width_to_set() -> None:
    with pytest.raises(IntegerError, match=r"no integer neurons. Convert with weights='int8'"):
        saturated(convert(cnn().eval(), images()), 16)
