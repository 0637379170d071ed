"""The demo's network and its training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sj_ann2snn import InputError
from sj_ann2snn.cli.data import digits
from sj_ann2snn.cli.tutorial import train, tutorial_network

pytest.importorskip("sklearn", reason="the demo trains on scikit-learn's digits")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")


def test_the_tutorials_network() -> None:
    kinds = [type(layer) for layer in tutorial_network(28)]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d]
    assert kinds == [*block, *block, *block, nn.Flatten, nn.Linear, nn.ReLU]
    for size, padding in ((28, (0, 0)), (22, (0, 0)), (21, (1, 1)), (8, (1, 1))):
        network = tutorial_network(size)
        assert network.conv1.padding == padding
        assert network(torch.rand(2, 1, size, size)).shape == (2, 10)
    assert tutorial_network(28).bn1.eps == 1e-3


def test_images_too_small_for_the_network_are_told() -> None:
    with pytest.raises(InputError, match="7 by 7"):
        tutorial_network(7)


def test_training_ends_in_eval_mode_and_lowers_the_loss() -> None:
    found = digits()
    network = tutorial_network(8)
    told: list[str] = []
    # 65 images in batches of 64 would leave a batch of one, which BatchNorm cannot normalize.
    train(network, found.train_images[:65], found.train_labels[:65], epochs=15, seed=0, tell=told.append)
    losses = [float(line.rpartition(" ")[2]) for line in told]
    assert len(losses) == 15
    assert losses[-1] < losses[0] / 2
    assert not any(module.training for module in network.modules())
