"""Pages in two languages have the same structure: sections, code, formulas, links, tables of options and plugins."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README", "docs/tutorial")
LANGUAGES = {"en": ".md", "zh": ".zh-CN.md"}

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages come with the repository")

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: str, language: str) -> str:
    return (ROOT / (page + LANGUAGES[language])).read_text(encoding="utf-8")


def sections(text: str) -> list[int]:
    """The levels of all headings, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)]


def without_comments(kind: str, code: str) -> list[str]:
    """The lines of a block that hold code; comments are translated, so they are left out."""
    if kind.startswith("python"):
        lines = code.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    else:
        lines = [re.sub(r"(^|\s)#.*", "", line) for line in code.splitlines()]
    return [line.rstrip() for line in lines if line.strip()]


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """The language and the code of every fenced block, in order."""
    return [(kind.strip(), without_comments(kind.strip(), code)) for kind, code in FENCE.findall(text)]


def links(text: str) -> set[str]:
    """Where links and pictures lead."""
    return set(re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)))


def tables(text: str) -> list[list[list[str]]]:
    """For every row of every table the inline code in its first column."""
    found: list[list[list[str]]] = []
    inside = False
    for line in FENCE.sub("", text).splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            first = re.split(r"(?<!\\)\|", line)[1]
            found[-1].append(re.findall(r"`[^`]+`", first))
        inside = line.startswith("|")
    return found


def test_the_readers_of_a_page_see_what_is_there() -> None:
    page = "# One\n\n```python\n# no heading\nx = '#'  # said\n```\n\n| `a`, `b` | c |\n|---|---|\n| d | `e` |\n\n## [Two](d.md#e)\n"
    assert sections(page) == [1, 2]
    assert blocks(page) == [("python", ["x = '#'"])]
    assert links(page) == {"d.md#e"}
    assert tables(page) == [[["`a`", "`b`"], [], []]]
    assert without_comments("bash", "# first\npip install .   # then\n") == ["pip install ."]


@pytest.mark.parametrize("page", PAGES)
def test_sections_are_the_same(page: str) -> None:
    english = sections(text_of(page, "en"))
    assert len(english) > 5
    assert sections(text_of(page, "zh")) == english


@pytest.mark.parametrize("page", PAGES)
def test_code_is_the_same(page: str) -> None:
    english, chinese = blocks(text_of(page, "en")), blocks(text_of(page, "zh"))
    assert len(english) > 5
    assert [kind for kind, _ in chinese] == [kind for kind, _ in english]
    for (kind, code), (_, other) in zip(english, chinese, strict=True):
        assert other == code, f"a block of {kind} differs"


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_the_same(page: str) -> None:
    english, chinese = (links(text_of(page, language)) for language in LANGUAGES)
    name = page.rpartition("/")[2]
    # A page may link to the translation of another one.
    original = {link.replace(LANGUAGES["zh"], LANGUAGES["en"]) for link in chinese}
    assert english - {name + LANGUAGES["zh"]} == original - {name + LANGUAGES["en"]}
    assert name + LANGUAGES["zh"] in english
    assert name + LANGUAGES["en"] in chinese


@pytest.mark.parametrize("page", PAGES)
def test_tables_name_the_same_options(page: str) -> None:
    english = tables(text_of(page, "en"))
    assert english
    assert tables(text_of(page, "zh")) == english


def test_tables_of_options_are_found() -> None:
    assert sum(bool(row) for table in tables(text_of("README", "en")) for row in table) > 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_plugin_is_named(language: str) -> None:
    plugins = {folder.name for folder in (ROOT / "plugins").glob("sj-ann2snn-*")}
    assert plugins
    named = set(re.findall(r"`(sj-ann2snn-[a-z0-9-]+)`", text_of("README", language)))
    assert not plugins - named, f"README{LANGUAGES[language]} does not name {sorted(plugins - named)}"
