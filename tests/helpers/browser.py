"""A headless Chromium that says what a page does: its console, its requests, and how wide it gets."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Visit", "browser", "chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60


def chromium() -> str | None:
    """The program, if there is one here."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Visit:
    """What a page did while it was loaded and its details were opened.

    Attributes:
        requests: The URLs that it asked for.
        console: What it wrote to the console, and what the browser wrote there about it.
        width: Its width in CSS pixels, as far as one can scroll.
        wide: What is wider than the window and does not scroll by itself.
        background: The computed colour.
    """

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    width: int = 0
    wide: list[str] = field(default_factory=list)
    background: str = ""


OPENED = """(() => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const limit = document.documentElement.clientWidth + 0.5;
  const wide = [...document.querySelectorAll("body *")].filter(one =>
    one.getBoundingClientRect().right > limit && !one.closest(".scroll, svg"));
  return JSON.stringify({
    width: document.documentElement.scrollWidth,
    wide: wide.map(one => one.tagName + "." + one.className),
    background: getComputedStyle(document.body).backgroundColor,
  });
})()"""


class Browser:
    """Speaks the DevTools protocol over a pair of pipes."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._numbers, self._rest = itertools.count(1), b""
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def visit(self, page: Path, *, width: int, dark: bool = False) -> Visit:
        """Load a page and open its details."""
        scheme = "dark" if dark else "light"
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self._events):
            self._events.append(self._next())
        found = json.loads(self.ask("Runtime.evaluate", expression=OPENED)["result"]["value"])
        return Visit(
            requests=[one["params"]["request"]["url"] for one in self._of("Network.requestWillBeSent")],
            console=[
                *(one["params"]["entry"]["text"] for one in self._of("Log.entryAdded")),
                *(str(one["params"]["args"]) for one in self._of("Runtime.consoleAPICalled")),
                *(str(one["params"]["exceptionDetails"]) for one in self._of("Runtime.exceptionThrown")),
            ],
            **found,
        )

    def ask(self, method: str, **params: Any) -> Any:
        """Send a command and wait for its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if hasattr(self, "_session") and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
            if "method" in found:
                self._events.append(found)

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [one for one in self._events if one["method"] == method]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            got = os.read(self._read, 1 << 16) if ready else b""
            if not got:
                raise TimeoutError("The browser does not answer.")
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A running browser whose profile lies in `folder`."""
    program = chromium()
    assert program is not None
    theirs_in, mine_out = os.pipe()
    mine_in, theirs_out = os.pipe()
    # The program reads commands from 3 and writes to 4; the shell puts the pipes there, from where nothing is in the way.
    given = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
    options = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"),
    ]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash", program, *options],
        pass_fds=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for one in (theirs_in, theirs_out, *given):
        os.close(one)
    try:
        yield Browser(mine_in, mine_out)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(mine_in)
        os.close(mine_out)
