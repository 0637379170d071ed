"""Loads the user's network and data, given as ``MODULE:NAME`` or as an ONNX file on the command line."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..interchange.onnx import from_onnx
from ..support.wording import is_fault, listed, shortened, shown
from .users_code import failure

__all__ = ["load", "load_loaders", "load_network"]

_ONNX = re.compile(r"(.*\.onnx)(?::(.*))?", re.IGNORECASE | re.DOTALL)


def load_network(target: str) -> nn.Module:
    """The network that ``MODULE:FACTORY`` returns; FACTORY may also be a network itself.

    ``FILE.onnx`` is an ONNX file, and ``FILE.onnx:NAME,NAME`` one that ends at these values or nodes.

    Raises:
        InputError: The factory does not exist, fails, or returns something else.
        FormatError: The ONNX file does not exist, or cannot be read.
        UnsupportedError: It holds operators that cannot be read.
    """
    file = _ONNX.fullmatch(target)
    if file is not None:
        path, names = file.groups()
        return from_onnx(path, outputs=None if names is None else names.split(","))
    made = load(
        target,
        "a function that returns the trained network, such as models:trained, or an ONNX file, such as model.onnx",
    )
    if not isinstance(made, nn.Module):
        raise InputError(f"{target} returns {_article(made)}; it must return a trained torch.nn.Module.")
    return made


def load_loaders(target: str) -> tuple[Any, Any]:
    """The calibration loader and the test loader that ``MODULE:LOADERS`` returns.

    Raises:
        InputError: The function does not exist, fails, or returns something else.
    """
    made = load(target, "a function that returns (calibration_loader, test_loader), such as models:loaders")
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


def load(target: str, wanted: str, *, call: bool = True) -> Any:
    """What ``MODULE:NAME`` names, or returns if it is a function.

    Args:
        target: The text ``MODULE:NAME``.
        wanted: What it should be, for messages.
        call: Whether to call a function.

    Raises:
        InputError: There is no such thing, or the user's code fails.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute or module_name.startswith("."):
        raise InputError(f"{shown(target)} is not MODULE:NAME. Name {wanted}.")
    target = shortened(target)
    found = _import(target, module_name)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            public = listed(sorted(key for key in dir(found) if not key.startswith("_"))) or "nothing public"
            raise InputError(
                f"{target}: {module_name} has no {shown(name)}. It has {public}. Name {wanted}."
            ) from error
        except BaseException as error:
            if not is_fault(error):
                raise
            raise failure(f"{target}: looking up {shown(name)} failed", error) from error
    if not call or isinstance(found, nn.Module) or not callable(found):
        return found
    _require_no_arguments(target, found, wanted)
    try:
        return found()
    except BaseException as error:
        if not is_fault(error):
            raise
        raise failure(f"{target}: calling it failed", error) from error


def _require_no_arguments(target: str, function: Any, wanted: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not say what they take
        return
    required = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if required:
        what = "class" if isinstance(function, type) else "function"
        raise InputError(
            f"{target} is a {what} that needs arguments ({listed(required)}), but it is called without any. Name "
            f"{wanted}."
        )


def _import(target: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise failure(f"{target}: importing {module_name} failed", error) from error
        hint = ""
        if module_name.endswith(".py"):
            hint = f" Write the module's name, not the file's: {module_name[:-3].replace('/', '.')}."
        raise InputError(
            f"{target}: there is no module {shown(module_name)} in {Path.cwd()} or among the installed packages." + hint
        ) from error
    except BaseException as error:
        if not is_fault(error):
            raise
        raise failure(f"{target}: importing {module_name} failed", error) from error


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
