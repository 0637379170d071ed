"""A figure over time steps: one curve, and the ANN as a dashed line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .markup import Markup
from .plot import Axis, Plot, nice_ticks, step_ticks

__all__ = ["curve"]

SIZE = (400, 250)


def curve(
    values: Mapping[int, float],
    title: str,
    written: Callable[[float | None], str],
    ann: float | None = None,
    *,
    from_zero: bool = False,
) -> Markup:
    """Shares over numbers of steps.

    Args:
        values: By number of steps.
        title: What they are.
        written: How they are written.
        ann: The ANN's value.
        from_zero: Let the axis begin at zero.
    """
    steps = sorted(values)
    found = [*values.values(), *([] if ann is None else [ann])]
    low, high = (0.0 if from_zero else min(found)), max(found)
    if not from_zero:
        low, high = max(0.0, low - 0.02), min(1.0, high + 0.02) if high <= 1 else high
    ticks, low, high = nice_ticks(low, high, lambda value: f"{100 * value:.10g} %")
    ends = f"{written(values[steps[0]])} after {steps[0]:,}, {written(values[steps[-1]])} after {steps[-1]:,}"
    against = "" if ann is None else f"; the ANN has {written(ann)}"
    x = Axis(steps[0], steps[-1], step_ticks(steps), "time steps", log=True)
    plot = Plot(f"{title}: {ends} time steps{against}.", x, Axis(low, high, ticks, title), SIZE, right=62)
    last = plot.at(steps[-1], values[steps[-1]])
    own = last[1]
    if ann is not None:
        level = plot.at(steps[0], ann)[1]
        plot.add("path", d=f"M{plot.left} {level:g}H{plot.right}", class_="line ann")
        if abs(own - level) < 26:
            # The labels do not overlap each other or what is below the axis.
            own = level + 26 if own >= level and level + 26 < plot.bottom else level - 26
        plot.text(plot.right + 7, level - 1, "ANN", "soft")
        plot.text(plot.right + 7, level + 12, written(ann), "soft")
    plot.line([(step, values[step]) for step in steps], "snn")
    for step in steps:
        across, up = plot.at(step, values[step])
        plot.add("circle", cx=across, cy=up, r=3.2, class_="dot snn")
    name = "SNN" if ann is not None else ""
    if name:
        plot.text(plot.right + 7, own - 1, name, "strong snn")
    plot.text(plot.right + 7, own + 12 if name else own + 4, written(values[steps[-1]]), "strong snn")
    return plot.drawn()
