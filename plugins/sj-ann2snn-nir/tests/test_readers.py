"""Other simulators read the files and emit the same spikes; without their settings they do what the table says."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from sj_ann2snn_nir import READERS, Nir, ReaderWarning
from sj_ann2snn_nir.readers import MODULES, missing
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, ExportError, InitialPotential, check_export, export

from .networks import NETWORKS, exact

SHARED = os.environ.get("SJ_ANN2SNN_SHARED")
STEPS = 16
AGREE = ("sinabs", "spikingjelly", "snntorch", "spyx")


def installed(reader: str) -> Any:
    lacking = missing(reader)
    return pytest.param(reader, marks=pytest.mark.skipif(bool(lacking), reason=f"{lacking} is not installed"))


def written(snn: nn.Module, path: Path, reader: str, x: Tensor) -> Nir:
    exporter = Nir(target=reader, input_shape=tuple(x.shape[1:]))
    with pytest.warns(ReaderWarning, match=READERS[reader].release):
        export(snn, path, exporter)
    return exporter


def trains(path: Path, reader: str, x: Tensor, steps: int = STEPS, **settings: bool) -> dict[str, Tensor]:
    """What the reader's neurons emit; see `readers`."""
    run = importlib.import_module(f"sj_ann2snn_nir.readers.{reader}").run
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(run(nir.read(str(path)), {}, x, steps, **settings))


def own_counts(snn: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Spikes of each neuron over all steps, in the hand-written loop."""
    counts: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, result, name=name: counts.update({name: counts.get(name, 0) + result})
        )
        for name, module in snn.named_modules()
        if type(module).__name__ == "IFNode"
    ]
    with torch.no_grad():
        for _ in range(STEPS):
            snn(x)
    functional.reset_net(snn)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("potential", [0.0, 0.5])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("reader", [installed(reader) for reader in AGREE])
def test_every_neuron_fires_at_the_same_steps(reader: str, name: str, potential: float, tmp_path: Path) -> None:
    if name == "residual" and not READERS[reader].branches:
        pytest.skip(f"{reader} reads chains of layers")
    snn, x = exact(name, initial_potential=potential)
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert found.agrees, str(found)
    assert len(found.layers) == {"chain": 4, "residual": 3, "vectors": 2}[name]
    assert found.spikes > 1000
    assert found.output_error == 0


@pytest.mark.parametrize("reader", [installed("spikingjelly")])
def test_signals_in_time(reader: str, tmp_path: Path) -> None:
    """Conv1d, which only SpikingJelly reads."""
    torch.manual_seed(0)
    x = (torch.rand(20, 2, 9) * 64).round() / 64
    ann = nn.Sequential(nn.Conv1d(2, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3), nn.ReLU())
    snn = Converter([x], progress=False)(ann)
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert found.agrees, str(found)
    with pytest.raises(ExportError, match=r"0: sinabs 3\.1\.3 does not read Conv1d"):
        export(snn, tmp_path / "net.nir", Nir(target="sinabs", input_shape=(2, 9)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reader", [installed("sinabs"), installed("spikingjelly"), installed("snntorch")])
def test_random_networks(reader: str, seed: int, tmp_path: Path) -> None:
    snn, x = exact(seed, 4, channel_wise=seed % 2 == 1)
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert found.agrees, str(found)
    assert found.output_error == 0


@pytest.mark.parametrize("reader", [installed(reader) for reader in AGREE])
def test_spike_counts_are_those_of_the_loop(reader: str, tmp_path: Path) -> None:
    snn, x = exact("chain")
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    theirs = exporter.replay(tmp_path / "net.nir", x, STEPS)
    ours = own_counts(snn, x)
    assert set(theirs) == {*ours, "output"}
    for layer, counts in ours.items():
        assert torch.equal(theirs[layer].sum(0).flatten(1), counts.flatten(1)), layer
        assert 0 < float(counts.mean()) < STEPS


@pytest.mark.parametrize("reader", [installed(reader) for reader in AGREE])
def test_potentials_of_single_neurons(reader: str, tmp_path: Path) -> None:
    snn, x = exact("chain")
    (layer,) = (module for name, module in snn.named_modules() if name == "1")
    potential = (torch.rand(8, 8, 8) * 32).round() / 32
    snn.add_submodule("start", InitialPotential(potential))
    (neuron,) = (node for node in snn.graph.nodes if node.target == "1")
    with snn.graph.inserting_before(neuron):
        neuron.args = (snn.graph.call_module("start", neuron.args),)
    snn.recompile()
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    node = nir.read(str(tmp_path / "net.nir")).nodes["layer_1"]
    assert np.array_equal(node.metadata["initial_potential"], potential.numpy())
    assert layer.v_reset is None
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert found.agrees, str(found)
    without, _ = exact("chain")
    assert not check_export(without, tmp_path / "net.nir", x, STEPS, exporter).agrees


@pytest.mark.parametrize("reader", [installed("sinabs"), installed("spikingjelly")])
def test_without_its_settings_a_reader_emits_other_spikes(reader: str, tmp_path: Path) -> None:
    snn, x = exact("chain")
    with torch.no_grad():
        snn.get_submodule("0").weight.mul_(4)
    written(snn, tmp_path / "net.nir", reader, x)
    with_settings, without = (trains(tmp_path / "net.nir", reader, x, settings=given) for given in (True, False))
    assert not torch.equal(with_settings["layer_1"], without["layer_1"])
    if reader == "sinabs":
        assert without["layer_1"].max() > 1  # several spikes in a step
    else:
        assert without["layer_1"].sum() < with_settings["layer_1"].sum()  # a reset loses what is above the threshold


@pytest.mark.parametrize("reader", [installed("snntorch")])
def test_snntorch_leaks_unless_it_is_told(reader: str, tmp_path: Path) -> None:
    snn, x = exact("vectors")
    written(snn, tmp_path / "net.nir", reader, x)
    with_settings, without = (trains(tmp_path / "net.nir", reader, x, settings=given) for given in (True, False))
    assert without["layer_1"].sum() < with_settings["layer_1"].sum()


@pytest.mark.parametrize("reader", [installed("spyx")])
def test_spyx_fires_a_step_late(reader: str, tmp_path: Path) -> None:
    snn, x = exact("vectors")
    written(snn, tmp_path / "net.nir", reader, x)
    # In step 1, Spyx compares the potential before the current arrives.
    without = trains(tmp_path / "net.nir", reader, x, settings=False)
    with_settings = trains(tmp_path / "net.nir", reader, x)
    assert without["layer_1"][0].sum() == 0
    late, own = without["layer_1"][1:], with_settings["layer_1"][:-1]
    assert float((late == own).float().mean()) > 0.99  # but for potentials at the threshold


@pytest.mark.parametrize("reader", [installed("norse")])
def test_norse_resets_to_zero(reader: str, tmp_path: Path) -> None:
    snn, x = exact("chain")
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert [one.layer for one in found.differences] == ["1", "4", "6", "9"]
    with pytest.raises(ExportError, match="NIR has no initial potential, and this neuron starts from one"):
        export(exact("vectors", initial_potential=0.5)[0], tmp_path / "other.nir", Nir(target=reader))


@pytest.mark.parametrize("reader", [installed("sinabs"), installed("snntorch")])
def test_a_wrong_weight_is_found(reader: str, tmp_path: Path) -> None:
    snn, x = exact("chain")
    exporter = written(snn, tmp_path / "net.nir", reader, x)
    with torch.no_grad():
        snn.get_submodule("5").bias += 0.25
    found = check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)
    assert found.first is not None
    assert found.first.layer == "6"


def test_files_that_nothing_can_run_are_told(tmp_path: Path) -> None:
    snn, x = exact("vectors")
    with pytest.raises(ExportError, match=r"rockpool 3\.1\.0 cannot read the network: .* no IF neuron"):
        export(snn, tmp_path / "net.nir", Nir(target="rockpool"))
    assert not (tmp_path / "net.nir").exists()
    exporter = written(snn, tmp_path / "net.nir", "lava", x)
    with pytest.raises(ExportError, match=r"lava-nc 0\.10\.0, lava-dl 0\.6\.0 cannot run .*no reader of NIR"):
        check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)


def test_a_reader_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snn, x = exact("vectors")
    exporter = written(snn, tmp_path / "net.nir", "sinabs", x)
    monkeypatch.setitem(MODULES, "sinabs", ("no_such_simulator",))
    with pytest.raises(ExportError, match=r"sinabs 3\.1\.3, which needs the package no_such_simulator"):
        check_export(snn, tmp_path / "net.nir", x, STEPS, exporter)


@pytest.mark.skipif(not SHARED, reason="SJ_ANN2SNN_SHARED names no folder with data and networks")
@pytest.mark.parametrize("reader", [installed(reader) for reader in AGREE])
def test_real_digits(reader: str, tmp_path: Path) -> None:
    """A trained network on handwritten digits; the weights of the first layer and the pixels are put on a grid."""
    import gzip

    folder = Path(str(SHARED))
    raw = gzip.decompress((folder / "data" / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(-1, 1, 28, 28).float() / 256
    ann = digits()
    ann.load_state_dict(torch.load(folder / "models" / "mnist_cnn.pth", weights_only=True))
    snn = Converter([images[5000:5200]], mode="99.9%", progress=False)(ann.eval())
    with torch.no_grad():
        for parameter in snn.parameters():
            parameter.copy_((parameter * 2**10).round() / 2**10)
    exporter = written(snn, tmp_path / "net.nir", reader, images)
    found = check_export(snn, tmp_path / "net.nir", images[:20], STEPS, exporter)
    assert found.agrees, str(found)
    assert (len(found.layers), found.samples) == (4, 20)


def digits() -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (1, 32, 32):
        layers += [nn.Conv2d(channels, 32, 3), nn.BatchNorm2d(32, eps=1e-3), nn.ReLU(), nn.AvgPool2d(2, 2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10), nn.ReLU())
