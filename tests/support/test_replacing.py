"""Replacing files: links, permissions, devices, pipes, several writers, and whatever ends a write early."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sj_ann2snn import replacing
from sj_ann2snn.support import replacing as module

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and permissions as on POSIX systems")


ALONE = f"import runpy\nreplacing = runpy.run_path({module.__file__!r})['replacing']\n"
"""Code that gets the function without the package, which takes seconds to import."""


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture(params=["unnamed", "named", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file that has no name until it is complete; with a named one; where a file cannot be given a name."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif request.param == "copied":

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(1, "not permitted")

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("way")
class TestEveryWay:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
    def test_an_old_file_keeps_its_permissions(self, mode: int, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        path.chmod(mode)
        write(path)
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)
        assert names(tmp_path) == ["file"]

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_a_new_file_has_those_of_any_new_file(self, umask: int, tmp_path: Path) -> None:
        before = os.umask(umask)
        try:
            write(tmp_path / "file")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask

    @pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
    def test_whatever_ends_the_block_leaves_the_old_file(self, error: type[BaseException], tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")

        def fail() -> None:
            with replacing(path) as file:
                file.write(b"half")
                raise error

        with pytest.raises(error):
            fail()
        assert (path.read_text(), names(tmp_path)) == ("old", ["file"])

    def test_many_writers_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        start = threading.Barrier(8)

        def one(number: int) -> None:
            start.wait()
            for _ in range(20):
                write(path, bytes([number]) * 1000)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        content = path.read_bytes()
        assert (len(content), len(set(content)), names(tmp_path)) == (1000, 1, ["file"])

    @pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "with space", "-", ".hidden", "a\nb"])
    def test_every_name_that_the_system_allows(self, name: str, tmp_path: Path) -> None:
        write(tmp_path / name)
        assert names(tmp_path) == [name]


class TestLinks:
    def test_the_file_behind_links_is_replaced(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        (inner / "file").write_text("old")
        (tmp_path / "one").symlink_to("inner/file")
        (tmp_path / "two").symlink_to(tmp_path / "one")
        (tmp_path / "folder").symlink_to("inner")
        for path in (tmp_path / "two", tmp_path / "folder" / "file"):
            write(path, str(path).encode())
            assert (inner / "file").read_text() == str(path)
        assert (tmp_path / "one").is_symlink()
        assert (names(tmp_path), names(inner)) == (["folder", "inner", "one", "two"], ["file"])

    def test_a_link_to_nothing_gets_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("later")
        write(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "later").read_bytes() == b"new"

    def test_a_circle_of_links_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            write(tmp_path / "a")


class TestWhatIsNoFile:
    def test_a_device_stays(self) -> None:
        write(Path(os.devnull))
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)

    def test_a_pipe_is_written_to(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
        for path in (tmp_path / "pipe", tmp_path / "link"):
            with ThreadPoolExecutor(1) as pool:
                read = pool.submit((tmp_path / "pipe").read_bytes)
                write(path)
                assert read.result() == b"new"
        assert names(tmp_path) == ["link", "pipe"]

    @pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="the system has no /dev/stdout")
    @pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
    def test_standard_output_is_written_to(self, path: str, tmp_path: Path) -> None:
        code = f"{ALONE}with replacing({path!r}) as f: f.write(b'new')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=300)
        assert done.stdout == b"new"
        with (tmp_path / "file").open("wb") as file:
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True, timeout=300)
        assert ((tmp_path / "file").read_bytes(), names(tmp_path)) == (b"new", ["file"])

    def test_a_folder_stays(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(IsADirectoryError):
            write(tmp_path / "folder")
        assert names(tmp_path) == ["folder"]


class TestWhatCannotBeWritten:
    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            write(tmp_path / "nowhere" / "file")

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="File name too long"):
            write(tmp_path / ("n" * 256))
        assert names(tmp_path) == []

    @pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
    def test_what_is_write_protected(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("old")
        (tmp_path / "file").chmod(0o444)
        with pytest.raises(PermissionError):
            write(tmp_path / "file")
        (tmp_path / "file").chmod(0o644)
        tmp_path.chmod(0o555)
        try:
            with pytest.raises(PermissionError):
                write(tmp_path / "file")
        finally:
            tmp_path.chmod(0o755)
        assert (tmp_path / "file").read_text() == "old"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
    def test_a_full_disk(self) -> None:
        with pytest.raises(OSError, match="No space left on device"):
            write(Path("/dev/full"))


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without a name")
def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    code = (
        f"import time\n{ALONE}"
        f"with replacing({str(tmp_path / 'file')!r}) as f:\n    f.write(b'half')\n    f.flush()\n"
        "    print('written', flush=True)\n    time.sleep(600)"
    )
    (tmp_path / "file").write_text("old")
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert running.stdout is not None
    with running.stdout:
        assert running.stdout.readline() == b"written\n"
        if names(tmp_path) != ["file"]:
            running.kill()
            running.wait()
            pytest.skip("this file system has no files without a name")
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert ((tmp_path / "file").read_text(), names(tmp_path)) == ("old", ["file"])
