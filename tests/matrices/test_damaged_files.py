"""Formats x damage: a damaged file gives the network that was written, or a `FormatError`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sj_ann2snn import FormatError, export, load_network
from sj_ann2snn.interchange import describe

from ..helpers.exports import images, pooled
from ..helpers.networks import convert

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "archive": ("network.zip", {}),
    "compressed archive": ("network.zip", {"compress": True}),
    "torch": ("network.pt", {}),
}
"""The rows: file name and options."""


def flipped(content: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(8 * len(content))
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    """A block that a disk lost."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice((1, 64, 512)))
    return content[:start] + bytes(end - start) + content[end:]


def swapped(content: bytes, chance: random.Random) -> bytes:
    """Two blocks in each other's place."""
    size = chance.choice((1, 16, 128))
    first, second = sorted(chance.sample(range(0, len(content) - size, size), 2))
    one, two = content[first : first + size], content[second : second + size]
    return content[:first] + two + content[first + size : second] + one + content[second + size :]


def lengthened(content: bytes, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.randrange(1, 200))


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "one bit": flipped,
    "cut": cut,
    "zeros": zeroed,
    "swapped": swapped,
    "longer": lengthened,
}
"""The columns."""

TRIES = {"one bit": 100, "cut": 20, "zeros": 20, "swapped": 20, "longer": 10}
"""Files for each cell."""

TRIES_AT_NIGHT = {"one bit": 2000, "cut": 200, "zeros": 200, "swapped": 200, "longer": 50}
"""The same with ``-m nightly``."""


def check(format: str, damage: str, tries: int, folder: Path) -> None:
    file, options = FORMATS[format]
    path = folder / file
    export(convert(pooled(nn.MaxPool2d(2), nn.LeakyReLU()), images()), path, **options)
    content, wanted = path.read_bytes(), described(path)
    chance = random.Random(f"{format} {damage}")
    for attempt in range(tries):
        path.write_bytes(DAMAGE[damage](content, chance))
        found = described_or_refused(path)
        assert found in (wanted, None), f"attempt {attempt}: another network"


def described_or_refused(path: Path) -> dict[str, Any] | None:
    try:
        return described(path)
    except FormatError:
        return None


def described(path: Path) -> dict[str, Any]:
    """The document of the network in a file, with the checksums of its tensors."""
    return describe(load_network(path), {}).as_document()[0]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_noticed(format: str, damage: str, tmp_path: Path) -> None:
    check(format, damage, TRIES[damage], tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("format", FORMATS)
def test_more_damage_is_noticed(format: str, damage: str, tmp_path: Path) -> None:
    check(format, damage, TRIES_AT_NIGHT[damage], tmp_path)
