"""Runs files in ONNX Runtime, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import ExportError, FormatError

__all__ = ["first_states", "notes_of", "replay", "run"]

KEY = "sj_ann2snn"
"""The key of the metadata."""


def notes_of(path: str | PathLike[str]) -> dict[str, Any]:
    """What a file says about itself: its inputs, outputs, states and the layers' spikes.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, export
    >>> from sj_ann2snn_onnx import Onnx
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.onnx", Onnx())
    ...     notes = notes_of(Path(folder) / "network.onnx")
    >>> notes["inputs"], notes["outputs"], notes["spikes"]
    (['input'], ['output'], {'1': '1'})
    >>> notes["states"]
    [{'input': '1.v', 'output': '1.v.next', 'shape': [1, 3], 'dtype': 'float32', 'initial': 0.0}]

    Raises:
        FormatError: It is no ONNX file that sj-ann2snn wrote.
        OSError: It cannot be read.
    """
    return _notes(_loaded(Path(path)), path)


def first_states(path: str | PathLike[str], samples: int) -> dict[str, Any]:
    """The states before the first step, arrays by the names of the graph's inputs.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, export
    >>> from sj_ann2snn_onnx import Onnx
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], initial_potential=0.5, progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.onnx", Onnx())
    ...     first_states(Path(folder) / "network.onnx", samples=2)
    {'1.v': array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]], dtype=float32)}

    Args:
        path: A file of the exporter.
        samples: Number of samples in a batch.

    Raises:
        FormatError: It is no ONNX file that sj-ann2snn wrote.
        OSError: It cannot be read.
    """
    return _first(notes_of(path), samples)


def run(
    path: str | PathLike[str], inputs: Mapping[str, Any] | Sequence[Any], steps: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a file in ONNX Runtime, with the same inputs at every step.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, export
    >>> from sj_ann2snn_onnx import Onnx
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.onnx", Onnx())
    ...     outputs, spikes = run(Path(folder) / "network.onnx", [x[:5]], steps=20)
    >>> outputs["output"].shape, spikes["1"].shape
    ((20, 5, 3), (20, 5, 3))

    Args:
        path: A file of the exporter.
        inputs: Arrays or tensors ``[N, ...]``, by name or in order.
        steps: Number of time steps.

    Returns:
        The outputs of every step, ``[T, N, ...]``, by name; and what each layer of neurons emits, by label.

    Raises:
        ExportError: ONNX Runtime is not installed, or cannot run the file.
        FormatError: It is no ONNX file that sj-ann2snn wrote.
        OSError: It cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"{path} is run in ONNX Runtime, and the package onnxruntime is missing or broken ({error}). Install it: "
            "pip install onnxruntime"
        ) from error
    model = _loaded(Path(path))
    notes = _notes(model, path)
    _show(model, list(notes["spikes"].values()))
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return _steps(session, notes, inputs, steps)
    except Exception as error:  # ONNX Runtime has errors of many types
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise ExportError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {path} ({type(error).__name__}: {reason[:300]})"
        ) from error


def _steps(
    session: Any, notes: Mapping[str, Any], inputs: Mapping[str, Any] | Sequence[Any], steps: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    types = {one.name: one.type for one in session.get_inputs()}
    named = inputs if isinstance(inputs, Mapping) else dict(zip(notes["inputs"], inputs, strict=True))
    given = {name: _array(value, types[name]) for name, value in named.items()}
    states = _first(notes, len(next(iter(given.values()))))
    follow = {one["output"]: one["input"] for one in notes["states"]}
    names = list(dict.fromkeys([*notes["outputs"], *notes["spikes"].values(), *follow]))
    kept: dict[str, list[Any]] = {name: [] for name in names if name not in follow}
    for _ in range(steps):
        results = dict(zip(names, session.run(names, {**given, **states}), strict=True))
        states = {before: results[after] for after, before in follow.items()}
        for name, values in kept.items():
            values.append(results[name])
    return (
        {name: np.stack(kept[name]) for name in notes["outputs"]},
        {label: np.stack(kept[name]) for label, name in notes["spikes"].items()},
    )


def replay(path: Path, x: Tensor, steps: int) -> dict[str, Tensor]:
    """What the neurons and the output give at every step, for `check_export`."""
    with path.open("rb"):
        pass  # a missing file is an OSError that says so
    try:
        outputs, spikes = run(path, [x], steps)
        scales = notes_of(path).get("scales", {})
    except FormatError as error:
        raise ExportError(f"{path} cannot be run: {error}") from error
    found = {label: torch.from_numpy(values) for label, values in spikes.items()}
    if len(outputs) == 1 and "output" not in found:
        (name, values), *_ = outputs.items()
        found["output"] = torch.from_numpy(values * np.asarray(scales[name]) if name in scales else values)
    return found


def _loaded(path: Path) -> Any:
    import onnx

    content = path.read_bytes()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's
        raise FormatError(f"{path} is not an ONNX file ({type(error).__name__}).") from error


def _notes(model: Any, path: object) -> dict[str, Any]:
    found = {one.key: one.value for one in model.metadata_props}
    try:
        notes: dict[str, Any] = json.loads(found[KEY])
    except (KeyError, ValueError) as error:
        raise FormatError(
            f"{path} is an ONNX file, but not one that sj-ann2snn wrote: it does not say which inputs are states."
        ) from error
    return notes


def _first(notes: Mapping[str, Any], samples: int) -> dict[str, Any]:
    return {
        one["input"]: np.full((one["shape"][0] * samples, *one["shape"][1:]), one["initial"], one["dtype"])
        for one in notes["states"]
    }


def _show(model: Any, names: Sequence[str]) -> None:
    """Make results of the graph its outputs."""
    from onnx import helper

    known = {one.name for one in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)


def _array(value: Any, wanted: str) -> Any:
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}[wanted]
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value).astype(dtype)
