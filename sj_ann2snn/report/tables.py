"""Tables of figures, with numbers below each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..support.numbers import percent, quantity
from .markup import Markup, tag
from .plot import shape

__all__ = [
    "accuracy_text",
    "bar_cell",
    "brief",
    "costs_table",
    "energy_table",
    "figures_table",
    "name_of",
    "scale_text",
    "scrolling",
    "table",
    "whole_table",
]

Column = tuple[str, str, Callable[[Any], str]]
"""Name among the figures of a layer, title, and how a value is written."""

FIGURES: tuple[Column, ...] = (
    ("error", "error", percent),
    ("inherited", "inherited", percent),
    ("clipping", "clipping", percent),
    ("rounding", "rounding", percent),
    ("unevenness", "uneven", percent),
    ("sqnr", "SQNR dB", lambda value: "∞" if value is None else f"{value:.1f}"),
    ("saturated", "saturated", percent),
    ("silent", "silent", percent),
    ("unused", "unused", percent),
    ("alone", "alone", percent),
    ("all_but_this", "without", percent),
    ("effect", "effect", percent),
)

COSTS: tuple[Column, ...] = (
    ("spikes", "spikes", quantity),
    ("emissions", "emissions", quantity),
    ("synops", "synaptic operations", quantity),
)
"""Costs of a spiking layer per sample."""

ENERGY: tuple[Column, ...] = (
    ("ann_macs", "ANN MACs", quantity),
    ("accumulates", "accumulates", quantity),
    ("macs", "MACs", quantity),
    ("ann_energy", "ANN nJ", lambda value: quantity(value / 1000)),
    ("energy", "nJ", lambda value: quantity(value / 1000)),
)
"""Operations and energy of a layer with weights per sample."""

LONGEST = 48
"""Letters of a name in a heading."""

OF_NEURONS = ("clipping", "rounding", "saturated", "silent", "unused")
"""Figures that an operation does not have."""


def figures_table(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """Everything that was measured of every layer."""
    rows = [
        [
            "" if key in OF_NEURONS and layer["kind"] != "neuron" else written(layer[key])
            for key, _, written in FIGURES
            if key in layer
        ]
        for layer in layers
    ]
    titles = [title for key, title, _ in FIGURES if any(key in layer for layer in layers)]
    return table(["layer", *titles], [[name_of(layer), *row] for layer, row in zip(layers, rows, strict=True)])


def costs_table(layers: Sequence[Mapping[str, Any]], totals: Mapping[str, float]) -> Markup:
    """What every spiking layer costs per sample, the share of the last column as a bar, and the sum.

    Args:
        layers: The figures of the layers.
        totals: Sums that are known better than by adding up the layers.
    """
    graded = any(layer["emissions"] != layer["spikes"] for layer in layers)
    columns = [one for one in COSTS if graded or one[0] != "emissions"]
    spiking = [layer for layer in layers if layer["kind"] == "neuron"]
    return _summed(spiking, columns, totals, "Costs per spiking layer and sample")


def energy_table(costs: Mapping[str, Any]) -> Markup:
    """Operations and energy of the layers with weights in both networks, and their sums."""
    layers = [layer for layer in costs["layers"] if layer["ann_macs"] or layer["energy"]]
    return _summed(layers, ENERGY, costs, "Operations and energy per layer and sample")


def _summed(
    layers: Sequence[Mapping[str, Any]], columns: Sequence[Column], totals: Mapping[str, Any], label: str
) -> Markup:
    sums = {key: totals.get(key, sum(layer[key] for layer in layers)) for key, _, _ in columns}
    last = columns[-1][0]
    highest = max((layer[last] for layer in layers), default=0.0) or 1.0
    rows = [
        tag(
            "tr",
            tag("th", brief(layer["name"]), scope="row", class_="name", title=layer["name"]),
            *(tag("td", written(layer[key]), class_="number") for key, _, written in columns),
            bar_cell(layer[last] / highest, "cost"),
            tag("td", percent(layer[last] / sums[last]) if sums[last] else "", class_="number"),
        )
        for layer in layers
    ]
    head = tag(
        "tr",
        tag("th", "layer", scope="col", class_="name"),
        *(tag("th", title, scope="col", class_="number") for _, title, _ in columns),
        tag("th", "share", scope="col", class_="number", colspan=2),
    )
    foot = tag(
        "tr",
        tag("th", "all", scope="row", class_="name"),
        *(tag("td", written(sums[key]), class_="number") for key, _, written in columns),
        tag("td", colspan=2),
    )
    whole = tag("table", tag("thead", head), tag("tbody", *rows), tag("tfoot", foot), class_="costs")
    return scrolling(whole, label)


def whole_table(titles: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> Markup:
    """A table in a frame that scrolls where it is wider than the page."""
    return scrolling(table(titles, rows), label)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table whose first column holds names, and the others numbers."""
    head = tag("tr", *(tag("th", title, scope="col", class_=_kind(i)) for i, title in enumerate(titles)))
    body = [
        tag("tr", tag("th", row[0], scope="row", class_="name"), *(tag("td", one, class_="number") for one in row[1:]))
        for row in rows
    ]
    return tag("table", tag("thead", head), tag("tbody", *body))


def scrolling(content: Markup, label: str) -> Markup:
    """A frame that scrolls, also by the keyboard."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def bar_cell(share: float, kind: str) -> Markup:
    """A table's cell with a bar."""
    rect = shape("rect", y=2, width=f"{100 * min(1.0, max(0.0, share)):.1f}%", height=8, rx=1.5, class_=kind)
    return tag("td", tag("svg", rect, class_="meter", aria_hidden="true"), class_="meter")


def accuracy_text(value: float | None) -> str:
    """An accuracy in percent, to a tenth of a point.

    >>> accuracy_text(0.95), accuracy_text(None)
    ('95.0 %', '?')
    """
    return "?" if value is None else f"{100 * value:.1f} %"


def scale_text(scale: Sequence[float] | None) -> str:
    """λ, smallest and largest over the channels.

    >>> scale_text([2.0, 2.0]), scale_text((0.51234, 3)), scale_text(None)
    ('2', '0.512–3', '?')
    """
    if scale is None:
        return "?"
    low, high = scale
    return f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}"


def brief(name: str, most: int = LONGEST) -> str:
    """A long name without its middle; the ends tell layers apart.

    >>> brief("layer1.0.relu"), brief("a" * 30 + "b" * 30, most=9)
    ('layer1.0.relu', 'aaaa…bbbb')
    """
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[len(name) - most + 1 + half :]}"


def name_of(layer: Mapping[str, Any]) -> str:
    """The name, and for what is no neuron its operation."""
    return str(layer["name"]) if layer["kind"] == "neuron" else f"{layer['name']} ({layer['kind']})"


def _kind(column: int) -> str:
    return "number" if column else "name"
