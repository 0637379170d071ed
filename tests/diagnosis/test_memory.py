"""What a diagnosis keeps in memory: a few values for every activation, whatever the number of layers and steps."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from sj_ann2snn import Converter, diagnose
from sj_ann2snn.diagnosis import answers, measuring
from sj_ann2snn.simulation.engine.tiling import TILE_BYTES

CHANNELS, SIZE = 8, 48
ACTIVATION = CHANNELS * SIZE * SIZE * 4
"""Bytes of the activation of one layer and sample."""


def deep(layers: int) -> nn.Module:
    blocks = [nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()) for _ in range(layers - 1)]
    first = nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU())
    return nn.Sequential(first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3)).eval()


def live_bytes() -> int:
    """Bytes of all tensors that anything refers to; memory that several share counts once."""
    found = {}
    for one in gc.get_objects():
        # isinstance would ask lazy modules and proxies.
        if not issubclass(type(one), Tensor) or issubclass(type(one), FakeTensor) or one.is_meta:
            continue
        try:
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        except (RuntimeError, NotImplementedError):  # sparse tensors of other tests have no memory to look at
            continue
    return sum(found.values())


def largest(monkeypatch: pytest.MonkeyPatch, layers: int, steps: int) -> int:
    """The most bytes of tensors that a diagnosis of one sample adds, looked at whenever a layer or a network has run."""
    torch.manual_seed(0)
    ann, x = deep(layers), torch.rand(1, 1, SIZE, SIZE)
    snn = Converter([x], progress=False)(ann)
    gc.collect()
    before, most, lock = live_bytes(), [0], threading.Lock()

    def look() -> None:
        with lock:
            most[0] = max(most[0], live_bytes())

    def looking(method: Any) -> Any:
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(self, *args, **kwargs)
            look()
            return result

        return run

    with monkeypatch.context() as patch:
        for cls, name in ((measuring.MeasuringCollector, "watch"), (answers.AnswerSums, "add")):
            patch.setattr(cls, name, looking(getattr(cls, name)))
        diagnose(ann, snn, [x], steps, progress=False)
    return most[0] - before


def test_memory_grows_with_the_activations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = largest(monkeypatch, 3, 4), largest(monkeypatch, 8, 4)
    # The ANN's activations, f(x̄), f(x̄) − r, and for every layer on its way sums of double precision and potentials.
    assert (many - few) / 5 < 12 * ACTIVATION
    # A layer runs over as many steps at a time as its tile has room for, input and output.
    assert largest(monkeypatch, 3, 128) < few + 3 * TILE_BYTES["cpu"]
