"""The frame of a small plot in SVG: axes, ticks, grid lines and labels, whose colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Markup, attributes, joined, tag

__all__ = ["Axis", "Plot", "nice_ticks", "path_of_points", "step_ticks"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low, high: Its ends.
        ticks: Values and their labels.
        title: What it shows.
        log: True for powers of two at even distances.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        value = min(max(value, self.low), self.high)
        if self.high <= self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Plot:
    """A plot of fixed proportions that scales with the page.

    Args:
        label: What it shows, in words, for readers who cannot see it.
        x, y: The axes.
        size: Width and height, in units of a CSS pixel at the usual size.
        right: Room on the right, for labels at the ends of lines.
    """

    def __init__(
        self, label: str, x: Axis, y: Axis, size: tuple[int, int], *, right: int = 10, kind: str = "plot"
    ) -> None:
        self.label, self.x, self.y, self.kind = label, x, y, kind
        self.width, self.height = size
        self.left = 14 + round(6.4 * max((len(text) for _, text in y.ticks), default=0))
        self.right, self.top = self.width - right, 26
        self.bottom = self.height - 38
        self.parts: list[Markup] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        across = self.left + self.x.place(x) * (self.right - self.left)
        return round(across, 1), round(self.bottom - self.y.place(y) * (self.bottom - self.top), 1)

    def add(self, name: str, /, *children: object, **given: object) -> None:
        """Draw an SVG element."""
        self.parts.append(shape(name, *children, **given))

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points."""
        places = [self.at(*point) for point in points]
        self.add("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in places), class_=f"line {kind}")

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write at a place."""
        self.add("text", text, x=x, y=y, class_=kind or None)

    def drawn(self) -> Markup:
        """The whole plot."""
        frame: list[Markup] = []
        for value, text in self.y.ticks:
            _, y = self.at(self.x.low, value)
            frame.append(shape("path", d=f"M{self.left} {y:g}H{self.right}", class_="grid"))
            frame.append(shape("text", text, x=self.left - 6, y=y + 4, class_="end"))
        for value, text in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            frame.append(shape("path", d=f"M{x:g} {self.bottom}v4", class_="axis"))
            frame.append(shape("text", text, x=x, y=self.bottom + 17, class_="middle"))
        frame.append(shape("path", d=f"M{self.left} {self.bottom}H{self.right}", class_="axis"))
        frame.append(shape("text", self.y.title, x=0, y=13, class_="title"))
        frame.append(shape("text", self.x.title, x=self.right, y=self.height - 4, class_="title end"))
        return tag(
            "svg",
            *frame,
            *self.parts,
            class_=self.kind,
            role="img",
            aria_label=self.label,
            viewBox=f"0 0 {self.width} {self.height}",
        )


def shape(name: str, /, *children: object, **given: object) -> Markup:
    """An SVG element, without an end tag if it is empty."""
    start = f"<{name}{attributes(**given)}"
    return Markup(f"{start}>{joined(children)}</{name}>" if children else f"{start}/>")


def path_of_points(places: Sequence[tuple[float, float]]) -> str:
    """A path with a dot at every place, each once, rounded to whole units.

    >>> path_of_points([(1.2, 3.0), (1.4, 3.1), (2.0, 3.0)])
    'M1 3h0M2 3h0'
    """
    return "".join(f"M{x} {y}h0" for x, y in dict.fromkeys((round(x), round(y)) for x, y in places))


def nice_ticks(
    low: float, high: float, text: Callable[[float], str], count: int = 4
) -> tuple[tuple[tuple[float, str], ...], float, float]:
    """Round values that span a range, and the ends of the axis.

    >>> nice_ticks(0, 0.37, lambda x: f"{x:g}")
    (((0.0, '0'), (0.1, '0.1'), (0.2, '0.2'), (0.3, '0.3'), (0.4, '0.4')), 0.0, 0.4)
    """
    if not high > low:
        low, high = (low - 0.5 * abs(low), low + 0.5 * abs(low)) if low else (0.0, 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((one for one in (1, 2, 2.5, 5, 10) if one * power >= rough * 0.999), default=10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [round(index * step, 12) for index in range(first, last + 1)]
    return tuple((value, text(value)) for value in values), values[0], values[-1]


def step_ticks(steps: Sequence[int], most: int = 7) -> tuple[tuple[float, str], ...]:
    """Labels for numbers of steps on a logarithmic axis; the last one always has a label.

    >>> [text for _, text in step_ticks([1, 2, 4, 8, 16, 32, 64, 128, 256, 300])]
    ['1', '4', '16', '64', '300']
    """
    every = max(1, math.ceil(len(steps) / most))
    chosen = [*steps[:-1:every], steps[-1]]
    # Room for half of both labels, in shares of the axis.
    room = 0.05 + 0.02 * len(f"{steps[-1]:,}")
    while len(chosen) > 2 and chosen[-1] / chosen[-2] < steps[-1] ** room:
        del chosen[-2]
    return tuple((float(value), f"{value:,}") for value in chosen)
