"""Plugin objects with one hook, and the plugins of this repository."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from sj_ann2snn import hookimpl

FOLDER = Path(__file__).resolve().parents[2] / "plugins"


def of_repository(name: str) -> ModuleType:
    """The plugin sj-ann2snn-`name`, installed or not; what lies in the checkout comes last on the path."""
    folder = str(FOLDER / f"sj-ann2snn-{name}")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"sj_ann2snn_{name}")


def plugin(hook: str, *classes: type) -> Any:
    """A plugin object with one hook that contributes `classes`."""

    def contribute() -> list[type]:
        return list(classes)

    contribute.__name__ = hook
    return SimpleNamespace(**{hook: hookimpl(contribute)})
