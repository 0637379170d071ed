"""Cuts a batch into tiles and runs them, side by side where there are several cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..batches import HALF, describe_batch, taken
from ..compat import fast_neurons, reset_net, step_modes
from ..errors import InputError
from ..trees import map_tensors
from .flow import Flow
from .runner import Runner, Watcher
from .threads import in_threads
from .tiling import Tiling

__all__ = ["Simulator"]


class Simulator:
    """Runs one network for a fixed number of steps; see `simulate`.

    Args:
        snn: The network.
        steps: Number of time steps.
        watch: Is shown every layer that varies over time, tile by tile, from several threads at once.
    """

    def __init__(self, snn: nn.Module, steps: int, watch: Watcher | None = None) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"T={steps!r} is not allowed: the number of time steps is an integer from 1 up.")
        self.snn, self.steps, self.watch = snn, steps, watch
        weights = [t for t in (*snn.parameters(), *snn.buffers()) if t.is_floating_point()]
        self.device = weights[0].device if weights else torch.device("cpu")
        self.dtype = weights[0].dtype if weights else None
        self.flow = Flow.of(snn)
        self._tiling = Tiling(self.device.type, steps)
        self._runners: list[Runner] = []

    def run_all(self, inputs: tuple[Any, ...], reduce: Callable[[list[Any]], Any] = list) -> list[Any]:
        """What `reduce` makes of the outputs of each tile, in the order of the samples.

        Raises:
            InputError: The network cannot take the inputs.
        """
        samples = self._samples(inputs)
        with (
            taken(inputs[0] if len(inputs) == 1 else inputs),
            fast_neurons(self.snn),
            _left_as_it_was(self.snn),
        ):
            if self.flow is None:
                return [reduce(self._step_by_step(self._cut(inputs, samples, 0, samples)))]
            first = self._runner(0)
            # The first tile is a small one, from which the size of the others follows.
            size = min(samples, self._tiling.samples())
            results = [reduce(first.run(self._cut(inputs, samples, 0, size)))]
            tiles = list(self._tiles(inputs, samples, size))
            workers = min(self._workers(), len(tiles))
            if workers < 2:
                return results + [reduce(first.run(tile)) for tile in tiles]
            jobs = [partial(_run, reduce, self._runner(index)) for index in range(workers)]
            return results + in_threads(jobs, tiles)

    def _samples(self, inputs: tuple[Any, ...]) -> int:
        if not inputs or not isinstance(inputs[0], Tensor) or not inputs[0].dim():
            given = describe_batch(inputs[0]) if len(inputs) == 1 else describe_batch(inputs)
            raise InputError(f"The input must be a tensor [N, ...] or a tuple that starts with one, not {given}.")
        if isinstance(self.snn, fx.GraphModule):
            names = [str(node.target) for node in self.snn.graph.nodes if node.op == "placeholder"]
            if len(inputs) > len(names):
                raise InputError(
                    f"The network takes {len(names)} input(s), {', '.join(names)}; it was given {len(inputs)}."
                )
        samples = int(inputs[0].shape[0])
        if not samples:
            raise InputError(f"The input has no samples: its shape is {tuple(inputs[0].shape)}.")
        return samples

    def _tiles(self, inputs: tuple[Any, ...], samples: int, start: int) -> Iterator[tuple[Any, ...]]:
        size = self._tiling.samples()
        for begin in range(start, samples, size):
            yield self._cut(inputs, samples, begin, min(samples, begin + size))

    def _cut(self, inputs: tuple[Any, ...], samples: int, begin: int, end: int) -> tuple[Any, ...]:
        return tuple(self._placed(value[begin:end]) if _has_samples(value, samples) else value for value in inputs)

    def _placed(self, x: Tensor) -> Tensor:
        """`x` where the network lies, half precision raised to the network's own."""
        half = x.dtype in HALF
        return x.to(device=self.device, dtype=self.dtype if half and self.dtype else x.dtype)

    def _workers(self) -> int:
        """How many tiles may run at a time."""
        assert self.flow is not None
        alone = self.device.type != "cpu" or not self.flow.divisible or torch.is_autocast_enabled("cpu")
        return 1 if alone else torch.get_num_threads()

    def _runner(self, index: int) -> Runner:
        """One for each worker; the first one works on the network itself."""
        assert self.flow is not None
        while len(self._runners) <= index:
            runner = Runner(self.snn, self.flow, self.steps, self._tiling, self.watch, own_memories=bool(self._runners))
            self._runners.append(runner)
        return self._runners[index]

    @torch.no_grad()
    def _step_by_step(self, inputs: tuple[Any, ...]) -> list[Any]:
        reset_net(self.snn)
        for module, _ in step_modes(self.snn):
            module.step_mode = "s"  # type: ignore[assignment]
        with self._watched():
            return [map_tensors(self.snn(*inputs), lambda y: y.unsqueeze(0)) for _ in range(self.steps)]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Shows the watcher every module of a network that is no graph."""

        def show(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if self.watch is not None and args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
                self.watch(name, module, args[0].unsqueeze(0), out.unsqueeze(0))

        handles = [
            module.register_forward_hook(partial(show, name))
            for name, module in self.snn.named_modules()
            if self.watch is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _run(reduce: Callable[[list[Any]], Any], runner: Runner, tile: tuple[Any, ...]) -> Any:
    return reduce(runner.run(tile))


def _has_samples(value: Any, samples: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == samples


@contextmanager
def _left_as_it_was(snn: nn.Module) -> Iterator[None]:
    """Restores step modes and resets the network, whatever happens in between."""
    modes = step_modes(snn)
    try:
        yield
    finally:
        for module, mode in modes:
            module.step_mode = mode  # type: ignore[assignment]
        reset_net(snn)
