"""Adjusts all thresholds, biases and initial potentials at once, by gradient descent towards the ANN's answers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import (
    Correction,
    CorrectionError,
    Delayed,
    Exponential,
    OptionError,
    Recent,
    Trial,
    require_flag,
    require_integer,
    require_number,
)

from .objective import LOSSES, Objective
from .parameters import Parameters
from .samples import BATCH, Samples

__all__ = ["Joint", "usual_delay"]

ROUGHLY = 0.75
"""Share of the descent that may take place in half precision."""

PRECISIONS = ("auto", "float32", "bfloat16")

SHIFT = 2
"""Pixels to shift images by where weights are learnt."""

SETTLED = 3
"""Number of successive spiking layers that need no delay, because they settle in few steps."""

FACTORS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
"""Factors of the scales to start from, where answers count by their squared error."""

TRIED = 1 << 11
"""Samples times steps to try them on."""

DECAYS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the weights of a readout that forgets, to choose from."""

WORTHWHILE = 0.95
"""Share of the error that another readout than the usual one must not exceed."""

READ = 1 << 13
"""Samples times steps to choose a readout on."""

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

    No labels are used, and the weights are changed only with ``Converter(weights="tuned")``. The loss is the
    Kullback-Leibler divergence between the network's mean answer over T steps and the ANN's for class scores
    ``[N, classes]``, otherwise the mean squared error in units of the variance; several outputs add up (see
    `Objective`). The forward pass uses real spikes; the backward pass is that of `gradients.fire`. Of the two neurons
    that replace a LeakyReLU, each has its own parameters.

    Args:
        T: Number of time steps for which the network will run.
        delay: Number of steps at the beginning, part of T, whose outputs do not count because the first spikes have not
            arrived yet. By default T / 4, from T = 8 on T / 2, and less for networks with few successive spiking
            layers; none where the squared error counts and is smaller without. `simulate` and `evaluate` then leave
            these steps out as well, unless you give another readout. By default, once everything is learnt, the
            readout "exponential" takes its place if it errs less.
        epochs: Passes over the calibration data; by default 64 / T, at least one.
        learning_rate: Learning rate of Adam, falling to zero along half a cosine; by default 0.04 / T.
        samples: Maximum number of calibration samples to use.
        mirror: Mirror every image ``[C, H, W]`` left to right half of the time, in all inputs alike.
        shift: Shift every image up or down and left or right by so many pixels at most; by default 2 where weights are
            learnt, which fit few images too well otherwise.
        earliest: Fewest steps after which the answer counts as well, for a network that may be stopped anywhere between
            `earliest` and T. The answers after T, T / 2, T / 4 steps and so on then count alike, each relative to what
            it starts from, and a deep network suggests the readout "recent" unless "exponential" errs less. By default,
            only T counts.
        per_step: Learn a bias for every step as well, which the hardware must be able to add.
        weight_rate: Learning rate of weights, in units of their root mean square.
        precision: Of convolutions while learning: "float32", "bfloat16", or "auto" for "bfloat16" on processors that
            have instructions for it. The last quarter of the descent is in single precision in any case, and the
            network keeps its own.
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
        shift: int | None = None,
        earliest: int | None = None,
        per_step: bool = False,
        weight_rate: float = 0.002,
        precision: str = "auto",
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
        self.shift = None if shift is None else require_integer("shift", shift, 0, what="the number of pixels")
        self.earliest = None if earliest is None else require_integer("earliest", earliest, 1, T, what=f"for T={T} it")
        if self.earliest is not None and self.delay is not None:
            raise OptionError(
                f"earliest={earliest!r} and delay={delay!r} exclude each other: a network for several numbers of steps "
                "is read by the readout 'recent', whose delay follows from the number of steps. Leave out one of them."
            )
        self.per_step = require_flag("per_step", per_step)
        self.weight_rate = require_number("weight_rate", weight_rate, above=0)
        if precision not in PRECISIONS:
            raise OptionError(f"precision={precision!r} is not allowed; it is one of {_listed(PRECISIONS)}.")
        self.precision = precision
        if loss not in LOSSES:
            raise OptionError(f"loss={loss!r} is not allowed; it is one of {_listed(LOSSES)}.")
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
        shift = (SHIFT if trial.tunes_weights else 0) if self.shift is None else self.shift
        samples = Samples(trial, self.samples, mirror=self.mirror, shift=shift)
        objective = Objective(trial.outputs, samples.answers(), self.loss)
        # Both neurons of an activation of both signs are one layer.
        layers = sum(not site.negated for site in trial.sites)
        delay = self._delay(layers)
        parameters = self._parameters(trial)
        some = samples.first(TRIED // self.T)
        if objective.has_squares and self.earliest is None:
            delays = [delay, 0] if self.delay is None and delay else [delay]
            parameters, delay = self._start(trial, objective, some, delays)
        readout = self._readout(layers, delay)
        spans = self._spans(readout)
        weights = self._weights(objective, parameters, trial, some, spans)
        learnt = parameters.tensors()
        generator = torch.Generator().manual_seed(self.seed)
        size = min(BATCH, samples.count)
        batches = samples.count // size
        optimizer = torch.optim.Adam(parameters.groups(self.learning_rate, self.weight_rate))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * batches)
        for _ in trial.progress(range(self.epochs), f"correcting jointly for T={self.T}"):
            order = torch.randperm(samples.count, generator=generator)
            for rows in order[: batches * size].view(batches, size):
                optimizer.zero_grad()
                for part in rows.split(max(1, SAMPLE_STEPS // self.T)):
                    given, target = samples.draw(part, generator)
                    with self._precision(learnt[0].device, schedule.last_epoch / (self.epochs * batches)):
                        outputs = parameters.run(given, self.T)
                    losses = [objective(parameters.answers(outputs, *span), target) for span in spans]
                    share = len(part) / len(rows)
                    counted = [loss * weight for loss, weight in zip(losses, weights, strict=True) if loss is not None]
                    if not counted or not _add_gradients(learnt, torch.stack(counted).sum() * share):
                        trial.note("adjusted nothing, because no output of real numbers passes on a gradient")
                        return
                optimizer.step()
                schedule.step()
                parameters.keep_to_bounds()
        parameters.apply()
        found: Delayed | Recent | Exponential = readout
        if self.delay is None:
            ends = [(end, weight) for (_, end), weight in zip(spans, weights, strict=True)]
            found = self._better(readout, objective, parameters, samples, ends)
        if isinstance(found, Exponential):
            trial.suggest_readout("exponential", decay=found.decay)
        elif isinstance(found, Recent):
            trial.suggest_readout("recent")
        elif found.delay:
            trial.suggest_readout("delayed", delay=found.delay)

    def _parameters(self, trial: Trial) -> Parameters:
        return Parameters(trial, steps=self.T if self.per_step else None)

    def _better(
        self,
        usual: Delayed | Recent,
        objective: Objective,
        parameters: Parameters,
        samples: Samples,
        ends: list[tuple[int, float]],
    ) -> Delayed | Recent | Exponential:
        """The readout with the least error on the samples: the usual one, or one whose weights fall with age.

        The later a step, the more of the spikes of all layers it has seen, also among the steps that count.

        Args:
            usual: The readout for which the network was adjusted.
            objective: What an error is.
            parameters: What was learnt.
            samples: The calibration samples.
            ends: The numbers of steps after which the answer counts, and how much.
        """
        readouts = [usual, *(Exponential(decay=decay) for decay in DECAYS)]
        errors = [0.0] * len(readouts)
        with torch.no_grad():
            for rows, given, target in samples.unchanged(max(1, READ // self.T)):
                outputs = parameters.run(given, self.T)
                for index, one in enumerate(readouts):
                    for end, weight in ends:
                        answers = parameters.read(outputs, one, end)
                        errors[index] += len(rows) * weight * objective.error(answers, target)
        best = min(range(len(readouts)), key=errors.__getitem__)
        return readouts[best] if errors[best] < WORTHWHILE * errors[0] else usual

    def _readout(self, layers: int, delay: int) -> Delayed | Recent:
        """What turns the outputs into the answer: a fixed delay if it suits every number of steps that counts."""
        if self.earliest is None:
            return Delayed(delay=delay)
        needed = max(0, layers - SETTLED)
        return Delayed(delay=needed) if needed <= Recent.delay(self.earliest) else Recent()

    def _spans(self, readout: Delayed | Recent) -> list[tuple[int, int]]:
        """The stretches of steps over which an answer is the mean: how many steps do not count, and the last one."""
        ends = [self.T]
        while self.earliest is not None and ends[-1] // 2 >= self.earliest:
            ends.append(ends[-1] // 2)
        return [(readout.delay if isinstance(readout, Delayed) else readout.delay(end), end) for end in ends]

    def _weights(
        self, objective: Objective, parameters: Parameters, trial: Trial, inputs: Any, spans: list[tuple[int, int]]
    ) -> list[float]:
        """How much the answer of each stretch counts: shorter ones start with larger errors."""
        if len(spans) == 1:
            return [1.0]
        target = trial.activations(inputs).output
        with torch.no_grad():
            outputs = parameters.run(inputs, self.T)
            errors = [objective.error(parameters.answers(outputs, *span), target) for span in spans]
        return [1 / (len(spans) * error) if error else 1.0 for error in errors]

    def _precision(self, device: torch.device, done: float) -> AbstractContextManager[Any]:
        """Convolutions in bfloat16 where that was asked for, or is fast; the last steps see the weights as they are."""
        half = self.precision == "bfloat16" or (self.precision == "auto" and _has_bfloat16(device))
        return torch.autocast(device.type, torch.bfloat16, enabled=half and done < ROUGHLY)

    def _start(self, trial: Trial, objective: Objective, inputs: Any, delays: list[int]) -> tuple[Parameters, int]:
        """Parameters with the scales of the mode or larger ones, and a delay: those with the least error.

        A mode does not know how deep the network is. In a shallow one, the first steps count as well. Scales that were
        chosen for half of the steps then clip more than they need to, and with many steps there are too few rounds of
        descent to widen them.
        """
        target = trial.activations(inputs).output
        best: tuple[float, Parameters, int] | None = None
        for factor in FACTORS if 2 * usual_delay(self.T) >= self.T else FACTORS[:1]:
            parameters = self._parameters(trial)
            parameters.multiply_scales(factor)
            with torch.no_grad():
                outputs = parameters.run(inputs, self.T)
                answers = {delay: parameters.answers(outputs, delay, self.T) for delay in delays}
                errors = {delay: objective.error(answer, target) for delay, answer in answers.items()}
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


def _add_gradients(tensors: list[Tensor], loss: Tensor) -> bool:
    """Add the gradients of `loss`; False if it depends on none of the tensors."""
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if gradient is not None:
            tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
    return any(gradient is not None for gradient in gradients)


def _has_bfloat16(device: torch.device) -> bool:
    """True for processors that multiply numbers in bfloat16 faster than in single precision."""
    asked = getattr(torch.cpu, "get_capabilities", None)  # torch 2.10
    return device.type == "cpu" and asked is not None and bool({"avx512_bf16", "amx_bf16"} & _present(asked()))


def _present(capabilities: dict[str, Any]) -> set[str]:
    return {name for name, value in capabilities.items() if value is True}


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def usual_delay(steps: int) -> int:
    """The default delay of a deep network for `steps` steps."""
    return steps // 2 if steps >= 8 else steps // 4
