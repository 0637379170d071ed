"""The sections of the page, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.numbers import percent
from .blocks import captioned, folded, more
from .curves import curve
from .layer_map import layer_map
from .making import made
from .markup import Markup, joined, tag
from .neurons import histogram, raster, scatter
from .tables import (
    accuracy_text,
    brief,
    costs_table,
    energy_table,
    figures_table,
    name_of,
    scale_text,
    scrolling,
    whole_table,
)
from .terms import key, span_of, terms_bar, terms_over_time

__all__ = ["SECTIONS"]

SHOWN = 12
"""Layers whose bars are shown at once; the others are folded."""

OPEN, OPEN_NEURONS = 6, 4
"""Layers whose terms over time, and whose neurons, are shown at once."""

LONG = 40
"""Rows from which a table is folded."""

ALL_POINTS, ALL_SPIKES = 60_000, 120_000
"""Dots of all scatter plots and marks of all rasters, which bound the size of the page."""


def remedies(found: Mapping[str, Any]) -> Markup | None:
    """What to change."""
    if not found["advice"]:
        return None
    return tag(
        "ol",
        *(
            tag(
                "li",
                tag("p", tag("b", one["cause"], class_="cause"), " ", one["text"]),
                tag("pre", tag("code", one["call"]), tabindex="0") if one["call"] else None,
            )
            for one in found["advice"]
        ),
        class_="advice",
    )


def answer(found: Mapping[str, Any]) -> Markup:
    """The answer after more and more time steps."""
    accuracy, divergence = (_by_steps(found[f"{what}_over_time"]) for what in ("accuracy", "divergence"))
    figures = []
    if accuracy:
        text = "Accuracy of the mean output when stopping after that many steps; the dashed line is the ANN's."
        figures.append(captioned(curve(accuracy, "accuracy", accuracy_text, found["ann_accuracy"]), text))
    text = "Difference of the mean output from the ANN's, relative to the norm of the ANN's output."
    figures.append(captioned(curve(divergence, "difference from the ANN", percent, from_zero=True), text))
    titles = ["time steps", "difference", *(["accuracy"] if accuracy else [])]
    rows = [
        [f"{steps:,}", percent(value), *([accuracy_text(accuracy[steps])] if accuracy else [])]
        for steps, value in divergence.items()
    ]
    return joined(
        [
            tag("div", *figures, class_="pair"),
            folded("The same as a table", whole_table(titles, rows, "Over time steps")),
        ]
    )


def causes(found: Mapping[str, Any]) -> Markup:
    """The layers, ranked, with their four terms as bars."""
    ranked = _ranked(found)
    span = span_of(ranked)

    def bars(layers: Sequence[Mapping[str, Any]]) -> Markup:
        head = tag(
            "tr",
            tag("th", "layer", scope="col", class_="name"),
            tag("th", "effect", scope="col", class_="number"),
            tag("th", f"terms, from 0 to {percent(span)} of the activation", scope="col", class_="bar"),
            tag("th", "error", scope="col", class_="number"),
        )
        rows = [
            tag(
                "tr",
                tag("th", brief(name_of(layer)), scope="row", class_="name", title=layer["name"]),
                tag("td", percent(layer["effect"]), class_="number strong"),
                tag("td", terms_bar(layer, span), class_="bar"),
                tag("td", percent(layer["error"]), class_="number"),
            )
            for layer in layers
        ]
        return tag("table", tag("thead", head), tag("tbody", *rows), class_="bars")

    rest = ranked[SHOWN:]
    caption = (
        "Layers by what they do to the answer (effect). The bars are the norms of the terms, relative to the norm of "
        "the activation: they add up to more than the whole error, because terms of opposite sign cancel."
    )
    return joined(
        [
            key(),
            captioned(bars(ranked[:SHOWN]), caption),
            folded(f"{more(rest)}, with less effect", bars(rest)) if rest else None,
            folded("All figures as a table", scrolling(figures_table(found["layers"]), "Figures of every layer")),
        ]
    )


def causes_over_time(found: Mapping[str, Any]) -> Markup:
    """The terms after more and more time steps."""
    ranked = _ranked(found)

    def pictures(layers: Sequence[Mapping[str, Any]]) -> Markup:
        return tag(
            "div",
            *(captioned(terms_over_time(one), _falling(one), brief(name_of(one))) for one in layers),
            class_="many",
        )

    rest = ranked[OPEN:]
    return joined(
        [pictures(ranked[:OPEN]), folded(more(rest), pictures(rest)) if rest else None],
    )


def neurons(found: Mapping[str, Any]) -> Markup | None:
    """What the neurons of every layer did."""
    seen = found.get("observed", {}).get("layers", {})
    ranked = [layer for layer in _ranked(found) if layer["name"] in seen]
    if not ranked:
        return None
    points = max(150, ALL_POINTS // len(ranked))
    steps = max(16, ALL_SPIKES // (30 * len(ranked)))
    cards = [_neurons_of(layer, seen[layer["name"]], points, steps) for layer in ranked]
    explained = tag(
        "p",
        "First: every dot is a neuron and a sample, drawn at random among those that are active; on the line, rate and "
        "activation agree. Second: how often which rate occurs (bars), and which activation of the ANN (outline). "
        "Third: when some neurons spike for the first sample.",
        class_="soft",
    )
    open_, rest = cards[:OPEN_NEURONS], cards[OPEN_NEURONS:]
    others = joined(folded(title, content) for title, content in rest)
    return joined(
        [
            explained,
            *(tag("section", tag("h3", title), content, class_="layer") for title, content in open_),
            folded(more(rest), others) if len(rest) > OPEN else others,
        ]
    )


def network(found: Mapping[str, Any]) -> Markup | None:
    """The graph."""
    graph = found.get("observed", {}).get("graph")
    if not graph:
        return None
    layers = {layer["name"]: layer for layer in found["layers"]}
    caption = (
        "Inputs, layers and outputs in order of execution; the lines lead to what each of them feeds. λ is the "
        "activation at which a neuron emits all that it can; the firing rate is in spikes per neuron and step."
    )
    whole = captioned(layer_map(graph, layers, found["T"]), caption)
    return whole if len(graph) <= LONG else folded(f"{len(graph)} inputs, layers and outputs", whole)


def costs(found: Mapping[str, Any]) -> Markup:
    """What the layers cost."""
    totals = {"spikes": found["spikes"], "synops": found["synops"]}
    whole = costs_table(found["layers"], totals)
    missing = found["not_counted"]
    notes = f"Per sample, over {found['T']:,} time steps. Synaptic operations are those that the layer's spikes cause."
    if missing:
        notes += f" Not counted: {', '.join(missing)}."
    parts = [whole, tag("p", notes, class_="soft")]
    counted = found.get("costs")
    if counted is not None:
        single = counted["energy_per_operation"]
        energy = (
            f"{counted['verdict']} Layers in front of the first neuron see a constant input and are computed once. A "
            f"MAC takes {single['mac']:g} pJ and an accumulate {single['accumulate']:g} pJ"
            f"{' (' + single['name'] + ')' if single['name'] else ''}; moving data is not counted."
        )
        parts += [energy_table(counted), tag("p", energy, class_="soft")]
    content = joined(parts)
    return content if len(found["layers"]) <= LONG else folded(f"{len(found['layers'])} layers", content)


SECTIONS = (
    ("remedies", "What to change", remedies),
    ("answer", "The answer over time", answer),
    ("causes", "Where the error arises", causes),
    ("causes-over-time", "The terms over time", causes_over_time),
    ("neurons", "Neurons, layer by layer", neurons),
    ("network", "Network", network),
    ("costs", "Costs", costs),
    ("made", "How this was made", made),
)
"""Anchor, title, and the function that writes the section; None leaves it out."""


def _neurons_of(layer: Mapping[str, Any], seen: Mapping[str, Any], points: int, steps: int) -> tuple[Markup, Markup]:
    """The title of a layer, and its pictures."""
    name = name_of(layer)
    facts = [f"λ {scale_text(layer['scale'])}" if layer["scale"] else None]
    if layer["neurons"]:
        facts += [
            f"{layer['neurons']:,} neurons",
            f"{percent(layer['saturated'])} saturated",
            f"{percent(layer['silent'])} silent",
            f"{percent(layer['unused'])} unused",
        ]
    facts.append("error " + percent(layer["error"]))
    known = [joined([" · " if place else None, tag("span", one)]) for place, one in enumerate(filter(None, facts))]
    title = joined([tag("span", brief(name), class_="name", title=name), " ", tag("small", *known)])
    pictures = [scatter(name, seen, points), histogram(name, seen), raster(name, seen, steps)]
    return title, tag("div", *(tag("figure", one) for one in pictures if one is not None), class_="many")


def _falling(layer: Mapping[str, Any]) -> str:
    """Which terms fall with T, and which stay."""
    parts = []
    if layer["shrinking"]:
        parts.append(f"Falls with T: {', '.join(layer['shrinking'])}.")
    if layer["staying"]:
        parts.append(f"Stays: {', '.join(layer['staying'])}.")
    return " ".join(parts)


def _ranked(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    layers = {layer["name"]: layer for layer in found["layers"]}
    return [layers[name] for name in found["worst"]]


def _by_steps(values: Mapping[str, float]) -> dict[int, float]:
    return {int(steps): value for steps, value in values.items()}
