"""Names the plugin when a plugin's code raises an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Ann2SnnError, PluginError
from .wording import described, is_fault

__all__ = ["WHAT_TO_DO", "blame"]

WHAT_TO_DO = "Report this to the plugin's maintainers, or disable the plugin with SJ_ANN2SNN_DISABLE_PLUGINS."
"""The end of messages about a faulty plugin."""


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn any exception inside into a `PluginError` that says `what` failed.

    >>> with blame("Mode 'm' (some-plugin 1.0), observing relu1,"):  # doctest: +ELLIPSIS
    ...     1 / 0
    Traceback (most recent call last):
    sj_ann2snn.errors.PluginError: Mode 'm' (some-plugin 1.0), observing relu1, failed with ZeroDivisionError: ...

    The package's own errors pass through, because a plugin raises them on purpose, and so does Ctrl-C. A plugin that
    calls `sys.exit()` fails like any other.
    """
    try:
        yield
    except Ann2SnnError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise PluginError(f"{what} failed with {described(error)}. {WHAT_TO_DO}") from error
