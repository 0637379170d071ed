"""What cannot be loaded: changed archives, other files, unsafe pickles."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sj_ann2snn import (
    FormatError,
    export,
    load_network,
)

from ..helpers.exports import small


def archive_with(path: Path, change: Callable[[dict[str, Any]], Any], drop: str = "") -> Path:
    """An archive of version 1, which holds no checksums, with another document or without a member."""
    original = path / "original.zip"
    export(small(), original)
    changed = path / "changed.zip"
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "network.json":
                document = json.loads(content)
                document["version"] = 1
                del document["checksums"], document["conversion"]
                document["tensors"] = {key: one for key, one in document["tensors"].items() if ":" not in key}
                content = json.dumps(change(document) or document).encode()
            if name != drop:
                target.writestr(name, content)
    return changed


def node_of(document: dict[str, Any], operation: str) -> dict[str, Any]:
    return next(node for node in document["nodes"] if operation in (node["operation"], node["kind"]))


def setting(operation: str, /, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> None:
        node_of(document, operation).update(fields)

    return change


def without_output(document: dict[str, Any]) -> None:
    document["nodes"].pop()


def without_tensor(document: dict[str, Any]) -> None:
    document["tensors"].popitem()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(version=99), r"has version 99 of the format; .* reads versions up to 3. .*written by sj-ann2snn"),
        (lambda d: d.update(version="1"), "has version '1' of the format"),
        (lambda d: d.update(version=2), "It holds no checksums. It was damaged or changed"),
        (lambda d: d.update(checksums={"document": "0" * 64, "tensors": {}}), "The checksum of its document does not match"),
        (lambda d: d.update(format="onnx"), "does not hold a network that sj-ann2snn wrote"),
        (lambda d: d.update(nodes=None), "The document has None as nodes; it must be of type list"),
        (lambda d: d.update(name="no name"), "The network is called 'no name'"),
        (lambda d: d.update(readout={"name": 3, "options": {}}), "The readout has 3 as name"),
        (without_output, "A network must have exactly one output, as its last node"),
        (lambda d: d["nodes"].insert(0, 7), "Node 0 is 7, not an object"),
        (lambda d: d["nodes"].insert(0, d["nodes"][0]), "names must be unique"),
        (without_tensor, "lacks the tensor"),
        (setting("Linear", kind="thing"), "has the kind 'thing'. Allowed are input, constant"),
        (setting("Linear", label=None), "has None as label; it must be of type str"),
        (setting("Linear", operation="Linea"), r"The layer '1' is of the type 'Linea', which torch .* do not have"),
        (setting("Linear", operation="Module"), "is of the type 'Module'"),
        (setting("Linear", operation="Sequential"), "is of the type 'Sequential'"),
        (setting("Linear", operation="some_plugin.layers.Thing"), r"Install the distribution that provides the package 'some_plugin'"),
        (setting("Linear", options={"in_features": 64}), r"The layer '1' cannot be made with the options .*in_features"),
        (setting("Linear", options={"in_features": 5, "out_features": 4}), "size mismatch"),
        (setting("IFNode", options={"v_threshold": 1.0}), "The layer '2' cannot be made with the options"),
        (setting("Linear", sequences="0"), "has the sequences '0'; it must be a list of positions"),
        (setting("Linear", args=[{"node": "later"}]), "reads 'later', which is not an earlier node"),
        (setting("Linear", args=[{"code": "1+1"}]), "holds {'code': '1\\+1'}, which does not represent a value"),
        (setting("Linear", args=[{"dtype": "load"}]), "does not represent a value"),
        (setting("Linear", kwargs={"a b": 1}), "names must be identifiers"),
        (setting("Linear", label="forward"), "has the label 'forward', which is not a valid layer name"),
        (setting("Linear", label='x"), print("a'), "which is not a valid layer name"),
        (setting("Linear", label="3"), "or is already in use"),
        (setting("Linear", label="0.deeper"), "or is already in use"),
        (setting("input", label="x=print()"), "An input is called 'x=print\\(\\)'"),
        (setting("output", args=[]), "The output has 0 arguments; it must have one"),
        (setting("IFNode", kind="constant"), "The constant '2' has the tensors \\[\\]; allowed is value"),
        (setting("IFNode", kind="function", operation="torch.load"), "calls 'torch.load' with .* may only call operators and torch's functions"),
        (setting("IFNode", kind="function", operation="getattr"), "calls 'getattr'"),
        (setting("IFNode", kind="method", operation="__reduce__"), "calls '__reduce__', which is not a torch.Tensor method"),
    ],
)  # fmt: skip
def test_changed_archives_are_refused(change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"(?s)changed.zip cannot be read: .*{told}"):
        load_network(archive_with(tmp_path, change))


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none.zip cannot be read: No such file or directory"):
        load_network(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(FormatError, match="text.zip cannot be read: it is not an archive of a network .*BadZipFile"):
        load_network(tmp_path / "text.zip")
    for drop in ("network.json", "tensors/0.npy"):
        with pytest.raises(FormatError, match=f"it is not an archive of a network .*KeyError.*{drop}"):
            load_network(archive_with(tmp_path, lambda d: None, drop))
    with pytest.raises(FormatError, match="does not hold a network that sj-ann2snn wrote"):
        load_network(archive_with(tmp_path, lambda d: [1]))

    def as_objects(document: dict[str, Any]) -> None:
        next(iter(document["tensors"].values()))["dtype"] = "load"

    with pytest.raises(FormatError, match="'load' is not a dtype"):
        load_network(archive_with(tmp_path, as_objects))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_files_of_torch_are_loaded_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"document": Evil(), "tensors": {}}, "evil.pt")
    with pytest.raises(FormatError, match=r"evil.pt cannot be read: torch.load refuses it \(UnpicklingError"):
        load_network("evil.pt")
    array = np.empty(1, dtype=object)
    array[0] = Evil()
    evil = io.BytesIO()
    np.save(evil, array, allow_pickle=True)
    export(small(), "good.zip")
    with zipfile.ZipFile("good.zip") as source, zipfile.ZipFile("evil.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, evil.getvalue() if name.endswith(".npy") else source.read(name))
    with pytest.raises(FormatError, match="evil.zip cannot be read: it is not an archive of a network .*ValueError"):
        load_network("evil.zip")
    assert not Path("pwned").exists()
    torch.save({"weight": torch.ones(2)}, "weights.pt")
    with pytest.raises(FormatError, match="it is a torch file, but does not hold a network"):
        load_network("weights.pt")
    Path("text.pt").write_text("hello")
    with pytest.raises(FormatError, match=r"text.pt cannot be read: it is not a file of torch.save \(BadZipFile"):
        load_network("text.pt")
    with pytest.raises(FormatError, match="No such file"):
        load_network("none.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load("evil.pt", weights_only=True)
