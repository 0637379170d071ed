"""Networks from files, copies and pickles are diagnosed like the network that the converter returned."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    ExportError,
    InputError,
    NetworkDescription,
    Trial,
    diagnose,
    export,
    load_network,
    simulate,
)
from sj_ann2snn.builtin.exporters import Archive, Torch
from sj_ann2snn.contracts.checksums import add_checksums
from sj_ann2snn.interchange import build, describe
from tests.helpers.networks import randomized

T = 12


class Shifting(Correction):
    """A bias, a factor of λ and an initial potential for every neuron."""

    name = "shifting"

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, bias=0.05 * torch.ones(site.channels), scale=0.9 * torch.ones(site.channels))
            trial.adjust(site.name, initial_potential=torch.rand(site.shape))
        trial.suggest_readout("delayed", delay=3)


def convolutional() -> nn.Module:
    return randomized(
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(54, 5)),
        )
    )


def converted(**arguments: Any) -> tuple[nn.Module, Any, Tensor]:
    ann, x = convolutional(), torch.rand(24, 1, 8, 8)
    return ann, Converter([x], progress=False, **arguments)(ann), x


CONVERSIONS: dict[str, dict[str, Any]] = {
    "max": {"mode": "max"},
    "clipping": {"mode": 0.4, "initial_potential": 0.5},
    "channels": {"mode": "99%", "channel_wise": True},
    "momentum": {"maxpool": "momentum"},
    "pre-spike": {"maxpool": "pre-spike"},
    "average": {"maxpool": "avg"},
    "kept BatchNorm": {"fuse_flag": False},
    "corrected": {"corrections": [Shifting()], "T": T},
    "corrected channels": {"corrections": [Shifting()], "T": T, "channel_wise": True, "mode": "99%"},
}

FORMATS = {"archive": Archive(), "compressed": Archive(compress=True), "torch": Torch()}


def labelled(ann: nn.Module, x: Tensor) -> list[Any]:
    with torch.no_grad():
        return [(x, ann(x).argmax(1))]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_figure_of_a_network_from_a_file_is_the_same(name: str, format: str, tmp_path: Path) -> None:
    ann, snn, x = converted(**CONVERSIONS[name])
    export(snn, tmp_path / "network", FORMATS[format])
    loaded = load_network(tmp_path / "network", FORMATS[format])
    wanted = diagnose(ann, snn, labelled(ann, x), T, progress=False)
    assert diagnose(ann, loaded, labelled(ann, x), T, progress=False) == wanted
    assert all(layer.scale is not None for layer in wanted if layer.kind == "neuron")
    export(loaded, tmp_path / "again", FORMATS[format])
    assert (tmp_path / "again").read_bytes() == (tmp_path / "network").read_bytes() or format == "torch"


def saved(snn: nn.Module) -> Any:
    content = io.BytesIO()
    torch.save(snn, content)
    content.seek(0)
    return torch.load(content, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda snn: pickle.loads(pickle.dumps(snn)),
    "torch.save": saved,
    "deepcopy inside a network": lambda snn: copy.deepcopy(nn.Sequential(snn))[0],
    "pickle inside a network": lambda snn: pickle.loads(pickle.dumps(nn.Sequential(snn)))[0],
    "copy of a pickle": lambda snn: copy.deepcopy(pickle.loads(pickle.dumps(copy.copy(snn)))),
    "pickle of a copy": lambda snn: pickle.loads(pickle.dumps(copy.copy(pickle.loads(pickle.dumps(snn))))),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ["channels", "momentum", "corrected"])
def test_copies_and_pickles_keep_the_notes(name: str, how: str) -> None:
    ann, snn, x = converted(**CONVERSIONS[name])
    wanted = diagnose(ann, snn, labelled(ann, x), T, progress=False)
    again = COPIES[how](snn)
    assert diagnose(ann, again, labelled(ann, x), T, progress=False) == wanted
    assert torch.equal(simulate(again, x, T), simulate(snn, x, T))


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_older_versions_are_diagnosed_in_units_of_a_spike(version: int) -> None:
    ann, snn, x = converted(mode="max")
    document, _ = NetworkDescription(**{**vars(describe(snn, {})), "conversion": None}).as_document()
    _, tensors = NetworkDescription(**{**vars(describe(snn, {})), "conversion": None}).as_document()
    del document["conversion"], document["checksums"]
    document["version"] = version
    if version > 1:
        add_checksums(document, tensors)
    loaded = build(NetworkDescription.from_document(document, tensors), {})
    assert torch.equal(simulate(loaded, x, T), simulate(snn, x, T))
    found = diagnose(ann, loaded, [x], T, progress=False)
    wanted = diagnose(ann, snn, [x], T, progress=False)
    for one, other in zip(found, wanted, strict=True):
        assert one.name == other.name
        assert one.error == pytest.approx(other.error, rel=1e-5)
        assert one.scale is None
    assert "a file of version 2 or older" in found.notes[0]


def test_a_graph_that_was_made_anew_says_that_its_notes_are_lost() -> None:
    ann, snn, x = converted(mode="max")
    again = torch.fx.GraphModule({name: one for name, one in snn.named_modules() if name}, snn.graph)
    assert "its graph was made anew" in diagnose(ann, again, [x], T, progress=False).notes[0]


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no sites": lambda notes: notes.pop("sites"),
    "a site that is no note": lambda notes: notes["sites"].update({"2": 3}),
    "an unknown entry": lambda notes: notes["sites"]["2"].update(more=1),
    "no unit": lambda notes: notes["sites"]["2"].pop("unit"),
    "a unit that is no tensor": lambda notes: notes["sites"]["2"].update(unit=1.0),
    "an infinite unit": lambda notes: notes["sites"]["2"].update(unit=torch.tensor(float("inf"))),
    "integers": lambda notes: notes["sites"]["2"].update(maximum=torch.tensor(3)),
    "an axis in words": lambda notes: notes["sites"]["2"].update(axis="first"),
    "a bias that is none": lambda notes: notes["biases"].update({"0": None}),
    "quiet in words": lambda notes: notes["quiet"].update({"2": "very"}),
    "no mapping": lambda notes: notes.update(sites=[1]),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_notes_that_somebody_changed_are_one_error(how: str, tmp_path: Path) -> None:
    ann, snn, x = converted(mode="max")
    DAMAGE[how](snn.meta["ann2snn_conversion"])
    with pytest.raises(InputError, match="notes about its conversion .* was changed after the conversion"):
        diagnose(ann, snn, [x], T, progress=False)
    with pytest.raises(InputError, match="was changed after the conversion"):
        simulate(snn, x, T)
    with pytest.raises(ExportError, match="was changed after the conversion"):
        export(snn, tmp_path / "network.zip")
    assert not list(tmp_path.iterdir())


MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unit of another shape": lambda notes: notes["sites"]["2"].update(unit=torch.ones(3, 1, 1)),
    "unit of more dimensions": lambda notes: notes["sites"]["2"].update(unit=torch.ones(1, 1, 1, 1)),
    "bound of another shape": lambda notes: notes["sites"]["2"].update(maximum=torch.ones(3, 1, 1)),
    "axis that is not there": lambda notes: notes["sites"]["2"].update(axis=3),
    "a layer that is not there": lambda notes: notes["sites"].update(nowhere=notes["sites"]["2"]),
    "a bias of another shape": lambda notes: notes["biases"].update({"0": torch.ones(5)}),
    "a bias where there is none": lambda notes: notes["biases"].update({"3": torch.ones(5)}),
    "a bias of nothing": lambda notes: notes["biases"].update(nowhere=torch.ones(5)),
}


@pytest.mark.parametrize("how", MISFITS)
def test_notes_that_do_not_fit_the_network_are_one_error(how: str) -> None:
    ann, snn, x = converted(mode="max")
    MISFITS[how](snn.meta["ann2snn_conversion"])
    with pytest.raises(InputError, match="does not fit"):
        diagnose(ann, snn, [x], T, progress=False)
