"""Cuts a batch into tiles and runs them, side by side on several cores, in smaller pieces if memory runs short."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...compat import step_modes
from ...contracts.option_checks import require_integer
from ...errors import InputError, MemoryWarning, OptionError, OutOfMemoryError
from ...support.batches import HALF, count_samples, describe_batch, explain_rejection
from ...support.neutral import ordinary
from ...support.structures import open_nodes, open_values, rebuild
from ...support.trees import map_leaves, map_tensors, tensors
from ...support.wording import first_line, listed, shown
from .backend import fastest_neurons
from .collectors import Collector
from .expectation import expected_elements
from .flow import Flow
from .non_finite import Guard, explain_non_finite
from .numbers.precision import check_precision, likes_channels_last, product_precision, type_of_products
from .own_copies import left_as_it_was, own_copies
from .packing.packers import packers_for
from .packing.remembered import remembered_convolutions
from .runner import Runner
from .threads import in_threads
from .tiling import Tiling
from .watching import watched

__all__ = ["Simulator"]


class Simulator:
    """Runs one network for a fixed number of steps; see `simulate`.

    Args:
        snn: The network.
        steps: Number of time steps.
        precision: Of the products: "float32", "tf32" or "bfloat16".
        part_of: The network that `snn` is a part of, and its name there, for messages.
    """

    def __init__(
        self, snn: nn.Module, steps: int, precision: str = "float32", part_of: tuple[nn.Module, str] | None = None
    ) -> None:
        steps = require_integer("T", steps, what="the number of time steps", error=InputError)
        self.snn, self.steps = snn, steps
        self._whole, self._prefix = (snn, "") if part_of is None else (part_of[0], f"{part_of[1]}.")
        weights = [t for t in (*snn.parameters(), *snn.buffers()) if t.is_floating_point()]
        self.device = weights[0].device if weights else torch.device("cpu")
        self.dtype = weights[0].dtype if weights else None
        self.precision = check_precision(precision, self.device)
        self.flow = Flow.of(snn)
        if self.flow is None and type_of_products(self.precision):
            raise OptionError(
                f"precision={shown(precision)} needs a network made by the converter, which {type(snn).__name__} is "
                "not. Leave the argument out."
            )
        self._tiling = Tiling(self.device.type, steps)
        self._guard = Guard(snn)
        self._template: Any = None if self.flow is None else open_nodes(_output_of(self.flow.graph))[1]
        self._runners: list[Runner] = []
        packs = self.flow is not None and self.flow.copyable and not type_of_products(self.precision)
        remembers = packs and packers_for(self.device) is not None
        self._convolutions = remembered_convolutions(snn) if remembers else {}
        self._times_loops = remembers and not self._convolutions
        """Loops may have to be timed, for which no other thread should be at work."""
        self._stop = threading.Event()

    def run_all(self, inputs: tuple[Any, ...], collect: Callable[[slice], Collector]) -> list[Any]:
        """The results of the collectors that `collect` makes, one per tile, in the order of the samples.

        Args:
            inputs: The inputs of the network.
            collect: Makes the collector for the tile with these samples; called from several threads.

        Raises:
            InputError: The network cannot take the inputs.
            NonFiniteError: The inputs or the weights hold NaN or infinite values, which the answer would hide.
            OutOfMemoryError: There is not enough memory for a single sample.
        """
        samples = self._samples(inputs)
        self._stop.clear()
        with (
            explain_rejection(inputs[0] if len(inputs) == 1 else inputs, self._whole, self._layers),
            explain_non_finite(self.snn, inputs),
            product_precision(self.precision, self.device),
            ExitStack() as stack,
        ):
            if self.flow is None:
                stack.enter_context(left_as_it_was(self.snn))
                everything = slice(0, samples)
                return [self._step_by_step(self._cut(inputs, samples, everything), collect(everything))]
            first = self._runner(0)
            if first.modules is self.flow.modules:
                stack.enter_context(left_as_it_was(self.snn))
            if self.device.type == "cuda":
                modules = [inner for module in first.modules.values() for inner in module.modules()]
                stack.enter_context(fastest_neurons(modules, self.device))

            def run(runner: Runner, tile: slice) -> list[Any]:
                return self._run(runner, tile, lambda part: self._cut(inputs, samples, part), collect)

            if self.device.type != "cpu":
                self._tiling.expect(expected_elements(self.flow.graph, self.flow.modules, inputs))
            workers = self._workers()

            learnt: list[Tiling] = []

            def learn(runner: Runner, tile: slice) -> list[Any]:
                # What one thread learns must not decide how another one goes on: it may come sooner or later.
                runner.tiling = copy.copy(self._tiling)
                try:
                    return run(runner, tile)
                finally:
                    learnt.append(runner.tiling)
                    runner.tiling = self._tiling

            def run_each(tiles: list[slice], work: Callable[..., list[Any]], *, alone: bool = False) -> list[Any]:
                if alone or min(workers, len(tiles)) < 2:
                    pieces = [work(first, tile) for tile in tiles]
                else:
                    self._stop.clear()
                    runners = [partial(work, self._runner(index)) for index in range(min(workers, len(tiles)))]
                    pieces = in_threads(runners, tiles, self._stop)
                return [result for piece in pieces for result in piece]

            if self._tiling.knows_sizes:
                start = min(samples, self._tiling.samples())
                results = run(first, slice(0, start))
            else:  # tiles of one sample determine the size of the others
                start = min(samples, workers)
                singles = [slice(sample, sample + 1) for sample in range(start)]
                results = run_each(singles, learn, alone=self._times_loops)
                self._tiling.learn(learnt)
            return results + run_each(self._tiles(start, samples, workers), run)

    @property
    def tiling(self) -> dict[str, int]:
        """What the batches so far have taught about sizes: the first is cut into other tiles than the next."""
        return self._tiling.state()

    @tiling.setter
    def tiling(self, learnt: Mapping[str, int]) -> None:
        self._tiling.restore(learnt)

    def restore(self, answer: Any) -> Any:
        """An answer as the network returns it: with the classes of its outputs, which collectors see as dicts."""
        return rebuild(answer, self._template)

    def _run(
        self,
        runner: Runner,
        tile: slice,
        cut: Callable[[slice], tuple[Any, ...]],
        collect: Callable[[slice], Collector],
    ) -> list[Any]:
        """The results of one tile, or of several smaller tiles if it does not fit into memory."""
        samples = tile.stop - tile.start
        before = runner.tiling.steps(samples)
        try:
            return [runner.run(cut(tile), collect(tile))]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # Keep only the text, because the error itself keeps everything computed so far alive.
            shortage = first_line(error)
        # Another thread may have made groups of steps smaller since, so that this tile is to be tried again.
        now = runner.tiling.steps(samples)
        steps = max(before, now)
        if samples == steps == 1:
            raise OutOfMemoryError(
                f"There is not enough memory on {self.device} to simulate a single sample for a single step: {shortage}"
            )
        if now >= before:
            runner.tiling.shrink(samples)
        warnings.warn(
            f"There was not enough memory on {self.device} to simulate {samples} sample(s) for {steps} step(s) at a "
            f"time ({shortage}); continuing with half as much at a time.",
            MemoryWarning,
            stacklevel=2,
        )
        middle = (tile.start + tile.stop) // 2
        parts = [slice(tile.start, middle), slice(middle, tile.stop)] if samples > 1 else [tile]
        return [result for part in parts for result in self._run(runner, part, cut, collect)]

    def _samples(self, inputs: tuple[Any, ...]) -> int:
        found = tensors(inputs[0]) if inputs else []
        if not found or not found[0].dim():
            given = describe_batch(inputs[0]) if len(inputs) == 1 else describe_batch(inputs)
            raise InputError(f"The input must be a tensor [N, ...] or a tuple that starts with one, not {given}.")
        if isinstance(self.snn, fx.GraphModule):
            names = [str(node.target) for node in self.snn.graph.nodes if node.op == "placeholder"]
            if len(inputs) > len(names):
                raise InputError(
                    f"The network takes {len(names)} input(s), {listed(names)}, but was given {len(inputs)}."
                )
        samples = count_samples(inputs)
        if not samples:
            raise InputError(f"The input has no samples: its shape is {tuple(found[0].shape)}.")
        return samples

    def _tiles(self, start: int, samples: int, workers: int) -> list[slice]:
        """The samples from `start` on, in tiles of equal size, the same number for each worker."""
        count = math.ceil((samples - start) / self._tiling.samples())
        count = min(math.ceil(count / workers) * workers, samples - start)
        bounds = [start + (samples - start) * index // count for index in range(count + 1)] if count else []
        return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]

    def _cut(self, inputs: tuple[Any, ...], samples: int, part: slice) -> tuple[Any, ...]:
        def cut(leaf: Any) -> Any:
            return self._placed(leaf[part]) if _has_samples(leaf, samples) else ordinary(leaf)

        return tuple(map_leaves(value, cut) for value in inputs)

    def _placed(self, x: Tensor) -> Tensor:
        """`x` on the network's device, with half precision raised to the network's own."""
        half = x.dtype in HALF
        placed: Tensor = ordinary(x).to(device=self.device, dtype=self.dtype if half and self.dtype else x.dtype)
        return placed

    def _workers(self) -> int:
        """How many tiles may run at a time."""
        assert self.flow is not None
        alone = self.device.type != "cpu" or self._runner(0).modules is self.flow.modules
        return 1 if alone else torch.get_num_threads()

    def _layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers of the network, and the copies of them that the runners use."""
        copies = (pair for runner in self._runners for pair in runner.modules.items())
        for name, module in itertools.chain(self.snn.named_modules(), copies):
            yield (self._prefix + name if name else ""), module

    def _runner(self, index: int) -> Runner:
        """The runner of a worker."""
        assert self.flow is not None
        while len(self._runners) <= index:
            runner = Runner(
                self.snn,
                self.flow,
                self.steps,
                self._tiling,
                modules=self._own_modules(),
                stop=self._stop,
                dtype=type_of_products(self.precision),
                channels_last=likes_channels_last(self.precision, self.device),
                device=self.device,
                guard=self._guard,
                convolutions=self._convolutions,
            )
            self._runners.append(runner)
        return self._runners[index]

    def _own_modules(self) -> dict[str, nn.Module] | None:
        """Copies of the network's modules for a runner; None if the network itself must run."""
        assert self.flow is not None
        if not self.flow.copyable:
            return None
        return own_copies(self.flow.modules)

    @torch.no_grad()
    def _step_by_step(self, inputs: tuple[Any, ...], collector: Collector) -> Any:
        """The result for a network that is not a graph; samples that have left are still simulated with the others."""
        for module, _ in step_modes(self.snn):
            module.step_mode = "s"  # type: ignore[assignment]
        rows: Tensor | None = None
        guard = self._guard.start(inputs, inputs)
        with nullcontext() if collector.watch is None else watched(self.snn, inputs, collector.watch):
            for _ in range(self.steps):
                plain, self._template = open_values(self.snn(*inputs))
                outputs = map_tensors(plain, partial(_as_one_step, rows))
                going_on = collector.add(outputs)
                if going_on is not None:
                    rows = going_on if rows is None else rows[going_on]
                    if not len(rows):
                        break
        guard.look_at_potentials(dict(self.snn.named_modules()))
        return collector.result()


def _output_of(graph: fx.Graph) -> Any:
    (output,) = (node for node in graph.nodes if node.op == "output")
    return output.args[0]


def _as_one_step(rows: Tensor | None, y: Tensor) -> Tensor:
    return (y if rows is None else y[rows.to(y.device)]).unsqueeze(0)


def is_out_of_memory(error: Exception) -> bool:
    """True if the memory of the device or the machine is used up; torch raises several errors for this."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _has_samples(value: Any, samples: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == samples
