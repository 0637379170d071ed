"""`tune` finds one step of graded spikes without being told, whatever other plugins are installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sj_ann2snn import tune


def test_one_step_of_the_mode_as_it_suggests_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "sj-ann2snn-multithreshold")
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    for layer in ann[::2]:
        nn.init.orthogonal_(layer.weight, gain=1.4)
    batches = list(torch.randn(400, 8).split(50))
    found = tune(ann, batches, 8.0, T=8, layers=False, progress=False)
    assert (found.T, found.reached) == (1, True)
    assert "multi-threshold" in (found.arguments["mode"], found.arguments.get("neuron"))
    assert tune(ann, batches, 8.0, T=8, neuron="if", layers=False, progress=False).T > 1
    # The mode itself, with its own neuron, is among the networks that are measured on all samples.
    mode = tune(ann, batches, 8.0, T=8, mode="multi-threshold", layers=False, progress=False)
    assert mode.T == 1
    assert 'neuron="if"' not in mode.call
