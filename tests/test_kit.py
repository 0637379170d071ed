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
from sj_ann2snn.hooks.registry import HOOK_BASES

from . import bad_plugins

BAD = {
    name: cls
    for name, cls in vars(bad_plugins).items()
    if isinstance(cls, type) and issubclass(cls, testing.PluginTests) and name.startswith("Test")
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """For every class of `bad_plugins.py` the tests that failed, with what they said."""
    folder = tmp_path_factory.mktemp("kit")
    report = folder / "report.xml"
    source = folder / "test_bad_plugins.py"
    source.write_text(Path(bad_plugins.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", source.name]
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


@pytest.mark.parametrize("name", BAD)
def test_every_fault_is_found_by_the_test_that_is_meant_for_it(name: str, failures: dict[str, dict[str, str]]) -> None:
    cls = BAD[name]
    failed = failures[name]
    if cls.meant is None:
        assert not failed
        return
    assert cls.meant in failed
    also = getattr(cls, "also", ())
    if also != bad_plugins.EVERYTHING:
        assert set(failed) == {cls.meant, *also}


def test_every_test_of_the_kit_can_fail() -> None:
    meant = {cls.meant for cls in BAD.values()}
    kinds = testing.PluginTests.__subclasses__()
    assert len(kinds) == len(HOOK_BASES)
    for kind in kinds:
        tests = {name for name in dir(kind) if name.startswith("test_")}
        also = {name for cls in BAD.values() if issubclass(cls, kind) for name in getattr(cls, "also", ())}
        assert tests - meant - also <= NOT_MEANT, kind


NOT_MEANT = {
    # What loading refuses as well, and tests/test_plugin_loading.py goes through.
    "test_is_what_its_hook_returns",
    "test_the_plugin_contributes_it",
    # They fail with whatever is wrong in a network.
    "test_is_known_by_name",
    "test_network_has_both_step_modes",
    "test_tiles_and_threads_change_nothing",
    "test_settled_samples_can_leave",
    "test_network_can_be_copied_and_stored",
}
