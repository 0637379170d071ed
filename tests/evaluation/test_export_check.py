"""A network's file, run by another program, is compared with the network spike for spike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Exporter,
    ExportError,
    InputError,
    PluginError,
    check_export,
    export,
    load_network,
    replacing,
)
from sj_ann2snn.builtin.exporters import Archive

from ..helpers.replaying import spikes_by_hand

STEPS = 9


class Replayed(Archive):
    """Runs its files by SpikingJelly's own hand-written loop; a test may change what comes out."""

    name = "replayed"

    def __init__(self, change: Callable[[dict[str, Tensor]], Any] = lambda spikes: spikes) -> None:
        super().__init__()
        self.change = change

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803
        return self.change(spikes_by_hand(load_network(path, Archive()), x, T))


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.rand(20, 1, 8, 8)
    return Converter([x], progress=False)(ann), x


def checked(network: tuple[nn.Module, Tensor], path: Path, exporter: Exporter) -> Any:
    snn, x = network
    export(snn, path, exporter)
    return check_export(snn, path, x, STEPS, exporter)


def test_a_program_that_emits_the_same_agrees(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    found = checked(network, tmp_path / "net", Replayed())
    assert found.agrees
    assert found.layers == ("1", "4")
    assert (found.samples, found.steps, found.first) == (20, STEPS, None)
    own = Replayed().replay(tmp_path / "net", network[1], STEPS)
    assert found.spikes == sum(int(spikes.sum()) for name, spikes in own.items() if name != "output") > 0
    assert found.output_error is not None
    assert found.output_error < 1e-6
    assert str(found) == f"all 2 layers agree spike for spike (20 samples, {STEPS} steps, {found.spikes:,} spikes)"


def test_neurons_may_have_another_shape(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    flat = Replayed(lambda spikes: {name: value.flatten(2).double() for name, value in spikes.items()})
    assert checked(network, tmp_path / "net", flat).agrees


def test_other_outputs_are_told(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    found = checked(network, tmp_path / "net", Replayed(lambda spikes: {**spikes, "output": spikes["output"] * 1.5}))
    assert (found.agrees, found.differences) == (False, ())
    assert "all 2 layers of neurons agree" in str(found)
    assert f"the outputs differ by up to {1 / 3:.3g} of the largest one" in str(found)
    alone = checked(network, tmp_path / "net", Replayed(lambda spikes: {key: spikes[key] for key in ("1", "4")}))
    assert alone.agrees
    assert alone.output_error is None


def test_the_first_layer_and_step_that_differ_are_told(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    def shifted(spikes: dict[str, Tensor]) -> dict[str, Tensor]:
        spikes["1"][5, 3, 0, 0, 0] = 1 - spikes["1"][5, 3, 0, 0, 0]
        spikes["1"][7] = 1 - spikes["1"][7]
        spikes["4"][2:] = 0
        return spikes

    found = checked(network, tmp_path / "net", Replayed(shifted))
    assert not found.agrees
    assert [one.layer for one in found.differences] == ["1", "4"]
    assert (found.first.step, found.first.sample, found.first.neurons) == (6, 3, 1)
    assert "2 of 2 layers differ" in str(found)
    assert "1: the first spikes that differ are at step 6, of 1 neurons (sample 3 is the first)" in str(found)


def test_layers_that_a_program_does_not_show_are_told(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    found = checked(network, tmp_path / "net", Replayed(lambda spikes: {"1": spikes["1"]}))
    assert not found.agrees
    assert found.missing == ("4",)
    assert "not shown by the other program: '4'" in str(found)


def test_what_is_no_check_is_refused(network: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    snn, x = network
    path = tmp_path / "net.zip"
    export(snn, path)
    with pytest.raises(ExportError, match="the format 'archive' has no check"):
        check_export(snn, path, x, STEPS)
    with pytest.raises(InputError, match="tensor"):
        check_export(snn, path, [x], STEPS, Replayed())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="number of time steps"):
        check_export(snn, path, x, 0, Replayed())
    with pytest.raises(InputError, match="has no neurons to compare"):
        check_export(nn.Linear(64, 2), path, x.flatten(1), STEPS, Replayed())
    with pytest.raises(ExportError, match=r"none cannot be checked: No such file"):
        check_export(snn, tmp_path / "none", x, STEPS, Missing())


class Missing(Archive):
    name = "missing"

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803
        with replacing(path.with_suffix(".log")) as file:
            file.write(path.read_bytes())
        return {}


@pytest.mark.parametrize("change", [lambda spikes: None, lambda spikes: {"1": 3}, lambda spikes: {"1": spikes["4"]}])
def test_an_exporter_that_returns_something_else_is_named(
    network: tuple[nn.Module, Tensor], change: Callable[[Any], Any], tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=r"Format 'replayed' .*from replay\(\)"):
        checked(network, tmp_path / "net", Replayed(change))
