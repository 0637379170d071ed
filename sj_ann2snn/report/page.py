"""One HTML page that shows a diagnosis; it needs no network and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ExportError, InputError, OptionError
from ..support.numbers import percent, quantity
from ..support.paths import AnyPath, checked_path
from ..support.replacing import replacing
from ..support.wording import described, shown
from .markup import Markup, joined, tag
from .sections import SECTIONS
from .tables import accuracy_text

__all__ = ["html_report"]


def html_report(found: Any, path: AnyPath | None = None, *, title: str | None = None) -> str:
    """Show a diagnosis as one HTML page, which holds everything that it needs.

    >>> import json, torch
    >>> from sj_ann2snn import Converter, diagnose, html_report
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)), torch.rand(64, 4)
    >>> diagnosis = diagnose(ann, Converter([x], progress=False)(ann), [x], T=16, progress=False)
    >>> stored = json.dumps(diagnosis.to_dict(observed=True))  # the page can be made from it elsewhere
    >>> html_report(json.loads(stored)) == html_report(diagnosis) == diagnosis.to_html()
    True

    The page has no script and asks for nothing: its content security policy forbids it.

    Args:
        found: A `Diagnosis`, or what its `to_dict(observed=True)` returned. Without `observed`, the pictures of
            neurons and the graph are missing.
        path: The file to write as well.
        title: Heading of the page; by default it names the network.

    Returns:
        The page.

    Raises:
        InputError: `found` is neither, or something is missing in it.
        OptionError: `title` is no text, or `path` no path.
        ExportError: The file cannot be written.
    """
    if title is not None and not isinstance(title, str):
        raise OptionError(f"title={shown(title)} is not allowed: give text, or None for the name of the network.")
    target = None if path is None else checked_path(path, ExportError, "written")
    page = _page(found.to_dict(observed=True), title) if hasattr(found, "to_dict") else _page_of_data(found, title)
    if target is not None:
        _write(page, target)
    return page


def _page_of_data(found: Any, title: str | None) -> str:
    """The page of data that a caller has stored, and that may be anything."""
    if not isinstance(found, Mapping):
        raise InputError(
            f"html_report takes a Diagnosis, or what its to_dict(observed=True) returned, not {type(found).__name__}."
        )
    try:
        return _page(found, title)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        missing = f"{error} is missing in it" if isinstance(error, KeyError) else described(error)
        raise InputError(
            f"html_report cannot read what was given ({missing}). Give a Diagnosis, or what its to_dict(observed=True) "
            "returned, unchanged or through JSON."
        ) from error


def _write(page: str, path: Path) -> None:
    try:
        with replacing(path) as file:
            file.write(page.encode("utf-8"))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error


def _page(found: Mapping[str, Any], title: str | None) -> str:
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{hashed}'; img-src data:; base-uri 'none'; form-action 'none'"
    name = found.get("observed", {}).get("network")
    heading = title or (f"Diagnosis of {name}" if name else "Diagnosis")
    sections = [(anchor, text, write(found)) for anchor, text, write in SECTIONS]
    written = [one for one in sections if one[2] is not None]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="sj-ann2snn"),
        tag("title", heading),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "sj-ann2snn · why does the spiking network not answer like its ANN?", class_="eyebrow"),
            tag("h1", heading),
            tag("p", _sentence(found["verdict"]), class_="verdict"),
            _key_figures(found),
            tag(
                "nav",
                tag("ul", *(tag("li", tag("a", text, href=f"#{anchor}")) for anchor, text, _ in written)),
                aria_label="Sections",
            ),
        ),
        tag(
            "main",
            *(
                tag(
                    "section",
                    tag("h2", text, id=f"{anchor}-title"),
                    content,
                    id=anchor,
                    aria_labelledby=f"{anchor}-title",
                )
                for anchor, text, content in written
            ),
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _key_figures(found: Mapping[str, Any]) -> Markup:
    drop = found["drop"]
    figures = [
        ("accuracy", accuracy_text(found["accuracy"]), f"ANN {accuracy_text(found['ann_accuracy'])}, {_lost(drop)}")
        if drop is not None
        else None,
        ("difference", percent(found["divergence"]), "of the output"),
        ("time steps", f"{found['T']:,}", f"readout {found['readout']}"),
        ("spikes", quantity(found["spikes"]), "per sample"),
        ("synaptic operations", quantity(found["synops"]), "per sample"),
        ("samples", f"{found['samples']:,}", "looked at"),
    ]
    rows = [tag("div", tag("dt", one[0]), tag("dd", tag("b", one[1]), tag("small", one[2]))) for one in figures if one]
    return tag("dl", *rows, class_="facts")


def _lost(points: float) -> str:
    return f"−{points:.1f} points" if points > 0 else "no loss"


def _sentence(text: str) -> Markup:
    """The verdict, which begins like a clause, as a sentence."""
    return joined([text[:1].upper() + text[1:]])
