"""The converter: a trained ANN in, a spiking network out."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import loading
from .batches import Signature, move
from .calibration import CalibrationData, calibrate, checked_scale, run_batch, site_devices
from .errors import (
    ConversionError,
    LegacyArgumentWarning,
    ModeError,
    OptionError,
    PluginError,
    VerificationError,
)
from .graph.canonical import ORIGIN, absorb_batchnorm, remove_unused, unshare_modules
from .graph.functionalize import functionalize
from .graph.plan import Decision, Plan, Problem, make_plan
from .graph.records import Record, TensorRecord, map_tree, record
from .graph.rewrite import rewrite
from .graph.scales import plan_scales
from .graph.substitute import APPROXIMATED, substitute
from .graph.tracing import SOURCE, owned_copy, remove_hooks, trace
from .layers import ChannelAffine, Scaler
from .mapping import LayerMapper
from .neurons import NeuronMaker, NeuronSite
from .normalization import CalibrationSite, Normalization, Observer
from .options import declared_options, instantiate
from .registry import Owner
from .replacements import Remove, Replacement, Spike, Stateful, describe
from .report import ConversionReport, ReportEntry
from .site import Site, Varies

__all__ = ["Converter"]

_YOU = Owner("your own argument")
_UNSET: Any = object()

VERIFICATION_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""Relative L2 error that the normalized network may have against the ANN, by dtype."""


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
        channel_wise: One scale per channel instead of one per layer.
        neuron: Name of the spiking neuron, or an instance of `NeuronMaker`.
        mappers: Mappers of your own for single sites, by qualified layer name: the name of a mapper, or an
            instance. They beat all others.
        prefer: Name of a distribution or of a class, or several, that win where plugins conflict.
        plugins: Plugin objects to use besides the installed ones; they win every conflict.
        leaf_modules: Qualified names of submodules that are left as they are and are linear over time by your word.
        progress: Show a progress bar.
        verify: Check on two samples that the network with folded scales computes what the ANN computes.
        options: Options of the mode, the mappers and the neuron; an unknown one is an error that lists the known.

    Raises:
        ModeError: The mode is unknown or out of range.
        OptionError: A keyword is unknown.
        ConflictError: Plugins claim the same thing.

    Source: Rueckauer et al. 2017, "Conversion of continuous-valued deep networks to efficient event-driven
    networks for image classification".
    """

    def __init__(
        self,
        dataloader: Iterable[Any] | None = None,
        device: torch.device | str | None = None,
        mode: object = "max",
        momentum: Any = _UNSET,
        fuse_flag: bool = True,
        *,
        channel_wise: bool = False,
        neuron: str | NeuronMaker = "if",
        mappers: dict[str, str | LayerMapper] | None = None,
        prefer: str | Sequence[str] = (),
        plugins: Sequence[Any] = (),
        leaf_modules: Sequence[str] = (),
        progress: bool = True,
        verify: bool = True,
        **options: Any,
    ) -> None:
        if momentum is not _UNSET:
            warnings.warn(
                f"momentum={momentum!r} has no effect: statistics are exact over all of the calibration data, "
                "where SpikingJelly averages those of batches. Leave the argument out. "
                "(The momentum of the max-pooling gate is maxpool_momentum.)",
                LegacyArgumentWarning,
                stacklevel=2,
            )
        self.dataloader = dataloader
        self.device = None if device is None else torch.device(device)
        self.fuse_batchnorm = bool(fuse_flag)
        self.channel_wise = channel_wise
        self.leaf_modules = tuple(leaf_modules)
        self.progress = progress
        self.verify = verify
        self._registry = loading.load_plugins()
        if plugins:
            self._registry = self._registry.copy()
            for plugin in plugins:
                loading.register_plugin(self._registry, plugin, _YOU)
        self._prefer = ((prefer,) if isinstance(prefer, str) else tuple(prefer)) + (_YOU.distribution,)
        self.normalization, self._mode_owner, mode_class = self._find_mode(mode, options)
        neuron_class = self._neuron_class(neuron)
        self._check_options(options, mode_class, neuron_class)
        self.neuron_maker, self._neuron_owner = self._make_neuron(neuron, neuron_class, options)
        self._mappers = {id(one.cls): instantiate(one.cls, options) for one in self._registry.mappers}
        self._own_mappers = {name: self._own_mapper(mapper) for name, mapper in (mappers or {}).items()}
        self._report: ConversionReport | None = None

    @property
    def report(self) -> ConversionReport:
        """What the last conversion mapped to what, by whom, with which scale.

        Raises:
            ConversionError: Nothing was converted yet.
        """
        if self._report is None:
            raise ConversionError("There is no report yet: convert a network first, snn = converter(ann).")
        return self._report

    def __call__(self, ann: nn.Module) -> fx.GraphModule:
        """The spiking network of `ann`, which is left as it is.

        The result is in eval mode, its neurons in step mode "s" and reset.

        Raises:
            ConversionError: The network or the calibration data does not allow it; the subclass and the
                message say why and where.
        """
        return self._convert(ann, spiking=True)

    def normalize(self, ann: nn.Module) -> fx.GraphModule:
        """The network with all scales folded in and its activations kept: the step before neurons.

        It computes what the ANN computes, in the spiking network's units: what a neuron of λ would emit
        as a rate stands at each activation.

        Raises:
            ConversionError: As for a conversion.
        """
        return self._convert(ann, spiking=False)

    # The pipeline ------------------------------------------------------------------------------

    def _convert(self, ann: nn.Module, *, spiking: bool) -> fx.GraphModule:
        if not isinstance(ann, nn.Module):
            raise ConversionError(f"Only a torch.nn.Module can be converted, not {type(ann).__name__}.")
        data = CalibrationData(self.dataloader)
        device = self._device_of(ann)
        copied = owned_copy(ann).to(device)
        # Before hooks are dropped, to find out whether one of them changes what the network computes.
        reference = _Reference(copied, data.first, device)
        remove_hooks(copied)
        module = trace(copied, self._registry.claimed_types() | _own_types(self._own_mappers), self.leaf_modules)
        signature = Signature.of(module)
        samples, more = _samples(signature, data.first, device, 2), _samples(signature, data.first, device, 3)
        refused = functionalize(module, _record(module, samples))
        unshare_modules(module)
        remove_unused(module)
        absorb_batchnorm(module, _record(module, samples), fuse=self.fuse_batchnorm)
        remove_unused(module)
        problems = [_problem(module, node, why) for node, why in refused]
        recorded, plan = self._plan(module, samples, more, problems)
        if substitute(module, plan):
            recorded, plan = self._plan(module, samples, more, problems)
        lambdas = self._calibrated(module, plan, recorded, data, signature, device)
        scales = plan_scales(module, recorded, plan, lambdas)
        normalized = rewrite(module, recorded, plan, scales, None).to(device)
        if self.verify:
            approximated = any(APPROXIMATED in node.meta for node in module.graph.nodes)
            self._verify(normalized, reference, samples, None if not approximated else module)
        if not spiking:
            self._report = self._make_report(plan, lambdas, normalized)
            return normalized
        snn = rewrite(module, recorded, plan, scales, self._neuron_factory(recorded, lambdas)).to(device)
        self._report = self._make_report(plan, lambdas, snn)
        return snn

    def _plan(
        self, module: fx.GraphModule, samples: tuple[Any, ...], more: tuple[Any, ...], problems: list[Problem]
    ) -> tuple[Record, Plan]:
        recorded = _record(module, samples)
        claimed = self._registry.claimed_types() | _own_types(self._own_mappers)
        larger = _record(module, more)
        plan = make_plan(module, recorded, larger, self._find_replacement, claimed, problems)
        plan.require_exact()
        if not plan.spiking:
            # Without a neuron nothing varies over time, and nothing stands in the way; say what would.
            find = self._find_replacement
            make_plan(module, recorded, larger, find, claimed, problems, Varies.VARYING).require_exact()
            raise ConversionError(
                "The network has no activation that becomes a spiking neuron (ReLU and its relatives); "
                "there is nothing to convert."
            )
        return recorded, plan

    def _calibrated(
        self,
        module: fx.GraphModule,
        plan: Plan,
        recorded: Record,
        data: CalibrationData,
        signature: Signature,
        device: torch.device,
    ) -> dict[fx.Node, Tensor]:
        observers = {node: self._observer(node, index, plan, recorded) for index, node in enumerate(plan.spiking)}
        batches = calibrate(module, observers, data, signature=signature, device=device, progress=self.progress)
        mode, owner = str(self.normalization), str(self._mode_owner)
        told = f"{batches} calibration batch{'es' if batches > 1 else ''}"
        return {node: checked_scale(observer, mode, owner, told) for node, observer in observers.items()}

    def _observer(self, node: fx.Node, index: int, plan: Plan, recorded: Record) -> Observer:
        decision = plan.decisions[node]
        spike = decision.replacement
        assert isinstance(spike, Spike)
        shape = recorded[node].shape
        per_channel = self.channel_wise and len(shape) > 1
        site = CalibrationSite(
            name=decision.site.name,
            channel_axis=1 if per_channel else None,
            channels=shape[1] if per_channel else None,
            maximum=spike.maximum,
            index=index,
        )
        observer: Any = self.normalization.observer(site)
        if not isinstance(observer, Observer):
            raise PluginError(
                f"Mode {str(self.normalization)!r} ({self._mode_owner}) returned {observer!r} from observer(); "
                "it must return an Observer."
            )
        return observer

    def _neuron_factory(self, recorded: Record, lambdas: dict[fx.Node, Tensor]) -> Any:
        def make(decision: Decision, node: fx.Node) -> nn.Module:
            found: TensorRecord = recorded[node]
            neuron: Any = self.neuron_maker.make(
                NeuronSite(decision.site.name, found.shape[1:], lambdas[node], found.dtype)
            )
            if not isinstance(neuron, nn.Module):
                raise PluginError(
                    f"Neuron {self.neuron_maker.name!r} ({self._neuron_owner}) made {neuron!r} for "
                    f"{decision.site.name}; it must make a torch.nn.Module."
                )
            return neuron

        return make

    def _verify(
        self,
        normalized: fx.GraphModule,
        reference: _Reference,
        samples: tuple[Any, ...],
        substituted: fx.GraphModule | None,
    ) -> None:
        with torch.no_grad():
            got = normalized(*(_cloned(value) for value in samples))
            wanted = (substituted or reference.module)(*(_cloned(value) for value in samples))
        if substituted is None:
            wanted = reference.output
        error, tolerance = _relative_error(got, wanted)
        if not error <= tolerance:
            raise VerificationError(
                f"The network with folded scales differs from the ANN by a relative error of {error:.2g} "
                f"(allowed: {tolerance:g}) on the first two calibration samples, so no spiking network is returned. "
                "A forward hook that changes results, randomness at inference or state kept between calls are the "
                "usual causes: torch.fx cannot see them. Please report it if it is none of these."
            )

    # Decisions ---------------------------------------------------------------------------------

    def _find_replacement(self, site: Site) -> tuple[Replacement | None, str, str]:
        if site.name in self._own_mappers:
            mapper, owner = self._own_mappers[site.name], str(_YOU)
        else:
            found = self._registry.find_mapper(site, self._prefer)
            if found is None:
                return None, "", ""
            mapper, owner = self._mappers[id(found.cls)], str(found.owner)
        replacement: Any = mapper.map(site)
        if not isinstance(replacement, Replacement):
            raise PluginError(
                f"Mapper {mapper.name!r} ({owner}) answered {replacement!r} for {site.name} ({site.operation_name}); "
                "it must answer a Replacement such as Spike(), Average() or Refuse(...)."
            )
        return replacement, mapper.name, owner

    def _own_mapper(self, mapper: str | LayerMapper) -> LayerMapper:
        if isinstance(mapper, LayerMapper):
            return mapper
        found = [one for one in self._registry.mappers if one.name.lower() == mapper.lower()]
        if not found:
            known = ", ".join(f"{one.name!r} ({one.owner})" for one in self._registry.mappers)
            raise OptionError(f"mappers names {mapper!r}, which is not known. Known mappers: {known}.")
        named: LayerMapper = self._mappers[id(found[0].cls)]
        return named

    def _find_mode(self, mode: object, options: dict[str, Any]) -> tuple[Normalization, Owner, type]:
        if isinstance(mode, Normalization):
            return mode, _YOU, type(mode)
        if isinstance(mode, type):
            raise ModeError(f"mode={mode.__name__} is a class; give an instance, mode={mode.__name__}(...).")
        normalization, found = self._registry.find_mode(mode, options, self._prefer)
        return normalization, found.owner, found.cls

    def _neuron_class(self, neuron: str | NeuronMaker) -> type:
        if isinstance(neuron, NeuronMaker):
            return type(neuron)
        cls: type = self._registry.find_neuron(neuron, self._prefer).cls
        return cls

    def _make_neuron(self, neuron: str | NeuronMaker, cls: type, options: dict[str, Any]) -> tuple[NeuronMaker, Owner]:
        if isinstance(neuron, NeuronMaker):
            return neuron, _YOU
        return instantiate(cls, options), self._registry.find_neuron(neuron, self._prefer).owner

    def _check_options(self, options: dict[str, Any], mode: type, neuron: type) -> None:
        owners = [("mode", mode), ("neuron", neuron), *(("mapper", one.cls) for one in self._registry.mappers)]
        known = {name: f"{name} ({kind} {cls.name!r})" for kind, cls in owners for name in declared_options(cls)}
        unknown = sorted(set(options) - set(known))
        if unknown:
            import difflib

            close = difflib.get_close_matches(unknown[0], [*known, *_OWN_KEYWORDS], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise OptionError(
                f"Converter got the unknown keyword{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}.{hint} "
                f"Besides its own ({', '.join(_OWN_KEYWORDS)}), mode {str(self.normalization)!r} and the mappers in "
                f"use know: {', '.join(sorted(known.values()))}."
            )

    def _device_of(self, ann: nn.Module) -> torch.device:
        if self.device is not None:
            return self.device
        devices = site_devices(ann)
        if len(devices) > 1:
            raise ConversionError(
                f"The network lies on several devices ({', '.join(map(str, devices))}); say where to convert it "
                "with Converter(device=...)."
            )
        return devices[0] if devices else torch.device("cpu")

    def _make_report(self, plan: Plan, lambdas: dict[fx.Node, Tensor], network: fx.GraphModule) -> ConversionReport:
        entries = []
        for node, decision in plan.decisions.items():
            replacement, site = decision.replacement, decision.site
            scale = lambdas.get(node)
            stands_for = node.meta.get(APPROXIMATED)
            entries.append(
                ReportEntry(
                    name=site.name,
                    operation=stands_for or node.meta.get(ORIGIN, site.operation_name),
                    becomes=self._becomes(replacement, stands_for, site),
                    mapper=decision.mapper,
                    owner=decision.owner,
                    scale=None if scale is None else (float(scale.min()), float(scale.max())),
                    exact=not stands_for and getattr(replacement, "exact", True),
                    source=site.source,
                )
            )
        scalers = tuple(name for name, module in network.named_modules() if isinstance(module, Scaler))
        return ConversionReport(
            str(self.normalization), str(self._mode_owner), self.neuron_maker.name, tuple(entries), scalers
        )

    def _becomes(self, replacement: Replacement | None, stands_for: str | None, site: Site) -> str:
        if isinstance(replacement, Spike):
            return f"{self.neuron_maker.name} neuron"
        if stands_for:
            return site.operation_name
        if isinstance(replacement, (Remove, Stateful)):
            return "nothing" if isinstance(replacement, Remove) else describe(replacement)
        if site.operation is ChannelAffine:
            return "affine map"
        return "itself"


_OWN_KEYWORDS = (
    "dataloader",
    "device",
    "mode",
    "fuse_flag",
    "channel_wise",
    "neuron",
    "mappers",
    "prefer",
    "plugins",
    "leaf_modules",
    "progress",
    "verify",
)


class _Reference:
    """What the ANN itself answers to the first two calibration samples."""

    def __init__(self, module: nn.Module, batch: Any, device: torch.device) -> None:
        self.module = module
        signature = _forward_signature(module)
        inputs = _samples(signature, batch, device, 2)
        with torch.no_grad():
            self.output = run_batch(module, inputs, 0, signature, device)


def _forward_signature(module: nn.Module) -> Signature:
    import inspect

    parameters = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    return Signature(tuple(p.name for p in parameters), tuple(p.name for p in parameters if p.default is p.empty))


def _samples(signature: Signature, batch: Any, device: torch.device, count: int) -> tuple[Any, ...]:
    """The first `count` samples of a batch, its samples repeated where it has fewer."""
    from .errors import CalibrationError, InputError

    try:
        inputs = signature.inputs_of(batch)
    except InputError as error:
        raise CalibrationError(f"Calibration batch 0 does not fit the network. {error}") from error

    def take(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        if not value.shape[0]:
            raise CalibrationError("Calibration batch 0 holds no samples.")
        return move(torch.cat([value] * (1 + count // value.shape[0]))[:count], device)

    return tuple(take(value) for value in inputs)


def _record(module: fx.GraphModule, samples: tuple[Any, ...]) -> Record:
    try:
        return record(module, tuple(_cloned(value) for value in samples))[0]
    except Exception as error:
        raise ConversionError(
            f"The traced network fails on {len(samples[0])} samples ({type(error).__name__}: {error}). A forward that "
            "writes a fixed batch size into its code (view(32, -1)) is the usual cause; use x.size(0) or flatten(1)."
        ) from error


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _problem(module: fx.GraphModule, node: fx.Node, why: str) -> Problem:
    from .graph.naming import node_label, operation_name

    operation = (
        operation_name(node.target)
        if node.op != "call_module"
        else type(module.get_submodule(str(node.target))).__name__
    )
    return Problem(node_label(module, node), operation, node.meta.get(SOURCE, ""), why, "Write it out of place.")


def _own_types(mappers: dict[str, LayerMapper]) -> frozenset[type[nn.Module]]:
    return frozenset(claim for mapper in mappers.values() for claim in mapper.claims if isinstance(claim, type))


def _relative_error(got: Any, wanted: Any) -> tuple[float, float]:
    """The largest relative L2 error over all output tensors, and what is allowed."""
    first: list[Tensor] = []
    second: list[Tensor] = []
    for tree, found in ((got, first), (wanted, second)):
        map_tree(tree, lambda leaf, found=found: found.append(leaf) if isinstance(leaf, Tensor) else None)
    worst, tolerance = 0.0, 0.0
    for one, other in itertools.zip_longest(first, second):
        if one is None or other is None or one.shape != other.shape:
            return float("inf"), 0.0
        scale = other.double().norm().item()
        worst = max(worst, (one.double() - other.double()).norm().item() / (scale or 1.0))
        tolerance = max(tolerance, VERIFICATION_TOLERANCE.get(other.dtype, 1e-3))
    return worst, tolerance
