"""Commands whose output is closed, full, or read by somebody who leaves early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.command_line import RUN, USER_CODE

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")

COMPARE = "compare usercode:network --data usercode:data --T 2 --modes max"

CASES = {
    "modes >/dev/full": (2, "error: The result cannot be written to standard output: No space left on device."),
    "modes --json >/dev/full": (2, "error: The result cannot be written to standard output: No space left on device."),
    "modes >&-": (2, "error: The result cannot be written to standard output: Bad file descriptor."),
    "--help >/dev/full": (2, "error: The result cannot be written to standard output: No space left on device."),
    "modes 2>&-": (0, ""),
    f"{COMPARE} 2>&- >/dev/null": (0, ""),
    f"{COMPARE} 2>/dev/full >/dev/null": (0, ""),
    f"{COMPARE} --json 2>&- >/dev/full": (2, ""),
    "check usercode:failing --input 6 2>/dev/full": (2, ""),
    "check usercode:failing --input 6 2>&- >&-": (2, ""),
    "nonsense 2>/dev/full": (2, ""),
}
"""Arguments and redirections, with the exit status and what standard error says."""


@pytest.mark.parametrize("line", CASES)
def test_output_that_goes_nowhere(line: str, tmp_path: Path) -> None:
    (tmp_path / "usercode.py").write_text(USER_CODE, encoding="utf-8")
    status, message = CASES[line]
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(Path(__file__).parents[2]), *([inherited] if inherited else [])])
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {line}', sys.executable, RUN],
        cwd=tmp_path,
        env={**os.environ, "SJ_ANN2SNN_LOAD_PLUGINS": "", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.strip() == message
