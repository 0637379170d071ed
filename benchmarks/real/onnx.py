"""ONNX files inside of installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import nn


def network_of(package: str, *inside: str) -> nn.Module:
    """The network in a file of a package, which itself is not imported."""
    from onnx2torch import convert

    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    network: nn.Module = convert(str(Path(found.origin).parent.joinpath(*inside))).eval()
    return network
