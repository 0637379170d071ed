"""Splits batches of data into the network's inputs and the labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..errors import Ann2SnnError, CalibrationError, InputError
from .makers import failing_layer, plugin_failure
from .names import NAME
from .neutral import ordinary
from .trees import map_leaves, map_tensors, tensors
from .wording import first_line, is_fault, listed, shortened, shown

__all__ = [
    "HALF",
    "Signature",
    "count_samples",
    "describe_batch",
    "explain_rejection",
    "first_samples",
    "forward_signature",
    "move",
    "rows_of_inputs",
    "run_batch",
    "samples_of",
    "to_full_precision",
]

LABEL_KEYS = ("label", "labels", "target", "targets", "y")


@dataclass(frozen=True)
class Signature:
    """The network's inputs by name, in order.

    >>> Signature(("x",), ("x",)).inputs_of([torch.zeros(2, 3), torch.tensor([0, 1])])[0].shape
    torch.Size([2, 3])
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    """The keyword-only inputs."""
    collection: bool = False
    """The first input is a list of tensors, as its annotation says: a list of tensors is that input."""

    def caller(self, module: Callable[..., Any]) -> Callable[..., Any]:
        """`module` as a function of all its inputs in order."""

        def call(*inputs: Any) -> Any:
            named = dict(zip(self.names, inputs, strict=False))
            keywords = {name: named.pop(name) for name in self.keywords if name in named}
            return module(*named.values(), **keywords)

        return call

    @classmethod
    def of(cls, module: fx.GraphModule) -> Signature:
        """The signature of a traced network."""
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        names = {node: str(node.meta.get(NAME, node.target)) for node in placeholders}
        return cls(tuple(names.values()), tuple(names[node] for node in placeholders if not node.args))

    def inputs_of(self, batch: Any) -> tuple[Any, ...]:
        """The network's inputs in `batch`.

        A tensor is the input itself. In a tuple or list, the inputs are the first elements, one for each input that
        the network requires; each may itself be a list or a dict of tensors. In a dict, they are the entries named
        like the network's inputs; if there are none and the network requires one input, it is the first tensor that
        is not a label.

        Raises:
            InputError: There are too few inputs, or they are not tensors.
        """
        count = max(1, len(self.required))
        if isinstance(batch, Tensor):
            found: tuple[Any, ...] = (batch,)
        elif isinstance(batch, Mapping):
            found = tuple(batch[key] for key in self._keys_of(batch))
        elif self._is_input(batch):
            found = (batch,)
        elif isinstance(batch, Sequence) and not isinstance(batch, str):
            found = tuple(batch[:count])
        else:
            found = ()
        if len(found) < count or not tensors(found[0]):
            raise InputError(
                f"A batch holds {describe_batch(batch)}; the network takes {len(self.required)} input(s): "
                f"{listed(self.names)}. Allowed are a tensor, a tuple or list that starts with the inputs, "
                "or a dict with the inputs under their names."
            )
        return tuple(map_leaves(value, ordinary) for value in found)

    def _is_input(self, batch: Any) -> bool:
        """True if the batch is a list of tensors that is a single input."""
        return self.collection and _all_tensors(batch)

    def _keys_of(self, batch: Mapping[Any, Any]) -> list[Any]:
        """The keys of the inputs."""
        named = [name for name in self.names if name in batch]
        others = [key for key, value in batch.items() if isinstance(value, Tensor) and key not in LABEL_KEYS]
        return named or others[:1]

    def targets_of(self, batch: Any) -> Any:
        """The targets in `batch`, as they are: a tuple of what follows the inputs, or what a dict holds.

        In a dict, the entry under a key such as ``label``; without one, a dict of all entries that are no inputs.

        >>> Signature(("x",), ("x",)).targets_of([torch.zeros(2, 3), torch.tensor([0, 1])])
        (tensor([0, 1]),)

        Raises:
            InputError: There are none.
        """
        found: Any = ()
        if isinstance(batch, Mapping):
            labels = [batch[key] for key in LABEL_KEYS if batch.get(key) is not None]
            taken = self._keys_of(batch)
            others = {key: value for key, value in batch.items() if key not in taken and value is not None}
            found = (labels[0],) if labels else others
        elif (
            isinstance(batch, Sequence) and not isinstance(batch, str) and not (self.collection and _all_tensors(batch))
        ):
            found = tuple(batch[max(1, len(self.required)) :])
        if not found or (isinstance(found, tuple) and found[0] is None):
            raise InputError(
                f"A batch holds {describe_batch(batch)} but no labels: evaluate needs (input, label) or a dict "
                f"with one of {', '.join(LABEL_KEYS)}. To compare with the ANN instead, give ann=...; to run without "
                "labels, use simulate."
            )
        return found


def forward_signature(module: nn.Module, batch: Any = None) -> Signature:
    """The inputs of a network's forward: those that it requires and, of the optional ones, those in `batch`.

    >>> def forward(pixel_values=None, labels=None): ...
    >>> network = nn.Module()
    >>> network.forward = forward
    >>> forward_signature(network, {"pixel_values": torch.zeros(2, 3), "labels": torch.zeros(2)}).names
    ('pixel_values',)

    Args:
        module: The network.
        batch: A batch of data; without one, only the required inputs count.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    by_keyword = [p.name for p in named if p.name in required and p.kind is p.KEYWORD_ONLY]
    optional = [p for p in named if p.default is not p.empty]
    extra = _optional_inputs(parameters, optional, len(required), batch)
    # An optional input may stand behind one that is left out, so it is given by name.
    by_keyword += [name for name in extra if name not in {p.name for p in named if p.kind is p.POSITIONAL_ONLY}]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not required and not extra:
        extra = [f"input_{index}" for index in range(_positional_inputs(batch))]
    names = (*required, *extra)
    return Signature(names, names, tuple(by_keyword), bool(names) and _is_collection(module, names[0]))


def _is_collection(module: nn.Module, name: str) -> bool:
    """True if the annotation of an input says that it is a list or tuple of several tensors."""
    try:
        hint: Any = get_type_hints(module.forward).get(name)
    except Exception:  # an annotation may name what does not exist at run time
        hint = getattr(module.forward, "__annotations__", {}).get(name)
    return get_origin(hint) in (list, tuple, Sequence, Iterable) or hint in (list, tuple)


def _all_tensors(batch: Any) -> bool:
    return isinstance(batch, (list, tuple)) and bool(batch) and all(isinstance(one, Tensor) for one in batch)


def _optional_inputs(
    parameters: list[inspect.Parameter], optional: list[inspect.Parameter], required: int, batch: Any
) -> list[str]:
    """The optional inputs that a batch gives."""
    if isinstance(batch, Mapping):
        known = [p.name for p in optional]
        names = [name for name in known if batch.get(name) is not None and name not in LABEL_KEYS]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            taken = {p.name for p in parameters}
            names += [key for key in batch if isinstance(key, str) and key not in taken and key not in LABEL_KEYS]
        return names
    # A tensor, or a pair of a tensor and labels: the first input, optional or not.
    return [p.name for p in optional[:1]] if batch is not None and not required else []


def _positional_inputs(batch: Any) -> int:
    """How many inputs a network that takes any number of them finds in a batch; the last of several are labels."""
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return max(1, len(batch) - 1)
    return 1


FIRST, DEEPEST = 4, 3
"""Entries of a list, and lists inside each other, that the description of a batch spells out."""


def describe_batch(batch: Any, depth: int = 0) -> str:
    """A batch in words, for messages; of long and nested lists only the beginning.

    >>> describe_batch((torch.zeros(2, 3), [0] * 1000))
    'a tuple of a tensor of shape (2, 3) and dtype torch.float32, a list of 1000 int'
    """
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)} and dtype {batch.dtype}"
    if isinstance(batch, np.ndarray):
        return f"a numpy array of shape {batch.shape} and dtype {batch.dtype}"
    if isinstance(batch, Mapping):
        return f"a dict with {listed(map(shown, batch)) or 'nothing'}"
    if isinstance(batch, Sequence) and not isinstance(batch, (str, bytes, range)):
        return f"a {type(batch).__name__} of {_describe_entries(batch, depth) or 'nothing'}"
    return f"a {type(batch).__name__}"


def _describe_entries(batch: Sequence[Any], depth: int) -> str:
    kinds = {type(one) for one in batch}
    if depth >= DEEPEST or (len(batch) > FIRST and len(kinds) == 1):
        alike = " and ".join(sorted(kind.__name__ for kind in kinds))
        return f"{len(batch)} {shortened(alike)}" if batch else ""
    first = ", ".join(describe_batch(one, depth + 1) for one in batch[:FIRST])
    return first + (f" and {len(batch) - FIRST} more" if len(batch) > FIRST else "")


REJECTIONS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What torch, or code that reads shapes, raises for an input that does not fit."""


@contextmanager
def explain_rejection(
    given: Any,
    network: nn.Module,
    layers: Callable[[], Iterable[tuple[str, nn.Module]]] | None = None,
    *,
    errors: tuple[type[Exception], ...] = REJECTIONS,
) -> Iterator[None]:
    """If a network fails, say which layer failed, and what the network was given.

    Args:
        given: What it was given.
        errors: The errors to explain; others pass through, and so do those of the package and out-of-memory errors.

    Raises:
        PluginError: A plugin made the layer that failed.
        InputError: Another layer failed in a way that its input explains. All other errors pass through: those of the
            package, of the memory, and what the caller's own layers raise.
    """
    try:
        yield
    except (Ann2SnnError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        ran = list(layers() if layers else network.named_modules())
        failure = plugin_failure(network, ran, describe_batch(given), error)
        if failure is not None:
            raise failure from error
        if not isinstance(error, errors):
            raise
        found = failing_layer(error, ran)
        where = f" (in the layer {found[0]}, {type(found[1]).__name__})" if found else ""
        raise InputError(
            f"The network cannot take {describe_batch(given)}: it fails with {type(error).__name__}: "
            f"{first_line(error)}{where}"
        ) from error


HALF = (torch.float16, torch.bfloat16)


def to_full_precision(value: Any) -> Any:
    """`value` with its tensors, if they are in half precision, raised to single precision."""
    return map_tensors(value, lambda x: x.float() if x.dtype in HALF else x)


def move(value: Any, device: torch.device | str) -> Any:
    """`value` with its tensors moved to `device`."""
    return map_tensors(value, lambda x: x.to(device))


def count_samples(inputs: Any) -> int:
    """The number of samples: the rows of the first tensor among the inputs.

    >>> count_samples(([torch.zeros(2, 3), torch.zeros(2, 5)],))
    2

    Args:
        inputs: An input, or several.
    """
    first = next(iter(tensors(inputs)), None)
    return int(first.shape[0]) if first is not None and first.dim() else 1


def samples_of(inputs: tuple[Any, ...]) -> int:
    """The number of samples in the inputs of a whole network: the length of a list of images, or the rows of a batch.

    >>> samples_of(([torch.zeros(3, 8, 8), torch.zeros(3, 9, 7)],)), samples_of(([torch.zeros(5, 3, 8, 8)],))
    (2, 5)
    """
    first = inputs[0] if inputs else ()
    return len(first) if _are_images(first) else count_samples(inputs)


def rows_of_inputs(inputs: tuple[Any, ...], part: slice, count: int) -> tuple[Any, ...]:
    """The inputs of some of `count` samples: images out of a list, or rows.

    >>> images = [torch.zeros(3, 8, 8), torch.zeros(3, 9, 7), torch.zeros(3, 6, 6)]
    >>> [tuple(x.shape) for x in rows_of_inputs((images,), slice(0, 2), 3)[0]]
    [(3, 8, 8), (3, 9, 7)]
    """
    first = inputs[0]
    if _are_images(first) and len(first) == count:
        return (first[part], *inputs[1:])
    return tuple(map_tensors(value, lambda x: x[part] if x.shape[:1] == (count,) else x) for value in inputs)


def first_samples(inputs: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """The inputs of the first samples of a batch."""
    count = samples_of(inputs)
    return inputs if count <= most else rows_of_inputs(inputs, slice(0, most), count)


def _are_images(first: Any) -> bool:
    """True for a list of images, which may differ in size, such as detectors take."""
    return isinstance(first, (list, tuple)) and all(isinstance(one, Tensor) and one.dim() == 3 for one in first)


def run_batch(run: Callable[..., Any], batch: Any, index: int, signature: Signature, device: torch.device) -> Any:
    """Run one calibration batch; an error in the network says which batch it was.

    Raises:
        CalibrationError: The batch does not fit the network.
    """
    try:
        inputs = signature.inputs_of(batch)
    except InputError as error:
        raise CalibrationError(f"Calibration batch {index} does not fit the network. {error}") from error
    if not count_samples(inputs[0]):
        raise CalibrationError(f"Calibration batch {index} holds no samples.")
    try:
        return run(*(to_full_precision(move(value, device)) for value in inputs))
    except Ann2SnnError:
        raise
    except Exception as error:
        raise CalibrationError(
            f"Calibration batch {index} does not fit the network. The batch holds {describe_batch(batch)}, "
            f"and the network fails on it with {type(error).__name__}: {first_line(error)}. "
            "Give batches in the form that the network takes."
        ) from error
