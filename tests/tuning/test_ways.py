"""What plugins offer is tried as they mean it, without being told: suggestions, corrections, readouts, all steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    Correction,
    CorrectionError,
    Max,
    OptionError,
    Readout,
    Trial,
    Tuning,
    hookimpl,
    tune,
)
from sj_ann2snn.hooks.discovery import load_plugins
from sj_ann2snn.tuning.candidates import Candidate
from sj_ann2snn.tuning.measuring import Measurements
from sj_ann2snn.tuning.space import Space

from ..helpers.networks import GradedMaker

STEPS = 12


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)]
    for layer in layers[::2]:
        nn.init.orthogonal_(layer.weight, gain=1.4)
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def data(ann: nn.Module) -> list[Any]:
    x = torch.rand(300, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        return [(part, ann(part).argmax(1)) for part in x.split(50)]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Candidate, int]]:
    """Every candidate that is measured, with the numbers of steps."""
    seen: list[tuple[Candidate, int]] = []
    record = Measurements.record

    def noted(self: Measurements, candidate: Candidate, counts: Any, *more: Any) -> Any:
        seen.append((candidate, max(counts)))
        return record(self, candidate, counts, *more)

    monkeypatch.setattr(Measurements, "record", noted)
    return seen


def search(ann: nn.Module, data: Any, max_drop: float = 6.0, **arguments: Any) -> Tuning:
    return tune(ann, data, max_drop, **{"T": STEPS, "progress": False, "samples": 300, "layers": False, **arguments})


class Sixteenths(GradedMaker):
    """Known to the mode that suggests it only."""

    name = "sixteenths"

    def __init__(self, *, T: int = 4, levels: int = 16) -> None:  # noqa: N803
        super().__init__(levels=levels)
        self.T = T


class Fine(Max):
    """Suggests everything that it is best used with."""

    name = "fine"
    suggests: ClassVar[dict[str, Any]] = {"channel_wise": True, "neuron": Sixteenths, "no_such_option": 1}


class OfPlainNeurons(Correction):
    """Refuses other neurons."""

    name = "of-plain-neurons"

    def correct(self, trial: Trial) -> None:
        if not all(site.binary for site in trial.sites):
            raise CorrectionError("These are no plain neurons.")


class Patient(Max):
    """Made for a number of steps, and for all from `earliest` on if asked."""

    name = "patient"
    suggests: ClassVar[dict[str, Any]] = {"initial_potential": 0.5}
    anytime: ClassVar[dict[str, Any]] = {"earliest": 2}

    def __init__(self, *, T: int = 8, earliest: int | None = None) -> None:  # noqa: N803
        if T < 3:
            raise OptionError("It is for 3 steps or more.")
        self.T, self.earliest = T, earliest


def plugin(*classes: Any) -> SimpleNamespace:
    found = SimpleNamespace()
    for base, hook in (
        (Correction, "corrections"),
        (GradedMaker, "neurons"),
        (Max, "normalizations"),
        (Readout, "readouts"),
    ):
        own = [cls for cls in classes if issubclass(cls, base)]
        if own:
            setattr(found, f"ann2snn_{hook}", hookimpl(lambda own=own: own))
    return found


def test_a_mode_is_tried_with_the_neuron_that_it_suggests(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, plugins=[plugin(Fine)])
    assert found.arguments["mode"] == "fine"
    assert "neuron" not in found.arguments
    assert found.T < search(ann, data, plugins=[plugin(Fine)], neuron="if").T


def test_a_correction_is_tried_with_the_best_neuron_that_it_takes(
    ann: nn.Module, data: list[Any], tried: list[tuple[Candidate, int]]
) -> None:
    found = search(ann, data, plugins=[plugin(Fine, OfPlainNeurons)])
    assert found.arguments["mode"] == "fine"
    modes = [one.arguments["mode"] for one, _ in tried if one.arguments.get("corrections") == "of-plain-neurons"]
    assert modes[0] == "fine"  # the best one, whose neuron is refused
    assert list(dict.fromkeys(modes)) == ["fine", "max"]


def test_a_readout_with_nothing_to_tune_is_tried_if_it_says_so(
    ann: nn.Module, data: list[Any], tried: list[tuple[Candidate, int]]
) -> None:
    search(ann, data)
    names = [one.readout[0] for one, _ in tried if one.readout is not None]
    assert {"recent", "delayed", "exponential"} == set(names)


def test_one_network_for_all_steps_is_measured_at_all_of_them(
    ann: nn.Module, data: list[Any], tried: list[tuple[Candidate, int]]
) -> None:
    found = search(ann, data, 30.0, plugins=[plugin(Patient)], mode="patient", channel_wise=False)
    assert found.reached
    several = {one for one, _ in tried if "earliest" in one.arguments}
    assert several
    assert several == {one for one, _ in tried if "T" in one.arguments}
    some = next(iter(several))
    measurements = Measurements(ann, load_plugins([plugin(Patient)]), "steps", given={"plugins": [plugin(Patient)]})
    assert sorted(measurements.record(some, [5], [data[0][0]], data).points) == [1, 2, 3, 4, 5]
    assert measurements.trials == 1
    assert measurements.arguments(some, 5)["T"] == some.arguments["T"]


def test_what_refuses_few_steps_is_tried_with_more(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, 100.0, plugins=[plugin(Patient)], mode="patient", budget="steps")
    assert 1 <= found.T <= 3
    planned = [point for point in found.frontier if "earliest" not in point.call]
    assert all(point.T >= 3 for point in planned)
    assert not any("3 steps or more" in reason for reason in found.failures.values())


def test_no_conversion_is_tried_under_two_names() -> None:
    space = Space(load_plugins([plugin(Fine, Patient)]), {})
    fine, patient = (
        next(one for one in space.suggested() if one.arguments["mode"] == name) for name in ("fine", "patient")
    )
    assert fine.arguments == {"mode": "fine"}
    assert space.neuron(fine) == "sixteenths"
    # What a mode suggests goes along to another mode, and is not said where that suggests it as well.
    modes = {one.arguments["mode"]: one.arguments for one in space.modes(fine)}
    assert modes["max"] == {"mode": "max", "channel_wise": True, "neuron": "sixteenths"}
    assert modes["fine"] == {"mode": "fine"}
    back = {one.arguments["mode"]: one for one in space.modes(patient)}
    assert back["99.9%"].arguments == {"mode": "99.9%", "initial_potential": 0.5}
    assert {one.arguments["mode"]: one for one in space.modes(back["99.9%"])}["patient"] == patient
    assert back["fine"].arguments == {"mode": "fine", "neuron": "if", "initial_potential": 0.5}
    (one,) = space.anytime(patient, 9)
    assert one.arguments == {"mode": "patient", "earliest": 2, "T": 9}
    assert {one.arguments["mode"]: one for one in space.modes(one)}["max"].arguments == {
        "mode": "max",
        "initial_potential": 0.5,
    }
    assert space.anytime(fine, 9) == []
