"""The description of a network inside a NIR file: a JSON document, and where its tensors are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import ExportError, FormatError, NetworkDescription

from .signals import Translation
from .targets import Reader

__all__ = ["read_document", "write_document"]

KEY = "sj_ann2snn"
"""Its place in the metadata of the graph."""

LEAST_BYTES = 256 * 2**20
"""A file may hold so much after unpacking, or `TIMES` its size."""

TIMES = 100


def write_document(network: NetworkDescription, translation: Translation, reader: Reader) -> dict[str, Any]:
    """The metadata of the graph.

    A tensor that a node holds as it is, is not stored a second time: its place is the name of the node and the field.
    """
    document, tensors = network.as_document()
    places: dict[str, tuple[str, list[int]]] = {}
    beside: dict[str, Any] = {}
    for name, tensor in tensors.items():
        node = translation.holds(name, tensor)
        if node is None:
            beside[str(len(beside))] = _array(name, tensor).reshape(-1)  # nir writes no array without dimensions
        place = f"metadata/{KEY}/tensors/{len(beside) - 1}" if node is None else node
        places[name] = (place, list(tensor.shape))
    return {
        "document": json.dumps({"network": document, "places": places}),
        "target": reader.name,
        "reader": reader.release,
        "dt": reader.dt,
        "reset": "subtract: a neuron that fires loses v_threshold, whatever v_reset says",
        **({"tensors": beside} if beside else {}),
    }


def read_document(path: Path) -> NetworkDescription:
    """The network in a file of `write_document`.

    Raises:
        FormatError: The file is damaged, or sj-ann2snn has not written it.
    """
    import h5py

    with path.open("rb"):
        pass  # a missing file is an OSError that says so; h5py's are messages of its own
    most = max(LEAST_BYTES, TIMES * path.stat().st_size)
    with _damage("it is not a NIR file"), h5py.File(path, "r") as file:
        root = file["node"]
        if KEY not in root.get("metadata", {}):
            raise FormatError(
                "it is a NIR file, but sj-ann2snn did not write it: it does not say how the network was converted."
            )
        found = json.loads(_value(root[f"metadata/{KEY}/document"], most))
        tensors: dict[str, Tensor] = {}
        for name, (place, shape) in found["places"].items():
            array = _value(root[place], most)
            most -= array.nbytes
            tensors[name] = torch.from_numpy(np.array(array)).reshape(shape)
        return NetworkDescription.from_document(found["network"], tensors)


def _value(dataset: Any, most: int) -> Any:
    """The content of a dataset that claims at most so many bytes."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is stored in another file")
    if dataset.size is None or dataset.size * dataset.dtype.itemsize > most:
        raise ValueError(f"{dataset.name} claims to hold more than {most:,} bytes")
    value = dataset[()]
    return np.asarray(value) if not isinstance(value, bytes) else value


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn whatever a reader meets in a file into a `FormatError`: files are not this plugin's fault."""
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise FormatError(f"{what} ({type(error).__name__}: {reason[:200]}).") from error


def _array(name: str, tensor: Tensor) -> Any:
    try:
        return tensor.detach().contiguous().numpy()
    except TypeError as error:
        raise ExportError(
            f"its {name} is {tensor.dtype}, which HDF5 lacks; convert the network in float32 (snn.float())"
        ) from error
