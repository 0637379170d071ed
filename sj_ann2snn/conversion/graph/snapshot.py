"""Detects a mapper that changes the network, which it should only describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx, nn

from ...contracts.site import Site, iter_values
from ...support.untouched import fingerprint

__all__ = ["Snapshot"]

_TENSORS = ("_parameters", "_buffers")


class Snapshot:
    """The state of a graph, of the layer at a site and of the parameters that the site mentions.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> graph = torch.fx.symbolic_trace(torch.nn.Sequential(layer)).graph
    >>> snapshot = Snapshot(graph, Site("0", torch.nn.Linear, module=layer))
    >>> with torch.no_grad():
    ...     _ = layer.weight.mul_(2)
    >>> snapshot.changed()
    'weight of its module'
    """

    def __init__(self, graph: fx.Graph, site: Site) -> None:
        self._graph, self._site = graph, site
        self._nodes = _nodes(graph)
        self._layers = _layers(site.module)
        self._constants = _constants(site)

    def changed(self) -> str | None:
        """What has changed, or None."""
        if _nodes(self._graph) != self._nodes:
            return "the graph"
        layers = _layers(self._site.module)
        for name in self._layers.keys() | layers.keys():
            if self._layers.get(name) != layers.get(name):
                return f"{name} of its module"
        return "a parameter among its arguments" if _constants(self._site) != self._constants else None


def _nodes(graph: fx.Graph) -> list[tuple[Any, ...]]:
    # torch.fx makes new tuples whenever arguments change.
    return [(id(node), node.op, node.target, id(node._args), id(node._kwargs)) for node in graph.nodes]


def _layers(module: nn.Module | None) -> dict[str, Any]:
    """Every attribute of a layer and of the layers inside it, in comparable form."""
    if module is None:
        return {}
    return {
        ".".join(filter(None, (prefix, name))): value
        for prefix, layer in module.named_modules()
        for name, value in _attributes(layer)
    }


def _attributes(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(layer).items():
        if name in _TENSORS:
            yield from ((key, _fingerprint(tensor)) for key, tensor in value.items())
        elif isinstance(value, dict):
            yield name, [(key, id(one)) for key, one in value.items()]
        elif isinstance(value, Tensor):
            yield name, _fingerprint(value)
        elif isinstance(value, (bool, int, float, str, tuple, type(None))):
            yield name, repr(value)
        else:
            yield name, id(value)


def _constants(site: Site) -> list[Any]:
    return [_fingerprint(value.constant) for value in iter_values((site.args, site.kwargs))]


def _fingerprint(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    return id(tensor), tensor.data_ptr(), tuple(tensor.shape), tensor.dtype, *fingerprint(tensor)
