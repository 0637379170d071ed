"""Random networks out of all supported operations: refused with a reason, or converted right.

`SJ_ANN2SNN_GRAPHS=5000` runs that many new networks per test instead of the fixed ones of a CI run. A failing
network is printed as a script.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Ann2SnnError, ConversionError, Converter, DeadLayerError, simulate

from ..helpers.convergence import answer, assert_converges, relative_error, tensors
from ..helpers.random_networks import Network, networks

pytestmark = pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")
"""A network may begin with operations that no mapper claims; they are exact, and not spiking."""

GRAPHS = int(os.environ.get("SJ_ANN2SNN_GRAPHS", "0"))
"""Networks per test; 0 means the fixed ones of a CI run."""


def graphs(count: int) -> Any:
    """So many networks: always the same ones, or as many new ones as the user asked for."""
    return settings(
        max_examples=GRAPHS or count,
        derandomize=not GRAPHS,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],  # a failing network is told by its script, not by lines of the core
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def converter(inputs: tuple[Tensor, ...], mode: object = "max", **options: Any) -> Converter:
    return Converter([inputs], mode=mode, progress=False, **options)


def converted(network: Network, ann: nn.Module, convert: Converter) -> nn.Module:
    """The spiking network; gives the example up where it may be refused."""
    try:
        return convert(ann)
    except DeadLayerError:
        event("a dead layer")
        assume(False)
        raise
    except Ann2SnnError:
        event("refused")
        assume(network.may_be_refused is False)
        raise


OPTIONS = {
    "layer-wise": {},
    "channel-wise": {"channel_wise": True},
    "half potential": {"initial_potential": 0.5},
    "separate BatchNorm": {"fuse_flag": False, "channel_wise": True, "initial_potential": 0.5},
}


@pytest.mark.parametrize("options", OPTIONS)
@graphs(130)
@given(network=networks())
def test_supported_networks_converge_to_the_ann(options: str, network: Network) -> None:
    ann, inputs = network.make(), network.inputs()
    before = copy.deepcopy(ann.state_dict())
    convert = converter(inputs, **OPTIONS[options])
    snn = converted(network, ann, convert)
    wanted = answer(ann, inputs)

    assert_converges(snn, inputs, wanted)

    # The identity that the method rests on: scales cancel.
    assert relative_error(answer(convert.normalize(ann), inputs), wanted) < 1e-9
    after = ann.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@graphs(80)
@given(network=networks(supported_only=False))
def test_what_is_not_linear_over_time_is_refused_or_harmless(network: Network) -> None:
    ann, inputs = network.make(), network.inputs()
    try:
        snn = converter(inputs)(ann)
    except ConversionError as error:
        event(type(error).__name__)
        return
    # In front of every neuron, or where nothing reads its result.
    event("converted")
    assert_converges(snn, inputs, answer(ann, inputs))


MAXPOOLS = ("cumulative", "momentum", "pre-spike", "avg")


@graphs(80)
@given(network=networks(), maxpool=st.sampled_from(MAXPOOLS), steps=st.integers(1, 25), channel_wise=st.booleans())
def test_loop_multi_step_and_simulate_agree(network: Network, maxpool: str, steps: int, channel_wise: bool) -> None:
    ann, inputs = network.make(), network.inputs()
    # Below the maximum no neuron fires exactly at every step, where rounding would decide about single spikes.
    convert = converter(inputs, mode=0.93, maxpool=maxpool, channel_wise=channel_wise)
    snn = converted(network, ann, convert)

    mean = tensors(simulate(snn, inputs, T=steps))

    with torch.no_grad():
        functional.reset_net(snn)
        loop = [torch.zeros_like(one) for one in mean]
        for _ in range(steps):
            loop = [total + now for total, now in zip(loop, tensors(snn(*inputs)), strict=True)]
        functional.reset_net(snn)
        functional.set_step_mode(snn, "m")
        sequences = tensors(snn(*(x.expand(steps, *x.shape) for x in inputs)))
    for one, total, sequence in zip(mean, loop, sequences, strict=True):
        torch.testing.assert_close(total / steps, one, rtol=0, atol=1e-9)
        torch.testing.assert_close(sequence.mean(0), one, rtol=0, atol=1e-9)


@graphs(40)
@given(network=networks())
def test_average_pools_in_place_of_max_pools_converge_to_what_they_stand_for(network: Network) -> None:
    assume("max_pool" in network.operations)
    ann, inputs = network.make(), network.inputs()
    convert = converter(inputs, maxpool="avg")
    assume(not any("dilation" in problem.why for problem in convert.check(ann).problems))
    snn = converted(network, ann, convert)
    assert_converges(snn, inputs, answer(convert.normalize(ann), inputs))


@graphs(40)
@given(network=networks())
def test_single_precision(network: Network) -> None:
    ann, inputs = network.make(torch.float32), network.inputs(dtype=torch.float32)
    snn = converted(network, ann, converter(inputs))
    assert all(one.dtype == torch.float32 for one in tensors(simulate(snn, inputs, T=1)))
    assert_converges(snn, inputs, answer(ann, inputs))


@graphs(60)
@given(network=networks())
def test_check_agrees_with_the_conversion(network: Network) -> None:
    ann, inputs = network.make(), network.inputs()
    convert = converter(inputs)
    found = convert.check(ann)
    try:
        convert(ann)
    except DeadLayerError:
        assert found.convertible
    except ConversionError:
        assert not found.convertible
    else:
        assert found.convertible
        assert [entry.name for entry in found.entries] == [entry.name for entry in convert.report]
