"""Which implementation of SpikingJelly's neurons runs on a CUDA device."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import compat
from sj_ann2snn.compat import NEURONS_TAKE_BACKEND, make_if_neuron
from sj_ann2snn.simulation.engine import backend

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def state(neuron: nn.Module) -> tuple[object, bool]:
    return getattr(neuron, "backend", None), neuron.training


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_on_cuda_cupy_is_taken_where_it_works_and_nobody_named_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "cupy_works", lambda: True)
    monkeypatch.setattr("spikingjelly.activation_based.base.check_backend_library", lambda name: None)
    open_one, named = make_if_neuron().eval(), make_if_neuron(backend="torch").eval()
    network = nn.Sequential(open_one, named).eval()
    with backend.fastest_neurons([*network.modules()], CUDA):
        assert state(open_one) == ("cupy", True), "SpikingJelly takes CuPy in training mode only"
        assert state(named) == ("torch", False)
    assert state(open_one) == ("torch", False)
    with backend.fastest_neurons([*network.modules()], CPU):
        assert state(open_one) == ("torch", False)


def test_without_cupy_the_neurons_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "cupy_works", lambda: False)
    neuron = make_if_neuron().eval()
    before = state(neuron)
    with backend.fastest_neurons([neuron], CUDA):
        assert state(neuron) == before


@pytest.mark.skipif(NEURONS_TAKE_BACKEND, reason="these neurons take a backend")
def test_spikingjelly_2_chooses_by_itself() -> None:
    assert not backend.cupy_works()


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons have no CuPy kernels")
def test_cupy_kernels_check_types_beside_a_current_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """SpikingJelly compares with ``np.int``, which NumPy 1.24 took away; a launch ended in an AttributeError."""
    from spikingjelly.activation_based.auto_cuda import base as kernels

    monkeypatch.setattr(kernels, "np", np)
    monkeypatch.setattr(kernels, "cupy", SimpleNamespace(ndarray=np.ndarray))
    monkeypatch.setitem(sys.modules, "cupy", kernels.cupy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compat.cupy_works()
    kernel = SimpleNamespace(cparams={"numel": "const int &"})
    kernels.CKernel.check_ctypes(kernel, {"numel": np.asarray(5)})
    with pytest.raises(AssertionError):
        kernels.CKernel.check_ctypes(SimpleNamespace(cparams={"numel": "float"}), {"numel": np.asarray(5)})
    assert not hasattr(np, "int"), "everybody else's NumPy stays as it is"
