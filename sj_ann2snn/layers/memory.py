"""The base class of layers with memory, for both SpikingJelly lines."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compat import MemoryModule
from ..support.trees import map_leaves, map_tensors, tensors

__all__ = ["MemoryLayer"]


class MemoryLayer(MemoryModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """A layer with memory, defined by what it does in one step; runs on SpikingJelly 0.0.0.0.14 and 2.0.

    >>> import torch
    >>> from sj_ann2snn import MemoryLayer
    >>> class Trace(MemoryLayer):
    ...     def __init__(self, decay):
    ...         super().__init__()
    ...         self.decay = decay
    ...         self.register_memory("trace", 0.0)
    ...     def single_step_forward(self, x):
    ...         self.trace = self.decay * self.trace + x
    ...         return self.trace
    >>> layer = Trace(decay=0.5)
    >>> layer(torch.ones(1)), layer(torch.ones(1))
    (tensor([1.]), tensor([1.5000]))
    >>> layer.reset()
    >>> layer.step_mode = "m"
    >>> layer(torch.ones(3, 1)).flatten()
    tensor([1.0000, 1.5000, 1.7500])

    Call ``register_memory(name, value)`` in the constructor, once for everything that the layer remembers; `value` is
    what `reset_net` restores. A number is a good start, because it suits every shape of input. Tensors in memory have
    the samples in dimension 0. Replace them instead of writing into them, so that gradients pass.

    Step mode "m" takes ``[T, N, ...]`` and runs `single_step_forward` for every step. Override `multi_step_forward` to
    compute all steps at once, and `runs_forward` to compute steps with the same input once.

    Args:
        sequences: Which tensors among the arguments (in order, including nested ones) carry samples, and time in step
            mode "m"; the others, parameters, are passed on unchanged.
    """

    def __init__(self, sequences: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.sequences = sequences

    def single_step_forward(self, *args: Any, **kwargs: Any) -> Any:
        """The results of one step, for ``[N, ...]``; reads and replaces the memory."""
        raise NotImplementedError(f"{type(self).__name__} must define single_step_forward(x).")

    def multi_step_forward(self, *args: Any, **kwargs: Any) -> Any:
        """The results of all steps, for ``[T, N, ...]``."""
        steps = len(tensors((args, kwargs))[self.sequences[0]])
        results = []
        for t in range(steps):
            given, named = self.map_sequences((args, kwargs), operator.itemgetter(t))
            results.append(self.single_step_forward(*given, **named))
        columns = [iter(tensors(result)) for result in results]
        return map_leaves(
            results[0],
            lambda leaf: torch.stack([next(column) for column in columns]) if isinstance(leaf, Tensor) else leaf,
        )

    def runs_forward(self, runs: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        """The results behind neurons that represent a value and have settled, without gradients.

        Where none of them sends a change, their outputs are their values, which are the means of all their outputs so
        far. So the input stays the same for several steps only where it is the mean of all inputs so far, up to
        rounding.

        Args:
            runs: How many steps in a row each row of the sequences ``[K, N, ...]`` stands for, K positive numbers. A
                row that stands for more than one is the mean of the inputs up to each of its steps.
            args: As for `multi_step_forward`, with a row for each run.
            kwargs: Likewise.

        Returns:
            The results ``[K, N, ...]``: those of a run of several steps must be the same, and the mean of all results
            up to each of them. None, as by default, leaves all steps to `multi_step_forward`; the memory must then be
            what it was.
        """
        return None

    def map_sequences(self, tree: Any, change: Callable[[Tensor], Any]) -> Any:
        """Apply `change` to those tensors in `tree`, ``(args, kwargs)``, that carry time."""
        positions = itertools.count()
        return map_tensors(tree, lambda x: change(x) if next(positions) in self.sequences else x)

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode}"
