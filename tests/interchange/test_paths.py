"""The paths that `export` and `load_network` take, in every format."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from sj_ann2snn import ExportError, FormatError, OptionError, export, load_network, simulate

from ..helpers.exports import FORMATS, images, small


class PathOfBytes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, PathOfBytes])
@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_of_path(format: str, kind: Any, tmp_path: Path) -> None:
    snn, x = small(), images(3)
    export(snn, kind(tmp_path / FORMATS[format]))
    assert torch.equal(simulate(load_network(kind(tmp_path / FORMATS[format])), x, T=5), simulate(snn, x, T=5))


@pytest.mark.parametrize("path", [None, 3, ["a.zip"], object()])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(OptionError, match="path=.* is not allowed: give the path of a file"):
        export(small(), path)
    with pytest.raises(OptionError, match="path=.* is not allowed: give the path of a file"):
        load_network(path)


@pytest.mark.parametrize("name", ["a\0b.zip", "\ud800.zip"])
def test_what_no_file_can_be_called(name: str) -> None:
    with pytest.raises(ExportError, match="cannot be written: no file can have this name"):
        export(small(), name)
    with pytest.raises(FormatError, match="cannot be read: no file can have this name"):
        load_network(name)


@pytest.mark.parametrize("format", FORMATS)
def test_what_cannot_be_written_or_read(format: str, tmp_path: Path) -> None:
    snn, file = small(), FORMATS[format]
    (tmp_path / file).mkdir()
    for path, told in (
        (tmp_path / file, "Is a directory"),
        (tmp_path / "nowhere" / file, "No such file or directory"),
        (tmp_path / f"{'n' * 300}{file}", "File name too long"),
        (Path("/dev/full"), "No space left on device"),
    ):
        if path.is_absolute() and path.parts[1] == "dev" and not path.exists():
            continue
        with pytest.raises(ExportError, match=f"{path.name} cannot be written: {told}"):
            export(snn, path, format)
        if path.parts[1] != "dev":
            with pytest.raises(FormatError, match=f"{path.name} cannot be read: {told}"):
                load_network(path, format)
    assert [one.name for one in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("format", FORMATS)
def test_a_pipe_gets_a_file_that_can_be_read(format: str, tmp_path: Path) -> None:
    snn, x = small(), images(3)
    pipe, file = tmp_path / "pipe", tmp_path / FORMATS[format]
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        export(snn, pipe, format)
        file.write_bytes(read.result())
    assert pipe.is_fifo()
    assert torch.equal(simulate(load_network(file), x, T=5), simulate(snn, x, T=5))


@pytest.mark.parametrize("format", FORMATS)
def test_several_threads_export_to_one_path(format: str, tmp_path: Path) -> None:
    snn, path = small(), tmp_path / FORMATS[format]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: export(snn, path), range(16)))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert len(list(load_network(path).graph.nodes)) == len(list(snn.graph.nodes))
