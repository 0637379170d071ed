"""Several processes that a launcher such as torchrun started run a command together; the first one prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import OptionError

__all__ = ["is_first", "launched", "local_device", "sharing"]

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets, and torch.distributed reads."""


def launched() -> bool:
    """True if a launcher started this process as one of several, or as the only one of a group."""
    return all(name in os.environ for name in VARIABLES)


def is_first() -> bool:
    """True for the process that says what it is doing."""
    return not launched() or os.environ["RANK"] == "0"


def local_device(name: str | None) -> str | None:
    """Without a number, ``cuda`` is the GPU of this process."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and launched() else name


@contextmanager
def sharing(args: argparse.Namespace) -> Iterator[None]:
    """While the context is open, the processes form a group; only the first one has a standard output.

    Args:
        args: The command's arguments; ``args.distributed`` says whether there is a group, ``args.first`` whether this
            is its first process.

    Raises:
        OptionError: The command runs in one process.
    """
    args.distributed, args.first = launched(), True
    if not args.distributed:
        yield
        return
    if not getattr(args, "shares", False):
        raise OptionError(
            "This command runs in one process, but a launcher has started several. With torchrun and the like, use "
            "evaluate, compare, diagnose or tune."
        )
    from torch import distributed

    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    args.first = distributed.get_rank() == 0
    before = sys.stdout
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
            if not args.first:
                sys.stdout = nowhere
            yield
    finally:
        sys.stdout = before
        if own:
            distributed.destroy_process_group()
