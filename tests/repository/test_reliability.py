"""The tables in docs/reliability.md and docs/determinism.md are what the tests of every combination cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..corpus import test_corpus as corpus
from ..matrices import test_ambient_states as states
from ..matrices import test_damaged_files as damage
from ..matrices import test_determinism as determinism
from ..matrices import test_interrupts as interrupts
from ..matrices import test_labels as labels
from ..matrices import test_layer_names as names
from ..matrices import test_loaders as loaders

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"


def table() -> str:
    """Each row: what is combined with what, how many cells, and what holds in each."""
    many_labels = len(labels.ALLOWED) + len(labels.REFUSED) + len(labels.OUTPUTS)
    many_loaders = len(loaders.WORKS) + len(loaders.READ_ONCE) + len(loaders.REFUSED) + len(loaders.BREAKS)
    many_names = sum(map(len, names.NAMES.values()))
    tries, at_night = sum(damage.TRIES.values()), sum(damage.TRIES_AT_NIGHT.values())
    rows = [
        ("states of torch", len(states.AMBIENT), "entry points × modes", len(states.ENTRY_POINTS) * len(states.MODES),
         "the result of the undisturbed call, bit for bit, and the state is back afterwards"),
        ("kinds of labels and outputs", many_labels, "entry points", len(labels.ENTRY_POINTS),
         "right, or refused with the reason"),
        ("kinds of loaders", many_loaders, "entry points and commands",
         len(loaders.ENTRY_POINTS) + len(loaders.COMMANDS), "right, or refused with the reason"),
        ("stages of a conversion, a simulation, an export", len(interrupts.STAGES), "interrupt", 1,
         "it comes out, the ANN is unchanged, nothing is left behind"),
        ("formats", len(damage.FORMATS), f"damaged files ({at_night} at night)", tries,
         "the same network, or a `FormatError`"),
        ("layer names", many_names, "places × ways to run a network", len(names.PLACES) * len(names.WAYS),
         "the network of ordinary names, bit for bit"),
        ("networks in the manner of real code", len(corpus.FORMS), "ways to run a network", 5,
         "the ANN's answer within the error of T steps, or refused with the reason"),
    ]  # fmt: skip
    lines = ["| what | × | cells | in each cell |", "|---|---|---|---|"]
    lines += [f"| {count} {what} | {by} {other} | {count * by:,} | {holds} |" for what, count, other, by, holds in rows]
    return "\n".join(lines)


def test_the_page_has_the_counts_of_the_tests() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"docs/reliability.md should have this table:\n\n{table()}"


@pytest.mark.parametrize("kind", determinism.NETWORKS)
def test_the_page_has_the_promises_of_the_tests(kind: str) -> None:
    page, found = PAGE.with_name("determinism.md"), determinism.table(kind)
    assert found in page.read_text(encoding="utf-8"), f"{page} should have this table:\n\n{found}"
