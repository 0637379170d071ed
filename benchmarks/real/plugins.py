"""The plugins of this repository that the networks need, out of the checkout where they are not installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "plugins"
NAMES = ("analog", "calibration", "differential")


def plugins() -> list[ModuleType]:
    """For `Converter(plugins=...)`. What lies in the checkout comes last on the path."""
    for name in NAMES:
        folder = str(FOLDER / f"sj-ann2snn-{name}")
        if folder not in sys.path:
            sys.path.append(folder)
    return [importlib.import_module(f"sj_ann2snn_{name}") for name in NAMES]
