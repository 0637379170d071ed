"""The converter: a trained ANN in, a spiking network out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from ..contracts.correction import Correction
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.option_checks import require_flag, require_integer
from ..distributed.ranks import ALONE, Ranks
from ..distributed.session import together
from ..distributed.settings import Distributed
from ..errors import ConversionError, TracingError
from ..support.blame import Culprit
from ..support.neutral import neutral, neutrally
from ..support.quiet_layers import warn_of_quiet_layers
from .calibrate import ModeChoice, calibrate
from .channel_finder import find_channels
from .correct import correct
from .draft import Draft
from .expected_rates import note_quiet_layers
from .integer_inputs import samples_for
from .legacy_arguments import UNSET, warn_of_momentum
from .neurons import Neurons
from .plan import make_plan
from .prepare import prepare
from .quantize import quantize
from .report import ConversionCheck, ConversionReport, joined_checks, joined_reports
from .reporting import make_check, make_report
from .rewrite import build_network, rewrite_normalized
from .scale import scale_values, share_scales
from .selection import Selection
from .site_notes import note_call
from .spike_checks import require_spikes
from .submodule import Part, module_names, parts_to_convert, put_back, require_inside
from .submodule_search import what_to_name
from .verify import verify
from .weights_argument import weights_asked

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
        dataloader: Calibration data: an iterable of batches in the form that the network takes. Labels after the
            inputs are ignored. A few hundred training images are enough.
        device: Device for the calibration and for the result; by default the ANN's own device.
        mode: `"max"`, a percentile such as `"99.9%"`, a fraction of the maximum such as `0.5`, the name of any
            plugin's mode, or an instance of `Normalization`.
        momentum: No effect. SpikingJelly 0.0.0.0.14 uses it to average statistics over batches; here they are exact
            over all of the data.
        fuse_flag: False keeps every BatchNorm as an affine map instead of folding it into the layer before it or,
            behind an activation, into the layers that read it.
        channel_wise: One scale per channel instead of one per layer; False unless the mode suggests otherwise. Where
            the channels are follows from the operations: in dimension 1 behind convolutions, in the last behind
            `nn.Linear`, and from there on through whatever moves them. A layer for which it is not known has one scale;
            the report lists these.
        neuron: Name of the spiking neuron, or an instance of `NeuronMaker`; by default SpikingJelly's IF neuron, unless
            the mode suggests another.
        corrections: Corrections adjust the converted network to the ANN on the calibration data. Give the name of one,
            an instance of `Correction`, or several in the order in which to apply them. By default, those that the
            mode suggests; the built-in modes suggest none.
        T: Number of time steps that the network is meant for. A layer that hardly fires within them causes a
            `QuietLayerWarning`. Passed to modes, neurons and corrections that have an option T; all others, including
            the built-in ones, suit any number of steps.
        mappers: Your choice of mapper for single sites: qualified layer names, each with the name of a mapper or an
            instance. It takes precedence over all other mappers.
        layers: Arguments for single layers, by patterns over their qualified names:
            ``{"layer3.*": {"mode": "99.99%", "neuron": "burst", "levels": 4}}``. A layer takes `mode`, `neuron`,
            `channel_wise` and options of its mode, neuron and mapper; what it is not given is as for the network. ``*``
            matches anything, including dots. If several patterns match, the later ones win. Corrections apply to the
            whole network; those that a layer's mode suggests are not used.
        prefer: Name of a distribution or of a class, or several, that win where plugins conflict.
        plugins: Plugin objects to use in addition to the installed ones; they win every conflict.
        leaf_modules: Qualified name of a submodule to leave as it is, or several; you guarantee that they are linear
            over time.
        convert_only: Qualified name of the only submodule to convert, or several, such as a detector's backbone and
            head. The result is a copy of the network with these submodules replaced. `simulate` and `evaluate` run each
            of them over time, wherever the network calls it, and hand its mean output to the rest of the network.
        progress: Show a progress bar.
        verify: Check on two samples that the network with folded scales computes what the ANN computes.
        weights: `"int4"`, `"int8"` or `"int16"` for a network that computes with integers only: weights of that width
            and integer biases, an integer threshold for each channel, binary spikes. The input is rounded to 8 bits.
            By default, floating point. `"tuned"` lets corrections change weights, on the calibration data and without
            labels; without it they are the ANN's, up to scales. `"tuned-int8"` does both, as do the other widths.
        shared_scales: One scale for all neurons whose spikes are added up, the mean of theirs; per channel, if scales
            are. Then no shortcut of a residual network multiplies spikes, in integers or in floating point.
        distributed: Share the calibration between the processes of a torch.distributed group, all of which convert the
            same network and get the same result: True if they pass the same dataloader, `"sharded"` if each passes its
            own part of the data, or a `Distributed`. Corrections run in the first process.
        options: Options of the mode, the mappers, the corrections and the neuron; an unknown one is an error that lists
            the known ones.

    Raises:
        ModeError: The mode is unknown or out of range.
        OptionError: A keyword or `weights` is unknown, `shared_scales` is neither True nor False, `layers` holds
            anything but patterns and arguments, or `leaf_modules` or `convert_only` anything but names.
        ConflictError: Several plugins claim the same thing.

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
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        prefer: str | Sequence[str] = (),
        plugins: Sequence[Any] = (),
        leaf_modules: str | Sequence[str] = (),
        convert_only: str | Sequence[str] | None = None,
        progress: bool = True,
        verify: bool = True,
        weights: str | None = None,
        shared_scales: bool = False,
        distributed: bool | str | Distributed = False,
        **options: Any,
    ) -> None:
        if momentum is not UNSET:
            warn_of_momentum(momentum, stacklevel=3)
        if T is not None:
            T = require_integer("T", T, what="the number of time steps")  # noqa: N806
        self.dataloader = dataloader
        self.steps = T
        self.device = None if device is None else torch.device(device)
        self.fuse_batchnorm = bool(fuse_flag)
        self.leaf_modules = module_names("leaf_modules", leaf_modules)
        self.convert_only = None if convert_only is None else module_names("convert_only", convert_only)
        self.progress = progress
        self.verify = verify
        self.weights = weights
        Distributed.of(distributed)  # says what is wrong with it
        self.distributed = distributed
        self._weights = weights_asked(weights)
        self.shared_scales = require_flag("shared_scales", shared_scales)
        with neutral():
            self._selection = Selection(
                mode=mode,
                neuron=neuron,
                channel_wise=channel_wise,
                corrections=corrections,
                mappers=mappers or {},
                layers={} if layers is None else layers,
                prefer=prefer,
                plugins=plugins,
                options=options if T is None else {**options, "T": T},
            )
        self._report: ConversionReport | None = None

    @property
    def normalization(self) -> Normalization:
        """The mode in use."""
        return self._selection.normalization

    @property
    def neuron(self) -> NeuronMaker:
        """The maker of the neurons in use."""
        return self._selection.neuron

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """The corrections in use, in the order of their application."""
        return tuple(correction for correction, _ in self._selection.corrections)

    @property
    def channel_wise(self) -> bool:
        """True for one scale per channel."""
        return self._selection.channel_wise

    @property
    def report(self) -> ConversionReport:
        """The report of the last conversion: what each operation became, which mapper decided, with which scale.

        Raises:
            ConversionError: Nothing has been converted yet.
        """
        if self._report is None:
            raise ConversionError("There is no report yet: convert a network first, snn = converter(ann).")
        return self._report

    @neutrally
    def __call__(self, ann: nn.Module) -> nn.Module:
        """Convert `ann` into a spiking network; `ann` itself is left as it is.

        The result is a `torch.fx.GraphModule` in eval mode, its neurons reset and in step mode "s". With
        `convert_only` it is a copy of `ann` with a `torch.fx.GraphModule` in place of each of these submodules.

        Raises:
            ConversionError: The network cannot be converted, or the calibration data does not fit it; the subclass
                and the message say why and where.
            DistributedError: Another process failed, is lost, or was given another network or other data.
        """
        return self._each_part(ann, self._spiking)

    def _spiking(self, part: Part, draft: Draft) -> tuple[fx.GraphModule, Draft]:
        """The spiking network of a planned part, and the final draft."""
        draft = self._scale(part, draft)
        if self.verify:
            verify(draft, rewrite_normalized(draft))
        chosen = self._neurons(part)
        draft = correct(
            draft,
            self._selection.corrections,
            chosen,
            part.data,
            self._selection.registry,
            tunes_weights=self._weights.tuned,
            progress=self.progress,
        )
        draft = chosen.with_readout(draft)
        neurons: dict[fx.Node, nn.Module] = {}

        def make_neuron(draft: Draft, node: fx.Node, *, negative: bool = False) -> nn.Module:
            made = chosen.make(draft, node, negative=negative)
            neurons.setdefault(node, made)
            return made

        network = build_network(draft, make_neuron, chosen.who)
        note_quiet_layers(draft, network, neurons)
        if self._weights.bits is not None:
            samples = samples_for(draft, part.data.whole, part.data.first)
            quantize(network, draft.samples, samples, self._weights.bits)
        if self.steps is not None:
            warn_of_quiet_layers(network, self.steps)
        return network, draft

    @neutrally
    def normalize(self, ann: nn.Module) -> nn.Module:
        """The network with all scales folded in and its activations kept: the stage before the neurons.

        It computes what the ANN computes, in the spiking network's units: each activation has the value that the
        neuron with scale λ will have as its firing rate.

        Raises:
            ConversionError: As for a conversion.
        """
        return self._each_part(ann, self._normalized)

    def _normalized(self, part: Part, draft: Draft) -> tuple[fx.GraphModule, Draft]:
        """The network with folded scales of a planned part, and the final draft."""
        draft = self._scale(part, draft)
        network = rewrite_normalized(draft)
        if self.verify:
            verify(draft, network)
        return network, draft

    @neutrally
    def check(self, ann: nn.Module) -> ConversionCheck:
        """What every layer would become, and everything that prevents a conversion, without calibrating.

        Reads only the first batch of the calibration data. A process asks for itself, whatever `distributed` is.

        Raises:
            ConversionError: The network cannot be copied, traced or run on that batch.
        """
        _, parts = self._parts(ann, ALONE)
        return joined_checks([make_check(self._plan(part), self._selection, part.prefix) for part in parts])

    def _each_part(self, ann: nn.Module, build: Callable[[Part, Draft], tuple[fx.GraphModule, Draft]]) -> nn.Module:
        """`ann`, or a copy of it with its parts, converted by `build`; sets the report."""
        with together(self.distributed, "Converter(...)(ann)") as ranks:
            ranks.require_same("has another ANN", "Every process must load or train the same weights.", ann)
            made = self._converted(ann, build, ranks)
            ranks.require_same(
                "converted the ANN to another network",
                "If the neuron, a mapper or a correction draws random numbers, seed all processes alike.",
                made,
            )
        return made

    def _converted(
        self, ann: nn.Module, build: Callable[[Part, Draft], tuple[fx.GraphModule, Draft]], ranks: Ranks
    ) -> nn.Module:
        network, parts = self._parts(ann, ranks)
        drafts = [self._plan(part) for part in parts]
        # Everything that can be said before the data is run through the network is said now.
        for part, draft in zip(parts, drafts, strict=True):
            with part.named():
                draft.plan.require_exact()
                require_spikes(draft.plan)
        self._selection.check_sites(
            [
                (part.prefix + decision.site.name, decision)
                for part, draft in zip(parts, drafts, strict=True)
                for decision in (*draft.plan.decisions.values(), *draft.plan.exchanged)
            ]
        )
        built: dict[str, nn.Module] = {}
        reports = []
        for part, planned in zip(parts, drafts, strict=True):
            with part.named():
                made, draft = build(part, planned)
            built[part.name] = made
            weights = self.weights if build == self._spiking else None
            asked: dict[str, Any] = {"weights": weights} if weights is not None else {}
            asked |= {"shared_scales": True} if self.shared_scales else {}
            reports.append(make_report(draft, self._selection, made, part.prefix, asked=asked, steps=self.steps))
            note_call(made, reports[-1])
        self._report = joined_reports(reports)
        return built[""] if network is None else put_back(network, built)

    def _scale(self, part: Part, draft: Draft) -> Draft:
        """The pipeline from the plan to the scales; the network still computes what the ANN computes."""

        def choose(name: str) -> ModeChoice:
            chosen = self._selection.at(part.prefix + name)
            return ModeChoice(chosen.normalization, chosen.mode_label, chosen.channel_wise)

        draft = calibrate(find_channels(draft), choose, part.data, progress=self.progress)
        if self.shared_scales:
            draft = share_scales(draft)
        return scale_values(draft, self._neurons(part).unit)

    def _plan(self, part: Part) -> Draft:
        """The pipeline up to the plan: what every operation becomes."""
        try:
            return self._plan_alone(part)
        except TracingError as error:
            instead = what_to_name(part, self._plan_alone)
            if instead:
                raise TracingError(f"{error} {instead}") from error
            raise

    def _plan_alone(self, part: Part) -> Draft:
        with part.named():
            draft = prepare(
                part.ann,
                part.data.first,
                device=part.device,
                leaf_types=self._selection.claimed_types,
                leaf_modules=part.inner_names(self.leaf_modules),
                fuse_batchnorm=self.fuse_batchnorm,
            )
            return make_plan(
                draft,
                partial(self._selection.find_replacement, prefix=part.prefix),
                self._selection.claimed_types,
                fold_batchnorm=self.fuse_batchnorm,
            )

    def _parts(self, ann: nn.Module, ranks: Ranks) -> tuple[nn.Module | None, list[Part]]:
        network, parts = parts_to_convert(ann, self.convert_only, self.dataloader, self.device, ranks)
        require_inside(self.leaf_modules, parts)
        return network, parts

    def _neurons(self, part: Part) -> Neurons:
        def choose(name: str) -> tuple[NeuronMaker, Culprit]:
            chosen = self._selection.at(part.prefix + name)
            return chosen.neuron, chosen.neuron_label

        return Neurons(choose, self._selection.registry)
