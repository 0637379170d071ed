"""Ways of converting a network, ours and SpikingJelly 2.0's, each with what it is worth after some numbers of steps."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from sj_ann2snn import Converter, evaluate, simulate
from sj_ann2snn.compat import reset_net

from .plugins import plugins
from .task import Task

Values = dict[int, dict[str, Any]]
"""What was found, by the number of steps; "value" is the mean of the task's metric."""

OURS: dict[str, dict[str, Any]] = {
    "99.9%, from θ/2": {"mode": "99.9%", "channel_wise": True, "initial_potential": 0.5},
    "low-latency": {"mode": "low-latency"},
    "differential": {"mode": "max", "channel_wise": True, "neuron": "differential"},
    "differential, 16 sizes": {"mode": "max", "channel_wise": True, "neuron": "differential", "thresholds": 16},
}
"""What is given to the converter besides the data."""

REMEDIES: dict[str, dict[str, Any]] = {
    "99.99%, from θ/2": {"mode": "99.99%", "channel_wise": True, "initial_potential": 0.5},
    "max, from θ/2": {"mode": "max", "channel_wise": True, "initial_potential": 0.5},
}
"""The same for networks of which 99.9% clips too much."""

BY_T = ("low-latency",)
"""Modes that make a network for one number of steps."""

PEERS: dict[str, dict[str, Any]] = {
    "RateCodingRecipe": {"mode": "99.9%", "channel_wise": True, "half_threshold": True},
    "LocalThresholdBalancingRecipe": {},
}
"""SpikingJelly's recipes for networks of ReLUs, and what they are given besides the data."""

PASSES = 10
"""How often the recipe that balances thresholds sees the calibration data."""


def value(task: Task, output: Any) -> float:
    return task.metric(output, task.targets).mean().item()


def ours(task: Task, options: dict[str, Any], steps: Sequence[int]) -> Values:
    """After each of `steps`, in one run if the network is the same for all of them."""
    values: Values = {}
    test = list(zip(task.inputs.split(task.batch), task.targets.split(task.batch), strict=True))
    for count in steps if options["mode"] in BY_T else (max(steps),):
        start = time.perf_counter()
        snn = converted(task, options, count)
        spent = time.perf_counter() - start
        curve = evaluate(snn, test, count, metric=task.metric, progress=False).value
        for step in (count,) if options["mode"] in BY_T else steps:
            values[step] = {"value": curve[step - 1], "conversion_seconds": spent}
    return values


def converted(task: Task, options: dict[str, Any], steps: int) -> nn.Module:
    given = {**options, "T": steps} if options["mode"] in BY_T else options
    return Converter(task.calibration, plugins=plugins(), progress=False, **given)(task.network)


def peer(task: Task, name: str, steps: Sequence[int]) -> Values:
    """One of SpikingJelly's recipes, run step by step as its documentation does."""
    from spikingjelly.activation_based import ann2snn

    passes = PASSES if name == "LocalThresholdBalancingRecipe" else 1
    recipe = getattr(ann2snn, name)(dataloader=[(x, None) for x in task.calibration] * passes, **PEERS[name])
    snn = ann2snn.Converter(recipe).convert(copy.deepcopy(task.network)).eval()
    values: Values = {}
    reset_net(snn)
    total: Any = None
    with torch.no_grad():
        for step in range(1, max(steps) + 1):
            output = snn(task.inputs)
            total = output if total is None else added(total, output)
            if step in steps:
                values[step] = {"value": value(task, scaled(total, 1 / step))}
    return values


def added(one: Any, other: Any) -> Any:
    return joined(lambda a, b: a + b, one, other)


def scaled(output: Any, factor: float) -> Any:
    return joined(lambda a: a * factor, output)


def joined(function: Callable[..., Any], *outputs: Any) -> Any:
    """Tensors, or tuples of them, named or not."""
    first = outputs[0]
    if not isinstance(first, tuple):
        return function(*outputs)
    parts = [joined(function, *ones) for ones in zip(*outputs, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def reason(problem: Exception) -> str:
    """Why it refuses, in the first sentence of its message."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(problem).split()))
    return f"{type(problem).__name__}: {re.split(r'(?<=[.!]) ', text)[0]}"


def timed(task: Task, options: dict[str, Any], steps: int, samples: int, rounds: int) -> dict[str, float]:
    """Processor time of a simulation and of the ANN's `steps` passes, one thread, in turns: medians."""
    snn, x = converted(task, options, steps), task.inputs[:samples]
    spent: dict[str, list[float]] = {"snn": [], "ann": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            task.network(x), simulate(snn, x, T=steps)
            for _ in range(rounds):
                start = time.process_time()
                task.network(x)
                middle = time.process_time()
                simulate(snn, x, T=steps)
                spent["ann"].append((middle - start) * steps)
                spent["snn"].append(time.process_time() - middle)
    finally:
        torch.set_num_threads(threads)
    medians = {name: sorted(times)[rounds // 2] for name, times in spent.items()}
    return {**medians, "ratio": medians["snn"] / medians["ann"]}
