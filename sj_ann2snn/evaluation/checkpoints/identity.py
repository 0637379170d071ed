"""Whether two runs are the same one: checksums of networks and data, and texts for everything else."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..._version import __version__
from ...compat import spikingjelly_version
from ...contracts.checksums import why_not_plain
from ...contracts.readout import SUGGESTED
from ...support.site_notes import notes_of

__all__ = ["Identity", "checksum", "conversion_of", "layers_of", "text_of", "versions"]

Identity = dict[str, Any]
"""What makes a run: by name, a text, or a mapping from layers to checksums."""

OF_A_MOMENT = ("meta", "step_mode", "training")
"""Attributes of a module that do not change what `evaluate` measures, or are looked at by themselves."""

MOST_OBJECTS = 1000
"""Objects inside each other that are looked at; of more, only the class counts."""

PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout, torch.memory_format, range)


def checksum(*values: Any) -> str:
    """A checksum of tensors and plain values, nested in any way.

    >>> checksum(torch.ones(2)) == checksum(torch.ones(2)), checksum(torch.ones(2)) == checksum(torch.ones(2, 1))
    (True, False)
    """
    found = hashlib.sha256()
    for part in _parts(values):
        found.update(part)
    return found.hexdigest()[:32]


def text_of(value: Any) -> str:
    """A value in words that are the same in every process: an object by its class and what it holds.

    >>> from sj_ann2snn import Delayed
    >>> text_of(Delayed(delay=2)), text_of(None), text_of({"top": 5})
    ('Delayed(delay=2)', 'None', "{'top': 5}")

    A function is known by its name and by a checksum of its code.
    """
    return _Words().of(value)


def layers_of(network: nn.Module) -> dict[str, str]:
    """A checksum of every module: its class, its settings and its own tensors; of a graph, also its calls.

    >>> list(layers_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
    ['the network itself', '0', '1']
    """
    found = {}
    for name, module in network.named_modules():
        settings = {
            key: value for key, value in vars(module).items() if not key.startswith("_") and key not in OF_A_MOMENT
        }
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        graph = (str(module.graph), module.meta.get(SUGGESTED)) if isinstance(module, fx.GraphModule) else ()
        found[name or "the network itself"] = checksum(_name(type(module)), settings, own, graph)
    return found


def conversion_of(network: nn.Module) -> dict[str, str]:
    """The arguments of the conversion, as far as the network has noted them.

    Raises:
        InputError: Something else has written into its notes.
    """
    notes = notes_of(network)
    return (
        {}
        if notes is None
        else {
            name if name == "mode" else f"the conversion's {name}": text_of(value) for name, value in notes.call.items()
        }
    )


def versions() -> dict[str, str]:
    """The versions of everything that computes.

    >>> list(versions())
    ['sj-ann2snn', 'SpikingJelly', 'torch', 'numba']
    """
    try:
        numba = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        numba = "not installed"
    return {
        "sj-ann2snn": __version__,
        "SpikingJelly": spikingjelly_version(),
        "torch": str(torch.__version__),
        "numba": numba,
    }


def _parts(value: Any) -> Iterator[bytes]:
    """The bytes whose checksum stands for a value; each part says what it is, so that none runs into the next."""
    if isinstance(value, Tensor):
        yield from _tensor(value)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"<array {value.dtype.str} {value.shape}>".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield f"<mapping {len(value)}>".encode()
        for key, one in value.items():
            yield f"<key {text_of(key)}>".encode()
            yield from _parts(one)
    elif isinstance(value, Sequence) and not isinstance(value, PLAIN):
        yield f"<sequence {len(value)}>".encode()
        for one in value:
            yield from _parts(one)
    else:
        text = text_of(value).encode(errors="surrogatepass")
        yield f"<value {len(text)}>".encode()
        yield text


def _tensor(value: Tensor) -> Iterator[bytes]:
    yield f"<tensor {value.dtype} {tuple(value.shape)}>".encode()
    if why_not_plain(value):
        return  # its values cannot be read, but its shape can
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()


class _Words:
    """Writes values as text; an object that comes again is only named, so that cycles and crossings end."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}

    def of(self, value: Any) -> str:
        if value is None or isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (Tensor, np.ndarray)):
            return f"<tensor {checksum(value)}>"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self.of(key)}: {self.of(one)}" for key, one in value.items()) + "}"
        if isinstance(value, AbstractSet):
            return "{" + ", ".join(sorted(map(self.of, value))) + "}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self.of, value))})"
        if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)) or not hasattr(value, "__dict__"):
            return _name(value)
        if id(value) in self._seen or len(self._seen) >= MOST_OBJECTS:
            return f"<{_name(type(value))}>"
        self._seen[id(value)] = value
        return self._object(value)

    def _object(self, value: Any) -> str:
        if isinstance(value, nn.Module):
            return f"<{_name(type(value))} {checksum(layers_of(value))}>"
        if isinstance(value, functools.partial):
            return f"partial{self.of((value.func, value.args, value.keywords))}"
        if isinstance(value, types.MethodType):
            return f"{self.of(value.__self__)}.{self.of(value.__func__)}"
        if isinstance(value, types.FunctionType):
            held = (value.__defaults__, value.__kwdefaults__, [_held(cell) for cell in value.__closure__ or ()])
            return f"{_name(value)} <{checksum(self._code(value.__code__), self.of(held))}>"
        options = ", ".join(f"{name}={self.of(one)}" for name, one in sorted(vars(value).items()))
        return f"{type(value).__qualname__}({options})"

    def _code(self, code: types.CodeType) -> str:
        constants = [self._code(one) if isinstance(one, types.CodeType) else self.of(one) for one in code.co_consts]
        return repr((code.co_code.hex(), code.co_names, constants))


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a function that refers to itself before it exists
        return None


def _name(value: Any) -> str:
    """The qualified name of a class, a function or a module; of other objects, that of their class."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if not hasattr(value, "__qualname__"):
        value = type(value)
    return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
