"""The conformance kit itself: it lets sound plugins pass, and every bad one fails for its own reason."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import pytest

from sj_ann2snn import testing
from sj_ann2snn.hooks import kinds

from . import faulty_plugins

BAD = {
    name: cls
    for name, cls in vars(faulty_plugins).items()
    if isinstance(cls, type) and issubclass(cls, testing.PluginTests) and name.startswith("Test")
}


KINDS = {kind.__name__: kind for kind in testing.PluginTests.__subclasses__()}

FEWER = """
KEPT = {"test_tiles_and_threads_change_nothing": "1-2]", "test_stops_samples_in_an_evaluation": "[3000]"}


def pytest_collection_modifyitems(items):
    for item in list(items):
        if item.cls.meant and not item.name.endswith(KEPT.get(item.originalname, "")):
            items.remove(item)
"""
"""A faulty plugin fails with tiles of one size or not at all; the sound ones run with all sizes."""


def failures(kind: type[testing.PluginTests], folder: Path) -> dict[str, dict[str, str]]:
    """For every class of `faulty_plugins.py` of one kind the tests that failed, with what they said."""
    report = folder / "report.xml"
    source = folder / "test_faulty_plugins.py"
    source.write_text(Path(faulty_plugins.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "conftest.py").write_text(FEWER, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    classes = [f"{source.name}::{name}" for name, cls in BAD.items() if issubclass(cls, kind)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *classes]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        owner = case.attrib["classname"].rpartition(".")[2]
        found[owner]  # also where nothing fails
        assert case.find("error") is None, ElementTree.tostring(case, encoding="unicode")
        failure = case.find("failure")
        if failure is not None:
            found[owner][case.attrib["name"].partition("[")[0]] = failure.attrib["message"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_found_by_the_test_that_is_meant_for_it(kind: str, tmp_path: Path) -> None:
    found = failures(KINDS[kind], tmp_path)
    assert set(found) == {name for name, cls in BAD.items() if issubclass(cls, KINDS[kind])}
    sound = [name for name in found if BAD[name].meant is None]
    assert sound, "at least one plugin of each kind is sound"
    for name, failed in found.items():
        cls, also = BAD[name], getattr(BAD[name], "also", ())
        if cls.meant is None:
            assert not failed, name
        elif also == faulty_plugins.EVERYTHING:
            assert cls.meant in failed, name
        else:
            expected = {cls.meant, *also}
            assert expected <= set(failed) <= expected.union(getattr(cls, "perhaps", ())), f"{name}: {failed}"


def test_every_fault_is_of_one_kind() -> None:
    assert BAD
    assert all(sum(issubclass(cls, kind) for kind in KINDS.values()) == 1 for cls in BAD.values())


def test_every_test_of_the_kit_can_fail() -> None:
    meant = {cls.meant for cls in BAD.values()}
    assert len(KINDS) == len(kinds.KINDS)
    for kind in KINDS.values():
        tests = {name for name in dir(kind) if name.startswith("test_")}
        also = {name for cls in BAD.values() if issubclass(cls, kind) for name in getattr(cls, "also", ())}
        assert tests - meant - also <= NOT_MEANT, kind


NOT_MEANT = {
    # Loading refuses this as well; tests/hooks/test_discovery.py tests that.
    "test_is_what_its_hook_returns",
    "test_the_plugin_contributes_it",
    # They fail with whatever is wrong in a network.
    "test_is_known_by_name",
    "test_network_has_both_step_modes",
    "test_tiles_and_threads_change_nothing",
    "test_settled_samples_can_leave",
    "test_network_can_be_copied_and_stored",
}
