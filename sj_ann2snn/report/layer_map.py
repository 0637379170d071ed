"""The network as a list of its layers with λ and rates, and lines beside it that show which layer feeds which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.numbers import quantity
from .markup import Markup, tag
from .plot import shape
from .tables import bar_cell, scale_text, scrolling

__all__ = ["layer_map"]

ROW = 30
"""Height of a row; the style sheet sets the same."""

LANE = 13
"""Distance between lines that run side by side."""

MOST_LANES = 7
"""Lines beyond this number share the outermost place."""


def layer_map(graph: Sequence[Mapping[str, Any]], layers: Mapping[str, Mapping[str, Any]], steps: int) -> Markup:
    """The table with the lines as its first column.

    Args:
        graph: Inputs, layers and outputs in order, with what feeds them.
        layers: The figures of the layers, by name.
        steps: T.
    """
    rates = {name: layer["spikes"] / (layer["neurons"] * steps) for name, layer in layers.items() if layer["neurons"]}
    highest = max(rates.values(), default=0.0) or 1.0
    rows = []
    for index, node in enumerate(graph):
        name, layer = node["name"], layers.get(node["name"], {})
        fed = ", ".join(node["sources"]) or "nothing"
        cells = [
            tag("th", name, scope="row", class_="name", title=f"{name}, fed by {fed}"),
            tag("td", ", ".join(node["through"]), class_="name soft wide"),
            tag("td", scale_text(layer["scale"]) if layer.get("neurons") else "", class_="number"),
            tag("td", f"{layer['neurons']:,}" if layer.get("neurons") else "", class_="number wide"),
            tag("td", f"{rates[name]:.3g}" if name in rates else "", class_="number"),
            bar_cell(rates[name] / highest, "rate") if name in rates else tag("td"),
            tag("td", quantity(layer["spikes"]) if name in rates else "", class_="number wide"),
        ]
        lines = [tag("td", _lines(graph), rowspan=len(graph), class_="lines")] if not index else []
        rows.append(tag("tr", *lines, *cells, class_=node["kind"]))
    head = tag(
        "tr",
        tag("th", class_="lines", aria_label="connections"),
        tag("th", "layer", scope="col", class_="name"),
        tag("th", "weights in front", scope="col", class_="name wide"),
        tag("th", "λ", scope="col", class_="number"),
        tag("th", "neurons", scope="col", class_="number wide"),
        tag("th", "firing rate", scope="col", class_="number", colspan=2),
        tag("th", "spikes", scope="col", class_="number wide"),
    )
    whole = tag("table", tag("thead", head), tag("tbody", *rows), class_="map")
    return scrolling(whole, "Layers of the network and what feeds them")


def _lines(graph: Sequence[Mapping[str, Any]]) -> Markup:
    """A dot per row, and a line from every layer to those that it feeds."""
    places = {node["name"]: index for index, node in enumerate(graph)}
    edges = sorted(
        (places[source], index) for index, node in enumerate(graph) for source in node["sources"] if source in places
    )
    lanes = _lanes([edge for edge in edges if edge[1] - edge[0] > 1])
    width = 20 + LANE * max(lanes.values(), default=0)
    x = width - 8
    parts = []
    for start, end in edges:
        top, bottom = _middle(start), _middle(end)
        lane = lanes.get((start, end))
        if lane is None:
            path = f"M{x} {top}V{bottom}"
        else:
            side = x - LANE * lane
            path = f"M{x} {top}C{x} {top + ROW / 2:g} {side} {top + ROW / 2:g} {side} {top + ROW}"
            path += f"V{bottom - ROW}C{side} {bottom - ROW / 2:g} {x} {bottom - ROW / 2:g} {x} {bottom}"
        parts.append(shape("path", d=path, class_="edge"))
    for index, node in enumerate(graph):
        parts.append(shape("circle", cx=x, cy=_middle(index), r=4.5, class_=f"node {node['kind']}"))
    height = ROW * len(graph)
    label = f"Connections of {len(graph)} inputs, layers and outputs; the title of each row names what feeds it."
    return tag("svg", *parts, width=width, height=height, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _lanes(edges: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """For every edge that passes other rows the innermost lane that is free there, from 1."""
    found: dict[tuple[int, int], int] = {}
    for edge in sorted(edges, key=lambda one: one[1] - one[0]):
        used = {lane for other, lane in found.items() if other[0] < edge[1] and edge[0] < other[1]}
        free = next(lane for lane in range(1, len(used) + 2) if lane not in used)
        found[edge] = min(free, MOST_LANES)
    return found


def _middle(row: int) -> int:
    return row * ROW + ROW // 2
