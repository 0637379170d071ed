"""The archive and its description are plain data, enough to simulate without torch."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import (
    ExportError,
    NetworkDescription,
    NodeDescription,
    NodeReference,
    export,
    load_network,
)

from ..helpers.exports import STEPS, images
from ..helpers.networks import convert, run_by_hand


def test_the_archive_is_enough_to_simulate_without_torch(tmp_path: Path) -> None:
    x = torch.rand(30, 6, dtype=torch.float64)
    ann = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5), nn.LeakyReLU(0.25), nn.Linear(5, 2)).double()
    snn = convert(ann, x, initial_potential=0.25)
    export(snn, tmp_path / "network.zip")
    with zipfile.ZipFile(tmp_path / "network.zip") as archive:
        document = json.loads(archive.read("network.json"))
        arrays = {name: np.load(io.BytesIO(archive.read(one["file"]))) for name, one in document["tensors"].items()}
    assert (document["format"], document["version"]) == ("sj-ann2snn", 3)
    potentials: dict[str, Any] = {}
    outputs = []
    for _ in range(STEPS):
        values: dict[str, Any] = {}

        def of(argument: Any, values: dict[str, Any] = values) -> Any:
            return values[argument["node"]]

        for node in document["nodes"]:
            tensors = {key: arrays[name] for key, name in node["tensors"].items()}
            name, operation, options = node["name"], node["operation"], node["options"]
            if node["kind"] == "input":
                values[name] = x.numpy()
            elif operation == "Linear":
                values[name] = of(node["args"][0]) @ tensors["weight"].T + tensors["bias"]
            elif operation == "IFNode":
                current = of(node["args"][0])
                v = potentials.get(name, options["initial_potential"]) + current
                values[name] = (v >= options["v_threshold"]).astype(current.dtype)
                assert options["v_reset"] is None
                potentials[name] = v - values[name] * options["v_threshold"]
            elif operation == "Scaler":
                values[name] = of(node["args"][0]) * tensors["scale"]
            elif operation == "operator.neg":
                values[name] = -of(node["args"][0])
            elif operation == "operator.sub":
                values[name] = of(node["args"][0]) - of(node["args"][1])
            else:
                assert node["kind"] == "output", operation
                outputs.append(of(node["args"][0]))
    np.testing.assert_allclose(np.stack(outputs), run_by_hand(snn, x, STEPS).numpy(), rtol=1e-12, atol=1e-12)


def test_the_archive_may_be_compressed(tmp_path: Path) -> None:
    snn = convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU()), images())
    with torch.no_grad():
        snn.get_submodule("1").weight.zero_()
    export(snn, tmp_path / "plain.zip")
    export(snn, tmp_path / "small.zip", compress=True)
    assert (tmp_path / "small.zip").stat().st_size < (tmp_path / "plain.zip").stat().st_size / 2
    assert torch.equal(load_network(tmp_path / "small.zip").get_submodule("1").weight, torch.zeros(64, 64))


def test_a_description_is_plain_data_that_survives_the_document() -> None:
    values = (
        None, True, 3, 0.5, float("inf"), "text", (1, (2,)), [1, [2]], {"a": (1, [2])}, slice(1, None), ..., 1 + 2j,
        torch.float16, torch.device("cpu"), torch.channels_last, NodeReference("x"), torch.Size([2, 3]),
    )  # fmt: skip
    node = NodeDescription("x", "function", "torch.flatten", args=values, kwargs={"nan": float("-inf")})
    network = NetworkDescription("Net", (node,), ("delayed", {"delay": 2}), "someone 1.0")
    document, tensors = network.as_document()
    again = NetworkDescription.from_document(json.loads(json.dumps(document, allow_nan=False)), tensors)
    assert again == network
    assert [type(one) for one in again.nodes[0].args[:-1]] == [type(one) for one in values[:-1]]
    with pytest.raises(ExportError, match="it holds .*object.* of type object, which cannot be written"):
        NetworkDescription("Net", (NodeDescription("x", "function", args=(object(),)),)).as_document()
