"""Step-mode-aware counterparts of the operations of an ANN."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..compat import StepModule, layer
from ..support.trees import map_tensors

__all__ = ["Stepwise", "call_operation", "operation_label", "to_step_module"]


class Stepwise(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Runs a stateless operation step by step ("s") or on all steps at once ("m").

    >>> import torch
    >>> flatten = Stepwise(torch.flatten, sequences=(0,))
    >>> flatten.step_mode = "m"
    >>> flatten(torch.zeros(8, 4, 2, 3), 1).shape
    torch.Size([8, 4, 6])

    Step mode "m" merges the time and sample dimensions of the sequences among the arguments, so the operation receives
    ``[T * N, ...]`` where it received ``[N, ...]`` in the ANN.

    Args:
        operation: A module, a function, or the name of a tensor method.
        sequences: Which tensors among the arguments (in order, including nested ones) carry time and samples; the
            others, parameters, are passed on unchanged.
    """

    def __init__(self, operation: nn.Module | Callable[..., Any] | str, sequences: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.operation = operation
        self.sequences = sequences
        self.step_mode = "s"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.step_mode == "s":
            return call_operation(self.operation, *args, **kwargs)
        positions = itertools.count()
        steps: tuple[int, ...] = ()

        def merge(x: Tensor) -> Tensor:
            nonlocal steps
            if next(positions) not in self.sequences:
                return x
            steps = tuple(x.shape[:2])
            return x.flatten(0, 1)

        merged_args, merged_kwargs = map_tensors((args, kwargs), merge)
        out = call_operation(self.operation, *merged_args, **merged_kwargs)
        # A batch may now have several rows per sample (windows).
        return map_tensors(out, lambda y: y.reshape(steps[0], len(y) // steps[0], *y.shape[1:]))

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (operation_label(self.operation), f"step_mode={self.step_mode}")))


def call_operation(operation: nn.Module | Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
    """Call a module, a function, or a tensor method by name.

    >>> import torch
    >>> call_operation("add", torch.ones(1), 2), call_operation(torch.neg, torch.ones(1))
    (tensor([3.]), tensor([-1.]))

    Args:
        operation: What to call.
        args: Its arguments; for a method, the tensor comes first.
        kwargs: Its keyword arguments.
    """
    if isinstance(operation, str):
        return getattr(args[0], operation)(*args[1:], **kwargs)
    return operation(*args, **kwargs)


def operation_label(operation: nn.Module | Callable[..., Any] | str) -> str:
    """The name of an operation for `repr`; empty for a module, which has its own."""
    if isinstance(operation, nn.Module):
        return ""
    return operation if isinstance(operation, str) else operation.__name__


def to_step_module(module: nn.Module) -> nn.Module:
    """SpikingJelly's counterpart of `module`, with the same parameters; `Stepwise` if there is none.

    >>> import torch
    >>> type(to_step_module(torch.nn.Conv2d(1, 1, 1))).__module__.startswith("spikingjelly")
    True
    """
    if hasattr(module, "step_mode"):
        return module
    counterpart = getattr(layer, type(module).__name__, None)
    if counterpart is None or not issubclass(counterpart, type(module)):
        return Stepwise(module)
    # SpikingJelly's stateless layers are torch's layers with a step mode, so the whole state carries over, including
    # any argument that torch has added since.
    out: nn.Module = counterpart.__new__(counterpart)
    out.__dict__.update(copy.copy(module.__dict__))
    out._parameters = copy.copy(module._parameters)
    out._buffers = copy.copy(module._buffers)
    out.step_mode = "s"  # type: ignore[assignment]
    return out
