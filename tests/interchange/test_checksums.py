"""Checksums in documents: what they cover, and which values they are computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sj_ann2snn import ExportError, FormatError, NetworkDescription, NodeDescription, NodeReference, export
from sj_ann2snn.builtin.exporters import Archive, Torch

from ..helpers.exports import small

X = NodeDescription("x", "input", label="x")
OUTPUT = NodeDescription("output", "output", args=(NodeReference("x"),))


def holding(tensor: Tensor) -> NetworkDescription:
    return NetworkDescription(
        "Net", (X, NodeDescription("c", "constant", label="c", tensors={"value": tensor}), OUTPUT)
    )


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


VALUES: dict[str, Tensor] = {
    "NaN with a payload": torch.tensor([0x7FC01234, 0x7F800001, -0x123], dtype=torch.int32).view(torch.float32),
    "negative zero": torch.tensor([-0.0, 0.0, float("-inf")]),
    "smallest": torch.tensor([5e-324, 2.0**-1074], dtype=torch.float64),
    "bfloat16": torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16),
    "float16": torch.tensor([65504.0, 6e-8], dtype=torch.float16),
    "float8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
    "complex": torch.tensor([1 + 2j, -0.0j]),
    "conjugate": torch.tensor([1 + 2j, 3j]).conj(),
    "negated": torch.tensor([1 + 2j, 3j]).conj().imag,
    "bool": torch.tensor([True, False]),
    "uint8": torch.arange(3, dtype=torch.uint8),
    "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    "int64": torch.tensor([-(2**63), 2**63 - 1]),
    "no dimension": torch.tensor(3.0),
    "no values": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "expanded": torch.ones(1, 2).expand(3, 2),
    "a view": torch.arange(1000.0)[7:9],
    "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize(
    "exporter", [Archive(), Archive(compress=True), Torch()], ids=["archive", "compressed", "torch"]
)
@pytest.mark.parametrize("name", VALUES)
def test_every_bit_comes_back(name: str, exporter: Any, tmp_path: Path) -> None:
    tensor = VALUES[name]
    exporter.export(holding(tensor), tmp_path / "network")
    found = exporter.load(tmp_path / "network").nodes[1].tensors["value"]
    assert (found.dtype, found.shape, type(found)) == (tensor.dtype, tensor.shape, Tensor)
    assert bits(found) == bits(tensor.detach().resolve_conj().resolve_neg())
    assert found.untyped_storage().nbytes() == found.numel() * found.element_size()


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(2, device="meta"), "the tensor 'c.value' is on the meta device, which holds no values"),
        (torch.eye(2).to_sparse(), "has the layout sparse_coo; call to_dense"),
    ],
)
def test_tensors_without_plain_values_are_refused(tensor: Tensor, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        holding(tensor).as_document()


def test_networks_without_values_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"1 \(Linear\): its weight is on the meta device, which holds no values"):
        export(small().to("meta"), tmp_path / "network.zip")
    assert not list(tmp_path.iterdir())


def test_any_program_can_compute_them() -> None:
    document, tensors = holding(torch.tensor([[1.0, 2.0]])).as_document()
    checksums = document["checksums"]
    values = np.array([[1.0, 2.0]], dtype="<f4").tobytes()
    assert checksums["tensors"] == {"c.value": hashlib.sha256(b"float32 1x2\n" + values).hexdigest()}
    covered = {
        key: document[key] for key in ("format", "version", "producer", "name", "readout", "nodes", "conversion")
    }
    text = json.dumps(covered | {"checksums": checksums["tensors"]}, sort_keys=True, separators=(",", ":"))
    assert checksums["document"] == hashlib.sha256(text.encode()).hexdigest()
    assert NetworkDescription.from_document(document | {"tensors": "a format's own"}, tensors).name == "Net"


CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "value": (lambda d, t: t.update({"c.value": torch.tensor([1.0, 3.0])}), "The checksum of the tensor 'c.value'"),
    "sign of zero": (lambda d, t: t.update({"c.value": torch.tensor([1.0, -0.0])}), "The checksum of the tensor 'c.value'"),
    "shape": (lambda d, t: t.update({"c.value": torch.tensor([[1.0, 0.0]])}), "The checksum of the tensor 'c.value'"),
    "dtype": (lambda d, t: t.update({"c.value": t["c.value"].view(torch.int32)}), "The checksum of the tensor 'c.value'"),
    "one more": (lambda d, t: t.update(more=torch.ones(1)), "Its tensors are not those of its document: 'more'"),
    "node": (lambda d, t: d["nodes"][1].update(label="d"), "The checksum of its document"),
    "type of a number": (lambda d, t: d["nodes"][1]["options"].update(parameter=0), "The checksum of its document"),
    "order": (lambda d, t: d["nodes"].insert(0, d["nodes"].pop(1)), "The checksum of its document"),
    "producer": (lambda d, t: d.update(producer="me"), "The checksum of its document"),
    "not JSON": (lambda d, t: d["nodes"][1]["options"].update(parameter=float("nan")), "The checksum of its document"),
    "checksum": (lambda d, t: d["checksums"]["tensors"].update({"c.value": "0"}), "The checksum of its document"),
    "none": (lambda d, t: d.pop("checksums"), "It holds no checksums"),
    "another form": (lambda d, t: d.update(checksums=[1]), "It holds no checksums"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_noticed(name: str) -> None:
    change, told = CHANGES[name]
    network = NetworkDescription(
        "Net",
        (X, NodeDescription("c", "constant", label="c", options={"parameter": False}, tensors={"value": torch.tensor([1.0, 0.0])}), OUTPUT),
    )  # fmt: skip
    document, tensors = network.as_document()
    change(document, tensors)
    with pytest.raises(FormatError, match=rf"{told}.* It was damaged or changed after it was written"):
        NetworkDescription.from_document(document, tensors)


def test_documents_of_version_1_have_none() -> None:
    document, tensors = holding(torch.ones(2)).as_document()
    del document["checksums"]
    document["version"] = 1
    assert NetworkDescription.from_document(document, tensors).nodes[1].label == "c"
