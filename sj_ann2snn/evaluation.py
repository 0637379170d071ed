"""Accuracy over time steps, and what the network spends for it."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from tqdm.auto import tqdm

from .batches import Signature, forward_signature, move, taken
from .errors import InputError
from .simulation import Simulator
from .simulation.firing import count_spikes, is_spiking

__all__ = ["EvaluationResult", "LayerActivity", "accuracy_of", "evaluate"]


@dataclass(frozen=True)
class LayerActivity:
    """What one spiking layer did.

    Attributes:
        name: Qualified name of the layer.
        neurons: Number of neurons.
        spikes_per_sample: Spikes per sample, summed over its neurons and all steps.
        firing_rate: Spikes per neuron and step.
    """

    name: str
    neurons: int
    spikes_per_sample: float
    firing_rate: float


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured.

    Attributes:
        accuracy: ``accuracy[t - 1]`` is the share of samples that are right when stopping after t steps.
        samples: Number of samples.
        spikes_per_sample: Spikes of all neurons over all steps, per sample; a graded spike of value k counts k times, a
            negative one like a positive one.
        synops_per_sample: Synaptic operations per sample: for every non-zero value that reaches a Linear,
            Conv or ConvTranspose layer at a step, the number of its connections there. The layers in front
            of the first neuron see a constant input; they are computed once and not counted.
        seconds: Time the simulation took, data loading excluded.
        layers: The spiking layers, in order.
    """

    accuracy: tuple[float, ...]
    samples: int
    spikes_per_sample: float
    synops_per_sample: float
    seconds: float
    layers: tuple[LayerActivity, ...]

    def __str__(self) -> str:
        steps = len(self.accuracy)
        shown = sorted({1, *(2**k for k in range(1, steps.bit_length()) if 2**k < steps), steps})
        curve = ", ".join(f"{self.accuracy[t - 1]:.4f} (T={t})" for t in shown)
        return (
            f"accuracy {curve}; {self.samples} samples, {self.spikes_per_sample:.4g} spikes and "
            f"{self.synops_per_sample:.4g} synaptic operations per sample, {self.seconds:.2f} s"
        )


def evaluate(
    snn: nn.Module,
    loader: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
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

    Args:
        snn: A converted network whose output is ``[N, classes]``.
        loader: Batches of inputs and labels: tuples, lists or dicts; the last one may be smaller.
        T: Number of time steps, at least 1.
        progress: Show a progress bar.

    Raises:
        InputError: `T` is not a positive integer, the loader is empty, or a batch has no labels or does
            not fit the network.
    """
    activity = _Activity()
    simulator = Simulator(snn, T, activity)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else forward_signature(snn)
    right = torch.zeros(T, dtype=torch.int64)
    samples, seconds = 0, 0.0
    with tqdm(loader, desc=f"simulating T={T}", unit="batch", disable=not progress) as bar:
        for index, batch in enumerate(bar):
            inputs, labels = signature.inputs_of(batch), _class_indices(signature.labels_of(batch))
            if labels.shape[0] != inputs[0].shape[0]:
                raise InputError(
                    f"Batch {index} holds {inputs[0].shape[0]} samples and {labels.shape[0]} labels; there must be one "
                    "label for each sample."
                )
            start = time.perf_counter()
            outputs = _run(simulator, inputs, index)
            right += _right_after_each_step(outputs, labels)
            seconds += time.perf_counter() - start
            samples += labels.shape[0]
            bar.set_postfix(accuracy=f"{int(right[-1]) / samples:.4f}")
    if not samples:
        raise InputError("The loader is empty: it yields no batch to evaluate.")
    return EvaluationResult(
        accuracy=tuple((right.double() / samples).tolist()),
        samples=samples,
        spikes_per_sample=sum(activity.spikes.values()) / samples,
        synops_per_sample=activity.synops / samples,
        seconds=seconds,
        layers=activity.layers(samples, T),
    )


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


def _run(simulator: Simulator, inputs: tuple[Any, ...], index: int) -> Tensor:
    """The summed outputs after each step, ``[T, N, classes]``."""
    try:
        pieces = simulator.run_all(inputs)
    except InputError as error:
        raise InputError(f"Batch {index} does not fit the network. {error}") from error
    for piece in pieces:
        if not isinstance(piece[0], Tensor) or piece[0].dim() != 3:
            given = f"shape {tuple(piece[0].shape[1:])}" if isinstance(piece[0], Tensor) else type(piece[0]).__name__
            raise InputError(
                f"evaluate needs a classifier with one output [N, classes]; this network's output is {given}. "
                "Use simulate and compare the outputs as the task demands."
            )
    return torch.cat([torch.cat(piece).cumsum(0) for piece in pieces], dim=1)


def _right_after_each_step(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(2).cpu() == labels).sum(1)


def _class_indices(labels: Tensor) -> Tensor:
    labels = labels.detach().cpu()
    return labels.argmax(1) if labels.dim() == 2 and labels.shape[1] > 1 else labels.reshape(-1)


class _Activity:
    """Counts spikes and synaptic operations as a simulator's watcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spikes: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.synops = 0.0
        self._fan_out: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, module: nn.Module, x: Any, y: Any) -> None:
        if is_spiking(module):
            spikes = count_spikes(module, y)
            with self._lock:
                self.spikes[name] = self.spikes.get(name, 0) + spikes
                self.neurons[name] = y[0, 0].numel()
        elif isinstance(module, (nn.Linear, _ConvNd)):
            active = (x != 0).sum(dim=(0, 1), dtype=torch.float64)
            synops = float((active * self._connections(name, module, x)).sum())
            with self._lock:
                self.synops += synops

    def _connections(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """For every element of the input of one sample the number of outputs it reaches."""
        key = name, tuple(x.shape[2:])
        if key not in self._fan_out:
            self._fan_out[key] = fan_out(module, x[0, :1])
        return self._fan_out[key]

    def layers(self, samples: int, steps: int) -> tuple[LayerActivity, ...]:
        return tuple(
            LayerActivity(name, self.neurons[name], count / samples, count / (samples * steps * self.neurons[name]))
            for name, count in self.spikes.items()
        )


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
