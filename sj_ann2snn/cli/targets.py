"""Loads the user's network and data, given as ``MODULE:NAME`` on the command line."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from ..errors import InputError
from ..support.wording import shown

__all__ = ["current_directory_importable", "load_loaders", "load_network"]


@contextmanager
def current_directory_importable() -> Iterator[None]:
    """While the context is open, modules in the current directory can be imported, as under ``python -m``."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def load_network(target: str) -> nn.Module:
    """The network that ``MODULE:FACTORY`` returns; FACTORY may also be a network itself.

    Raises:
        InputError: The factory does not exist, fails, or returns something else.
    """
    made = _load(target, "a function that returns the trained network, such as models:trained")
    if not isinstance(made, nn.Module):
        raise InputError(f"{target} returns {_article(made)}; it must return a trained torch.nn.Module.")
    return made


def load_loaders(target: str) -> tuple[Any, Any]:
    """The calibration loader and the test loader that ``MODULE:LOADERS`` returns.

    Raises:
        InputError: The function does not exist, fails, or returns something else.
    """
    made = _load(target, "a function that returns (calibration_loader, test_loader), such as models:loaders")
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        held = f" of {len(made)}" if isinstance(made, (tuple, list)) else ""
        raise InputError(
            f"--data {target} returns {_article(made)}{held}; it must return two: (calibration_loader, test_loader)."
        )
    for which, loader in zip(("calibration", "test"), made, strict=True):
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            raise InputError(
                f"--data {target} returns {_article(loader)} as {which} loader; it must be an iterable of batches, "
                "such as a DataLoader or a list."
            )
        if isinstance(loader, Iterator):
            raise InputError(
                f"--data {target} returns {_article(loader)} as {which} loader, which can be read only once, but every "
                "mode reads it. Return a DataLoader or a list."
            )
    return made[0], made[1]


def _load(target: str, wanted: str) -> Any:
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f"{shown(target)} is not MODULE:NAME. Name {wanted}.")
    found = _import(target, module_name)
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))) or "nothing public"
            raise InputError(f"{target}: {module_name} has no {shown(name)}. It has {public}. Name {wanted}.")
        found = getattr(found, name)
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        _raise_user_error(f"{target}: calling it failed with", error)


def _import(target: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            _raise_user_error(f"{target}: importing {module_name} failed with", error)
        hint = ""
        if module_name.endswith(".py"):
            hint = f" Write the module's name, not the file's: {module_name[:-3].replace('/', '.')}."
        raise InputError(
            f"{target}: there is no module {shown(module_name)} in {Path.cwd()} or among the installed packages." + hint
        ) from error
    except Exception as error:
        _raise_user_error(f"{target}: importing {module_name} failed with", error)


def _raise_user_error(what: str, error: Exception) -> NoReturn:
    """Wrap an error in the user's code, with that code's traceback as a note."""
    text = str(error).strip()
    wrapped = InputError(f"{what} {type(error).__name__}{f': {text}' if text else ''}")
    own = str(Path(__file__))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (own, importlib.__file__) and not frame.filename.startswith("<frozen")
    ]
    wrapped.add_note("".join(traceback.format_list(frames)).rstrip())
    raise wrapped from error


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
