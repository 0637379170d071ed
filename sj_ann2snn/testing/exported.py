"""The contract of layers that a plugin declares in `exports`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..contracts.network_description import NetworkDescription, NodeDescription, qualified_type
from ..interchange import build, describe
from ..interchange.modules import build_layer, describe_layer
from .running import at_once, step_by_step

__all__ = ["assert_layer_comes_back", "assert_network_comes_back"]

Layers = tuple[type[nn.Module], ...]


def assert_layer_comes_back(module: nn.Module, exports: Layers, x_seq: Tensor) -> None:
    """A layer rebuilt from `export_options` computes the same, to the last bit.

    Skips the test for a layer that is not declared: a network with it cannot be written to a file, with an error.
    """
    if type(module) not in exports:
        pytest.skip(f"{type(module).__name__} is not in exports; a network with it cannot be written to a file")
    layer = describe_layer(module, _declared(exports))
    node = NodeDescription("layer", "layer", layer.operation, options=layer.options, tensors=layer.tensors)
    (read,) = _written_and_read(NetworkDescription("Network", (node,))).nodes
    again: Any = build_layer(read.operation, read.options, read.tensors, _declared(exports))
    out, wanted = at_once(again, x_seq), at_once(module, x_seq)
    assert torch.equal(out, wanted), f"{module!r} was exported as {layer.options}, but {again!r} gives other results"


def assert_network_comes_back(snn: nn.Module, exports: Layers, x: Tensor, steps: int = 12) -> None:
    """A network with such layers computes the same, to the last bit. Skips the test if nothing is declared."""
    if not exports:
        pytest.skip("the mapper declares no layers in exports")
    again = build(_written_and_read(describe(snn, _declared(exports))), _declared(exports))
    x_seq = x.expand(steps, *x.shape)
    out, wanted = step_by_step(again, x_seq), step_by_step(snn, x_seq)
    assert torch.equal(out, wanted), f"after export and loading, the network gives other results:\n{again}"


def _declared(exports: Layers) -> Mapping[str, type[nn.Module]]:
    return {qualified_type(cls): cls for cls in exports}


def _written_and_read(network: NetworkDescription) -> NetworkDescription:
    document, tensors = network.as_document()
    return NetworkDescription.from_document(json.loads(json.dumps(document)), tensors)
