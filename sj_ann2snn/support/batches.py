"""Splits batches of data into the network's inputs and the labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import Ann2SnnError, CalibrationError, InputError
from .makers import failing_layer, plugin_failure
from .wording import first_line

__all__ = [
    "HALF",
    "Signature",
    "describe_batch",
    "explain_rejection",
    "forward_signature",
    "move",
    "run_batch",
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
        return cls(
            tuple(str(node.target) for node in placeholders),
            tuple(str(node.target) for node in placeholders if not node.args),
        )

    def inputs_of(self, batch: Any) -> tuple[Any, ...]:
        """The network's inputs in `batch`.

        A tensor is the input itself. In a tuple or list, the inputs are the first elements, one for each input
        that the network requires. In a dict, they are the entries named like the network's inputs; if there are
        none and the network requires one input, it is the first tensor that is not a label.

        Raises:
            InputError: There are too few inputs, or they are not tensors.
        """
        count = max(1, len(self.required))
        if isinstance(batch, Tensor):
            found: tuple[Any, ...] = (batch,)
        elif isinstance(batch, Mapping):
            named = [batch[name] for name in self.names if name in batch]
            others = [v for k, v in batch.items() if isinstance(v, Tensor) and k not in LABEL_KEYS]
            found = tuple(named or others[:1])
        elif isinstance(batch, Sequence) and not isinstance(batch, str):
            found = tuple(batch[:count])
        else:
            found = ()
        if len(found) < count or not isinstance(found[0], Tensor):
            raise InputError(
                f"A batch holds {describe_batch(batch)}; the network takes {len(self.required)} input(s): "
                f"{', '.join(self.names)}. Allowed are a tensor, a tuple or list that starts with the inputs, "
                "or a dict with the inputs under their names."
            )
        return found

    def labels_of(self, batch: Any) -> Tensor:
        """The labels in `batch`: after the inputs, or under a key such as ``label``.

        Raises:
            InputError: There are none.
        """
        found: Any = None
        if isinstance(batch, Mapping):
            found = next((batch[key] for key in LABEL_KEYS if key in batch), None)
        elif isinstance(batch, Sequence) and len(batch) > max(1, len(self.required)):
            found = batch[max(1, len(self.required))]
        if found is None:
            raise InputError(
                f"A batch holds {describe_batch(batch)} but no labels: evaluate needs (input, label) or a dict "
                f"with one of {', '.join(LABEL_KEYS)}. To run without labels, use simulate."
            )
        return torch.as_tensor(found)


def forward_signature(module: nn.Module) -> Signature:
    """The inputs that a network's forward requires."""
    parameters = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    required = [p for p in parameters if p.default is p.empty]
    names = tuple(p.name for p in required)
    return Signature(names, names, tuple(p.name for p in required if p.kind is p.KEYWORD_ONLY))


def describe_batch(batch: Any) -> str:
    """A batch in words, for messages."""
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)} and dtype {batch.dtype}"
    if isinstance(batch, Mapping):
        return f"a dict with {', '.join(map(repr, batch)) or 'nothing'}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return f"a {type(batch).__name__} of {', '.join(map(describe_batch, batch)) or 'nothing'}"
    return f"a {type(batch).__name__}"


@contextmanager
def explain_rejection(
    given: Any, network: nn.Module, layers: Callable[[], Iterable[tuple[str, nn.Module]]] | None = None
) -> Iterator[None]:
    """If a network fails, say which layer failed, and what the network was given.

    Args:
        given: The input.
        network: The network.
        layers: Returns its layers, or the copies of them that ran, with their names; by default its own layers.

    Raises:
        PluginError: A plugin made the layer that failed.
        InputError: Another layer failed in a way that its input explains. All other errors pass through: those of the
            package, of the memory, and what the caller's own layers raise.
    """
    try:
        yield
    except (Ann2SnnError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        ran = list(layers() if layers else network.named_modules())
        failure = plugin_failure(network, ran, describe_batch(given), error)
        if failure is not None:
            raise failure from error
        if not isinstance(error, (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)):
            raise
        found = failing_layer(error, ran)
        where = f" (in the layer {found[0]}, {type(found[1]).__name__})" if found else ""
        raise InputError(
            f"The network cannot take {describe_batch(given)}: it fails with {type(error).__name__}: "
            f"{first_line(error)}{where}"
        ) from error


HALF = (torch.float16, torch.bfloat16)


def to_full_precision(value: Any) -> Any:
    """`value`, raised to single precision if it is a tensor in half precision."""
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def move(value: Any, device: torch.device | str) -> Any:
    """`value`, moved to `device` if it is a tensor."""
    return value.to(device) if isinstance(value, Tensor) else value


def run_batch(run: Callable[..., Any], batch: Any, index: int, signature: Signature, device: torch.device) -> Any:
    """Run one calibration batch; an error in the network says which batch it was.

    Raises:
        CalibrationError: The batch does not fit the network.
    """
    try:
        inputs = signature.inputs_of(batch)
    except InputError as error:
        raise CalibrationError(f"Calibration batch {index} does not fit the network. {error}") from error
    if inputs[0].dim() and not inputs[0].shape[0]:
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
