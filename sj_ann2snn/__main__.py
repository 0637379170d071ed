"""`python -m sj_ann2snn` is the command `sj-ann2snn`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
