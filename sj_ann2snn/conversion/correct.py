"""Lets corrections adjust a converted network on trial, and says what is then to be built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import starting_potential
from ..contracts.correction import Correction
from ..contracts.replacements import Spike
from ..contracts.trial import Trial, TrialSite
from ..support.batches import Signature
from ..support.blame import blame
from .absorb import Adjustment, absorb_bias, layer_behind
from .graph.records import Record, TensorRecord
from .plan import Decision, Plan
from .rewrite import rewrite
from .scale import ScalePlan
from .trial_runner import Probe, Trying

__all__ = ["Canonical", "Corrected", "correct"]


@dataclass(frozen=True)
class Canonical:
    """A planned and calibrated network before it is rewritten.

    Attributes:
        module: In canonical form.
        record: What its nodes yield.
        plan: What becomes of them.
        scales: Folds and scalers.
        lambdas: λ of every spiking node.
        units: Value of one spike there.
    """

    module: fx.GraphModule
    record: Record
    plan: Plan
    scales: ScalePlan
    lambdas: Mapping[fx.Node, Tensor]
    units: Mapping[fx.Node, Tensor]


@dataclass(frozen=True)
class Corrected:
    """What corrections left.

    Attributes:
        lambdas: λ of every spiking node.
        adjustments: What spiking nodes get in addition to their current.
        rescaled: Some λ is another than before.
        readout: Name and options of the readout that the network is adjusted for.
    """

    lambdas: dict[fx.Node, Tensor]
    adjustments: dict[fx.Node, Adjustment]
    rescaled: bool = False
    readout: tuple[str, dict[str, Any]] | None = None


def correct(
    corrections: Sequence[tuple[Correction, str]],
    network: Canonical,
    make_neuron: Callable[[Decision, fx.Node], nn.Module],
    *,
    batches: Iterable[Any],
    signature: Signature,
    device: torch.device,
    progress: bool,
) -> Corrected:
    """Have `corrections` adjust the network, one after the other; biases are put into its layers at once.

    Args:
        corrections: Each with its name and owner for messages.
        network: The network.
        make_neuron: Makes the neuron of a spiking node.
        batches: The calibration data.
        signature: The network's inputs.
        device: Where to work.
        progress: Show progress bars.

    Raises:
        CorrectionError: A correction set something that a network cannot have.
        PluginError: A correction failed.
    """
    trial, sites = _on_trial(network, make_neuron, batches, signature, device, progress)
    for correction, who in corrections:
        with blame(who):
            correction.correct(trial)
    lambdas, adjustments = dict(network.lambdas), {}
    for node, site in sites.items():
        lambdas[node] = _adjusted_scale(network, node, site)
        unit = network.units[node].to(site.bias)
        bias = site.bias * unit
        left: Tensor | None = bias
        current = node.all_input_nodes[0]
        if not bool(site.bias.any()) or (
            not _behind(network.plan, node) and absorb_bias(network.module, network.record, network.plan, current, bias)
        ):
            left = None
        adjustments[node] = Adjustment(left, site.added_potential)
    if bool(trial.output_bias.any()):
        absorb_bias(network.module, network.record, network.plan, _answer(network.module), trial.output_bias)
    rescaled = any(lambdas[node] is not network.lambdas[node] for node in sites)
    return Corrected(lambdas, adjustments, rescaled, trial.readout)


def _on_trial(
    network: Canonical,
    make_neuron: Callable[[Decision, fx.Node], nn.Module],
    batches: Iterable[Any],
    signature: Signature,
    device: torch.device,
    progress: bool,
) -> tuple[Trial, dict[fx.Node, TrialSite]]:
    sites: dict[fx.Node, TrialSite] = {}

    def probe(decision: Decision, node: fx.Node) -> nn.Module:
        neuron = make_neuron(decision, node)
        spike, found = decision.replacement, network.record[node]
        assert isinstance(spike, Spike)
        assert isinstance(found, TensorRecord)
        if spike.two_sided or len(found.shape) < 2:
            return neuron
        like = torch.zeros((), dtype=found.dtype, device=device)
        largest = None
        if spike.maximum is not None:
            largest = (spike.maximum / network.lambdas[node]).to(like).expand(found.shape[1]).clone()
        shape, start = found.shape[1:], starting_potential(neuron)
        sites[node] = TrialSite(decision.site.name, shape, neuron, start, like, largest)
        return Probe(sites[node])

    module, record, plan = network.module, network.record, network.plan
    rewritten = rewrite(module, record, plan, network.scales, probe).to(device)
    answer = _answer(module)
    adjustable = isinstance(answer, fx.Node) and layer_behind(module, record, plan, answer) is not None
    dtypes = [site.scale.dtype for site in sites.values()]
    trying = Trying(
        rewritten,
        module,
        {node: (site.name, _over_samples(network.units[node], site)) for node, site in sites.items()},
        batches=batches,
        signature=signature,
        device=device,
    )
    trial = Trial(
        sites.values(),
        output_channels=record[answer].shape[1] if adjustable else None,
        like=torch.zeros((), dtype=dtypes[0] if dtypes else None, device=device),
        inputs=trying.inputs,
        activations=trying.activations,
        run=trying.run,
        progress=progress,
    )
    return trial, sites


def _answer(module: fx.GraphModule) -> Any:
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    return output.args[0]


def _over_samples(unit: Tensor, site: TrialSite) -> Tensor:
    unit = unit.to(site.scale)
    return site.along_channels(unit) if unit.dim() else unit


def _behind(plan: Plan, node: fx.Node) -> bool:
    """True if the neuron stands behind an operation, which a bias in front of it would have to pass."""
    replacement = plan.decisions[node].replacement
    return isinstance(replacement, Spike) and replacement.behind


def _adjusted_scale(network: Canonical, node: fx.Node, site: TrialSite) -> Tensor:
    """λ times the site's factor, up to the activation's own maximum."""
    scale = network.lambdas[node]
    if bool((site.scale == 1).all()):
        return scale
    spike = network.plan.decisions[node].replacement
    assert isinstance(spike, Spike)
    adjusted = scale * site.scale.to(scale)
    return adjusted if spike.maximum is None else adjusted.clamp(max=spike.maximum)
