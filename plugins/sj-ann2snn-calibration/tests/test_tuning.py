"""`tune` finds what this plugin is for without being told, whatever other plugins are installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Tuning, tune
from sj_ann2snn.tuning.measuring import Measurements


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "sj-ann2snn-calibration")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every conversion that is measured."""
    seen: list[dict[str, Any]] = []
    record = Measurements.record

    def noted(self: Measurements, candidate: Any, *more: Any) -> Any:
        seen.append(dict(candidate.arguments))
        return record(self, candidate, *more)

    monkeypatch.setattr(Measurements, "record", noted)
    return seen


def network() -> tuple[nn.Module, list[Tensor]]:
    """Six convolutions, and batches for them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (2, 8, 8, 8, 8, 8):
        convolution = nn.Conv2d(inputs, 8, 3, padding=1)
        nn.init.orthogonal_(convolution.weight, gain=1.4)
        nn.init.normal_(convolution.bias, std=0.3)  # type: ignore[arg-type]
        layers += [convolution, nn.ReLU()]
    head = nn.Linear(8, 4)
    ann = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    x = torch.randn(300, 2, 6, 6)
    with torch.no_grad():
        head.bias -= ann(x).mean(0)  # every class is the answer to some samples
    return ann, list(x.split(50))


def search(**arguments: Any) -> Tuning:
    ann, batches = network()
    # Nothing loses so little in so few steps, so the result is what loses least.
    return tune(ann, batches, 1.0, T=6, layers=False, progress=False, **arguments)


def test_binary_spikes_get_low_latency_also_as_one_network_for_all_steps(tried: list[dict[str, Any]]) -> None:
    found = search(neuron="if")
    assert found.drop < search(neuron="if", corrections=()).drop
    assert {"low-latency", "staircase"} <= {one["mode"] for one in tried}
    assert {"mode": "low-latency", "neuron": "if", "earliest": 4, "T": 6} in tried


def test_weights_are_tuned_where_the_caller_allows_it(tried: list[dict[str, Any]]) -> None:
    found = search(neuron="if", weights="tuned")
    assert found.arguments["weights"] == "tuned"
    assert "snn-calibration" in {one.get("corrections") for one in tried}
    assert all(one["weights"] == "tuned" for one in tried)
