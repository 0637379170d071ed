"""ONNX files inside of installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import nn

from sj_ann2snn import from_onnx


def network_of(package: str, *inside: str) -> nn.Module:
    """The network in a file of a package, which itself is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    return from_onnx(Path(found.origin).parent.joinpath(*inside))
