"""The last section: how the network was made, and what computed the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import folded
from .markup import Markup, joined, tag
from .tables import scale_text, whole_table

__all__ = ["made"]


def made(found: Mapping[str, Any]) -> Markup | None:
    """How the network was made, and what computed the page."""
    seen = found.get("observed", {})
    rows = [
        *seen.get("versions", {}).items(),
        ("plugins", ", ".join(seen.get("plugins", ())) or "none besides the built-in ones") if seen else None,
        ("readout", found["readout"]),
        ("samples", f"{found['samples']:,}"),
    ]
    call = seen.get("made_by")
    conversion = found.get("conversion")
    return joined(
        [
            joined([tag("p", "The call that made this network:"), tag("pre", tag("code", call), tabindex="0")])
            if call
            else None,
            _conversion(conversion) if conversion else None,
            tag("dl", *(tag("div", tag("dt", row[0]), tag("dd", row[1])) for row in rows if row), class_="facts small"),
            *(tag("p", f"Note: {note}.", class_="soft") for note in found["notes"]),
        ]
    )


def _conversion(report: Mapping[str, Any]) -> Markup:
    """The report of the conversion."""
    rows = [
        [
            entry["name"],
            entry["operation"],
            entry["becomes"] + ("" if entry["exact"] else " (approximate)"),
            "" if entry["scale"] is None else scale_text(entry["scale"]),
            f"{entry['mapper']} ({entry['owner']})",
        ]
        for entry in report["entries"]
    ]
    head = f"mode {report['mode']} ({report['mode_owner']}), neuron {report['neuron']} ({report['neuron_owner']})"
    settings = [f"{name}={value!r}" for name, value in report["settings"].items()]
    lines = [tag("p", ", ".join([head, *settings, *report["corrections"]]))]
    titles = ["layer", "operation", "becomes", "λ", "mapper"]
    whole = whole_table(titles, rows, "What every layer became")
    return joined([*lines, folded(f"What became of {len(rows)} calls of the ANN", tag("div", whole, class_="texts"))])
