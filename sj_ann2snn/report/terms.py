"""The four terms of the layers' errors as stacked bars: one per layer, and one per number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.numbers import percent
from .markup import Markup, tag
from .plot import Axis, Plot, nice_ticks, shape, step_ticks

__all__ = ["TERMS", "key", "span_of", "terms_bar", "terms_over_time", "terms_text"]

TERMS = (
    ("inherited", "inherited", "the current that arrives is not the ANN's"),
    ("clipping", "clipping", "the neuron cannot emit more than λ"),
    ("rounding", "rounding", "T steps make a staircase of the activation"),
    ("unevenness", "unevenness", "spikes arrive in an unlucky order"),
)
"""Name, title and meaning of every term."""

MOST = 2.0
"""A bar ends at this share of the activation; longer ones are cut off and say so."""

SIZE = (300, 190)


def key() -> Markup:
    """What the colours mean."""
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag("svg", shape("rect", width=12, height=12, rx=2, class_=name), class_="swatch", aria_hidden="true"),
                tag("b", title),
                f" {meaning}",
            )
            for name, title, meaning in TERMS
        ),
        tag(
            "li",
            tag("svg", shape("rect", x=5, width=2.5, height=12, class_="whole"), class_="swatch", aria_hidden="true"),
            tag("b", "whole error"),
            " of the layer",
        ),
        class_="key",
    )


def span_of(layers: Sequence[Mapping[str, Any]]) -> float:
    """The share of the activation at which the axis of all bars ends."""
    longest = max((max(_total(layer), layer["error"] or 0.0) for layer in layers), default=0.0)
    return min(MOST, longest) or 1.0


def terms_bar(layer: Mapping[str, Any], span: float) -> Markup:
    """The terms of one layer behind each other, and a mark for the whole error."""
    parts, start = [], 0.0
    for name, _, _ in TERMS:
        width = min(_value(layer, name), span - start)
        if width > 0:
            parts.append(shape("rect", x=_share(start / span), y=2, width=_share(width / span), height=14, class_=name))
            start += width
    if _total(layer) > span * 1.001:
        parts.append(shape("path", d="M-9 4l7 5-7 5z", class_="cut"))
        parts[-1] = tag("svg", parts[-1], x="100%", overflow="visible")
    error = layer["error"]
    if error is not None and error <= span:
        parts.append(shape("rect", x=_share(error / span), y=0, width=2.5, height=18, class_="whole"))
    return tag("svg", *parts, class_="bar", role="img", aria_label=terms_text(layer))


def terms_over_time(layer: Mapping[str, Any]) -> Markup:
    """The terms of one layer as columns, one per number of steps."""
    over = {int(steps): terms for steps, terms in layer["over_time"].items()}
    steps = sorted(over)
    high = max(max(_total(over[one]), over[one]["error"] or 0.0) for one in steps)
    ticks, low, high = nice_ticks(0.0, min(high, MOST) or 1.0, lambda value: f"{100 * value:.10g} %", count=3)
    places = {count: index for index, count in enumerate(steps)}
    labels = tuple((float(places[int(value)]), text) for value, text in step_ticks(steps, 6))
    x = Axis(-0.6, len(steps) - 0.4, labels, "time steps")
    first, last = (terms_text(over[count]) for count in (steps[0], steps[-1]))
    label = f"{layer['name']} after {steps[0]:,} time steps: {first} After {steps[-1]:,}: {last}"
    plot = Plot(label, x, Axis(low, high, ticks, "share of the activation"), SIZE)
    for count, index in places.items():
        start = 0.0
        left, right = plot.at(index - 0.36, 0)[0], plot.at(index + 0.36, 0)[0]
        for name, _, _ in TERMS:
            value = min(_value(over[count], name), high - start)
            if value > 0:
                top, bottom = plot.at(index, start + value)[1], plot.at(index, start)[1]
                plot.add("rect", x=left, y=top, width=right - left, height=max(0.0, bottom - top), class_=name)
                start += value
        error = over[count]["error"]
        if error is not None and error <= high:
            plot.add(
                "rect", x=left - 2, y=plot.at(index, error)[1] - 1, width=right - left + 4, height=2, class_="whole"
            )
    return plot.drawn()


def terms_text(terms: Mapping[str, Any]) -> str:
    """The terms in words."""
    named = ", ".join(f"{title} {percent(terms[name])}" for name, title, _ in TERMS)
    return f"{named}; whole error {percent(terms['error'])}."


def _value(terms: Mapping[str, Any], name: str) -> float:
    """A term, or zero where it is not known."""
    return float(terms.get(name) or 0.0)


def _total(terms: Mapping[str, Any]) -> float:
    return sum(_value(terms, name) for name, _, _ in TERMS)


def _share(value: float) -> str:
    return f"{100 * value:.2f}%"
