"""ONNX files inside of installed packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from torch import nn

from sj_ann2snn import from_onnx


def network_of(package: str, *inside: str) -> nn.Module:
    """The network in a file of a package, which itself is not imported; ImportError if something is not installed."""
    specs = {name: find_spec(name) for name in ("onnx", "onnx2pytorch", package)}
    for name, spec in specs.items():
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return from_onnx(Path(str(specs[package].origin)).parent.joinpath(*inside))
