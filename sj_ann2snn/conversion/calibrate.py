"""Finds λ of every spiking site: runs the calibration data through the ANN, with an observer at each site."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from tqdm.auto import tqdm

from ..contracts.normalization import CalibrationSite, Normalization, Observer
from ..distributed.ranks import ALONE, Ranks
from ..errors import CalibrationError, NonFiniteError, PluginError, UnsupportedError
from ..support.batches import run_batch
from ..support.blame import Culprit, blame
from ..support.finite import affected_samples, all_finite, kind_of
from ..support.loaders import Batches
from ..support.untouched import Untouched
from ..support.wording import shown
from .channel_layout import ChannelLayout
from .draft import Draft
from .expected_rates import ActivitySums
from .graph.weights import broadcast_slope
from .memory_growth import Growth
from .problems import Problem
from .scale_checks import check_scale
from .shared_observers import SharedObservers

__all__ = ["MAX_PASSES", "CalibrationData", "ModeChoice", "calibrate"]

MAX_PASSES = 100


@dataclass(frozen=True)
class ModeChoice:
    """The mode of a site, its name for messages, and whether the site gets one λ per channel."""

    normalization: Normalization
    who: Culprit
    channel_wise: bool


class CalibrationData:
    """The calibration loader with its first batch at hand; a one-shot iterator still yields that batch.

    Of several processes, each iterates over what it was given, and all have the same first batch.

    Args:
        loader: The batches.
        ranks: The processes that share them.

    Raises:
        CalibrationError: There are none.
        DistributedError: The processes were given different ones.
    """

    def __init__(self, loader: Any, ranks: Ranks = ALONE) -> None:
        if loader is None:
            raise CalibrationError(
                "No calibration data: Converter(dataloader=...) takes an iterable of batches (a DataLoader, a list "
                "of tensors), a few hundred training images in all."
            )
        self._batches = Batches(loader, "The calibration data", "Converter(dataloader=...)", CalibrationError)
        self.ranks = ranks
        iterator = iter(self._batches)
        own = list(itertools.islice(iterator, 1))
        found = [batch for part in ranks.exchanged(own) for batch in part] if ranks.sharded else own
        if not found:
            raise CalibrationError(
                "The calibration data is empty: the dataloader yields no batches. Give it some training images."
            )
        self.first = found[0]
        if not ranks.sharded:
            ranks.require_same(
                "has another first batch of calibration data",
                "Give all processes a loader of the same batches in the same order (shuffle=False, or the same seed), "
                "or distributed='sharded' if each passes its own part of the data.",
                self.first,
            )
        self._opened: Iterator[Any] | None = itertools.chain(own, iterator)

    @property
    def whole(self) -> Iterable[Any]:
        """All batches, also those that only other processes have; all of them must iterate side by side."""
        return self.ranks.whole(self)

    def __iter__(self) -> Iterator[Any]:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            return opened
        return iter(self._batches)

    def length(self) -> int | None:
        """The number of batches; None if the loader does not know it."""
        return self._batches.length()


def calibrate(
    draft: Draft,
    choose: Callable[[str], ModeChoice],
    data: CalibrationData,
    *,
    progress: bool,
) -> Draft:
    """Show observers the activations of every spiking node, in as many passes as they ask for.

    Args:
        draft: Planned.
        choose: Returns the mode of a site, by its name.
        data: The calibration data.
        progress: Show a progress bar.

    Returns:
        The draft with `lambdas` and `activity`.

    Raises:
        CalibrationError: The data does not fit the network, or an observer never stops asking for passes.
        PluginError: An observer fails, keeps the data it is shown, or writes to it.
        NonFiniteError: An activation is NaN or infinite.
        UnsupportedError: An operation yields negative values, but a neuron is to stand behind it.
        DeadLayerError, ScaleError: See `check_scale`.
    """
    choices = {node: choose(draft.plan.decisions[node].site.name) for node in draft.plan.spikes}
    sites = {node: _site(draft, node, index, one.channel_wise) for index, (node, one) in enumerate(choices.items())}
    observers = {node: _make_observer(site, choices[node]) for node, site in sites.items()}
    calibrator = _Calibrator(draft, observers, sites, {node: one.who for node, one in choices.items()})
    batches = _run_passes(calibrator, draft, data, progress and data.ranks.is_first)
    samples = f"{batches} calibration batch{'es' if batches > 1 else ''}"
    device = draft.device

    def found() -> tuple[list[Tensor], list[ActivitySums]]:
        scales = [
            check_scale(observers[node], sites[node], one.who, samples, fired=node in calibrator.fired, device=device)
            for node, one in choices.items()
        ]
        return scales, list(calibrator.activity.values())

    scales, activity = data.ranks.from_first(found, device)
    return draft.evolve(
        lambdas=dict(zip(choices, scales, strict=True)), activity=dict(zip(choices, activity, strict=True))
    )


def _site(draft: Draft, node: fx.Node, index: int, channel_wise: bool) -> CalibrationSite:
    axis = draft.channels.axis(node) if channel_wise else None
    return CalibrationSite(
        name=draft.plan.decisions[node].site.name,
        channel_axis=None if axis is None else 1,
        channels=None if axis is None else draft.record[node].shape[axis],
        maximum=draft.plan.spikes[node].maximum,
        index=index,
    )


def _make_observer(site: CalibrationSite, choice: ModeChoice) -> Observer:
    normalization, who = choice.normalization, choice.who
    with blame(who, f"asked to observe {site.name}", normalization, "observer"):
        observer: Any = normalization.observer(site)
    if not isinstance(observer, Observer):
        raise PluginError(
            f"{who} returned {shown(observer)} from observer() for {site.name}; it must return an Observer. "
            f"{who.advice}"
        )
    if not hasattr(observer, "site"):
        name = type(observer).__name__
        raise PluginError(
            f"{who}, asked to observe {site.name}, made a {name} without a site: {name}.__init__ must call "
            f"super().__init__(site). {who.advice}"
        )
    return observer


def _run_passes(calibrator: _Calibrator, draft: Draft, data: CalibrationData, progress: bool) -> int:
    """Iterate over the data until no observer asks for another pass; returns the number of batches."""
    ranks, shared = data.ranks, None
    if ranks.several:
        shared = SharedObservers(
            calibrator.observers, calibrator.activity, calibrator.sites, calibrator.modes, ranks, draft.device
        )
    for number in itertools.count(1):
        count = _run_pass(calibrator, shared, data, draft, progress, number)
        if not count:
            raise CalibrationError(
                f"The calibration data ran out: pass {number} found no batches. The mode needs several passes; "
                "give a dataloader that can be iterated repeatedly instead of an iterator."
            )
        asking = ranks.from_first(calibrator.end_pass)
        if asking is None:
            return count
        if number >= MAX_PASSES:
            raise CalibrationError(f"{asking} still asks for another pass after {MAX_PASSES} passes.")
        if shared is not None:
            shared.hand_out()
    raise AssertionError("unreachable")


class _Calibrator(fx.Interpreter):
    """Runs the ANN and shows each observer the activation of its node."""

    def __init__(
        self,
        draft: Draft,
        observers: dict[fx.Node, Observer],
        sites: Mapping[fx.Node, CalibrationSite],
        modes: Mapping[fx.Node, Culprit],
    ) -> None:
        super().__init__(draft.module)
        self.extra_traceback = False  # messages stand alone
        self.observers, self.sites, self.modes = observers, sites, modes
        spikes = draft.plan.spikes
        self.slopes = {
            node: broadcast_slope(spike, draft.record[node]).to(draft.device)
            for node, spike in spikes.items()
            if spike.two_sided
        }
        # Observers of channels have them in dimension 1, wherever the ANN has them.
        self.layouts = {
            node: ChannelLayout(1 if one.site.channels is None else draft.channels.axis(node))
            for node, one in observers.items()
        }
        self.behind = {node for node, spike in spikes.items() if spike.behind}
        self.kept = {node for node, spike in spikes.items() if spike.keep and not spike.two_sided}
        self.decisions = draft.plan.decisions
        self.batch = 0
        self.fired: set[fx.Node] = set()
        self.activity = {node: ActivitySums(one.site.channel_axis) for node, one in observers.items()}
        self.first_pass = True
        self._growth = {node: Growth() for node in observers}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        observer = self.observers.get(n)
        if observer is None:
            return result
        _require_finite(result, self.sites[n].name, self.batch)
        slope = self.slopes.get(n)
        if n in self.kept and bool((result < 0).any()):
            raise self._negative(n, float(result.min()))
        if slope is None:
            altered = self._show(n, observer, result)
            return result if altered is None else altered
        # Both signs produce spikes, so the magnitude of the current must fit under λ.
        current = result if n in self.behind else self.env[n.all_input_nodes[0]]
        altered = self._show(n, observer, current.abs())
        return result if altered is None else torch.where(current > 0, altered, -altered * slope)

    def _negative(self, node: fx.Node, smallest: float) -> UnsupportedError:
        """The error for an operation that yields negative values, with a neuron behind it."""
        decision = self.decisions[node]
        problem = Problem(
            decision.site.name,
            decision.site.operation_name,
            decision.site.source,
            f"it yields negative values (down to {smallest:.3g} in calibration batch {self.batch}), which the spiking "
            f"neuron behind it, by the mapper {decision.mapper!r}, cannot emit",
            "Put a ReLU in front of it; or leave the neuron out there, which an average pool does with "
            f"layers={{{decision.site.name!r}: {{'avgpool_neuron': False}}}}",
        )
        return UnsupportedError(f"A layer cannot be converted as it was asked for:\n  - {problem}.", (problem,))

    def end_pass(self) -> str | None:
        """The mode of an observer that asks for another pass; None if none does."""
        for node in self.observers:
            self._require_constant_memory(node)
        # Ask every observer, because each must end its pass.
        asking = [node for node, observer in self.observers.items() if self._ends_pass(node, observer)]
        return str(self.modes[asking[0]]) if asking else None

    def _ends_pass(self, node: fx.Node, observer: Observer) -> bool:
        with blame(self.modes[node], f"at the end of a pass over {self.sites[node].name}", observer, "end_pass"):
            return bool(observer.end_pass())

    def _require_constant_memory(self, node: fx.Node) -> None:
        """Raises:
        PluginError: The observer of `node` keeps what it is shown.
        """
        observer = self.observers[node]
        found = self._growth[node].hoarded(observer)
        if found is not None:
            grown, seen = found
            raise PluginError(
                f"{self.modes[node]} keeps the calibration data: its observer of {self.sites[node].name} grew by "
                f"{grown:,} values while it was shown {seen:,}. An observer must use constant memory: keep sums, "
                f"extremes or a QuantileSketch instead of activations. {self.modes[node].advice}"
            )

    def _show(self, node: fx.Node, observer: Observer, x: Tensor) -> Tensor | None:
        name = self.sites[node].name
        if node not in self.fired and bool((x > 0).any()):
            self.fired.add(node)
        layout = self.layouts[node]
        x = layout.to_front(x) if x.dim() > 1 else x
        if self.first_pass:
            self.activity[node].see(x)
        # Torch counts most writes at no cost. To notice the others, compare a copy at the first batch, and sums at the
        # second, fourth, eighth, ...
        growth = self._growth[node]
        before = Untouched([x], exact=not growth.begun, sums=growth.due_next)
        with blame(self.modes[node], f"observing {name}", observer, "observe"):
            altered: Any = observer.observe(x)
        if before.changed():
            raise PluginError(
                f"{self.modes[node]}, observing {name}, writes to the activations that it is shown, in "
                f"{type(observer).__name__}.observe. The layers behind read them as well, so their scales would be "
                "wrong. Work on a copy (x.clone()), and return a new tensor to change what the network passes on. "
                f"{self.modes[node].advice}"
            )
        growth.shown(x.numel(), observer)
        if growth.due:
            self._require_constant_memory(node)
        if altered is None:
            return None
        if isinstance(altered, Tensor) and altered.shape == x.shape:
            return layout.to_place(altered) if x.dim() > 1 else altered
        given = f"a tensor of shape {tuple(altered.shape)}" if isinstance(altered, Tensor) else shown(altered)
        raise PluginError(
            f"{self.modes[node]} returned {given} from observe() for {name}; allowed are None and a tensor of the "
            f"shape that it was shown, {tuple(x.shape)}."
        )


def _run_pass(
    calibrator: _Calibrator,
    shared: SharedObservers | None,
    data: CalibrationData,
    draft: Draft,
    progress: bool,
    number: int,
) -> int:
    """Returns the number of batches."""
    label = "calibrating" if number == 1 else f"calibrating, pass {number}"
    calibrator.first_pass = number == 1
    if shared is not None:
        shared.begin_pass()
    with torch.no_grad(), tqdm(iter(data), total=data.length(), desc=label, unit="batch", disable=not progress) as bar:
        share = data.ranks.share(bar)
        for batch in share:
            calibrator.batch = share.place[1]
            if shared is not None:
                shared.begin_batch()
            run_batch(calibrator.run, batch, calibrator.batch, draft.signature, draft.device)
            if shared is not None:
                shared.end_batch(share.place)
    return share.seen if shared is None else shared.end_pass(share, calibrator.fired)


def _require_finite(x: Tensor, name: str, batch: int) -> None:
    if all_finite(x):
        return
    samples = ", ".join(map(str, affected_samples(x)))
    raise NonFiniteError(
        f"The activation of {name} is {kind_of(x)} in calibration batch {batch} ({int((~torch.isfinite(x)).sum())} "
        f"values; first affected samples: {samples}). Check the input and the weights before it."
    )
