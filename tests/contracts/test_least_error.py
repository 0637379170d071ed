"""λ by the least squared error of what neurons represent, against a search over many λ."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from sj_ann2snn import CalibrationSite, LeastErrorObserver

LAYER, CHANNELS = CalibrationSite("relu"), CalibrationSite("relu", channel_axis=1, channels=3)


class InQuarters(LeastErrorObserver):
    """Neurons with four levels."""

    def represented(self, values: Tensor, scales: Tensor) -> Tensor:
        assert values.dim() == 1
        assert scales.shape[1:] == (1,)
        return (4 * values / scales).round().clamp(max=4) * scales / 4


def activations() -> Tensor:
    return torch.randn(400, 3).relu() * torch.tensor([0.5, 1.0, 20.0])


def error(x: Tensor, scale: Tensor) -> Tensor:
    return ((4 * x / scale).round().clamp(max=4) * scale / 4 - x).square().mean(0)


def test_no_scale_has_a_much_smaller_error() -> None:
    x = activations()
    observer = InQuarters(CHANNELS)
    observer.observe(x)
    found = error(x, observer.scale().float())
    for share in torch.linspace(0.05, 1.2, 100):
        assert bool((found <= 1.1 * error(x, share * x.amax(0))).all())


def test_parts_merge_to_the_same_bits_and_observers_can_be_sent() -> None:
    x = activations()
    whole, one, other = InQuarters(CHANNELS), InQuarters(CHANNELS), InQuarters(CHANNELS)
    whole.observe(x)
    one.observe(x[:150])
    other.observe(x[150:])
    one.merge(pickle.loads(pickle.dumps(other)))
    assert torch.equal(copy.deepcopy(one).scale(), whole.scale())


def test_a_layer_has_one_scale_and_dead_channels_have_that() -> None:
    x = activations()
    x[:, 1] = 0
    layer, channels = InQuarters(LAYER), InQuarters(CHANNELS, candidates=30)
    layer.observe(x)
    channels.observe(x)
    assert layer.scale().shape == ()
    assert channels.scale()[1] == pytest.approx(float(layer.scale()), rel=0.2)
