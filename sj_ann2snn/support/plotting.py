"""What all pictures by Matplotlib share; it is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InputError

__all__ = ["COLOURS", "DARK", "figure_of_size", "require_matplotlib"]

# Okabe and Ito 2008, distinguishable with all common kinds of colour blindness; yellow is too pale on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Colours of lines and points, in order."""

DARK = "#303030"
"""Colour of text and axes."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "lines.linewidth": 1.6,
}
"""Matplotlib's settings."""

DPI = 200
"""Dots per inch."""


def require_matplotlib() -> None:
    """Fail early if no picture can be drawn.

    Raises:
        InputError: Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"The pictures need matplotlib, which cannot be imported here ({error}). "
            "Install it with pip install matplotlib."
        ) from error


@contextmanager
def figure_of_size(width: float, height: float) -> Iterator[Any]:
    """A figure on the Agg canvas with Matplotlib's defaults, regardless of the user's settings file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
