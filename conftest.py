"""What holds for the suite and for the examples in docstrings."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; more threads than that slow all of them down. Commands that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["sj_ann2snn.testing.fixed_seed"]
