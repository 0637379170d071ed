"""Runs a network of which only parts were converted: the parts over time, the rest of the network once.

What stands between and behind the parts need not be linear over time (a detector suppresses boxes that overlap), so it
must see the mean output of a part, not that of single steps. Wherever the network calls a part, the part runs over time
on what it is given, and its answer is handed to the rest of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import MemoryModule, fresh_memories, step_modes
from ..contracts.readout import Readout
from ..errors import InputError, NonFiniteError
from ..support.batches import Signature, count_samples, describe_batch, explain_rejection, move, samples_of
from ..support.neutral import ordinary
from ..support.structures import open_values, rebuild
from ..support.trees import leaves, map_leaves, map_tensors, tensors
from ..support.wording import shown
from .answers import AnswerAtEnd, ChosenReadout, Decoder, readout_for
from .engine import Call, Collector, Simulator, concatenate, plain
from .engine.non_finite import Guard, TileGuard, explain_non_finite
from .engine.own_copies import left_as_it_was
from .engine.watching import watched

__all__ = ["PartwiseSimulator", "converted_parts", "simulator_for"]


def converted_parts(snn: nn.Module) -> dict[str, fx.GraphModule]:
    """The converted submodules of a network that is not converted itself, by name.

    None of a network with other modules that remember: it runs step by step.
    """
    if isinstance(snn, fx.GraphModule):
        return {}  # it is converted itself
    found: dict[str, fx.GraphModule] = {}
    inside: set[int] = set()
    for name, module in snn.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, fx.GraphModule) and any(isinstance(one, MemoryModule) for one in module.modules()):
            found[name] = module
            inside.update(map(id, module.modules()))
        elif isinstance(module, MemoryModule):
            return {}
    return found


def simulator_for(
    snn: nn.Module, steps: int, precision: str, readout: str | Readout | None, plugins: Sequence[Any]
) -> tuple[Simulator | PartwiseSimulator, ChosenReadout]:
    """What runs `snn`, and the readout to apply to the outputs that it shows to collectors."""
    parts = converted_parts(snn)
    if not parts:
        return Simulator(snn, steps, precision), readout_for(snn, readout, steps, plugins)
    # The parts' answers have been read out already, so the network's own output is its answer.
    return PartwiseSimulator(snn, parts, steps, precision, readout, plugins), readout_for(snn, "last", steps)


class PartwiseSimulator:
    """Runs one network with converted parts for a fixed number of steps; see `simulate`.

    Args:
        snn: The network.
        parts: Its converted submodules, by name.
        steps: Number of time steps.
        precision: Of the products in the parts.
        readout: How to turn the outputs of a part into its answer; None for each part's own.
        plugins: Plugin objects whose readouts `readout` may name.
    """

    def __init__(
        self,
        snn: nn.Module,
        parts: dict[str, fx.GraphModule],
        steps: int,
        precision: str,
        readout: str | Readout | None,
        plugins: Sequence[Any] = (),
    ) -> None:
        self.snn = snn
        self._simulators = [Simulator(part, steps, precision, (snn, name)) for name, part in parts.items()]
        self.steps = self._simulators[0].steps
        self._parts = [
            _Part(name, part, Signature.of(part), readout_for(part, readout, steps, plugins))
            for name, part in parts.items()
        ]
        tensor = next(iter((*snn.parameters(), *snn.buffers())), None)
        self.device = torch.device("cpu") if tensor is None else tensor.device
        self._template: Any = None
        self.tiling: Mapping[str, int] = {}
        """As for `Simulator`; all samples are one tile."""

    @torch.no_grad()
    def answer(
        self, inputs: tuple[Any, ...], seen: Callable[[str, tuple[Any, ...]], None] = lambda name, inputs: None
    ) -> Any:
        """The network's output once every part has run for all steps.

        Args:
            inputs: The network's inputs.
            seen: Called with the name of a part and its inputs, at every call.

        Raises:
            InputError: The network cannot take the inputs.
        """

        def simulated(part: _Part, simulator: Simulator, given: tuple[Any, ...]) -> Any:
            seen(part.name, given)
            return simulator.restore(plain(concatenate(simulator.run_all(given, lambda _: AnswerAtEnd(part.readout)))))

        with self._replaced([partial(simulated, *pair) for pair in zip(self._parts, self._simulators, strict=True)]):
            return self._call(inputs)

    def run_all(self, inputs: tuple[Any, ...], collect: Callable[[slice], Collector]) -> list[Any]:
        """As for `Simulator`: shows a collector the network's output after every step, with all samples in one tile."""
        return [self._step_by_step(inputs, collect(slice(0, samples_of(inputs))))]

    def restore(self, answer: Any) -> Any:
        """As for `Simulator`."""
        return rebuild(answer, self._template)

    @torch.no_grad()
    def _step_by_step(self, inputs: tuple[Any, ...], collector: Collector) -> Any:
        stepping = _Stepping(collector.watch)
        rows: Tensor | None = None
        with (
            self._replaced([partial(stepping.answer, part) for part in self._parts]),
            watched(self.snn, inputs, stepping.watch),
        ):
            for step in range(1, self.steps + 1):
                stepping.begin(step)
                opened, self._template = open_values(self._call(inputs))
                going_on = collector.add(map_tensors(opened, partial(_as_one_step, rows)))
                if going_on is not None:
                    rows = going_on if rows is None else rows[going_on]
                    if not len(rows):
                        break
        return collector.result()

    def _call(self, inputs: tuple[Any, ...]) -> Any:
        placed = move(tuple(map_leaves(value, ordinary) for value in inputs), self.device)
        given = inputs[0] if len(inputs) == 1 else inputs
        if not tensors(inputs):
            raise InputError(f"The input must be a tensor [N, ...] or hold tensors, not {describe_batch(given)}.")
        with explain_rejection(given, self.snn):
            return self.snn(*placed)

    @contextmanager
    def _replaced(self, answers: Sequence[Callable[[tuple[Any, ...]], Any]]) -> Iterator[None]:
        """While the context is open, each part answers a call with what its function makes of the inputs."""
        with left_as_it_was(self.snn):
            for module, _ in step_modes(self.snn):
                module.step_mode = "s"  # type: ignore[assignment]
            try:
                for part, answer in zip(self._parts, answers, strict=True):
                    part.module.forward = part.answering(answer)
                yield
            finally:
                for part in self._parts:
                    vars(part.module).pop("forward", None)


@dataclass(frozen=True)
class _Part:
    """A converted submodule.

    Attributes:
        name: Its qualified name.
        module: Its graph.
        signature: Its inputs.
        readout: Turns its outputs over time into its answer.
    """

    name: str
    module: fx.GraphModule
    signature: Signature
    readout: ChosenReadout

    def answering(self, answer: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
        """A forward that calls `answer` with the inputs in order."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            names = self.signature.names[len(args) :]
            given = (*args, *(kwargs[name] for name in names if name in kwargs))
            # Where nothing was found (a detector's image without proposals) there is nothing to simulate.
            try:
                return answer(given) if count_samples(given) else _Running(self, given).step()
            except NonFiniteError as error:
                raise NonFiniteError(f"In the submodule {shown(self.name)}: {error}") from error

        return forward

    def step(self, inputs: tuple[Any, ...]) -> Any:
        """The output of one step, from memories as they are."""
        return self.signature.caller(partial(type(self.module).forward, self.module))(*inputs)


class _Stepping:
    """Answers the calls of the parts after every step: with the answers that they would give if it were the last.

    A part that gets the same input as in the step before goes on from there. One that stands behind another part gets a
    new input and begins again.

    Args:
        watch: Called with every call that belongs to a step, once: the calls of the rest of the network at the first.
    """

    def __init__(self, watch: Callable[[Call], None] | None) -> None:
        self._watch = watch
        self._open = False
        self._step = 0
        self._calls: dict[tuple[str, int], _Running] = {}
        self._count: dict[str, int] = {}

    def begin(self, step: int) -> None:
        self._step, self._open = step, step == 1
        self._count.clear()

    def watch(self, call: Call) -> None:
        if self._open and self._watch is not None:
            self._watch(call)

    def answer(self, part: _Part, inputs: tuple[Any, ...]) -> Any:
        number = self._count[part.name] = self._count.get(part.name, 0) + 1
        running = self._calls.get((part.name, number))
        if running is None or running.done != self._step - 1 or not _same(running.inputs, inputs):
            running = self._calls[part.name, number] = _Running(part, map_tensors(inputs, Tensor.clone))
        before, answer = self._open, None
        while running.done < self._step:
            self._open = running.done == self._step - 1  # earlier steps have been counted
            outputs = running.step()
            self._open = False
            answer = running.read_out(outputs)
        self._open = before
        return answer


@dataclass
class _Running:
    """One call of a part, on its way through the steps."""

    part: _Part
    inputs: tuple[Any, ...]
    done: int = 0
    _guard: TileGuard | None = None
    _memories: list[Any] = field(default_factory=list)
    _decoders: list[Decoder] = field(default_factory=list)

    def step(self) -> Any:
        """The outputs of the next step.

        Raises:
            NonFiniteError: The inputs or the weights hold NaN or infinite values, which the answer would hide.
        """
        with explain_non_finite(self.part.module, self.inputs):
            if self._guard is None:
                self._guard = Guard(self.part.module).start(self.inputs, self.inputs)
            outputs = self._step()
            self._guard.look_at_potentials(dict(self.part.module.named_modules()))
        return outputs

    def _step(self) -> Any:
        modules = [module for module in self.part.module.modules() if isinstance(module, MemoryModule)]
        memories = self._memories or [fresh_memories(module) for module in modules]
        for module, memory in zip(modules, memories, strict=True):
            module.__dict__["_memories"] = memory
        outputs = self.part.step(map_tensors(self.inputs, Tensor.clone))
        self._memories = [module._memories for module in modules]
        self.done += 1
        return outputs

    def read_out(self, outputs: Any) -> Any:
        """The answer after these outputs."""
        opened, template = open_values(outputs)
        chosen = self.part.readout
        self._decoders = self._decoders or [Decoder(chosen.readout, chosen.who) for _ in tensors(opened)]
        decoders = iter(self._decoders)

        def decoded(y: Tensor) -> Tensor:
            decoder = next(decoders)
            answer = decoder.last_answer(y.unsqueeze(0))
            (divisor,) = decoder.divisors(range(decoder.done, decoder.done + 1))
            return answer / divisor

        return rebuild(map_tensors(opened, decoded), template)


def _same(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=False)
    same_number = len(list(leaves(one))) == len(list(leaves(other)))
    return same_number and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b for a, b in pairs
    )


def _as_one_step(rows: Tensor | None, y: Tensor) -> Tensor:
    return (y if rows is None else y[rows.to(y.device)]).unsqueeze(0)
