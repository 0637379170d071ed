"""The language of a page of the site: that in its file's name, ``tutorial.zh-CN.md``, otherwise the site's."""

from __future__ import annotations

import re
from typing import Any

NAMED = re.compile(r"\.([a-z]{2}(?:-[A-Z]{2})?)\.md$")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Say the language in the root element, for screen readers and search engines; MkDocs calls this."""
    found = NAMED.search(page.file.src_uri)
    return output if found is None else re.sub(r'<html lang="[^"]*"', f'<html lang="{found[1]}"', output, count=1)
