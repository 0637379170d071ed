"""What a zip file may hold, checked before any of it is unpacked."""

from __future__ import annotations

import zipfile

from sj_ann2snn import FormatError

__all__ = ["checked_members", "most_unpacked"]

MOST_RATIO = 100
"""How many times its own size a file may unpack to. Compressed weights reach 2, with nine of ten pruned 10."""

ALWAYS_ALLOWED = 1 << 28
"""Bytes that every file may unpack to; small networks of zeros compress a thousand times."""

ENCRYPTED = 0x1
"""Bit of a member's flags."""


def checked_members(archive: zipfile.ZipFile, size: int, *, compressed: bool) -> dict[str, zipfile.ZipInfo]:
    """The members of a file of `size` bytes, by name.

    Args:
        archive: The file.
        size: Its size.
        compressed: Members may be compressed, by deflate.

    Raises:
        FormatError: Two members have the same name; a member is encrypted, compressed by another method or placed
            outside the archive; or together they are too large for the file.
    """
    methods = (zipfile.ZIP_STORED, *([zipfile.ZIP_DEFLATED] if compressed else []))
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name in members:
            raise FormatError(f"it holds two members called {name!r}.")
        if member.flag_bits & ENCRYPTED:
            raise FormatError(f"its member {name!r} is encrypted.")
        if member.compress_type not in methods:
            raise FormatError(f"its member {name!r} is compressed by a method that this format does not use.")
        if name.startswith("/") or ".." in name.split("/"):
            raise FormatError(f"its member {name!r} lies outside the archive.")
        members[name] = member
    unpacked, most = sum(member.file_size for member in members.values()), most_unpacked(size) if compressed else size
    if unpacked > most:
        raise FormatError(f"its members have {unpacked:,} bytes; a file of {size:,} bytes may hold {most:,}.")
    return members


def most_unpacked(packed: int) -> int:
    """How many bytes a file of `packed` bytes may unpack to."""
    return max(ALWAYS_ALLOWED, MOST_RATIO * packed)
