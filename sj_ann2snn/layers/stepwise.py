"""Step-mode-aware counterparts of the operations of an ANN."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..compat import StepModule, layer
from ..support.trees import map_tensors

__all__ = ["Stepwise", "to_step_module"]


class Stepwise(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Runs a stateless operation step by step ("s") or on all steps at once ("m").

    >>> import torch
    >>> flatten = Stepwise(torch.flatten, sequences=(0,))
    >>> flatten.step_mode = "m"
    >>> flatten(torch.zeros(8, 4, 2, 3), 1).shape
    torch.Size([8, 4, 6])

    In step mode "m" the time and sample dimensions of the sequences among the arguments are merged, so
    that the operation sees ``[T * N, ...]`` as it saw ``[N, ...]`` in the ANN.

    Args:
        operation: A module, a function, or the name of a tensor method.
        sequences: Which tensors among the arguments (in order, nested ones included) carry time and samples;
            the others, parameters, are passed on as they are.
    """

    def __init__(self, operation: nn.Module | Callable[..., Any] | str, sequences: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.operation = operation
        self.sequences = sequences
        self.step_mode = "s"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.step_mode == "s":
            return self._call(args, kwargs)
        positions = itertools.count()
        steps: tuple[int, ...] = ()

        def merge(x: Tensor) -> Tensor:
            nonlocal steps
            if next(positions) not in self.sequences:
                return x
            steps = tuple(x.shape[:2])
            return x.flatten(0, 1)

        merged_args, merged_kwargs = map_tensors((args, kwargs), merge)
        out = self._call(merged_args, merged_kwargs)
        # A batch may have become finer (windows of a sample), hence -1.
        return map_tensors(out, lambda y: y.reshape(steps[0], -1, *y.shape[1:]))

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.operation, str):
            return getattr(args[0], self.operation)(*args[1:], **kwargs)
        return self.operation(*args, **kwargs)

    def extra_repr(self) -> str:
        if isinstance(self.operation, nn.Module):
            return f"step_mode={self.step_mode}"
        name = self.operation if isinstance(self.operation, str) else self.operation.__name__
        return f"{name}, step_mode={self.step_mode}"


def to_step_module(module: nn.Module) -> nn.Module:
    """SpikingJelly's counterpart of `module`, with the same parameters; `Stepwise` where it has none.

    >>> import torch
    >>> type(to_step_module(torch.nn.Conv2d(1, 1, 1))).__module__.startswith("spikingjelly")
    True
    """
    if hasattr(module, "step_mode"):
        return module
    counterpart = getattr(layer, type(module).__name__, None)
    if counterpart is None or not issubclass(counterpart, type(module)):
        return Stepwise(module)
    # SpikingJelly's stateless layers are torch's own with a step mode added, so the state carries over
    # whole, with every argument that torch may have added since.
    out: nn.Module = counterpart.__new__(counterpart)
    out.__dict__.update(copy.copy(module.__dict__))
    out._parameters = copy.copy(module._parameters)
    out._buffers = copy.copy(module._buffers)
    out.step_mode = "s"  # type: ignore[assignment]
    return out
