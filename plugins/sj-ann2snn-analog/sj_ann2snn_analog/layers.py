"""The module that replaces operations in the spiking network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from sj_ann2snn import MemoryLayer, along_axis, call_operation, map_tensors, tensors

__all__ = ["TemporalDifference"]

Operation = nn.Module | Callable[..., Any] | str


_PLACE = torch.empty(0)
"""Stands for the tensors of a result."""


class TemporalDifference(MemoryLayer):
    """At every step, makes the mean of its outputs equal to the operation on the mean of its inputs.

    >>> import torch
    >>> square = TemporalDifference(torch.square)
    >>> [square(torch.tensor([x])).item() for x in (1.0, 0.0, 2.0)]
    [1.0, -0.5, 2.5]

    With f the operation and m(t) the mean of its inputs up to step t, the output at step t is
    ``t f(m(t)) - (t - 1) f(m(t - 1))``. The outputs up to any step t add up to t f(m(t)): here the mean inputs are 1,
    1/2 and 1, and the outputs add up to 1, 2 · 1/4 and 3. They are analog values of either sign, not spikes.

    The operation may take several tensors that vary over time. It must work on each sample separately and be finite for
    every mean, including the means of the first few steps, many of which are zero.

    Args:
        operation: A module, a function, or the name of a tensor method, without randomness and without memory.
        sequences: Which tensors among the arguments (in order, including nested ones) are ``[N, ...]``, and
            ``[T, N, ...]`` in step mode "m"; the others are parameters. Integers and booleans among the sequences
            must not vary over time.

    In step mode "m" the operation runs on all steps at once, as ``[T * N, ...]``.

    Raises:
        ValueError: `operation` is a string that is not the name of a tensor method.
    """

    steps: int
    sums: list[Tensor] | None
    last: list[Tensor] | None

    def __init__(self, operation: Operation, sequences: tuple[int, ...] = (0,)) -> None:
        super().__init__(sequences)
        if isinstance(operation, str) and (operation.startswith("_") or not hasattr(Tensor, operation)):
            raise ValueError(f"operation={operation!r} is not allowed: tensors have no method of that name.")
        self.operation = operation
        self._template: Any = None
        self.register_memory("steps", 0)
        self.register_memory("sums", None)
        self.register_memory("last", None)

    def single_step_forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self.map_sequences((args, kwargs), lambda x: x.unsqueeze(0))
        return map_tensors(self.multi_step_forward(*args, **kwargs), lambda y: y.squeeze(0))

    def multi_step_forward(self, *args: Any, **kwargs: Any) -> Any:
        found: list[Tensor] = []
        self.map_sequences((args, kwargs), found.append)
        before, steps = self.steps, len(found[0])
        sums = [_running_sum(x, self.sums[index] if self.sums else None) for index, x in enumerate(found)]
        means = iter([_mean(x, total, before) for x, total in zip(found, sums, strict=True)])
        args, kwargs = self.map_sequences((args, kwargs), lambda x: self._merged(next(means)))
        result = call_operation(self.operation, *args, **kwargs)
        values: list[Tensor] = []
        # A batch may now have several rows per sample (windows), hence -1.
        map_tensors(result, lambda y: values.append(y.reshape(steps, -1, *y.shape[1:])))
        last = self.last or [value[0] for value in values]
        differences = iter([_difference(y, y0, before) for y, y0 in zip(values, last, strict=True)])
        self._template = map_tensors(result, lambda _: _PLACE)
        self.steps = before + steps
        self.sums = [total[-1].clone() for total in sums]
        self.last = [value[-1].clone() for value in values]
        return map_tensors(result, lambda _: next(differences))

    def runs_forward(self, runs: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        results: list[list[Tensor]] = []
        for row, count in enumerate(runs):
            given, named = self.map_sequences((args, kwargs), itemgetter(row))
            left = count
            if self.last is None or count == 1:
                results.append(tensors(self.single_step_forward(*given, **named)))
                left = count - 1
            else:  # the mean of the inputs stays, and so does what is made of it
                results.append(self.last)
            if left:
                self._remain((given, named), left)
        columns = iter([torch.stack(column) for column in zip(*results, strict=True)])
        return map_tensors(self._template, lambda _: next(columns))

    def _remain(self, given: Any, steps: int) -> None:
        """Take in the same inputs for so many steps."""
        assert self.sums is not None
        inputs: list[Tensor] = []
        self.map_sequences(given, inputs.append)
        pairs = zip(inputs, self.sums, strict=True)
        self.sums = [total.add(x, alpha=steps) if x.is_floating_point() else x for x, total in pairs]
        self.steps += steps

    def detach(self) -> None:
        """Detach the memory from the autograd graph, for SpikingJelly's `functional.detach_net`."""
        self.sums, self.last = ([x.detach() for x in found] if found else None for found in (self.sums, self.last))

    def _merged(self, x_seq: Tensor) -> Tensor:
        merged = x_seq.flatten(0, 1)
        # Operations from outside torch may depend on the memory layout (as ``x.view(...)`` does).
        return merged if _is_torchs(self.operation) else merged.contiguous()

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"operation": self.operation, "sequences": self.sequences}

    def extra_repr(self) -> str:
        if isinstance(self.operation, nn.Module):
            return f"step_mode={self.step_mode}"
        name = self.operation if isinstance(self.operation, str) else self.operation.__name__
        return f"{name}, step_mode={self.step_mode}"


def _running_sum(x_seq: Tensor, before: Tensor | None) -> Tensor:
    """The sums up to every step, in double precision, because an error in a mean counts t times in the difference."""
    if not x_seq.is_floating_point():
        return x_seq
    total = x_seq.cumsum(0, dtype=torch.float64)
    return total if before is None else total.add_(before)


def _mean(x_seq: Tensor, total: Tensor, before: int) -> Tensor:
    if not x_seq.is_floating_point():
        return x_seq
    return (total / (_numbers(total, before) + 1)).to(x_seq.dtype)


def _difference(y_seq: Tensor, last: Tensor, before: int) -> Tensor:
    """``t y(t) - (t - 1) y(t - 1)``, written without cancellation as y(t) + (t - 1) (y(t) - y(t - 1))."""
    if not y_seq.is_floating_point():
        return y_seq
    growth = y_seq - torch.cat([last[None], y_seq[:-1]])
    return torch.addcmul(y_seq, growth, _numbers(y_seq, before))


def _numbers(like: Tensor, before: int) -> Tensor:
    """The numbers of the steps, from `before` on, in the shape ``[T, 1, ...]``."""
    numbers = torch.arange(before, before + len(like), dtype=like.dtype, device=like.device)
    return along_axis(numbers, like.dim())


def _is_torchs(operation: Operation) -> bool:
    home = type(operation).__module__ if isinstance(operation, nn.Module) else getattr(operation, "__module__", None)
    return home is None or home.partition(".")[0] in ("torch", "_operator", "builtins")
