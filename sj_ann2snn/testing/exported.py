"""What holds for the layers that a plugin declares in `exports`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..description import NetworkDescription, NodeDescription
from ..interchange.modules import build_layer, describe_layer, qualified_type
from .running import at_once

__all__ = ["assert_comes_back"]


def assert_comes_back(module: nn.Module, exports: tuple[type[nn.Module], ...], x_seq: Tensor) -> None:
    """A layer made anew from what `export_options` says does the same, to the last bit.

    Skips the test for a layer that is not declared: networks with it cannot be written to a file, and say so.
    """
    if type(module) not in exports:
        pytest.skip(f"{type(module).__name__} is not in exports; a network with it cannot be written to a file")
    declared = {qualified_type(cls): cls for cls in exports}
    layer = describe_layer(module, declared)
    node = NodeDescription("layer", "layer", layer.operation, options=layer.options, tensors=layer.tensors)
    document, tensors = NetworkDescription("Network", (node,)).as_document()
    (read,) = NetworkDescription.from_document(json.loads(json.dumps(document)), tensors).nodes
    again: Any = build_layer(read.operation, read.options, read.tensors, declared)
    out, wanted = at_once(again, x_seq), at_once(module, x_seq)
    assert torch.equal(out, wanted), f"{module!r} was written down as {layer.options}, and {again!r} does otherwise"
