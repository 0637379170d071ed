"""Adjusts all thresholds, biases and initial potentials at once, by gradient descent towards the ANN's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import Correction, CorrectionError, Trial, TrialSite, require_integer, require_number

from .gradients import fire

__all__ = ["Joint", "usual_delay"]

BATCH = 32
"""Samples per step of gradient descent."""

SETTLED = 3
"""Number of successive spiking layers that need no delay, because they settle in few steps."""

SAMPLE_STEPS = 1 << 8
"""Samples times steps to compute at a time; memory for the backward pass grows with both."""


@dataclass
class _Parameters:
    """The parameters that are learnt at one site."""

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
        """Limit the scale if the activation has an upper bound."""
        if site.largest_scale is not None:
            with torch.no_grad():
                self.log_scale.copy_(self.log_scale.minimum(site.largest_scale.log()))

    def tensors(self) -> list[Tensor]:
        return [self.log_scale, self.bias, self.potential]


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
    network's mean answer over T steps and the ANN's (for answers ``[N, classes]``; otherwise the mean squared error).
    The forward pass uses real spikes; the backward pass is that of `gradients.fire`.

    Args:
        T: Number of time steps for which the network will run.
        delay: Number of steps at the beginning, part of T, whose outputs do not count because the first spikes have not
            arrived yet. By default T / 4, from T = 8 on T / 2, and less for networks with few successive spiking
            layers. `simulate` and `evaluate` then leave these steps out as well, unless you give another readout.
        epochs: Passes over the calibration data; by default 64 / T, at least one.
        learning_rate: Learning rate of Adam, falling to zero along half a cosine; by default 0.04 / T.
        samples: Maximum number of calibration samples to use.
        mirror: Mirror every image ``[C, H, W]`` left to right half of the time.
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

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            if not site.binary:
                raise CorrectionError(
                    f"Correction 'joint' only supports the plain IF neuron, but {site.name} has another neuron. "
                    "Leave out neuron=, or use corrections='layer-by-layer', which works with any neuron."
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
                    batch = tuple(self._select(value, part.to(value.device), generator) for value in inputs)
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
        """Steps that do not count. The current of the first neurons is constant, so they need no delay."""
        if self.delay is not None:
            return self.delay
        return min(usual_delay(self.T), max(0, sites - SETTLED))

    def _select(self, value: Any, rows: Tensor, generator: torch.Generator) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        taken = value[rows]
        if not self.mirror or taken.dim() != 4:
            return taken
        mirrored = (
            (torch.rand(len(taken), dtype=torch.float32, generator=generator) < 0.5).view(-1, 1, 1, 1).to(taken.device)
        )
        return torch.where(mirrored, taken.flip(3), taken)


def usual_delay(steps: int) -> int:
    """The default delay of a deep network for `steps` steps."""
    return steps // 2 if steps >= 8 else steps // 4


def _loss(answer: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2 and target.shape[1] > 1:
        return F.kl_div(answer.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)
    return F.mse_loss(answer, target) / target.var().clamp(min=torch.finfo(target.dtype).tiny)
