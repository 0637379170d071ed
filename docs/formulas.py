"""Formulas on the site: a fenced block ``math`` becomes MathML as the site is built, so pages load no script for it.

GitHub renders the same blocks by itself.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> Any:
    """Register the fence; MkDocs calls this."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "formula", "format": formula})
    return config


def formula(source: str, language: str, class_name: str, options: Any, md: Any, **rest: Any) -> str:
    r"""The HTML of one block; ``\tag{3}`` puts the number (3) at the end of the line."""
    numbers = re.findall(r"\\tag\{(\w+)\}", source)
    html = convert(re.sub(r"\\tag\{\w+\}", "", source).strip(), display="block")
    if "\\" in html:  # latex2mathml writes out commands that it does not know
        raise ValueError(f"docs/formulas.py: latex2mathml does not know a command in the formula\n{source}")
    number = "".join(f"<span>({number})</span>" for number in numbers)
    anchor = f' id="equation-{numbers[0]}"' if numbers else ""
    return f'<div class="{class_name}"{anchor}><div>{html}</div>{number}</div>'
