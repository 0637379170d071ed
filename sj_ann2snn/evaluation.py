"""Accuracy over time steps, and what the network spends for it."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from tqdm.auto import tqdm

from .batches import Signature, describe_batch, forward_signature, move, taken
from .blame import blamed
from .decoding import Decoder, readout_for
from .errors import EvaluationInterrupted, InputError, OptionError, PluginError
from .exits import ExitRule
from .loading import load_plugins
from .readouts import Readout
from .simulation import Collector, Simulator
from .simulation.firing import count_emissions, is_spiking

__all__ = ["EvaluationResult", "LayerActivity", "accuracy_of", "evaluate"]


@dataclass(frozen=True)
class LayerActivity:
    """What one spiking layer did.

    Attributes:
        name: Qualified name of the layer.
        neurons: Number of neurons.
        spikes_per_sample: Spikes per sample, summed over its neurons and all steps.
        firing_rate: Spikes per neuron and step.
        emissions_per_sample: How often one of its neurons emitted anything, per sample. Binary spikes are as many; a
            graded spike of value k is one emission and k spikes, so that spikes by emissions is the mean level.
    """

    name: str
    neurons: int
    spikes_per_sample: float
    firing_rate: float
    emissions_per_sample: float


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured.

    Attributes:
        accuracy: ``accuracy[t - 1]`` is the share of samples that are right when stopping after t steps; a sample that
            stopped earlier keeps its answer.
        samples: Number of samples.
        steps_per_sample: Steps until a sample's answer was taken, on average: T without an early exit.
        spikes_per_sample: Spikes of all neurons over all steps, per sample (with an early exit up to the end of the few
            steps that are computed at a time); a graded spike of value k counts k times, a
            negative one like a positive one.
        synops_per_sample: Synaptic operations per sample: for every non-zero value that reaches a Linear,
            Conv or ConvTranspose layer at a step, the number of its connections there. The layers in front
            of the first neuron see a constant input; they are computed once and not counted.
        seconds: Time the simulation took, data loading excluded.
        layers: The spiking layers, in order.
        emissions_per_sample: How often a neuron emitted anything, per sample: less than `spikes_per_sample` where
            spikes are graded.
    """

    accuracy: tuple[float, ...]
    samples: int
    steps_per_sample: float
    spikes_per_sample: float
    synops_per_sample: float
    seconds: float
    layers: tuple[LayerActivity, ...]
    emissions_per_sample: float

    def __str__(self) -> str:
        steps = len(self.accuracy)
        shown = sorted({1, *(2**k for k in range(1, steps.bit_length()) if 2**k < steps), steps})
        curve = ", ".join(f"{self.accuracy[t - 1]:.4f} (T={t})" for t in shown)
        early = f"{self.steps_per_sample:.4g} steps, " if self.steps_per_sample < steps else ""
        graded = self.emissions_per_sample != self.spikes_per_sample
        emissions = f" in {self.emissions_per_sample:.4g} emissions" if graded else ""
        return (
            f"accuracy {curve}; {self.samples} samples, {early}{self.spikes_per_sample:.4g} spikes{emissions} and "
            f"{self.synops_per_sample:.4g} synaptic operations per sample, {self.seconds:.2f} s"
        )


def evaluate(
    snn: nn.Module,
    loader: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    readout: str | Readout | None = None,
    early_exit: float | str | ExitRule | None = None,
    precision: str = "float32",
    progress: bool = True,
) -> EvaluationResult:
    """Classify all of `loader` and say how accurate the network is after every number of steps.

    >>> import torch
    >>> from sj_ann2snn import Converter, evaluate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", progress=False)(ann)
    >>> result = evaluate(snn, [(x, ann(x).argmax(1))], T=100, progress=False)
    >>> len(result.accuracy), result.accuracy[-1] > 0.8
    (100, True)
    >>> evaluate(snn, [(x, ann(x).argmax(1))], T=100, early_exit=2.0, progress=False).steps_per_sample < 100
    True

    Args:
        snn: A converted network whose output is ``[N, classes]``.
        loader: Batches of inputs and labels: tuples, lists or dicts; the last one may be smaller.
        T: Number of time steps, at least 1.
        readout: What makes the answer of the outputs over time: `"mean"`, `"delayed"`, `"exponential"`, `"last"`,
            `"potential"`, the name of any plugin's readout, or an instance with options,
            ``builtin.readouts.Delayed(delay=2)``; by default the one that a correction adjusted the network for, or
            the mean.
        early_exit: Stop simulating a sample once its answer is settled, the others going on: a number, by which the
            summed output of the best class has to lead the next one's (`builtin.exits.Margin`); the name of a rule;
            or an `ExitRule`.
        precision: Of the products, as for `simulate`.
        progress: Show a progress bar.

    Raises:
        InputError: `T` is not a positive integer, the loader is empty, or a batch has no labels or does
            not fit the network.
        OptionError: `early_exit` names no rule; `readout` is not known, or has no answer after `T` steps; there is no
            such `precision` where the network lies.
        EvaluationInterrupted: Ctrl-C was pressed; its `result` covers the samples that were done by then. It is
            a `KeyboardInterrupt`.
    """
    rule = _exit_rule(early_exit)
    simulator = Simulator(snn, T, precision)
    answering = readout_for(snn, readout, T)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else forward_signature(snn)
    totals = _Totals(T)
    index = -1
    try:
        with tqdm(loader, desc=f"simulating T={T}", unit="batch", disable=not progress) as bar:
            for index, batch in enumerate(bar):
                inputs, labels = signature.inputs_of(batch), _class_indices(signature.labels_of(batch))
                if labels.shape[0] != inputs[0].shape[0]:
                    raise InputError(
                        f"Batch {index} holds {inputs[0].shape[0]} samples and {labels.shape[0]} labels; there must be "
                        "one label for each sample."
                    )
                with totals.timed():
                    try:
                        simulator.run_all(inputs, partial(_Tile, totals, labels, T, answering, rule))
                    except InputError as error:
                        raise InputError(f"Batch {index} does not fit the network. {error}") from error
                bar.set_postfix(accuracy=f"{totals.accuracy()[-1]:.4f}")
    except KeyboardInterrupt as interrupt:
        if not totals.samples:
            raise
        raise EvaluationInterrupted(totals.result()) from interrupt
    if index < 0:
        raise InputError("The loader is empty: it yields no batch to evaluate.")
    return totals.result()


def accuracy_of(ann: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the samples of `loader` that an ANN classifies right; it is put back in its mode.

    Raises:
        InputError: The loader is empty or has no labels.
    """
    signature = forward_signature(ann)
    device = next((p.device for p in ann.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in ann.modules()]
    right = samples = 0
    try:
        ann.eval()
        with torch.no_grad():
            for batch in loader:
                labels = _class_indices(signature.labels_of(batch))
                inputs = tuple(move(value, device) for value in signature.inputs_of(batch))
                with taken(batch):
                    output = signature.caller(ann)(*inputs)
                right += int((output.argmax(1).cpu() == labels).sum())
                samples += labels.shape[0]
    finally:
        for module, training in modes:
            module.training = training
    if not samples:
        raise InputError("The loader is empty: it yields no batch to evaluate.")
    return right / samples


def _exit_rule(given: object) -> ExitRule | None:
    """The rule that the argument `early_exit` means."""
    if given is None or isinstance(given, ExitRule):
        return given
    registry = load_plugins()
    if isinstance(given, str):
        rule: ExitRule = registry.find_exit_rule(given).cls()
        return rule
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        margin: ExitRule = registry.find_exit_rule("margin").cls(threshold=given)
        return margin
    raise OptionError(
        f"early_exit={given!r} is not allowed: give the margin at which a sample is settled (a number), the name of a "
        f"rule ({', '.join(repr(one.name) for one in registry.exit_rules)}) or an instance of ExitRule."
    )


def _class_indices(labels: Tensor) -> Tensor:
    labels = labels.detach().cpu()
    return labels.argmax(1) if labels.dim() == 2 and labels.shape[1] > 1 else labels.reshape(-1)


class _Totals:
    """What the finished tiles add up to."""

    def __init__(self, steps: int) -> None:
        self._lock = threading.Lock()
        self._right = torch.zeros(steps, dtype=torch.int64)
        self._steps_taken = self._steps_simulated = 0
        self._seconds = 0.0
        self._spikes: dict[str, int] = {}
        self._emissions: dict[str, int] = {}
        self._neurons: dict[str, int] = {}
        self._synops = 0.0
        self._fan_out: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.samples = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def connections(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """For every element of the input of one sample the number of outputs it reaches."""
        key = name, tuple(x.shape[2:])
        if key not in self._fan_out:
            self._fan_out[key] = fan_out(module, x[0, :1])
        return self._fan_out[key]

    def add(self, tile: _Tile) -> None:
        with self._lock:
            self._right += tile.right()
            self._steps_taken += int(tile.steps_taken.sum())
            self._steps_simulated += tile.steps_simulated
            self.samples += len(tile.labels)
            self._synops += tile.synops
            self._neurons.update(tile.neurons)
            for name, spikes in tile.spikes.items():
                self._spikes[name] = self._spikes.get(name, 0) + spikes
                self._emissions[name] = self._emissions.get(name, 0) + tile.emissions[name]

    def accuracy(self) -> tuple[float, ...]:
        return tuple((self._right.double() / max(1, self.samples)).tolist())

    def result(self) -> EvaluationResult:
        with self._lock:
            return EvaluationResult(
                accuracy=self.accuracy(),
                samples=self.samples,
                steps_per_sample=self._steps_taken / self.samples,
                spikes_per_sample=sum(self._spikes.values()) / self.samples,
                synops_per_sample=self._synops / self.samples,
                seconds=self._seconds,
                layers=tuple(
                    LayerActivity(
                        name,
                        self._neurons[name],
                        spikes / self.samples,
                        spikes / (self._steps_simulated * self._neurons[name]),
                        self._emissions[name] / self.samples,
                    )
                    for name, spikes in self._spikes.items()
                ),
                emissions_per_sample=sum(self._emissions.values()) / self.samples,
            )


class _Tile(Collector):
    """The answers of one tile after every step, and what its layers did."""

    def __init__(
        self,
        totals: _Totals,
        labels: Tensor,
        steps: int,
        readout: Readout,
        rule: ExitRule | None,
        samples: slice,
    ) -> None:
        self.labels = labels[samples]
        self.steps_taken = torch.full((len(self.labels),), steps)  # labels may be too narrow a type
        self.spikes: dict[str, int] = {}
        self.emissions: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.synops = 0.0
        self.steps_simulated = 0
        self._totals, self._rule = totals, rule
        self._answers = torch.zeros(steps, len(self.labels), dtype=torch.int64)
        self._going_on = torch.arange(len(self.labels))
        self._decoder = Decoder(readout)

    def watch(self, name: str, module: nn.Module, x: Any, y: Any) -> None:
        """Count the spikes and synaptic operations of a layer."""
        if is_spiking(module):
            spikes, emissions = count_emissions(module, y)
            self.spikes[name] = self.spikes.get(name, 0) + spikes
            self.emissions[name] = self.emissions.get(name, 0) + emissions
            self.neurons[name] = y[0, 0].numel()
        elif isinstance(module, (nn.Linear, _ConvNd)):
            self.synops += float((times_active(x) * self._totals.connections(name, module, x)).sum())

    def add(self, outputs: Any) -> Tensor | None:
        if not isinstance(outputs, Tensor) or outputs.dim() != 3:
            given = f"shape {tuple(outputs.shape[1:])}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(
                f"evaluate needs a classifier with one output [N, classes]; this network's output is {given}. "
                "Use simulate and compare the outputs as the task demands."
            )
        first = self._decoder.done
        answers = self._decoder.answers(outputs)
        if answers.dim() != 3:
            raise PluginError(
                f"The readout made answers of shape {tuple(answers.shape[1:])} of outputs of shape "
                f"{tuple(outputs.shape[1:])}; evaluate needs [N, classes]."
            )
        predicted = answers.argmax(2).cpu()
        self.steps_simulated += outputs.shape[0] * outputs.shape[1]
        self._answers[first : self._decoder.done, self._going_on] = predicted
        return None if self._rule is None else self._without_settled(self._rule, answers, predicted, first)

    def _without_settled(self, rule: ExitRule, answers: Tensor, predicted: Tensor, first: int) -> Tensor | None:
        """Rows of the samples that are not settled at any of the steps from `first` on."""
        rows = torch.arange(len(self._going_on))
        divisors = self._decoder.divisors(range(first + 1, self._decoder.done + 1))
        for index, (answer, divisor) in enumerate(zip(answers, divisors, strict=True)):
            step = first + index + 1
            settled = self._settled(rule, answer[rows.to(answer.device)] / divisor, step)
            for row in rows[settled].tolist():
                sample = self._going_on[row]
                self._answers[step:, sample] = predicted[index, row]
                self.steps_taken[sample] = step
            rows = rows[~settled]
            if not len(rows):
                break
        if len(rows) == len(self._going_on):
            return None
        self._decoder.select(rows, len(self._going_on))
        self._going_on = self._going_on[rows]
        return rows

    def _settled(self, rule: ExitRule, answers: Tensor, step: int) -> Tensor:
        with blamed(f"Exit rule {rule.name!r}, asked at step {step},"):
            settled: Any = rule.settled(answers, step)
        if not isinstance(settled, Tensor) or settled.dtype != torch.bool or settled.shape != answers.shape[:1]:
            raise PluginError(
                f"Exit rule {rule.name!r} answered {describe_batch(settled)} at step {step}; it must answer a bool "
                f"tensor with one element for each of the {len(answers)} samples."
            )
        return settled.cpu()

    def result(self) -> None:
        self._totals.add(self)

    def right(self) -> Tensor:
        """How many samples are right after every step."""
        return (self._answers == self.labels).sum(1)


def times_active(x: Tensor) -> Tensor:
    """How often each element of a sample is not zero over all steps and samples of ``[T, N, ...]``, in float64.

    >>> times_active(torch.tensor([[[0.0, 0.5], [2.0, 0.0]], [[0.0, -1.0], [0.0, 0.0]]]))
    tensor([1., 2.], dtype=torch.float64)
    """
    active = x.sign().abs_()
    if active.dtype not in (torch.float32, torch.float64):
        active = active.float()
    # As a product with ones it runs at the speed of memory, images with their channels innermost in that order.
    order = [0, 1, *range(3, x.dim()), 2] if x.dim() > 3 else list(range(x.dim()))
    active = active.permute(order)
    rows = active.reshape(-1, active[0, 0].numel())
    counts = (rows.new_ones(len(rows)) @ rows).view(active.shape[2:]).double()
    return counts.movedim(-1, 0) if x.dim() > 3 else counts


def fan_out(module: nn.Module, x: Tensor) -> Tensor:
    """Number of connections that each element of the input has in a Linear or Conv layer, borders included.

    Args:
        module: The layer.
        x: An input ``[1, ...]``, for its shape.
    """
    ones = copy.copy(module)
    ones._parameters = {
        name: None
        if value is None
        else nn.Parameter(torch.ones_like(value) if name == "weight" else torch.zeros_like(value))
        for name, value in module._parameters.items()
    }
    ones._forward_hooks = OrderedDict()
    ones._forward_pre_hooks = OrderedDict()
    ones.step_mode = "s"  # type: ignore[assignment]
    with torch.enable_grad():
        # Linear in x with all weights one: the gradient of the sum counts the connections.
        probe = torch.zeros_like(x, requires_grad=True)
        (gradient,) = torch.autograd.grad(ones(probe).sum(), probe)
    return gradient[0].double()
