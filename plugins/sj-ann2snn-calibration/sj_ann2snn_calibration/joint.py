"""All thresholds, biases and initial potentials at once, by gradient descent towards the ANN's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import Correction, CorrectionError, OptionError, Trial, TrialSite

from .gradients import fire
from .staircase import checked_steps

__all__ = ["Joint", "usual_delay"]

BATCH = 32
"""Samples from which one step of the descent follows."""

SETTLED = 3
"""Neurons one behind the other that need no delay: they settle in few steps."""

SAMPLE_STEPS = 1 << 8
"""Samples times steps that are computed at a time: what is kept for the way back grows with both."""


@dataclass
class _Parameters:
    """What is learnt at one site."""

    log_scale: Tensor
    bias: Tensor
    potential: Tensor

    @staticmethod
    def of(site: TrialSite) -> _Parameters:
        potential = site.initial_potential
        if not any(size > 1 for size in potential.shape[1:]):
            potential = potential.expand(site.channels, *potential.shape[1:])
        values = site.scale.log(), site.bias, potential
        return _Parameters(*(value.detach().clone().requires_grad_() for value in values))

    def keep_to(self, site: TrialSite) -> None:
        """Hold the scale where the activation has an upper bound."""
        if site.largest_scale is not None:
            with torch.no_grad():
                self.log_scale.copy_(self.log_scale.minimum(site.largest_scale.log()))

    def tensors(self) -> list[Tensor]:
        return [self.log_scale, self.bias, self.potential]


class Joint(Correction):
    """Learns scale and bias of every channel, and its initial potential, so that T steps answer as the ANN does.

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

    The weights stay as they are, and no label is used: the loss is the divergence of the network's mean answer over T
    steps from the ANN's (for answers ``[N, classes]``; the mean squared error otherwise). The network runs with its
    real spikes; the way back is that of `gradients.fire`.

    Args:
        T: Number of time steps that the network is to run for.
        delay: Steps at the beginning whose outputs do not count, part of T: what the network emits while the first
            spikes are still on their way says little. By default T / 4, from T = 8 on T / 2, and less
            where few neurons lie one behind the other. `simulate` and
            `evaluate` then leave them out, too, unless they are told another readout.
        epochs: How often to go through the calibration data; by default 64 / T times, at least once.
        learning_rate: Of Adam, falling along half a cosine to zero; by default 0.04 / T.
        samples: Calibration samples to use at the most.
        mirror: Mirror every image ``[C, H, W]`` left to right half of the time.
        seed: Of the order of the samples and of the mirroring.

    Raises:
        OptionError: An option is out of range.
        CorrectionError: A neuron of the network is no plain IF neuron.
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
        seed: int = 0,
    ) -> None:
        self.T = checked_steps(T)
        for name, value in (("epochs", epochs), ("samples", samples)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise OptionError(f"{name}={value!r} is not allowed: it is an integer from 1 up.")
        if learning_rate is not None and not learning_rate > 0:
            raise OptionError(f"learning_rate={learning_rate!r} is not allowed: it is greater than 0.")
        if delay is not None and (isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay < T):
            raise OptionError(f"delay={delay!r} is not allowed for T={T}: it is an integer from 0 to T - 1.")
        self.delay = delay
        self.epochs = max(1, 64 // T) if epochs is None else epochs
        self.learning_rate = 0.04 / T if learning_rate is None else learning_rate
        self.samples, self.mirror, self.seed = samples, mirror, seed

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            if not site.binary:
                raise CorrectionError(
                    f"Correction 'joint' knows the spikes of the plain IF neuron only, and {site.name} has another "
                    "one. Leave out neuron=, or use corrections='bias'."
                )
        delay = self._delay(len(trial.sites))
        inputs = trial.inputs(self.samples)
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        parameters = {site.name: _Parameters.of(site) for site in trial.sites}
        output_bias = torch.zeros_like(trial.output_bias).requires_grad_()
        learnt = [tensor for one in parameters.values() for tensor in one.tensors()]
        learnt += [output_bias] if trial.adjusts_output else []
        generator = torch.Generator().manual_seed(self.seed)
        size = min(BATCH, len(inputs[0]))
        batches = len(inputs[0]) // size
        optimizer = torch.optim.Adam(learnt, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * batches)

        def emit(site: TrialSite, currents: Tensor) -> Tensor:
            own = parameters[site.name]
            return fire(currents, own.log_scale, own.bias, own.potential)

        for _ in trial.progress(range(self.epochs), f"correcting jointly for T={self.T}"):
            order = torch.randperm(len(inputs[0]), generator=generator)
            for rows in order[: batches * size].view(batches, size):
                optimizer.zero_grad()
                for part in rows.split(max(1, SAMPLE_STEPS // self.T)):
                    batch = tuple(self._taken(value, part.to(value.device), generator) for value in inputs)
                    given: Any = batch[0] if len(batch) == 1 else batch
                    target = trial.activations(given).output
                    answer = trial.run(given, self.T, emit)[delay:].mean(0)
                    loss = _loss(answer + output_bias if trial.adjusts_output else answer, target)
                    share = len(part) / len(rows)
                    for tensor, gradient in zip(learnt, torch.autograd.grad(loss * share, learnt), strict=True):
                        tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
                optimizer.step()
                schedule.step()
                for site in trial.sites:
                    parameters[site.name].keep_to(site)
        for site in trial.sites:
            own = parameters[site.name]
            trial.adjust(site.name, scale=own.log_scale.exp(), bias=own.bias, initial_potential=own.potential)
        if trial.adjusts_output:
            trial.adjust_output(trial.output_bias + output_bias.detach())
        if delay:
            trial.suggest_readout("delayed", delay=delay)

    def _delay(self, sites: int) -> int:
        """Steps that do not count. What drives the first neurons is constant, so that they need none."""
        if self.delay is not None:
            return self.delay
        return min(usual_delay(self.T), max(0, sites - SETTLED))

    def _taken(self, value: Any, rows: Tensor, generator: torch.Generator) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        taken = value[rows]
        if not self.mirror or taken.dim() != 4:
            return taken
        mirrored = (torch.rand(len(taken), generator=generator) < 0.5).view(-1, 1, 1, 1).to(taken.device)
        return torch.where(mirrored, taken.flip(3), taken)


def usual_delay(steps: int) -> int:
    """Steps of all `steps` that do not count in a deep network."""
    return steps // 2 if steps >= 8 else steps // 4


def _loss(answer: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2 and target.shape[1] > 1:
        return F.kl_div(answer.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)
    return F.mse_loss(answer, target) / target.var().clamp(min=torch.finfo(target.dtype).tiny)
