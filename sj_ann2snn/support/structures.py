"""Outputs of classes: named tuples, dataclasses and kinds of dicts, opened into plain dicts and rebuilt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .trees import field_names

__all__ = [
    "Built",
    "call_of",
    "can_be_built",
    "fields_of",
    "has_fields",
    "is_built",
    "open_nodes",
    "open_values",
    "rebuild",
]


@dataclass(frozen=True)
class Built:
    """Stands in a template for an object of a class.

    Attributes:
        kind: The class.
        parts: The templates of its fields by name, or of a dict's values by key.
    """

    kind: type
    parts: Mapping[Any, Any]


def has_fields(kind: Any) -> bool:
    """True for the class of a named tuple, a dataclass, or a kind of dict of its own.

    >>> import collections
    >>> has_fields(collections.namedtuple("Pair", "one other")), has_fields(collections.OrderedDict), has_fields(dict)
    (True, True, False)
    """
    if not isinstance(kind, type) or kind.__module__.startswith("torch.fx."):
        return False
    if issubclass(kind, dict):
        return kind is not dict
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def fields_of(value: Any) -> dict[Any, Any]:
    """The fields with which an object of such a class is made, by name or key.

    >>> import collections
    >>> fields_of(collections.namedtuple("Pair", "one other")(1, 2))
    {'one': 1, 'other': 2}
    """
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, tuple):
        return dict(zip(field_names(value), value, strict=True))
    return {name: getattr(value, name) for name in _constructor_fields(type(value))}


def can_be_built(kind: type, parts: dict[Any, Any]) -> bool:
    """True if `kind` takes its parts as `call_of` gives them; a class with a constructor of its own may not.

    >>> import collections
    >>> can_be_built(collections.OrderedDict, {"a": 1}), can_be_built(collections.defaultdict, {"a": 1})
    (True, False)
    """
    args, kwargs = call_of(kind, parts)
    try:
        kind(*args, **kwargs)
    except Exception:
        return False
    return True


def is_built(node: fx.Node) -> bool:
    """True for a node that makes an object of such a class."""
    return node.op == "call_function" and has_fields(node.target)


def open_nodes(tree: Any) -> tuple[Any, Any]:
    """An output's arguments with a plain dict for every object that a node makes, and the template for `rebuild`."""
    return _opened(tree, _fields_of_node)


def open_values(tree: Any) -> tuple[Any, Any]:
    """An output with a plain dict for every object of such a class, and the template for `rebuild`.

    >>> import collections
    >>> Pair = collections.namedtuple("Pair", "one other")
    >>> plain, template = open_values([Pair(1, 2)])
    >>> plain, rebuild(plain, template)
    ([{'one': 1, 'other': 2}], [Pair(one=1, other=2)])
    """
    return _opened(tree, _fields_of_value)


def rebuild(plain: Any, template: Any, make: Callable[..., Any] | None = None) -> Any:
    """The objects again.

    Args:
        plain: What was opened, perhaps with other values.
        template: The template that came with it.
        make: Called with a class, positional and keyword arguments instead of the class itself.
    """
    if isinstance(template, Built):
        parts = {name: rebuild(plain[name], part, make) for name, part in template.parts.items()}
        args, kwargs = call_of(template.kind, parts)
        return make(template.kind, args, kwargs) if make else template.kind(*args, **kwargs)
    if isinstance(template, (tuple, list)):
        return type(template)(rebuild(value, part, make) for value, part in zip(plain, template, strict=True))
    if isinstance(template, dict):
        return {key: rebuild(plain[key], part, make) for key, part in template.items()}
    return plain


def call_of(kind: type, parts: dict[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which `kind` makes an object with these parts.

    >>> import collections
    >>> call_of(collections.OrderedDict, {"a": 1})
    (({'a': 1},), {})
    """
    by_name = dataclasses.is_dataclass(kind) or not issubclass(kind, dict)
    return ((), parts) if by_name else ((parts,), {})


def _opened(tree: Any, fields_of: Callable[[Any], tuple[type, dict[Any, Any]] | None]) -> tuple[Any, Any]:
    found = fields_of(tree)
    if found is not None:
        kind, fields = found
        opened = {name: _opened(value, fields_of) for name, value in fields.items()}
        templates = {name: template for name, (_, template) in opened.items()}
        return {name: plain for name, (plain, _) in opened.items()}, Built(kind, templates)
    if isinstance(tree, (tuple, list)) and not isinstance(tree, torch.Size) and not field_names(tree):
        pairs = [_opened(item, fields_of) for item in tree]
        sequence = tuple if isinstance(tree, tuple) else list
        return sequence(plain for plain, _ in pairs), sequence(template for _, template in pairs)
    if isinstance(tree, dict):
        by_key = {key: _opened(value, fields_of) for key, value in tree.items()}
        templates = {key: template for key, (_, template) in by_key.items()}
        return {key: plain for key, (plain, _) in by_key.items()}, templates
    return tree, None


def _fields_of_node(leaf: Any) -> tuple[type, dict[Any, Any]] | None:
    if not isinstance(leaf, fx.Node) or not is_built(leaf):
        return None
    kind: Any = leaf.target
    if issubclass(kind, tuple):
        return kind, {**dict(zip(kind._fields, leaf.args, strict=False)), **leaf.kwargs}
    given: Any = leaf.args[0] if leaf.args else leaf.kwargs
    return kind, dict(given)


def _constructor_fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init]


def _fields_of_value(leaf: Any) -> tuple[type, dict[Any, Any]] | None:
    kind = type(leaf)
    if not has_fields(kind):
        return None
    fields = fields_of(leaf)
    return (kind, fields) if can_be_built(kind, fields) else None
