"""The reference interpreter computes the spikes of the simulator and of the loops, to the last one."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, event, given
from torch import nn

from sj_ann2snn import (
    Ann2SnnError,
    Converter,
    InputError,
    IntegerError,
    IntegerIF,
    IntegerNetwork,
    OptionError,
    integer_network,
    simulate,
)
from sj_ann2snn.compat import set_step_mode

from ..behaviour.test_random_graphs import graphs
from ..behaviour.test_same_spikes import Block, vgg
from ..helpers.cnn import cnn, images
from ..helpers.integers import assert_agrees
from ..helpers.networks import convert, randomized, relative_error
from ..helpers.random_networks import Network, networks

pytestmark = pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")
"""A random network may begin with operations that no mapper claims."""

SHARED = os.environ.get("SJ_ANN2SNN_SHARED")
"""Folder with the trained reference networks; see benchmarks/simulation_speed.py."""


def residual() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2)]
    return randomized(nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)))


def decoder() -> nn.Module:
    up = nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), *up, nn.ReLU(), nn.Conv2d(4, 2, 1))


def one_dimensional() -> nn.Module:
    layers = nn.Conv1d(2, 8, 5, 2, padding=2), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 8, 3, dilation=2), nn.ReLU()
    return nn.Sequential(*layers, nn.MaxPool1d(2), nn.Flatten(), nn.Linear(16, 3))


def tokens() -> nn.Module:
    layers = nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(40, 3), nn.ReLU())


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "average pools": (cnn, (1, 8, 8)),
    "residual": (residual, (3, 8, 8)),
    "max pools": (lambda: randomized(vgg()), (3, 16, 16)),
    "transposed": (decoder, (3, 8, 8)),
    "one-dimensional": (one_dimensional, (2, 32)),
    "pools without channels": (
        lambda: nn.Sequential(
            nn.Linear(6, 20), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(10, 8), nn.ReLU(), nn.AvgPool1d(4)
        ),
        (6,),
    ),
    "linear over tokens": (tokens, (5, 6)),
}


@pytest.mark.parametrize("weights", ["int4", "int8", "int16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_spikes_are_the_same_everywhere(name: str, weights: str) -> None:
    make, shape = NETWORKS[name]
    x = torch.randn(20, *shape)
    snn = convert(make().eval(), x, mode="99.9%", channel_wise=True, initial_potential=0.5, weights=weights)

    run = assert_agrees(snn, x[:3], steps=9)

    assert all(spikes.any() for spikes in run.spikes.values())


@pytest.mark.parametrize("steps", [1, 2, 33])
def test_any_number_of_steps(steps: int) -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    assert_agrees(snn, images(2), steps=steps)


@graphs(40)
@given(network=networks())
def test_random_graphs_agree_or_are_refused(network: Network) -> None:
    ann, inputs = network.make(), network.inputs()
    try:
        snn = Converter([inputs], weights="int8", progress=False)(ann)
    except IntegerError as error:
        event("refused")
        assert error.problems  # noqa: PT017 - most networks are not refused
        return
    except Ann2SnnError:
        event("not converted")
        assume(False)
        raise
    event("integers")
    assert_agrees(snn, *inputs, steps=5)


def test_random_graphs_in_single_precision_come_close_to_the_ann() -> None:
    ann = residual().eval()
    x = torch.randn(30, 3, 8, 8)
    wanted = ann(x)
    for weights, tolerance in (("int8", 0.03), ("int16", 0.02)):
        snn = convert(ann, x, weights=weights, initial_potential=0.5, channel_wise=True)
        error = (simulate(snn, x, T=400) - wanted).norm() / wanted.norm()
        assert error < tolerance


def test_a_handwritten_step() -> None:
    """Two inputs, one neuron: what a step does, in numbers."""
    ann = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    with torch.no_grad():
        ann[0].weight.copy_(torch.tensor([[1.0, -0.5]]))  # type: ignore[union-attr, operator]
        ann[0].bias.fill_(0.25)  # type: ignore[union-attr, operator]
    x = torch.tensor([[1.0, 0.5], [0.2, 0.4]])
    network = integer_network(convert(ann, x, weights="int8"))
    rounded, weighted, neuron = network.operations[:3]
    given = [[round(float(v) / rounded.scale) for v in row] for row in x]  # type: ignore[attr-defined]
    weight, bias, shift, threshold = (
        weighted.weight.ravel().tolist(),  # type: ignore[attr-defined]
        int(weighted.bias[0]),  # type: ignore[attr-defined]
        int(weighted.shift[0]),  # type: ignore[attr-defined]
        int(neuron.threshold[0]),  # type: ignore[attr-defined]
    )
    assert max(map(abs, weight)) <= 127
    run = network.run(x, T=12)
    for sample, row in enumerate(given):
        v = 0
        for step in range(12):
            v += (sum(w * i for w, i in zip(weight, row, strict=True)) << shift) + bias
            fires = v >= threshold
            v -= threshold * fires
            assert int(run.spikes["1"][step, sample, 0]) == fires


def test_the_network_is_left_as_it_is() -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    x = images(2)
    snn(x)
    before = copy.deepcopy(snn.state_dict())
    potential = snn.get_submodule("2").v.clone()
    integer_network(snn)
    assert torch.equal(snn.get_submodule("2").v, potential)
    assert all(torch.equal(value, before[name]) for name, value in snn.state_dict().items())


def test_a_float_network_is_refused_with_its_layers() -> None:
    with pytest.raises(
        IntegerError, match=r"(?s)input: this input is not rounded.*6: the neuron IFNode.*weights='int8'"
    ):
        integer_network(convert(cnn().eval(), images()))


def test_a_changed_weight_is_refused_by_name() -> None:
    snn = convert(cnn().eval(), images(), weights="int8")
    with torch.no_grad():
        snn.get_submodule("4").weight.view(-1)[0] += 0.5  # type: ignore[operator, union-attr]
    with pytest.raises(IntegerError, match=r"4: its weight has values that are not integers"):
        integer_network(snn)
    assert snn.obstacles is None
    assert not snn.is_pure


def test_what_is_no_converted_network_is_refused() -> None:
    with pytest.raises(IntegerError, match=r"torch.fx.GraphModule\) is an integer network, not Sequential"):
        integer_network(cnn())


def test_inputs_of_another_shape_are_refused() -> None:
    network: IntegerNetwork = integer_network(convert(cnn().eval(), images(), weights="int8"))
    with pytest.raises(InputError, match=r"\(1, 9, 9\).*made for \[\(1, 8, 8\)\]"):
        network.run(images(2, size=9), T=2)


@pytest.mark.skipif(not SHARED, reason="SJ_ANN2SNN_SHARED names no folder with the reference networks")
@pytest.mark.parametrize(
    ("name", "shape"), [("mnist_cnn", (1, 28, 28)), ("resnet20", (3, 32, 32)), ("vgg_max", (3, 32, 32))]
)
@pytest.mark.parametrize("weights", ["int4", "int8"])
def test_trained_reference_networks(name: str, shape: tuple[int, ...], weights: str) -> None:
    from reference_networks import reference_network  # lies in benchmarks/, which an sdist leaves out

    x = torch.rand(25, *shape)
    snn = convert(reference_network(Path(SHARED or ""), name), x, mode="99.9%", channel_wise=True, weights=weights)
    run = assert_agrees(snn, x[:2], steps=6)
    assert np.mean([spikes.any() for spikes in run.spikes.values()]) == 1
    assert all(isinstance(one, IntegerIF) for path, one in snn.named_modules() if path in run.spikes)


def test_padded_max_pools_over_negative_currents() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 1), nn.ReLU()
    second: Any = nn.Conv2d(8, 8, 1)
    with torch.no_grad():
        second.bias -= 1.0  # most of its currents are negative
    ann = nn.Sequential(*first, second, nn.MaxPool2d(3, 2, 1), nn.Flatten()).eval()
    x = torch.rand(6, 3, 5, 5)
    snn = Converter([x], weights="int8", progress=False)(ann)
    wanted = simulate(snn, x, T=8)
    assert (wanted < 0).float().mean() > 0.5
    assert relative_error(torch.from_numpy(integer_network(snn).run(x, T=8).answers[0]).float(), wanted) < 1e-5


def test_the_network_may_be_in_any_state() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3)).eval()
    x = torch.rand(5, 3, 6, 6)
    snn = Converter([x], weights="int8", progress=False)(ann)
    wanted = integer_network(snn).run(x, T=4).answers[0]
    snn(x)  # it remembers another number of samples
    assert np.array_equal(integer_network(snn).run(x, T=4).answers[0], wanted)
    set_step_mode(snn, "m")
    assert np.array_equal(integer_network(snn).run(x, T=4).answers[0], wanted)
    with pytest.raises(IntegerError, match=r"in torch\.float16, which does not hold all its integers exactly"):
        integer_network(snn.half())


def test_kinds_of_inputs() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    pictures = torch.randint(0, 255, (6, 3, 2, 2), dtype=torch.uint8)
    snn = Converter([pictures.float()], weights="int8", progress=False)(ann)
    network = integer_network(snn)
    wanted = network.run(pictures.float(), T=4).answers[0]
    for x in (pictures, pictures.long(), pictures.numpy(), pictures.bfloat16(), pictures.float().requires_grad_()):
        assert np.array_equal(network.run(x, T=4).answers[0], wanted)
    with pytest.raises(InputError, match="hold NaN, which is no integer"):
        network.run(pictures * float("nan"), T=4)
    for steps in (0, -1, 2.5, True):
        with pytest.raises(OptionError, match=r"T=.* is not allowed"):
            network.run(pictures, T=steps)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"T=.* is not allowed"):
            network.widths(steps)  # type: ignore[arg-type]
