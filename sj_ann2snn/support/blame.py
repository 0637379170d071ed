"""Names the plugin when a plugin's code raises an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import Ann2SnnError, PluginError
from .wording import described, is_fault

__all__ = ["OWN", "WHAT_TO_DO", "Culprit", "blame", "describe_failure", "translated"]

OWN = "your own argument"
"""The owner of objects that the caller passes directly."""

WHAT_TO_DO = "Report this to the plugin's maintainers, or disable the plugin with SJ_ANN2SNN_DISABLE_PLUGINS."
"""The end of messages about a faulty plugin that is installed."""

OWN_FAULT = "You passed it yourself, so the fault is in your own code."


@dataclass(frozen=True)
class Culprit:
    """A plugin's class in messages.

    >>> print(Culprit("Mode 'm'", "some-plugin 1.0"))
    Mode 'm' (some-plugin 1.0)

    Attributes:
        what: The kind of class and its name.
        owner: The distribution that it comes from, with its version; `OWN` if the caller passed it.
    """

    what: str
    owner: str = OWN

    def __str__(self) -> str:
        return f"{self.what} ({self.owner})"

    @property
    def advice(self) -> str:
        """What to do about a fault: the end of a message."""
        return OWN_FAULT if self.owner == OWN else WHAT_TO_DO


@contextmanager
def blame(culprit: Culprit, doing: str, code: object, method: str) -> Iterator[None]:
    """Turn any exception inside into a `PluginError` that says whose code failed.

    >>> class Watcher:
    ...     def observe(self, x): ...
    >>> with blame(Culprit("Mode 'm'", "some-plugin 1.0"), "observing relu1", Watcher(), "observe"):
    ...     1 / 0
    Traceback (most recent call last):
    sj_ann2snn.errors.PluginError: Mode 'm' (some-plugin 1.0), observing relu1, failed with ZeroDivisionError: \
division by zero (in Watcher.observe). Report this to the plugin's maintainers, or disable the plugin with \
SJ_ANN2SNN_DISABLE_PLUGINS.

    The package's own errors pass through, because a plugin raises them on purpose, and so does Ctrl-C. A plugin that
    calls `sys.exit()` fails like any other.

    Args:
        culprit: The plugin's class.
        doing: What it was asked to do, with the layer if there is one; may be empty.
        code: The object, or the class, whose method runs.
        method: Name of that method.

    Raises:
        PluginError: The code inside raised an exception.
    """
    cls = code if isinstance(code, type) else type(code)
    with translated(lambda error: PluginError(describe_failure(culprit, doing, f"{cls.__name__}.{method}", error))):
        yield


@contextmanager
def translated(make: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Turn any exception inside, except for the package's own errors and Ctrl-C, into the one that `make` returns.

    >>> with translated(lambda error: PluginError(f"It failed with {error}")):
    ...     1 / 0
    Traceback (most recent call last):
    sj_ann2snn.errors.PluginError: It failed with division by zero
    """
    try:
        yield
    except Ann2SnnError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise make(error) from error


def describe_failure(culprit: Culprit, doing: str, where: str, error: BaseException) -> str:
    """The message for an exception in a plugin's code; `where` is the class and the method."""
    told = described(error).removesuffix(".")
    when = f", {doing}," if doing else ""
    return f"{culprit}{when} failed with {told} (in {where}). {culprit.advice}"
