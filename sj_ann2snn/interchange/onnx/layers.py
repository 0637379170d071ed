"""Operators that become a layer of torch, or a function of torch with fixed arguments.

onnx2pytorch computes most of these in Python when the network runs, which torch.fx would have to follow.
"""

from __future__ import annotations

from .activation_layers import ACTIVATION_LAYERS
from .call import Call, Made, Varies
from .model import Graph, Node
from .pooling import average_pool
from .resizing import resize
from .shape_layers import SHAPE_LAYERS
from .weight_layers import WEIGHT_LAYERS

__all__ = ["plain_layer"]

_POOLING = {"AveragePool": average_pool}
_RESIZING = {"Resize": resize, "Upsample": resize}
_PLAIN = {**WEIGHT_LAYERS, **ACTIVATION_LAYERS, **SHAPE_LAYERS, **_POOLING, **_RESIZING}


def plain_layer(graph: Graph, node: Node) -> Made:
    """The layer that a node becomes; None for nodes that the library reads.

    Raises:
        Unreadable: It cannot be read at all.
    """
    make = _PLAIN.get(node.operator)
    if make is None or node.domain:
        return None
    try:
        return make(Call(graph, node))
    except Varies:
        return None
