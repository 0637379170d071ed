"""Checks that the mean output of a neuron approaches its current: a leak or a hard reset loses current for good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..compat import is_plain_if, reset_net, set_step_mode
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..errors import PluginError
from ..hooks.options import declared_options
from ..support.blame import Culprit
from ..support.untouched import Untouched

__all__ = ["Drift", "find_drift", "require_steady"]

DRIVES = 128
"""At least this many constant currents, evenly between 0 and λ."""
CHUNK = 32
"""Steps at a time."""
LARGE = 1 << 14
"""Size of a sample from which fewer steps are run."""
GROWTH = 1.5
"""Spikes by which the mean error over all currents may grow; that of a random neuron grows by 0.5 or so."""
PERSISTENT = 0.75
"""The root mean square of the error per step must fall below this share of what it was; for a random neuron it halves
when T is four times as large."""


@dataclass(frozen=True)
class Drift:
    """An error in the number of spikes that grows with the number of steps, at the worst constant current.

    Attributes:
        share: The current, as a share of λ.
        steps: T.
        emitted: The sum of the outputs over T steps, in spikes.
        expected: The sum of the currents, in spikes.
        few: A smaller T.
        missing: Spikes missing after that T.
    """

    share: float
    steps: int
    emitted: float
    expected: float
    few: int
    missing: float

    def __str__(self) -> str:
        lost = self.emitted < self.expected
        return (
            f"{self.emitted:.3g} spikes, expected {self.expected:.3g}, for a constant current of {self.share:.3g} λ "
            f"over {self.steps} steps; the error grows with T ({abs(self.missing):.3g} after {self.few} steps, "
            f"{abs(self.expected - self.emitted):.3g} after {self.steps}): current is {'lost' if lost else 'added'}"
        )


def require_steady(
    maker: NeuronMaker,
    neuron: nn.Module,
    site: NeuronSite,
    unit: Tensor,
    who: Culprit,
    *,
    few: int = 64,
    many: int = 256,
) -> None:
    """Check a neuron with constant currents: the error of its mean output must fall as the steps grow in number.

    SpikingJelly's own IF neuron with threshold 1 and soft reset needs no check. A neuron whose maker has an option T is
    meant for that number of steps, and is not checked.

    Args:
        maker: Its maker.
        neuron: Fresh; it is reset afterwards.
        site: Its site.
        unit: Value of one spike in the ANN's units, a scalar or ``[C]``.
        who: The maker, for the message.
        few: A number of steps.
        many: A larger one; both are smaller for large sites.

    Raises:
        PluginError: The error grows with the number of steps, or the neuron writes to its currents.
    """
    if (is_plain_if(neuron) and neuron.v_threshold == 1) or "T" in declared_options(type(maker)):
        return
    if math.prod(site.shape) > LARGE:
        few, many = max(1, few // 4), max(4, many // 4)
    try:
        drift = find_drift(neuron, site, unit, few=few, many=many, resolution=maker.resolution)
    except _WritesToCurrentsError as error:
        raise PluginError(
            f"{who} made a {type(neuron).__name__} for {site.name} that writes to the currents it receives. Others "
            f"read them as well; it must return a new tensor. {who.advice}"
        ) from error
    if drift is not None:
        raise PluginError(
            f"{who} made a {type(neuron).__name__} for {site.name} whose mean output does not approach its current: "
            f"{drift}. A leak, a hard reset, a refractory time or an adaptive threshold has this effect; with it, the "
            "network's answer does not approach the ANN's. Subtract from the membrane potential what each spike is "
            "worth, and nothing else. A neuron that departs from the current on purpose declares by how much, in "
            f"NeuronMaker.resolution. {who.advice}"
        )


@torch.no_grad()
def find_drift(
    neuron: nn.Module, site: NeuronSite, unit: Tensor, *, few: int, many: int, resolution: float = 0.0
) -> Drift | None:
    """The error of a neuron that grows with the number of steps; None if it does not grow.

    Args:
        neuron: Fresh; it is reset afterwards.
        site: Its site.
        unit: Value of one spike in the ANN's units, a scalar or ``[C]``.
        few: A number of steps.
        many: A larger one.
        resolution: Share of λ by which the mean output may differ from the current, whatever T.
    """
    values, scale = (site.along_channels(one.to(site.dtype)) for one in (unit, site.scale))
    samples = math.ceil(DRIVES / max(1, math.prod(site.shape)))
    count = samples * math.prod(site.shape)
    shares = (torch.arange(1, count + 1, dtype=site.dtype, device=values.device) / (count + 1)).reshape(
        samples, *site.shape
    )
    drive = shares * (scale / values)
    emitted = dict(_totals(neuron, drive, few, many))
    allowed = resolution * (scale / values).double()
    missing = {steps: drive.double() * steps - total for steps, total in emitted.items()}
    beyond = {steps: one.sign() * (one.abs() - allowed * steps).clamp(min=0) for steps, one in missing.items()}
    root = {steps: float(one.square().mean().sqrt()) for steps, one in beyond.items()}
    biased = abs(float(beyond[many].mean())) - abs(float(beyond[few].mean())) > GROWTH
    persistent = root[many] > 1 and root[many] / many > PERSISTENT * root[few] / few
    if not (biased or persistent):
        return None
    worst = int(beyond[many].abs().argmax())
    return Drift(
        share=float(shares.flatten()[worst]),
        steps=many,
        emitted=float(emitted[many].flatten()[worst]),
        expected=float(drive.flatten()[worst]) * many,
        few=few,
        missing=float(missing[few].flatten()[worst]),
    )


def _totals(neuron: nn.Module, drive: Tensor, few: int, many: int) -> list[tuple[int, Tensor]]:
    """The outputs for a constant drive, added up over `few` and over `many` steps."""
    neuron.to(drive.device)
    reset_net(neuron)
    set_step_mode(neuron, "m")
    total, done, found = torch.zeros_like(drive, dtype=torch.float64), 0, []
    try:
        while done < many:
            steps = min(CHUNK, (few if done < few else many) - done)
            currents = drive.expand(steps, *drive.shape).contiguous()
            before = Untouched([currents], exact=not done)
            total += neuron(currents).double().sum(0)
            if before.changed():
                raise _WritesToCurrentsError
            done += steps
            if done in (few, many):
                found.append((done, total.clone()))
    finally:
        reset_net(neuron)
        set_step_mode(neuron, "s")
    return found


class _WritesToCurrentsError(Exception):
    """A neuron wrote to the currents that it received."""
