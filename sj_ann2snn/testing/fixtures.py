"""Fixtures for tests of plugins: isolated plugins, and distributions that look installed.

In a `conftest.py`::

    pytest_plugins = ["sj_ann2snn.testing.fixtures"]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ..hooks import discovery
from ..hooks.registry import CALLER, Registry
from ..hooks.specs import PROJECT
from ..hooks.validation import register_plugin

__all__ = ["FakeDistributions", "fake_distributions", "isolated_plugins", "registered"]


def registered(*plugins: Any) -> Registry:
    """A registry with only `plugins`, without the built-ins.

    >>> import sj_ann2snn.builtin.exits
    >>> [one.name for one in registered(sj_ann2snn.builtin.exits).classes["ann2snn_exit_rules"]]
    ['margin']

    Raises:
        PluginError: A plugin breaks the contract of its hooks.
    """
    registry = Registry()
    for plugin in plugins:
        register_plugin(registry, plugin, CALLER)
    return registry


class FakeDistributions:
    """Distributions, each written to its own folder, which is put on the path of this process.

    Args:
        root: Folder to write them to.
        monkeypatch: Removes them from the path again.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch

    def add(
        self,
        name: str,
        source: str,
        *,
        version: str = "1.0",
        folder: str | None = None,
        entry_points: Mapping[str, str] | None = None,
    ) -> Path:
        """Install `source` as the only module of a distribution, with the distribution's name.

        Args:
            name: Name of the distribution.
            source: Source of the module.
            version: Version of the distribution.
            folder: Folder under the root; by default, the name.
            entry_points: Entry points of the group `sj_ann2snn`; by default, ``plugin`` names the module.

        Returns:
            The folder, which is now on the path.
        """
        module = name.replace("-", "_")
        place = self.root / (folder or name)
        info = place / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (place / f"{module}.py").write_text(source, encoding="utf-8")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        lines = "".join(f"{key} = {value}\n" for key, value in (entry_points or {"plugin": module}).items())
        (info / "entry_points.txt").write_text(f"[{PROJECT}]\n{lines}", encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(place))
        self.reload()
        return place

    def reload(self) -> None:
        """Let the next search for plugins find the current distributions."""
        importlib.invalidate_caches()
        discovery.forget_plugins()

    def unload(self) -> None:
        """Have Python import the modules of these distributions anew."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.root)):
                del sys.modules[name]

    def owners(self, registry: Registry) -> set[str]:
        """The distributions made here that contributed something to `registry`."""
        found = {one.owner.distribution for classes in registry.classes.values() for one in classes}
        return {name for name in found if (self.root / name).is_dir()}


@pytest.fixture
def isolated_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search for plugins again, forget what a test loaded, and clear the environment variables that disable plugins."""
    monkeypatch.delenv(discovery.ALLOW_VARIABLE, raising=False)
    monkeypatch.delenv(discovery.DENY_VARIABLE, raising=False)
    discovery.forget_plugins()
    yield
    discovery.forget_plugins()


@pytest.fixture
def fake_distributions(
    isolated_plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeDistributions]:
    """Plugin distributions that look installed while the test runs."""
    distributions = FakeDistributions(tmp_path, monkeypatch)
    yield distributions
    distributions.unload()
