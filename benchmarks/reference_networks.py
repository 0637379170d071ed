"""The trained reference networks: a folder that the user names holds them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

__all__ = ["DEFINITIONS", "VARIABLE", "reference_network"]

VARIABLE = "SJ_ANN2SNN_SHARED"
"""Environment variable that names the folder."""

DEFINITIONS = "models/reference_models.py"
"""Its function ``make(name)`` makes a network; the weights lie beside it, ``NAME.pth``."""


def reference_network(shared: Path, name: str) -> nn.Module:
    """The trained network of that name, in eval mode."""
    file = shared / DEFINITIONS
    spec = importlib.util.spec_from_file_location("reference_models", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.make(name)
    network.load_state_dict(torch.load(file.with_name(f"{name}.pth"), weights_only=True, map_location="cpu"))
    return network.eval()
