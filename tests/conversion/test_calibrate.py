"""Errors of calibration name the batch and the layer, and say nothing that torch wrote for its developers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    CalibrationError,
    ConversionError,
    Converter,
    DeadLayerError,
    NonFiniteError,
    PluginError,
    UnsupportedError,
)

from ..helpers.networks import Written, convert


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_debugging_notes_of_torch_in_values_that_are_not_finite(value: float) -> None:
    data = images()
    data[3, 1] = value
    with pytest.raises(NonFiniteError) as caught:
        convert(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), data)
    assert "While executing" not in str(caught.value)
    assert "tlparse" not in str(caught.value)


def test_no_debugging_notes_of_torch_where_a_batch_does_not_fit() -> None:
    with pytest.raises(CalibrationError, match="batch 1 does not fit") as caught:
        convert(network(), [images(), torch.rand(5, 3)])
    assert "While executing" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_no_debugging_notes_of_torch_where_the_batch_size_is_fixed() -> None:
    ann = Written(lambda net, x: net.body(x).view(2, 3), body=network())
    with pytest.raises(ConversionError, match="fixed batch size") as caught:
        convert(ann, images())
    assert "While executing" not in str(caught.value)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_batch_that_is_not_finite_is_named(position: int) -> None:
    batches = [images(4) for _ in range(3)]
    batches[position][2, 0] = float("nan")
    with pytest.raises(
        NonFiniteError, match=rf"calibration batch {position} \(\d+ values; first affected samples: 2\)"
    ):
        convert(network(), batches)


def test_the_layer_that_is_not_finite_is_named_and_not_the_ones_behind() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    with torch.no_grad():
        ann[2].bias[3] = float("inf")
    with pytest.raises(NonFiniteError, match="The activation of 3 is infinite"):
        convert(ann, images())


@pytest.mark.parametrize("progress", [False, True])
def test_an_empty_generator_is_empty_calibration_data(progress: bool) -> None:
    def nothing() -> Any:
        yield from ()

    with pytest.raises(CalibrationError, match="yields no batch"):
        Converter(nothing(), progress=progress)(network())


def test_an_exhausted_iterator_is_empty_calibration_data() -> None:
    once = iter([images()])
    converter = Converter(once, progress=False)
    converter(network())
    with pytest.raises(CalibrationError, match="yields no batch"):
        converter(network())


@pytest.mark.parametrize("loader", [5, images, network()])
def test_calibration_data_that_is_not_iterable(loader: Any) -> None:
    with pytest.raises(CalibrationError, match="iterable of batches"):
        Converter(loader, progress=False)(network())


def test_a_tensor_is_not_a_loader() -> None:
    with pytest.raises(CalibrationError, match=r"is a tensor of shape \(20, 4\).* one batch at most: .*iterable of"):
        Converter(images(), progress=False)(network())


def test_a_later_batch_without_samples() -> None:
    with pytest.raises(CalibrationError, match="batch 1") as caught:
        convert(network(), [images(), images(0)])
    assert not isinstance(caught.value, PluginError)


def test_loaders_that_fail_are_not_swallowed() -> None:
    def broken() -> Any:
        yield images()
        raise OSError("disk on fire")

    with pytest.raises(
        CalibrationError, match="calibration data cannot be read: batch 1 fails with OSError: disk on fire"
    ) as caught:
        Converter(broken(), progress=False)(network())
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("mode", ["max", "99%", 0.5])
def test_a_dead_layer_is_named_in_every_mode(mode: Any, channel_wise: bool) -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.constant_(ann[2].weight, -1.0)
    nn.init.constant_(ann[2].bias, -1.0)
    with pytest.raises(DeadLayerError, match=r"^3 never fired: .* all of 2 calibration batches") as caught:
        convert(ann, [images(), images()], mode=mode, channel_wise=channel_wise)
    assert f"'{Converter(mode=mode).normalization}'" in str(caught.value)


def test_a_neuron_behind_a_pool_of_negative_currents_is_refused_by_name() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2), nn.ReLU()
    ).eval()
    x = torch.randn(20, 1, 8, 8)
    with pytest.raises(UnsupportedError, match=r"3 \(AvgPool2d\).*yields negative values \(down to -0\.") as caught:
        Converter([x], avgpool_neuron=True, progress=False)(ann)
    assert "layers={'3': {'avgpool_neuron': False}}" in str(caught.value)
    assert [one.name for one in caught.value.problems] == ["3"]
    Converter([x], avgpool_neuron=True, layers={"3": {"avgpool_neuron": False}}, progress=False)(ann)
