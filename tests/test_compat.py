"""Backends of SpikingJelly's neurons, on both SpikingJelly lines."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

from sj_ann2snn import BackendError, compat, make_if_neuron
from sj_ann2snn.compat import NEURONS_TAKE_BACKEND

from .helpers.networks import convert
from .helpers.neurons import run


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendError, match="backend='tpu' is not known. Allowed are None, 'torch' and 'cupy'"):
        make_if_neuron(backend="tpu")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_the_neuron_on_torch_is_the_default_one() -> None:
    node = make_if_neuron(backend="torch")
    assert (node.backend, node.step_mode) == ("torch", "s")
    drive = torch.rand(20, dtype=torch.float64)
    assert torch.equal(run(node, drive, 20), run(make_if_neuron(), drive, 20))


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cupy_without_cuda_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(BackendError, match="needs the package CuPy, which cannot be imported here") as caught:
        make_if_neuron(backend="cupy")
    assert "leave the argument out" in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "cupy", object())
    with pytest.raises(BackendError, match="needs a CUDA device; torch sees none here"):
        make_if_neuron(backend="cupy")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_set_backend_works_on_a_converted_network() -> None:
    snn = convert(small(), torch.randn(20, 4, dtype=torch.float64))
    functional.set_step_mode(snn, "m")
    functional.set_backend(snn, "torch")
    assert {module.backend for module in snn.modules() if isinstance(module, neuron.BaseNode)} == {"torch"}


@pytest.mark.skipif(NEURONS_TAKE_BACKEND, reason="these neurons take a backend")
@pytest.mark.parametrize("backend", ["torch", "cupy"])
def test_a_backend_warns_where_neurons_choose_themselves(backend: str) -> None:
    with pytest.warns(compat.BackendWarning, match=f"backend={backend!r} has no effect on SpikingJelly") as caught:
        node = make_if_neuron(backend=backend)
    assert "Leave the argument out" in str(caught[0].message)
    assert (node.v_threshold, node.v_reset) == (1.0, None)


def test_the_version_in_messages_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compat.spikingjelly_version().split(".")[0].isdigit()

    def missing(name: str) -> str:
        raise compat.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.importlib.metadata, "version", missing)
    assert compat.spikingjelly_version() == "unknown"
