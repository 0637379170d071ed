"""The converter: a trained ANN in, a spiking network out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import MemoryModule
from ..contracts.correction import Correction
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..contracts.normalization import CalibrationSite, Normalization, Observer
from ..contracts.readout import SUGGESTED
from ..contracts.replacements import Analog, Refuse, Remove, Replacement, Spike, Stateful
from ..contracts.site import Site, Varies
from ..errors import ConversionError, NoSpikesWarning, OptionError, PluginError
from ..layers import ChannelAffine, Scaler
from ..support.blame import blame
from .calibrate import CalibrationData, calibrate
from .correct import Canonical, Corrected, correct
from .graph.canonical import ORIGIN
from .graph.records import Record, TensorRecord
from .graph.weights import broadcast_slope
from .legacy_arguments import UNSET, warn_of_momentum
from .neuron_bounds import check_bound
from .plan import Decision, Plan
from .pools import APPROXIMATED
from .prepare import Prepared, device_of, prepare, working_copy
from .report import ConversionCheck, ConversionReport, ReportEntry
from .rewrite import rewrite
from .round_weights import round_weights
from .scale import plan_scales
from .scale_checks import check_scale
from .selection import Selection
from .submodule import SubmoduleInputs, module_name, module_names, require_submodule
from .verify import verify

__all__ = ["Converter"]


class Converter:
    """Converts a trained ANN of the ReLU family into a spiking network.

    >>> import torch
    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> images = torch.rand(100, 4)
    >>> converter = Converter(mode="max", dataloader=[images], progress=False)
    >>> snn = converter(ann)
    >>> simulate(snn, images, T=200).sub(ann(images)).abs().max().item() < 0.1
    True

    Args:
        dataloader: Calibration data: an iterable of batches as the network takes them, labels behind the inputs
            ignored. Some hundred training images do.
        device: Where to calibrate, and where the network ends up; by default the ANN's own device.
        mode: `"max"`, a percentile such as `"99.9%"`, a fraction of the maximum such as `0.5`, the name of any
            plugin's mode, or an instance of `Normalization`.
        momentum: Without effect. SpikingJelly 0.0.0.0.14 averages the statistics of batches with it; here they are
            exact over all of the data.
        fuse_flag: False keeps every BatchNorm as an affine map instead of folding it into the layer before it.
        channel_wise: One scale per channel instead of one per layer; by default not, unless the mode suggests it.
        neuron: Name of the spiking neuron, or an instance of `NeuronMaker`; by default SpikingJelly's IF neuron, unless
            the mode suggests another.
        corrections: What adjusts the converted network against the ANN on the calibration data: the name of a
            correction, an instance of `Correction`, or several, in the order in which to apply them; by default what
            the mode suggests, which for the built-in modes is nothing.
        T: Number of time steps that the network is meant for. Modes, neurons and corrections with an option T are given
            it; others, all built-in ones among them, suit any number of steps.
        mappers: Mappers of your own for single sites, by qualified layer name: the name of a mapper, or an
            instance. They beat all others.
        prefer: Name of a distribution or of a class, or several, that win where plugins conflict.
        plugins: Plugin objects to use besides the installed ones; they win every conflict.
        leaf_modules: Qualified names of submodules (or one) that are left as they are and are linear over time by
            your word.
        convert_only: Qualified name of the one submodule to convert; the result is then a copy of the network with
            that submodule replaced, and what lies behind it must be linear over time by your word.
        progress: Show a progress bar.
        verify: Check on two samples that the network with folded scales computes what the ANN computes.
        options: Options of the mode, the mappers and the neuron; an unknown one is an error that lists the known.

    Raises:
        ModeError: The mode is unknown or out of range.
        OptionError: A keyword is unknown, or `leaf_modules` or `convert_only` holds something else than names.
        ConflictError: Plugins claim the same thing.

    Source: Rueckauer et al. 2017, "Conversion of continuous-valued deep networks to efficient event-driven
    networks for image classification".
    """

    def __init__(
        self,
        dataloader: Iterable[Any] | None = None,
        device: torch.device | str | None = None,
        mode: object = "max",
        momentum: Any = UNSET,
        fuse_flag: bool = True,
        *,
        channel_wise: bool | None = None,
        neuron: str | NeuronMaker | None = None,
        corrections: str | Correction | Sequence[str | Correction] | None = None,
        T: int | None = None,  # noqa: N803 - the field's name for the number of time steps
        mappers: dict[str, str | LayerMapper] | None = None,
        prefer: str | Sequence[str] = (),
        plugins: Sequence[Any] = (),
        leaf_modules: str | Sequence[str] = (),
        convert_only: str | None = None,
        progress: bool = True,
        verify: bool = True,
        **options: Any,
    ) -> None:
        if momentum is not UNSET:
            warn_of_momentum(momentum, stacklevel=3)
        if T is not None and (isinstance(T, bool) or not isinstance(T, int) or T < 1):
            raise OptionError(f"T={T!r} is not allowed: the number of time steps is an integer from 1 up.")
        self.dataloader = dataloader
        self.device = None if device is None else torch.device(device)
        self.fuse_batchnorm = bool(fuse_flag)
        self.leaf_modules = module_names("leaf_modules", leaf_modules)
        self.convert_only = None if convert_only is None else module_name("convert_only", convert_only)
        self.progress = progress
        self.verify = verify
        self._selection = Selection(
            mode=mode,
            neuron=neuron,
            channel_wise=channel_wise,
            corrections=corrections,
            mappers=mappers or {},
            prefer=prefer,
            plugins=plugins,
            options=options if T is None else {**options, "T": T},
            own_keywords=_OWN_KEYWORDS,
        )
        self._report: ConversionReport | None = None

    @property
    def normalization(self) -> Normalization:
        """The mode in use."""
        return self._selection.normalization

    @property
    def channel_wise(self) -> bool:
        """True for one scale per channel."""
        return self._selection.channel_wise

    @property
    def report(self) -> ConversionReport:
        """What the last conversion mapped to what, by whom, with which scale.

        Raises:
            ConversionError: Nothing was converted yet.
        """
        if self._report is None:
            raise ConversionError("There is no report yet: convert a network first, snn = converter(ann).")
        return self._report

    def __call__(self, ann: nn.Module) -> nn.Module:
        """The spiking network of `ann`, which is left as it is.

        The result is a `torch.fx.GraphModule` in eval mode, its neurons in step mode "s" and reset; with
        `convert_only` it is a copy of `ann` with that submodule replaced.

        Raises:
            ConversionError: The network or the calibration data does not allow it; the subclass and the
                message say why and where.
        """
        return self._converted(ann, spiking=True)

    def normalize(self, ann: nn.Module) -> nn.Module:
        """The network with all scales folded in and its activations kept: the step before neurons.

        It computes what the ANN computes, in the spiking network's units: what a neuron of λ would emit
        as a rate stands at each activation.

        Raises:
            ConversionError: As for a conversion.
        """
        return self._converted(ann, spiking=False)

    def check(self, ann: nn.Module) -> ConversionCheck:
        """What would become of every layer, and everything that stands in the way, without calibrating.

        Only the first batch of the calibration data is looked at.

        Raises:
            ConversionError: The network cannot be copied, traced or run on that batch.
        """
        _, part, data = self._scope(ann)
        prepared = self._prepare(part, data)
        _, plan = prepared.plan(self._selection.find_replacement, self._selection.claimed_types)
        return ConversionCheck(tuple(self._entries(plan, {})), plan.problems)

    def _converted(self, ann: nn.Module, *, spiking: bool) -> nn.Module:
        network, part, data = self._scope(ann)
        converted = self._convert(part, data, spiking=spiking)
        if network is None or self.convert_only is None:
            return converted
        network.set_submodule(self.convert_only, converted)
        return network

    def _scope(self, ann: nn.Module) -> tuple[nn.Module | None, nn.Module, CalibrationData]:
        """The copy of the network to put the result into (None: the result itself), what to convert, its data."""
        loader = CalibrationData(self.dataloader)
        if self.convert_only is None:
            return None, ann, loader
        device = device_of(ann, self.device)
        network = working_copy(ann, device)
        part = require_submodule(network, self.convert_only)
        return network, part, CalibrationData(SubmoduleInputs(network, self.convert_only, loader, device))

    def _convert(self, ann: nn.Module, data: CalibrationData, *, spiking: bool) -> fx.GraphModule:
        prepared = self._prepare(ann, data)
        recorded, plan = prepared.plan(self._selection.find_replacement, self._selection.claimed_types)
        plan.require_exact()
        if not plan.spiking:
            _warn_of_no_spikes(plan)
        self._check_named_sites(plan)
        module, device = prepared.module, device_of(ann, self.device)
        observers = {node: self._observer(node, index, plan, recorded) for index, node in enumerate(plan.spiking)}
        calibrated = calibrate(
            module,
            observers,
            data,
            signature=prepared.signature,
            device=device,
            slopes=_slopes(plan, recorded, device),
            behind=[node for node in plan.spiking if _spike(plan, node).behind],
            mode=self._mode,
            progress=self.progress,
        )
        told = f"{calibrated.batches} calibration batch{'es' if calibrated.batches > 1 else ''}"
        lambdas = {
            node: check_scale(observer, self._mode, told, fired=node in calibrated.fired, device=device)
            for node, observer in observers.items()
        }
        units = {node: self._unit(scale) for node, scale in lambdas.items()}
        scales = plan_scales(module, recorded, plan, units)
        normalized = rewrite(module, recorded, plan, scales, None).to(device)
        if self.verify:
            with torch.no_grad():
                verify(normalized(*prepared.samples), prepared.expected)
        network = normalized
        if spiking:
            canonical = Canonical(module, recorded, plan, scales, lambdas, units)
            corrected = self._corrected(canonical, data, prepared, device)
            lambdas = corrected.lambdas
            if corrected.rescaled:
                scales = plan_scales(
                    module, recorded, plan, {node: self._unit(scale) for node, scale in lambdas.items()}
                )
            neuron = partial(self._neuron, recorded=recorded, lambdas=lambdas)
            network = rewrite(module, recorded, plan, scales, neuron, corrected.adjustments).to(device)
            round_weights(network)
            if corrected.readout is not None:
                network.meta[SUGGESTED] = corrected.readout
        self._report = self._make_report(plan, lambdas, network)
        return network

    def _corrected(
        self, network: Canonical, data: CalibrationData, prepared: Prepared, device: torch.device
    ) -> Corrected:
        if not self._selection.corrections:
            return Corrected(dict(network.lambdas), {})
        return correct(
            self._selection.corrections,
            network,
            partial(self._neuron, recorded=network.record, lambdas=dict(network.lambdas)),
            batches=data,
            signature=prepared.signature,
            device=device,
            progress=self.progress,
        )

    def _prepare(self, ann: nn.Module, data: CalibrationData) -> Prepared:
        return prepare(
            ann,
            data.first,
            device=device_of(ann, self.device),
            leaf_types=self._selection.claimed_types,
            leaf_modules=self.leaf_modules,
            fuse_batchnorm=self.fuse_batchnorm,
        )

    def _check_named_sites(self, plan: Plan) -> None:
        names = [decision.site.name for decision in plan.decisions.values()]
        for name in self._selection.own_sites:
            if name not in names:
                raise OptionError(
                    f"mappers names the layer {name!r}, which is not a site of the network. "
                    f"Its sites are {', '.join(names)}."
                )

    def _observer(self, node: fx.Node, index: int, plan: Plan, recorded: Record) -> Observer:
        decision, spike = plan.decisions[node], _spike(plan, node)
        shape = recorded[node].shape
        per_channel = self.channel_wise and len(shape) > 1
        site = CalibrationSite(
            name=decision.site.name,
            channel_axis=1 if per_channel else None,
            channels=shape[1] if per_channel else None,
            maximum=spike.maximum,
            index=index,
        )
        with blame(f"{self._mode}, asked to observe {site.name},"):
            observer: Any = self.normalization.observer(site)
        if not isinstance(observer, Observer):
            raise PluginError(f"{self._mode} returned {observer!r} from observer(); it must return an Observer.")
        return observer

    @property
    def _mode(self) -> str:
        return f"Mode {str(self.normalization)!r} ({self._selection.mode_owner})"

    def _unit(self, scale: Tensor) -> Tensor:
        """Value of one spike where λ is `scale`."""
        maker = self._selection.neuron
        who = f"Neuron {maker.name!r} ({self._selection.neuron_owner})"
        with blame(f"{who}, asked for the value of a spike,"):
            unit: Any = maker.unit(scale)
        if not (
            isinstance(unit, Tensor) and unit.shape == scale.shape and bool((unit > 0).all() & unit.isfinite().all())
        ):
            raise PluginError(
                f"{who} returned {unit!r} from unit() for λ of shape {tuple(scale.shape)}; it must be a finite, "
                "positive tensor of that shape."
            )
        return unit

    def _neuron(
        self, decision: Decision, node: fx.Node, *, recorded: Record, lambdas: dict[fx.Node, Tensor]
    ) -> nn.Module:
        found: TensorRecord = recorded[node]
        maker = self._selection.neuron
        who = f"Neuron {maker.name!r} ({self._selection.neuron_owner})"
        with blame(f"{who}, asked for {decision.site.name},"):
            site = NeuronSite(decision.site.name, found.shape[1:], lambdas[node], found.dtype, _maximum(decision))
            made: Any = maker.make(site)
        if not isinstance(made, MemoryModule):
            raise PluginError(
                f"{who} made {made!r} for {decision.site.name}; it must make a SpikingJelly MemoryModule, which "
                "reset_net clears and which has the step modes 's' and 'm'."
            )
        neuron: nn.Module = made
        if site.maximum is not None:
            with blame(f"{who}, tried at {site.name},"):
                check_bound(neuron, site, self._unit(site.scale), who)
        return neuron

    def _make_report(self, plan: Plan, lambdas: dict[fx.Node, Tensor], network: fx.GraphModule) -> ConversionReport:
        return ConversionReport(
            mode=str(self.normalization),
            mode_owner=str(self._selection.mode_owner),
            neuron=self._selection.neuron.name,
            neuron_owner=str(self._selection.neuron_owner),
            corrections=tuple(who for _, who in self._selection.corrections),
            entries=tuple(self._entries(plan, lambdas)),
            scalers=tuple(name for name, module in network.named_modules() if isinstance(module, Scaler)),
        )

    def _entries(self, plan: Plan, lambdas: dict[fx.Node, Tensor]) -> Iterator[ReportEntry]:
        for node, decision in plan.decisions.items():
            site, scale = decision.site, lambdas.get(node)
            stands_for, analog = node.meta.get(APPROXIMATED), _analog(decision)
            yield ReportEntry(
                name=site.name,
                operation=stands_for or node.meta.get(ORIGIN, site.operation_name),
                becomes=self._becomes(decision.replacement, stands_for, site),
                mapper=decision.mapper,
                owner=decision.owner,
                scale=None if scale is None else (float(scale.min()), float(scale.max())),
                exact=not stands_for and getattr(analog or decision.replacement, "exact", True),
                source=site.source,
                analog=analog is not None,
            )

    def _becomes(self, replacement: Replacement | None, stands_for: str | None, site: Site) -> str:
        if isinstance(replacement, Spike):
            name = self._selection.neuron.name
            neuron = f"difference of two {name} neurons" if replacement.two_sided else f"{name} neuron"
            if replacement.analog is None:
                return neuron
            in_front = replacement.analog.label if site.varies is Varies.VARYING else "itself"
            return f"{in_front}, then {neuron}"
        if stands_for:
            return site.operation_name
        if isinstance(replacement, (Stateful, Analog)):
            return replacement.label
        if isinstance(replacement, (Remove, Refuse)):
            return "nothing" if isinstance(replacement, Remove) else "refused"
        return "affine map" if site.operation is ChannelAffine else "itself"


_OWN_KEYWORDS = (
    "dataloader",
    "device",
    "mode",
    "fuse_flag",
    "channel_wise",
    "neuron",
    "corrections",
    "T",
    "mappers",
    "prefer",
    "plugins",
    "leaf_modules",
    "convert_only",
    "progress",
    "verify",
)


def _slopes(plan: Plan, recorded: Record, device: torch.device) -> dict[fx.Node, Tensor]:
    """The slopes below zero of the sites that spike for both signs."""
    spikes = {node: _spike(plan, node) for node in plan.spiking}
    return {
        node: broadcast_slope(spike, recorded[node]).to(device) for node, spike in spikes.items() if spike.two_sided
    }


def _maximum(decision: Decision) -> float | None:
    spike = decision.replacement
    return spike.maximum if isinstance(spike, Spike) else None


def _spike(plan: Plan, node: fx.Node) -> Spike:
    spike = plan.decisions[node].replacement
    assert isinstance(spike, Spike)
    return spike


def _analog(decision: Decision) -> Analog | None:
    """What stands at a site without spiking, be it that a neuron stands behind it."""
    replacement = decision.replacement
    if isinstance(replacement, Spike) and decision.site.varies is Varies.VARYING:
        return replacement.analog
    return replacement if isinstance(replacement, Analog) else None


def _warn_of_no_spikes(plan: Plan) -> None:
    if not plan.analog:
        raise ConversionError(
            "The network has no activation that becomes a spiking neuron (ReLU and its relatives); "
            "there is nothing to convert."
        )
    owners = sorted({plan.decisions[node].owner for node in plan.analog})
    warnings.warn(
        "No layer of the converted network spikes: none of its activations is a ReLU or a relative, and "
        f"{' and '.join(owners)} computes {len(plan.analog)} operation(s) on analog values. The mean output is the "
        "ANN's, and every step costs as much as the ANN. An option of that plugin may put neurons behind them.",
        NoSpikesWarning,
        stacklevel=5,
    )
