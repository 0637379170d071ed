"""Adjusts all thresholds, biases and initial potentials at once, by gradient descent towards the ANN's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import (
    Correction,
    CorrectionError,
    OptionError,
    Trial,
    require_integer,
    require_number,
)

from .objective import LOSSES, Objective
from .parameters import Parameters

__all__ = ["Joint", "usual_delay"]

BATCH = 32
"""Samples per step of gradient descent."""

SETTLED = 3
"""Number of successive spiking layers that need no delay, because they settle in few steps."""

FACTORS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
"""Factors of the scales to start from, where answers count by their squared error."""

TRIED = 1 << 11
"""Samples times steps to try them on."""

SAMPLE_STEPS = 1 << 8
"""Samples times steps to compute at a time; memory for the backward pass grows with both."""


class Joint(Correction):
    """Learns the scale, bias and initial potential of every channel so that T steps give the ANN's answer.

    >>> from sj_ann2snn import Converter, simulate
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> x = torch.randn(256, 4)
    >>> divergence = []
    >>> for corrections in ((), Joint(T=4, epochs=20)):
    ...     snn = Converter([x], mode="staircase", T=4, corrections=corrections, progress=False)(ann)
    ...     answer, wanted = simulate(snn, x, T=4).log_softmax(1), ann(x).log_softmax(1)
    ...     divergence.append(torch.nn.functional.kl_div(answer, wanted, reduction="sum", log_target=True).item())
    >>> divergence[1] < divergence[0]
    True

    The weights are not changed, and no labels are used: the loss is the Kullback-Leibler divergence between the
    network's mean answer over T steps and the ANN's for class scores ``[N, classes]``, otherwise the mean squared error
    in units of the variance; several outputs add up (see `Objective`). The forward pass uses real spikes; the backward
    pass is that of `gradients.fire`. Of the two neurons that replace a LeakyReLU, each has its own parameters.

    Args:
        T: Number of time steps for which the network will run.
        delay: Number of steps at the beginning, part of T, whose outputs do not count because the first spikes have not
            arrived yet. By default T / 4, from T = 8 on T / 2, and less for networks with few successive spiking
            layers; none where the squared error counts and is smaller without. `simulate` and `evaluate` then leave
            these steps out as well, unless you give another readout.
        epochs: Passes over the calibration data; by default 64 / T, at least one.
        learning_rate: Learning rate of Adam, falling to zero along half a cosine; by default 0.04 / T.
        samples: Maximum number of calibration samples to use.
        mirror: Mirror every image ``[C, H, W]`` left to right half of the time, in all inputs alike.
        loss: "divergence" for class scores, "squares" for regressions; "auto" decides for each output by its values.
        seed: Seed for the order of the samples and for mirroring.

    Raises:
        OptionError: An option is out of range.
        CorrectionError: The network has a neuron other than the plain IF neuron.
    """

    name = "joint"

    def __init__(
        self,
        *,
        T: int = 8,  # noqa: N803 - the field's name for the number of time steps
        delay: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        samples: int = 1024,
        mirror: bool = True,
        loss: str = "auto",
        seed: int = 0,
    ) -> None:
        self.T = require_integer("T", T, what="the number of time steps")
        self.delay = None if delay is None else require_integer("delay", delay, 0, T - 1, what=f"for T={T} it")
        self.epochs = max(1, 64 // T) if epochs is None else require_integer("epochs", epochs)
        default = 0.04 / T
        self.learning_rate = (
            default if learning_rate is None else require_number("learning_rate", learning_rate, above=0)
        )
        self.samples = require_integer("samples", samples)
        self.mirror, self.seed = mirror, seed
        if loss not in LOSSES:
            raise OptionError(f"loss={loss!r} is not allowed; it is one of {', '.join(map(repr, LOSSES))}.")
        self.loss = loss

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            if not site.binary:
                raise CorrectionError(
                    f"Correction 'joint' only supports the plain IF neuron, but {site.name} has another neuron. "
                    "Leave out neuron=, or use corrections='layer-by-layer', which works with any neuron."
                )
        # Whatever the caller's state, learning takes gradients.
        with torch.inference_mode(False), torch.enable_grad():
            self._learn(trial)

    def _learn(self, trial: Trial) -> None:
        inputs = trial.inputs(self.samples)
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        samples = len(inputs[0])
        objective = Objective(trial.outputs, _targets(trial, inputs, samples), self.loss)
        # Both neurons of an activation of both signs are one layer.
        delay = self._delay(sum(not site.negated for site in trial.sites))
        parameters = Parameters(trial)
        if objective.has_squares:
            some = _rows_of(inputs, torch.arange(min(samples, max(1, TRIED // self.T))))
            delays = [delay, 0] if self.delay is None and delay else [delay]
            parameters, delay = self._start(trial, objective, some, delays)
        learnt = parameters.tensors()
        generator = torch.Generator().manual_seed(self.seed)
        size = min(BATCH, samples)
        batches = samples // size
        optimizer = torch.optim.Adam(learnt, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * batches)
        for _ in trial.progress(range(self.epochs), f"correcting jointly for T={self.T}"):
            order = torch.randperm(samples, generator=generator)
            for rows in order[: batches * size].view(batches, size):
                optimizer.zero_grad()
                for part in rows.split(max(1, SAMPLE_STEPS // self.T)):
                    given = self._select(inputs, part, generator)
                    loss = objective(
                        parameters.answers(parameters.run(given, self.T), delay), trial.activations(given).output
                    )
                    if loss is None or not _add_gradients(learnt, loss * (len(part) / len(rows))):
                        trial.note("adjusted nothing, because no output of real numbers passes on a gradient")
                        return
                optimizer.step()
                schedule.step()
                parameters.keep_to_bounds()
        parameters.apply()
        if delay:
            trial.suggest_readout("delayed", delay=delay)

    def _start(
        self, trial: Trial, objective: Objective, inputs: tuple[Any, ...], delays: list[int]
    ) -> tuple[Parameters, int]:
        """Parameters with the scales of the mode or larger ones, and a delay: those with the least error.

        A mode does not know how deep the network is. In a shallow one, the first steps count as well. Scales that were
        chosen for half of the steps then clip more than they need to, and with many steps there are too few rounds of
        descent to widen them.
        """
        target = trial.activations(inputs).output
        best: tuple[float, Parameters, int] | None = None
        for factor in FACTORS if 2 * usual_delay(self.T) >= self.T else FACTORS[:1]:
            parameters = Parameters(trial)
            parameters.multiply_scales(factor)
            with torch.no_grad():
                outputs = parameters.run(inputs, self.T)
                errors = {delay: objective.error(parameters.answers(outputs, delay), target) for delay in delays}
            for delay, error in errors.items():
                if best is None or error < best[0]:
                    best = error, parameters, delay
        assert best is not None
        return best[1:]

    def _delay(self, sites: int) -> int:
        """Steps that do not count. The current of the first neurons is constant, so they need no delay."""
        if self.delay is not None:
            return self.delay
        return min(usual_delay(self.T), max(0, sites - SETTLED))

    def _select(self, inputs: tuple[Any, ...], rows: Tensor, generator: torch.Generator) -> Any:
        """The samples in `rows`, some of them mirrored, as `Trial.run` takes them."""
        taken = _rows_of(inputs, rows)
        if self.mirror and any(_is_image(value) for value in taken):
            mirrored = (torch.rand(len(rows), dtype=torch.float32, generator=generator) < 0.5).view(-1, 1, 1, 1)
            taken = tuple(
                torch.where(mirrored.to(value.device), value.flip(3), value) if _is_image(value) else value
                for value in taken
            )
        return taken[0] if len(taken) == 1 else taken


def _rows_of(inputs: tuple[Any, ...], rows: Tensor) -> tuple[Any, ...]:
    return tuple(
        value[rows.to(value.device)] if isinstance(value, Tensor) and value.dim() else value for value in inputs
    )


def _targets(trial: Trial, inputs: tuple[Any, ...], samples: int) -> Iterator[Any]:
    """The ANN's outputs for all inputs, a batch at a time."""
    for start in range(0, samples, BATCH):
        yield trial.activations(_rows_of(inputs, torch.arange(start, min(start + BATCH, samples)))).output


def _add_gradients(tensors: list[Tensor], loss: Tensor) -> bool:
    """Add the gradients of `loss`; False if it depends on none of the tensors."""
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if gradient is not None:
            tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
    return any(gradient is not None for gradient in gradients)


def _is_image(value: Any) -> bool:
    """True for images ``[N, C, H, W]``."""
    return isinstance(value, Tensor) and value.dim() == 4


def usual_delay(steps: int) -> int:
    """The default delay of a deep network for `steps` steps."""
    return steps // 2 if steps >= 8 else steps // 4
