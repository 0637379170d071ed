"""Runs NIR files in the programs that read them."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import ExportError

from ..targets import READERS

__all__ = ["MODULES", "missing", "replay"]

MODULES = {
    "sinabs": ("sinabs", "nirtorch"),
    "spikingjelly": ("spikingjelly.activation_based.nir_exchange", "nirtorch"),
    "spyx": ("spyx", "jax"),
    "snntorch": ("snntorch", "nirtorch"),
    "norse": ("norse", "nirtorch"),
}
"""The readers that can be run, and the packages that they need."""

DEFAULT = "sinabs"
"""The reader for files that are meant for none in particular."""

Run = Callable[[Any, Mapping[str, Any], Tensor, int], Mapping[str, Tensor]]


def missing(reader: str) -> str:
    """The package that a reader needs and that is not installed; empty if it can run."""
    for name in MODULES[reader]:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is None:
            return name
    return ""


def replay(path: Path, x: Tensor, steps: int, target: str | None) -> dict[str, Tensor]:
    """What the neurons in a file emit in another program, ``[T, N, ...]``, by the labels of the layers; and the output.

    Raises:
        ExportError: The reader cannot be run or is not installed, or cannot read the file.
    """
    import nir

    reader = target or DEFAULT
    if reader not in MODULES:
        raise ExportError(
            f"{READERS[reader].release} cannot run {path}: {READERS[reader].refuses or READERS[reader].differs}. Check "
            f"it with another target: {', '.join(MODULES)}"
        )
    lacking = missing(reader)
    if lacking:
        raise ExportError(
            f"{path} is checked in {READERS[reader].release}, which needs the package {lacking.partition('.')[0]}. "
            "Install it"
        )
    with path.open("rb"):
        pass  # a missing file is an OSError that says so
    graph = nir.read(str(path))
    neurons = {name: node for name, node in graph.nodes.items() if isinstance(node, nir.IF)}
    starts = {
        name: np.asarray(node.metadata["initial_potential"], np.float32)
        for name, node in neurons.items()
        if "initial_potential" in node.metadata
    }
    run: Run = importlib.import_module(f".{reader}", __name__).run
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the other program
            spikes = run(graph, starts, x.detach().cpu().float(), steps)
    except Exception as error:
        raise ExportError(
            f"{READERS[reader].release} cannot run {path} ({type(error).__name__}: {str(error)[:300]})"
        ) from error
    labels = {name: str(node.metadata.get("label", name)) for name, node in neurons.items()}
    return {labels.get(name, name): one for name, one in spikes.items()}
