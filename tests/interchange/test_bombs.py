"""Small files that claim, or unpack to, far more than they hold: all are refused, quickly and in little memory."""

from __future__ import annotations

import io
import json
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sj_ann2snn import ExportError, FormatError, NetworkDescription, NodeDescription, NodeReference, load_network
from sj_ann2snn.builtin import exporters, zip_members
from sj_ann2snn.builtin.exporters import Archive
from sj_ann2snn.contracts import limits
from sj_ann2snn.interchange import build

Node = dict[str, Any]


@pytest.fixture(autouse=True)
def small_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower limits, so that the tests are fast."""
    if "nightly" in request.keywords:
        return
    monkeypatch.setattr(limits, "MOST_NODES", 1000)
    monkeypatch.setattr(limits, "MOST_VALUES", 20_000)
    monkeypatch.setattr(zip_members, "ALWAYS_ALLOWED", 1 << 22)
    monkeypatch.setattr(exporters, "LONGEST_DOCUMENT", 1 << 20)


def node(name: str, kind: str, operation: str = "", args: Any = (), options: Any = None, **fields: Any) -> Node:
    return {
        "name": name, "kind": kind, "operation": operation, "label": name, "args": list(args), "kwargs": {},
        "options": options or {}, "tensors": {}, "sequences": None, **fields,
    }  # fmt: skip


def document(*nodes: Node, **fields: Any) -> dict[str, Any]:
    """A document of version 1, which holds no checksums, around some nodes."""
    last = nodes[-1]["name"] if nodes else "x"
    every = [node("x", "input"), *nodes, node("output", "output", args=[{"node": last}])]
    head = {"format": "sj-ann2snn", "version": 1, "producer": "a test", "name": "Net", "readout": None}
    return head | {"nodes": every, "tensors": {}} | fields


def layer(operation: str, **options: Any) -> dict[str, Any]:
    return document(node("layer", "layer", operation, [{"node": "x"}], options))


def with_tensor(shape: Any, dtype: Any = "float32", place: Any = "tensors/0.npy") -> dict[str, Any]:
    return document(tensors={"a": {"file": place, "dtype": dtype, "shape": shape}})


def npy(values: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


FOUR = ("tensors/0.npy", npy(np.zeros(4, np.float32)))


def archive(
    path: Path, content: Any, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, flags: int = 0
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        with zipfile.ZipFile(path, "w", method) as written:
            written.writestr("network.json", content if isinstance(content, str) else json.dumps(content))
            for name, data in members:
                written.writestr(name, data)
    if flags:
        raw = bytearray(path.read_bytes())
        raw[6] |= flags
        raw[raw.index(b"PK\x01\x02") + 8] |= flags
        path.write_bytes(raw)


def large_zeros(path: Path, shape: Any, megabytes: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("network.json", json.dumps(with_tensor(shape)))
        with written.open("tensors/0.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
                file, {"descr": "<f4", "fortran_order": False, "shape": (megabytes << 18,)}
            )
            for _ in range(megabytes):
                file.write(bytes(1 << 20))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"list": [value]}
    return value


ARCHIVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "unpacks to more than it may": (lambda p: large_zeros(p, [20 << 18], 20), "its members have 20,9.* bytes; a file of"),
    "unpacks to more than it says": (lambda p: large_zeros(p, [4], 3), "has 3,145,.* bytes, which is not what"),
    "document": (lambda p: archive(p, "[" + "0," * (1 << 20) + "0]"), "its document has more than 1,048,576 bytes"),
    "one member for many tensors": (
        lambda p: archive(p, document(tensors={f"t{i}": {"file": "tensors/0.npy", "dtype": "float32", "shape": [4]} for i in range(40)}), FOUR),
        "two of its tensors are in the same member",
    ),
    "layers in a layer": (lambda p: archive(p, layer("RNN", input_size=1, hidden_size=1, num_layers=10**6)), "'layer' cannot be made .*more tensors than are given"),
    "layers in a transformer": (lambda p: archive(p, layer("Transformer", d_model=8, nhead=2, num_encoder_layers=10**6)), "more tensors than are given"),
    "clusters": (lambda p: archive(p, layer("AdaptiveLogSoftmaxWithLoss", in_features=4096, n_classes=10**6, div_value=1.0, cutoffs={"list": list(range(4096, 9000))})), "more tensors than are given"),
    "a large layer": (lambda p: archive(p, layer("Linear", in_features=10**12, out_features=10**12)), "'layer' cannot be made"),
    "a negative layer": (lambda p: archive(p, layer("Linear", in_features=-3, out_features=2)), "'layer' cannot be made"),
    "nodes": (lambda p: archive(p, document(*[node(f"n{i}", "layer", "ReLU", [{"node": "x"}]) for i in range(1001)])), "holds more than 1,000 nodes"),
    "nested JSON": (lambda p: archive(p, json.dumps(document()).replace("[]", "[" * 1000 + "]" * 1000, 1)), "(RecursionError|nested more than 100 levels)"),
    "nested values": (lambda p: archive(p, document(node("f", "function", "torch.flatten", [{"node": "x"}, nested(60)]))), "nested more than 100 levels deep"),
    "LZMA": (lambda p: archive(p, document(), method=zipfile.ZIP_LZMA), "compressed by a method that this format does not use"),
    "bzip2": (lambda p: archive(p, document(), method=zipfile.ZIP_BZIP2), "compressed by a method that this format does not use"),
    "encrypted": (lambda p: archive(p, document(), flags=1), "its member 'network.json' is encrypted"),
    "two documents": (lambda p: archive(p, document(), ("network.json", b"{}")), "it holds two members called 'network.json'"),
    "an absolute path": (lambda p: archive(p, document(), ("/etc/passwd", b"")), "its member '/etc/passwd' lies outside the archive"),
    "a path upwards": (lambda p: archive(p, document(), ("a/../../b", b"")), "lies outside the archive"),
    "another shape": (lambda p: archive(p, with_tensor([2, 3]), FOUR), r"does not hold float32 \[2, 3\]"),
    "the same size": (lambda p: archive(p, with_tensor([2, 2]), FOUR), r"does not hold float32 \[2, 2\]"),
    "a negative shape": (lambda p: archive(p, with_tensor([-2, -2]), FOUR), r"\[-2, -2\] is not a shape"),
    "a huge shape": (lambda p: archive(p, with_tensor([2**62, 2**62]), FOUR), "which is not what"),
    "a shape of text": (lambda p: archive(p, with_tensor(["4"]), FOUR), "is not a shape"),
    "no shape": (lambda p: archive(p, with_tensor(None), FOUR), "it is not an archive of a network"),
    "another dtype": (lambda p: archive(p, with_tensor([4], "int32"), FOUR), "tensors/0.npy does not hold int32"),
    "a quantized dtype": (lambda p: archive(p, with_tensor([4], "qint8"), FOUR), "does not hold qint8"),
    "no dtype": (lambda p: archive(p, with_tensor([4], "load"), FOUR), "'load' is not a dtype"),
    "a number for a dtype": (lambda p: archive(p, with_tensor([4], 3), FOUR), "it is not an archive of a network"),
    "a list for a file": (lambda p: archive(p, with_tensor([4], place=["a"]), FOUR), "it is not an archive of a network"),
    "another archive": (lambda p: archive(p, with_tensor([4]), ("tensors/0.npy", b"PK\x03\x04" + bytes(140))), "it is not an archive of a network"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path) -> None:
    write, told = ARCHIVES[name]
    path = tmp_path / "network.zip"
    write(path)
    refused(path, told)


def refused(path: Path, told: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=rf"(?s)^{path} cannot be read: .*{told}") as caught:
            load_network(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 2000


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def doubling(times: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(times):
        value = [value, value]
    return value


TORCH_FILES: dict[str, tuple[Callable[[], Any], str]] = {
    "an expanded tensor": (lambda: {"document": document(), "tensors": {"a": torch.ones(1).expand(1 << 40)}}, "its tensors have 4,398,046,511,104 bytes, the file"),
    "one tensor for many": (lambda: {"document": document(), "tensors": dict.fromkeys(map(str, range(40)), torch.ones(1 << 16))}, "its tensors have 10,485,760 bytes, the file"),
    "a meta tensor": (lambda: {"document": document(), "tensors": {"a": torch.ones(1, device="meta")}}, "'a' is not a dense tensor"),
    "a sparse tensor": (lambda: {"document": document(), "tensors": {"a": torch.eye(3).to_sparse()}}, "torch.load refuses it|not a dense tensor"),
    "a number": (lambda: {"document": document(), "tensors": {"a": 3}}, "'a' is not a dense tensor"),
    "a list": (lambda: {"document": document(), "tensors": [1]}, "it does not hold the tensors of a network"),
    "nodes that hold themselves": (lambda: {"document": document(nodes=cyclic()), "tensors": {}}, "nested more than 100 levels deep"),
    "nodes that double": (lambda: {"document": document(nodes=[doubling(40)]), "tensors": {}}, "holds more than 20,000 values"),
    "a tensor for nodes": (lambda: {"document": document(nodes=torch.ones(2)), "tensors": {}}, "as nodes; it must be of type list"),
    "no names": (lambda: {"document": document(checksums={1: 2, "tensors": {}}), "tensors": {3: torch.ones(1)}}, "checksum of its document"),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH_FILES)
def test_torch_files(name: str, tmp_path: Path) -> None:
    content, told = TORCH_FILES[name]
    path = tmp_path / "network.pt"
    torch.save(content(), path)
    refused(path, told)


def test_compressed_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.save({"document": document(), "tensors": {"a": torch.zeros(1 << 20)}}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused(path, "compressed by a method that this format does not use")
    torch.save({"document": document(), "tensors": {}}, path, _use_new_zipfile_serialization=False)
    refused(path, "it is not a file of torch.save")


def test_what_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    x, output = NodeDescription("x", "input", label="x"), NodeDescription("o", "output", args=(NodeReference("x"),))
    zeros = NodeDescription("c", "constant", label="c", tensors={"value": torch.zeros(2 << 20)})
    with pytest.raises(ExportError, match="write it with compress=False"):
        Archive(compress=True).export(NetworkDescription("Net", (x, zeros, output)), tmp_path / "network.zip")
    assert not list(tmp_path.iterdir())
    many = [NodeDescription(f"n{i}", "method", "neg", args=(NodeReference("x"),)) for i in range(1000)]
    with pytest.raises(ExportError, match="holds more than 1,000 nodes, and no reader would take it"):
        NetworkDescription("Net", (x, *many, output)).as_document()


def test_placing_layers_takes_time_in_proportion() -> None:
    nodes = [NodeDescription("x", "input", label="x")]
    nodes += [
        NodeDescription(f"n{i}", "layer", "ReLU", f"a.b{i}.c", (NodeReference(nodes[-1].name),)) for i in range(3000)
    ]
    network = NetworkDescription("Net", (*nodes, NodeDescription("o", "output", args=(NodeReference("x"),))))
    assert len(build(network, {}).graph.nodes) == 3002


@pytest.mark.nightly
def test_the_largest_network_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "network.zip"
    archive(path, document(*[node(f"n{i}", "layer", "ReLU", [{"node": "x"}]) for i in range(99_998)]))
    assert len(load_network(path).graph.nodes) == 100_000
