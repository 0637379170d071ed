"""Plugins that break the contract in one way each, and sound ones beside them, under the conformance kit.

`test_kit.py` runs this file. `meant` names the test that is to find the fault; `also` those that cannot help failing, too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import (
    Analog,
    Average,
    CalibrationSite,
    ChangeLoop,
    Correction,
    CumulativeMaxPool,
    ExitRule,
    Exporter,
    ExportError,
    FormatError,
    InPlaceNeuron,
    LayerMapper,
    MomentumMaxPool,
    NetworkDescription,
    NeuronLoop,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    OptionError,
    Readout,
    Rearrange,
    Refuse,
    Replacement,
    Site,
    Stateful,
    Trial,
    along_axis,
    channels_first_2d,
    fill_dead_channels,
    load_network,
    require_integer,
)
from sj_ann2snn.testing import (
    CorrectionTests,
    ExitRuleTests,
    ExporterTests,
    LayerMapperTests,
    MapperCase,
    NeuronTests,
    NormalizationTests,
    ReadoutTests,
)

EVERYTHING = ("*",)

# Modes -------------------------------------------------------------------------------------------


class Rms(Observer):
    """Three times the root of the mean square."""

    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.squares = torch.zeros(site.channels or 1, dtype=torch.float64)
        self.count = 0

    def observe(self, x: Tensor) -> Any:
        axis = self.site.channel_axis
        rows = x.reshape(1, -1) if axis is None else channels_first_2d(x, axis)
        self.squares = self.squares + rows.double().square().sum(1)
        self.count += rows.shape[1]

    def merge(self, other: Any) -> None:
        self.squares, self.count = self.squares + other.squares, self.count + other.count

    def scale(self) -> Tensor:
        mean = self.squares / self.count
        rows = 3 * fill_dead_channels(mean, mean.mean()).sqrt()
        return rows if self.site.channel_axis is not None else rows[0]


class RmsMode(Normalization):
    """λ is three times the root of the mean square."""

    name = "rms"
    makes: ClassVar[type[Observer]] = Rms

    def observer(self, site: CalibrationSite) -> Observer:
        return self.makes(site)


class ModeTests(NormalizationTests):
    plugin_class: ClassVar[Any] = RmsMode


class TestSoundMode(ModeTests):
    meant = None


def observing(observer: type[Observer]) -> type[Normalization]:
    return type("Mode", (RmsMode,), {"makes": observer, "__doc__": "A mode."})


class AboveTheMean(Observer):
    """Three times the mean of what lies above the mean, in two passes."""

    bound, passes, clears = 0.0, 0, True

    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.total, self.count = 0.0, 0

    def observe(self, x: Tensor) -> None:
        above = x[x > self.bound]
        self.total, self.count = self.total + above.double().sum().item(), self.count + above.numel()

    def merge(self, other: Any) -> None:
        self.total, self.count = self.total + other.total, self.count + other.count

    def end_pass(self) -> bool:
        self.passes += 1
        if self.passes == 2:
            return False
        self.bound = self.total / max(1, self.count)
        if self.clears:
            self.total, self.count = 0.0, 0
        return True

    def scale(self) -> Tensor:
        return torch.tensor(3 * (self.total / self.count if self.count else self.bound))


class TestSoundModeOfTwoPasses(ModeTests):
    meant = None
    plugin_class = observing(AboveTheMean)
    rtol = 1e-5


class KeepsCounting(AboveTheMean):
    """Merged after the second pass, it has the first pass once for every part."""

    clears = False


class TestCountsPassesTwice(ModeTests):
    meant = "test_merged_observers_equal_one_that_saw_all"
    also = ("test_observers_travel_between_processes",)
    plugin_class = observing(KeepsCounting)
    rtol = 1e-5


class TestNameThatCannotBeTyped(ModeTests):
    meant = "test_name_can_be_written"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        name = "r\x07ms"


class TestModeWithoutDocstring(ModeTests):
    meant = "test_says_what_it_is"
    plugin_class = type("Mode", (RmsMode,), {"__doc__": None})


class TestTriesWhatItDoesNotKnow(ModeTests):
    meant = "test_tunable_values_are_allowed"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        tunable: ClassVar = {"mode": ("rms", "roots")}


class TestEarliestBehindTheLast(ModeTests):
    meant = "test_anytime_options_are_allowed"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        anytime: ClassVar = {"earliest": 64}

        def __init__(self, *, T: int = 8, earliest: int = 1) -> None:  # noqa: N803
            self.T, self.earliest = T, require_integer("earliest", earliest, 1, T)


class TestOptionsSwallowed(ModeTests):
    meant = "test_options_are_declared"
    also = ("test_unknown_options_are_refused",)

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        def __init__(self, **options: Any) -> None: ...


class TestUnknownOptionsPass(ModeTests):
    meant = "test_unknown_options_are_refused"
    also = ("test_options_are_declared",)

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        def __init__(self, *ignored: Any, **options: Any) -> None: ...


class TestCaseMatters(ModeTests):
    meant = "test_parse_disregards_case"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        @classmethod
        def parse(cls, mode: object, **options: Any) -> Any:
            return cls(**options) if isinstance(mode, str) and mode.strip() == cls.name else None


class TestBlanksMatter(ModeTests):
    meant = "test_parse_knows_its_modes"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        @classmethod
        def parse(cls, mode: object, **options: Any) -> Any:
            return cls(**options) if isinstance(mode, str) and mode.lower() == cls.name else None


class TestParsesEverything(ModeTests):
    meant = "test_parse_leaves_other_modes_alone"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        @classmethod
        def parse(cls, mode: object, **options: Any) -> Any:
            return cls(**options)


class TestParseDropsOptions(ModeTests):
    meant = "test_parse_takes_the_options"
    also = EVERYTHING
    options: ClassVar = {"factor": 2.0}

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        def __init__(self, *, factor: float = 3.0) -> None: ...

        @classmethod
        def parse(cls, mode: object) -> Any:
            return cls() if isinstance(mode, str) and mode.strip().lower() == cls.name else None


class TestTextThatNobodyReads(ModeTests):
    meant = "test_text_reads_back"

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        def __str__(self) -> str:
            return "three times the rms"


class NanForSmall(Rms):
    def scale(self) -> Tensor:
        scale = super().scale()
        return torch.where(scale > 1e-6, scale, float("nan"))


class TestNanForSmallActivations(ModeTests):
    meant = "test_scale_is_positive_and_finite"
    plugin_class = observing(NanForSmall)


class Column(Rms):
    def scale(self) -> Tensor:
        return super().scale()[..., None]


class TestScaleOfAnotherShape(ModeTests):
    meant = "test_scale_is_a_scalar_or_one_for_each_channel"
    also = ("test_converts_a_network",)
    plugin_class = observing(Column)


class OnMeta(Rms):
    def scale(self) -> Tensor:
        return super().scale().to("meta")


class TestScaleElsewhere(ModeTests):
    meant = "test_scale_is_where_the_activations_are"
    also = EVERYTHING
    plugin_class = observing(OnMeta)


class Coarse(Rms):
    coarse = 0.0

    def observe(self, x: Tensor) -> None:
        self.coarse = 1e5 * torch.finfo(x.dtype).eps
        super().observe(x)

    def scale(self) -> Tensor:
        return super().scale() * (1 + self.coarse)


class TestPrecisionMatters(ModeTests):
    meant = "test_scale_does_not_depend_on_the_precision"
    plugin_class = observing(Coarse)


class Shifted(Rms):
    def scale(self) -> Tensor:
        return super().scale() + 0.5


class TestScaleNotProportional(ModeTests):
    meant = "test_scale_is_proportional_to_the_activations"
    plugin_class = observing(Shifted)


class TestDeclaredDifference(ModeTests):
    """The same, by intention."""

    meant = None
    plugin_class = observing(Shifted)
    proportional = False


class DeadStay(Rms):
    def scale(self) -> Tensor:
        rows = 3 * (self.squares / self.count).sqrt()
        return rows if self.site.channel_axis is not None else rows[0]


class TestDeadChannelsStayDead(ModeTests):
    meant = "test_dead_channels_have_a_scale"
    also = ("test_converts_a_network",)
    plugin_class = observing(DeadStay)


class FirstChannelFirst(Rms):
    def scale(self) -> Tensor:
        scale = super().scale()
        return scale * torch.arange(scale.numel(), 0, -1) if scale.dim() else scale


class TestFirstChannelIsSpecial(ModeTests):
    meant = "test_channels_are_alike"
    plugin_class = observing(FirstChannelFirst)


class MeanOfMaxima(Rms):
    def observe(self, x: Tensor) -> None:
        self.squares, self.count = self.squares + x.max().double().square(), self.count + 1


class TestMeanOfBatchMaxima(ModeTests):
    meant = "test_scale_does_not_depend_on_the_batches"
    also = ("test_merged_observers_equal_one_that_saw_all", "test_observers_travel_between_processes")
    plugin_class = observing(MeanOfMaxima)


class Moving(Rms):
    def observe(self, x: Tensor) -> None:
        self.squares, self.count = 0.9 * self.squares, 1
        self.squares = self.squares + 0.1 * x.double().square().mean()


class TestMovingAverage(ModeTests):
    meant = "test_scale_does_not_depend_on_the_order"
    also = (
        "test_scale_does_not_depend_on_the_batches",
        "test_merged_observers_equal_one_that_saw_all",
        "test_observers_travel_between_processes",
    )
    plugin_class = observing(Moving)


class MergesNothing(Rms):
    def merge(self, other: Any) -> None: ...


class TestMergeForgets(ModeTests):
    meant = "test_merged_observers_equal_one_that_saw_all"
    also = ("test_observers_travel_between_processes",)
    plugin_class = observing(MergesNothing)


class SaysExact(Rms):
    exact_merge = True


class TestMergeThatIsNotExact(ModeTests):
    meant = "test_exact_merges_are_exact"
    plugin_class = observing(SaysExact)


class WithLambda(Rms):
    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.factor = lambda: 3


class TestObserverThatCannotBePickled(ModeTests):
    meant = "test_observers_travel_between_processes"
    also = ("test_observers_keep_no_data",)
    plugin_class = observing(WithLambda)


class TestSharedObserver(ModeTests):
    meant = "test_observers_are_independent_of_each_other"
    also = ("test_converts_a_network",)

    class plugin_class(RmsMode):  # noqa: N801
        """A mode."""

        only: Any = None

        def observer(self, site: CalibrationSite) -> Observer:
            self.only = self.only or Rms(site)
            return self.only


class InPlace(Rms):
    def observe(self, x: Tensor) -> None:
        super().observe(x)
        x.clamp_(max=0.5)


class TestObserveWrites(ModeTests):
    meant = "test_observe_leaves_the_activations_alone"
    also = ("test_converts_a_network",)
    plugin_class = observing(InPlace)


class Halves(Rms):
    def observe(self, x: Tensor) -> Any:
        super().observe(x)
        return x[: len(x) // 2]


class TestObserveAnswersAnotherShape(ModeTests):
    meant = "test_observe_leaves_the_activations_alone"
    also = ("test_converts_a_network",)
    plugin_class = observing(Halves)


class Hoard(Rms):
    def observe(self, x: Tensor) -> None:
        super().observe(x)
        self.all = [*getattr(self, "all", []), x.clone()]


class TestKeepsAllData(ModeTests):
    meant = "test_observers_keep_no_data"
    plugin_class = observing(Hoard)


class Last(Rms):
    def observe(self, x: Tensor) -> None:
        super().observe(x)
        self.last = x


class TestKeepsTheLastBatch(ModeTests):
    meant = "test_observers_keep_no_data"
    plugin_class = observing(Last)


class Endless(Rms):
    def end_pass(self) -> bool:
        return True


class TestPassesWithoutEnd(ModeTests):
    meant = "test_passes_come_to_an_end"
    also = EVERYTHING
    plugin_class = observing(Endless)


class ThreeChannels(Rms):
    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.squares = torch.zeros(3 if site.channels else 1, dtype=torch.float64)


class TestForThreeChannelsOnly(ModeTests):
    meant = "test_converts_a_network"
    plugin_class = observing(ThreeChannels)


# Exit rules --------------------------------------------------------------------------------------


class Lead(ExitRule):
    """The lead of the best class."""

    name = "lead"

    def settled(self, answers: Tensor, step: int) -> Any:
        if answers.shape[1] < 2:
            return torch.zeros(len(answers), dtype=torch.bool)
        best = answers.topk(2, 1).values
        return (best[:, 0] - best[:, 1]) * step > 2.0


class RuleTests(ExitRuleTests):
    plugin_class: ClassVar[Any] = Lead


class TestSoundRule(RuleTests):
    meant = None


def ruling(settled: Any) -> type[ExitRule]:
    return type("Rule", (Lead,), {"settled": settled, "__doc__": "A rule."})


class TestNumbersForYesAndNo(RuleTests):
    meant = "test_answers_yes_or_no_for_each_sample"
    also = ("test_stops_samples_in_an_evaluation",)
    plugin_class = ruling(lambda self, answers, step: Lead.settled(self, answers, step).double())


class TestRuleWrites(RuleTests):
    meant = "test_leaves_the_answers_alone"
    also = ("test_stops_samples_in_an_evaluation",)
    plugin_class = ruling(lambda self, answers, step: Lead.settled(self, answers.sub_(answers.mean(1)[:, None]), step))


class TestComparesSamples(RuleTests):
    meant = "test_every_sample_stands_by_itself"
    plugin_class = ruling(
        lambda self, answers, step: Lead.settled(self, answers, step) & (answers > answers.mean()).any(1)
    )


class TestCountsItsCalls(RuleTests):
    meant = "test_remembers_nothing"
    # Whether an evaluation shows it depends on how threads share the tiles.
    perhaps = ("test_stops_samples_in_an_evaluation",)

    class plugin_class(Lead):  # noqa: N801
        """A rule."""

        calls = 0

        def settled(self, answers: Tensor, step: int) -> Any:
            self.calls += 1
            return super().settled(answers, step) & (self.calls % 2 == 1)


class TestFirstClassIsSpecial(RuleTests):
    meant = "test_classes_are_alike"
    plugin_class = ruling(lambda self, answers, step: Lead.settled(self, answers, step) & (answers.argmax(1) > 0))
    also = ("test_clear_answers_are_settled",)


class TestTiesAreSettled(RuleTests):
    meant = "test_ties_stay_open"
    plugin_class = ruling(
        lambda self, answers, step: (answers.std(1, correction=0) == 0) | Lead.settled(self, answers, step)
    )


class TestNothingStops(RuleTests):
    meant = "test_clear_answers_are_settled"
    plugin_class = ruling(lambda self, answers, step: torch.zeros(len(answers), dtype=torch.bool))


# Neurons -----------------------------------------------------------------------------------------


class Fire(InPlaceNeuron):
    """Integrate-and-fire."""

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1.0, out=out)
        self.v -= out


class FireMaker(NeuronMaker):
    """Makes integrate-and-fire neurons."""

    name = "fire"
    makes: ClassVar[Any] = Fire

    def make(self, site: NeuronSite) -> Any:
        return self.makes()


class FireTests(NeuronTests):
    plugin_class: ClassVar[Any] = FireMaker


class TestSoundNeuron(FireTests):
    meant = None


def making(neuron: Any) -> type[NeuronMaker]:
    return type("Maker", (FireMaker,), {"makes": staticmethod(neuron), "__doc__": "A neuron."})


def unit(answer: Any) -> type[NeuronMaker]:
    return type("Maker", (FireMaker,), {"unit": lambda self, scale: answer(scale), "__doc__": "A neuron."})


class TestSpikesWithoutValue(FireTests):
    meant = "test_a_spike_has_a_value"
    also = EVERYTHING
    plugin_class = unit(torch.zeros_like)


class TestUnitOfAnotherPrecision(FireTests):
    meant = "test_a_spike_has_a_value"
    plugin_class = unit(Tensor.float)


class TestUnitNotProportional(FireTests):
    meant = "test_the_value_of_a_spike_is_proportional_to_the_scale"
    also = (
        "test_a_constant_drive_is_met_within_a_spike",
        "test_the_error_does_not_grow_with_the_steps",
        "test_bounded_activations_are_bounded",
        "test_channels_may_be_in_the_last_dimension",
    )
    plugin_class = unit(Tensor.sqrt)


class TestReadoutThatIsNotKnown(FireTests):
    meant = "test_the_readout_that_it_asks_for_exists"
    also = EVERYTHING
    plugin_class = type("Maker", (FireMaker,), {"readout": lambda self: ("lats", {}), "__doc__": "A neuron."})


class TestNoMemory(FireTests):
    meant = "test_makes_a_module_with_memory"
    also = EVERYTHING
    plugin_class = making(nn.ReLU)


class TestTheSameNeuronTwice(FireTests):
    meant = "test_makes_a_module_with_memory"
    also = EVERYTHING
    plugin_class = making(partial(lambda only: only, Fire()))


class OtherInMultiStep(Fire):
    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.v = None
        return super().multi_step_forward(x_seq)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return Fire.multi_step_forward(self, x.unsqueeze(0)).squeeze(0)


class TestMultiStepForgets(FireTests):
    meant = "test_step_modes_agree"
    also = EVERYTHING  # between two calls it forgets, so it loses current
    plugin_class = making(OtherInMultiStep)


class NotReset(Fire):
    def reset(self) -> None: ...


class TestResetDoesNothing(FireTests):
    meant = "test_reset_clears_the_state"
    also = EVERYTHING
    plugin_class = making(NotReset)


class MeanSubtracted(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        super().step(x - 0.1 * x.mean(0), out)


class TestSamplesInhibitEachOther(FireTests):
    meant = "test_samples_are_apart"
    also = EVERYTHING  # the core finds that current is lost
    plugin_class = making(MeanSubtracted)


class FeaturesFirst(Fire):
    """Keeps what it adds up with the samples last."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("count", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.count = torch.zeros_like(x.movedim(0, -1))

    def step(self, x: Tensor, out: Tensor) -> None:
        self.count = self.count + x.movedim(0, -1)
        super().step(x, out)


class TestMemoryWithSamplesLast(FireTests):
    meant = "test_settled_samples_can_leave"
    plugin_class = making(FeaturesFirst)


class SharedByCopies(Fire):
    def __deepcopy__(self, memo: Any) -> Any:
        twin = type(self)()
        twin.v, twin.step_mode = self.v, self.step_mode
        return twin


class TestCopiesShareTheirPotential(FireTests):
    meant = "test_copies_are_independent"
    plugin_class = making(SharedByCopies)


class InBuffer(Fire):
    """Its potential is part of what is stored."""

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.register_buffer("started", torch.zeros_like(x))


class TestPotentialsAreStored(FireTests):
    meant = "test_state_can_be_loaded"
    plugin_class = making(InBuffer)


class WritesIntoCurrents(Fire):
    def fire(self, x_seq: Tensor, spikes: Tensor) -> None:
        super().fire(x_seq, x_seq)
        spikes.copy_(x_seq)


class TestCurrentsAreOverwritten(FireTests):
    meant = "test_currents_are_left_alone"
    also = EVERYTHING
    plugin_class = making(WritesIntoCurrents)


class Unbounded(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out).clamp_(min=0)
        self.v -= out


class TestGoesBeyondTheBound(FireTests):
    meant = "test_bounded_activations_are_bounded"
    also = ("test_channels_may_be_in_the_last_dimension",)
    plugin_class = making(Unbounded)
    saturates = False


class Capped(Fire):
    """Takes in no more than a bound per channel."""

    def __init__(self, bound: Tensor) -> None:
        super().__init__()
        self.register_buffer("bound", bound)

    def step(self, x: Tensor, out: Tensor) -> None:
        super().step(x.minimum(self.bound), out)


class TestChannelsAlwaysInFront(FireTests):
    meant = "test_channels_may_be_in_the_last_dimension"

    class plugin_class(FireMaker):  # noqa: N801
        """A neuron."""

        def make(self, site: NeuronSite) -> Capped:
            maximum = 1e9 if site.maximum is None else site.maximum
            return Capped(along_axis(maximum / site.scale, len(site.shape)))


class ForgetsItsLevels(Fire):
    def __init__(self, *, levels: int = 1) -> None:
        super().__init__()
        self.levels = levels

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(0, self.levels)
        self.v -= out

    def export_options(self) -> dict[str, Any]:
        return {}


class TestWrittenWithoutItsOptions(FireTests):
    meant = "test_exported_neurons_come_back"
    saturates = False

    class plugin_class(FireMaker):  # noqa: N801
        """A neuron."""

        exports = (ForgetsItsLevels,)

        def unit(self, scale: Tensor) -> Tensor:
            return scale / 4

        def make(self, site: NeuronSite) -> ForgetsItsLevels:
            return ForgetsItsLevels(levels=4)


class AlwaysDouble(Fire):
    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().multi_step_forward(x_seq.double())


class TestSinglePrecisionIsLost(FireTests):
    meant = "test_single_precision"
    plugin_class = making(AlwaysDouble)


class NeedsContiguous(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v.view(-1).add_(x.reshape(-1))
        torch.ge(self.v, 1.0, out=out)
        self.v -= out


class TestMemoryLayoutMatters(FireTests):
    meant = "test_memory_layout_does_not_matter"
    also = ("test_tiles_and_threads_change_nothing",)
    plugin_class = making(NeedsContiguous)


def fire_above(x: Any, v: Any, threshold: Any) -> tuple[Any, Any]:
    v = v + x
    spike = threshold if v > threshold else threshold - threshold  # step() fires at the threshold, too
    return spike, v - spike


class LoopOfItsOwn(Fire):
    def loop(self, dtype: torch.dtype) -> NeuronLoop:
        return NeuronLoop(fire_above, constants=(1,))


class TestLoopDoesSomethingElse(FireTests):
    meant = "test_the_loop_does_what_a_step_does"
    also = EVERYTHING
    plugin_class = making(LoopOfItsOwn)


class RangeTooSmall(Fire):
    output_range = (1, 1)


class TestRangeTooSmall(FireTests):
    meant = "test_outputs_keep_to_the_declared_range"
    plugin_class = making(RangeTooSmall)


def nearest_half(mean: Any, value: Any, nothing: Any, half: Any) -> Any:
    missing = max(mean, nothing) - value
    return half if missing >= half else (-half if missing <= -half else nothing)


class SendsHalves(InPlaceNeuron):
    """Counts its outputs, which are no spikes, as such."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("value", None)
        self.register_memory("mean", None)
        self.register_memory("steps", 0)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.value = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.value is not None
        self.v += x
        self.mean = None
        self.steps += 1
        missing = (self.v / self.steps).clamp_(min=0) - self.value
        change = (missing / 0.5).trunc_().clamp_(-1, 1).mul_(0.5)
        torch.add(self.value, change, alpha=self.steps, out=out)
        self.value += change

    def loop(self, dtype: torch.dtype) -> ChangeLoop:
        return ChangeLoop(nearest_half, constants=(0, 0.5))


class TestChangesAreNotCounted(FireTests):
    meant = "test_changes_are_those_of_the_value"
    also = EVERYTHING
    plugin_class = making(SendsHalves)


class Fractions(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.clamp(self.v, 0, 1, out=out)
        self.v -= out


class TestFractionsOfSpikes(FireTests):
    meant = "test_spikes_are_whole"
    plugin_class = making(Fractions)


class TestGradedByIntention(FireTests):
    meant = None
    plugin_class = making(Fractions)
    whole_spikes = False


class TakesBack(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        out.copy_((self.v >= 1).to(x) - (self.v <= -1).to(x))
        self.v -= out


class TestNegativeSpikes(FireTests):
    meant = "test_spikes_are_whole"
    also = ("test_a_constant_drive_is_met_within_a_spike",)
    plugin_class = making(TakesBack)


class Leaky(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v *= 0.5
        super().step(x, out)


class TestLeaky(FireTests):
    meant = "test_a_constant_drive_is_met_within_a_spike"
    also = EVERYTHING  # the core refuses it
    plugin_class = making(Leaky)


class TestStartsTooLow(FireTests):
    meant = "test_a_constant_drive_is_met_within_a_spike"
    also = ("test_an_identity_layer_is_met_within_a_spike",)
    plugin_class = making(partial(Fire, initial_potential=-3.0))


class BarelyLeaky(Fire):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v *= 0.995
        super().step(x, out)


class TestLeaksSlowly(FireTests):
    meant = "test_the_error_does_not_grow_with_the_steps"
    also = ("test_a_constant_drive_is_met_within_a_spike", "test_an_identity_layer_is_met_within_a_spike")
    plugin_class = making(BarelyLeaky)


class Thirds(FireMaker):
    """Fires up to three times in a step."""

    def unit(self, scale: Tensor) -> Tensor:
        return scale / 3

    def make(self, site: NeuronSite) -> Any:
        return ForgetsItsLevels(levels=3)


class TestUnitThatIsNoPowerOfTwo(FireTests):
    meant = None
    plugin_class = Thirds


class Rounds(InPlaceNeuron):
    """Emits the multiple of a third that is nearest to its current."""

    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_((x.clamp(0, 1) * 3).round() / 3)


class TestKnowsFewValues(FireTests):
    meant = None
    plugin_class = type("Maker", (FireMaker,), {"makes": Rounds, "resolution": 1 / 6, "__doc__": "A neuron."})
    whole_spikes = False


# Mappers -----------------------------------------------------------------------------------------


class Pool(LayerMapper):
    """Max pooling adds up."""

    name = "pool"
    claims: ClassVar = (nn.MaxPool1d,)

    def map(self, site: Site) -> Any:
        return Stateful(partial(CumulativeMaxPool, 1, site.argument("kernel_size", 1)), "pool")


class PoolTests(LayerMapperTests):
    plugin_class: ClassVar[Any] = Pool
    layer: ClassVar[nn.Module] = nn.MaxPool1d(2)
    memory = True

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        def network() -> nn.Module:
            return nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), cls.layer)

        return {"case": MapperCase(network, (1, 10), memory=cls.memory)}


class TestSoundMapper(PoolTests):
    meant = None


def mapping(answer: Any, **attributes: Any) -> type[LayerMapper]:
    return type("Mapper", (Pool,), {"map": lambda self, site: answer(site), "__doc__": "A mapper.", **attributes})


def replacing(module: Any) -> type[LayerMapper]:
    return mapping(lambda site: Stateful(partial(module, 1, site.argument("kernel_size", 1)), "pool"))


class TestClaimsNoOperation(PoolTests):
    meant = "test_claims_are_types_functions_or_names"
    plugin_class = type("Mapper", (Pool,), {"claims": (nn.MaxPool1d, "max_pol"), "__doc__": "A mapper."})


class TestRefusesWhatItClaims(PoolTests):
    meant = "test_describes_what_it_claims"
    also = EVERYTHING
    plugin_class = mapping(lambda site: Refuse("not today", "come back tomorrow"))


class TestRefusesWithoutHelp(PoolTests):
    meant = "test_refusals_say_why_and_what_helps"
    plugin_class = mapping(lambda site: Refuse("not today"))

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        return {
            "case": MapperCase(
                lambda: nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.MaxPool1d(2)), (1, 10), refused=True
            )
        }


class TestAnswersInTurn(PoolTests):
    meant = "test_describes_the_same_again"

    class plugin_class(Pool):  # noqa: N801
        """A mapper."""

        def map(self, site: Site) -> Replacement:
            self.asked = getattr(self, "asked", 0) + 1
            return super().map(site) if self.asked % 2 else Refuse("not twice", "ask once")


class TestEditsTheNetwork(PoolTests):
    meant = "test_leaves_the_network_alone"
    also = EVERYTHING

    class plugin_class(Pool):  # noqa: N801
        """A mapper."""

        def map(self, site: Site) -> Replacement:
            assert site.module is not None
            site.module.kernel_size = 3  # type: ignore[assignment]
            return super().map(site)


class TestKeepsTheSite(PoolTests):
    meant = "test_keeps_no_site"
    plugin_class = mapping(lambda site: Stateful(lambda: CumulativeMaxPool(1, site.module.kernel_size), "pool"))


class TestMaximumAsAverage(PoolTests):
    meant = "test_what_is_described_as_linear_is"
    also = EVERYTHING
    plugin_class = mapping(lambda site: Average())
    memory = False


class MixChannels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class TestMixesChannels(PoolTests):
    meant = "test_what_is_described_as_linear_is"
    plugin_class = mapping(lambda site: Average(), claims=(MixChannels,))
    layer = MixChannels()
    memory = False


class AddsOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class TestScalesAreWrong(PoolTests):
    """A constant is no scaled value."""

    meant = "test_normalized_network_computes_what_the_ann_computes"
    also = EVERYTHING
    plugin_class = mapping(lambda site: Rearrange(), claims=(AddsOne,))
    memory = False

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        def network() -> nn.Module:
            return nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), AddsOne(), nn.Conv1d(3, 3, 3), nn.ReLU())

        return {"case": MapperCase(network, (1, 10))}


ONE_POOL = CumulativeMaxPool(1, 2)


class TestOneModuleForAllSites(PoolTests):
    meant = "test_memory_makes_a_fresh_module_each_time"
    also = ("test_memory_keeps_the_rules",)
    plugin_class = mapping(lambda site: Stateful(lambda: ONE_POOL, "pool"))


class TestExactByWordOnly(PoolTests):
    meant = "test_memory_adds_up_to_the_operation"
    also = ("test_mean_output_nears_the_ann",)
    plugin_class = replacing(MomentumMaxPool)


class Saturating(CumulativeMaxPool):
    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().single_step_forward(x.clamp(max=1))

    def pool_(self, x_seq: Tensor) -> Tensor:
        return super().pool_(x_seq.clamp_(max=1))


class TestDoesNotScale(PoolTests):
    meant = "test_memory_scales_with_its_input"
    plugin_class = replacing(Saturating)


class NeverReset(CumulativeMaxPool):
    def reset(self) -> None: ...


class TestPoolIsNotReset(PoolTests):
    meant = "test_memory_keeps_the_rules"
    also = EVERYTHING
    plugin_class = replacing(NeverReset)


class SumOfMaxima(CumulativeMaxPool):
    """The maximum at each step: its mean is more than the maximum of the means."""

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return F.max_pool1d(x, self.kernel_size)

    def pool_(self, x_seq: Tensor) -> Tensor:
        return torch.stack([self.single_step_forward(x) for x in x_seq])


class TestMaximumAtEachStep(PoolTests):
    meant = "test_mean_output_nears_the_ann"
    also = ("test_memory_adds_up_to_the_operation",)
    plugin_class = replacing(SumOfMaxima)


# Readouts ----------------------------------------------------------------------------------------


class Average_(Readout):  # noqa: N801 - `Average` is a replacement
    """The mean."""

    name = "average"

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
        sums = outputs.cumsum(0) if state is None else state + outputs.cumsum(0)
        return sums, sums[-1]

    def divisor(self, steps: int) -> Any:
        return steps


class AnswerTests(ReadoutTests):
    plugin_class: ClassVar[Any] = Average_


class TestSoundReadout(AnswerTests):
    meant = None


def answering(**methods: Any) -> type[Readout]:
    return type("Answer", (Average_,), {"__doc__": "A readout.", **methods})


class TestAnswersInDouble(AnswerTests):
    meant = "test_answers_after_every_step"
    plugin_class = answering(
        answers=lambda self, outputs, state, done: Average_.answers(self, outputs.double(), state, done)
    )


class TestDivisorIsZeroAtFirst(AnswerTests):
    meant = "test_divisor_is_positive"
    also = EVERYTHING
    plugin_class = answering(divisor=lambda self, steps: steps - 1)


class TestLastAnswerForgetsTheState(AnswerTests):
    meant = "test_the_last_answer_is_the_last_of_the_answers"
    also = EVERYTHING
    plugin_class = answering(last_answer=lambda self, outputs, state, done: (outputs.sum(0), outputs.sum(0)))


class TestEveryStretchAnew(AnswerTests):
    meant = "test_time_may_be_cut_anywhere"
    also = EVERYTHING
    plugin_class = answering(answers=lambda self, outputs, state, done: (outputs.cumsum(0), None))


class TestCentersOverSamples(AnswerTests):
    meant = "test_samples_are_apart"
    also = EVERYTHING
    plugin_class = answering(
        answers=lambda self, outputs, state, done: Average_.answers(
            self, outputs - 0.1 * outputs.mean(1, keepdim=True), state, done
        )
    )


class TestSumForMean(AnswerTests):
    meant = "test_constant_outputs_are_the_answer"
    plugin_class = answering(divisor=lambda self, steps: 1)


class TestSumByIntention(AnswerTests):
    meant = None
    plugin_class = answering(divisor=lambda self, steps: 1)
    keeps_constants = False


class TestAnswersSaturate(AnswerTests):
    meant = "test_answers_are_proportional_to_the_outputs"
    also = ("test_constant_outputs_are_the_answer",)
    plugin_class = answering(
        answers=lambda self, outputs, state, done: Average_.answers(self, outputs.clamp(-1, 1), state, done)
    )


class TestSecondClassIsSpecial(AnswerTests):
    meant = "test_classes_are_alike"
    also = ("test_constant_outputs_are_the_answer",)

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
            if outputs.dim() < 3 or outputs.shape[2] < 2:
                return super().answers(outputs, state, done)
            weights = torch.ones(outputs.shape[2:], dtype=outputs.dtype)
            weights[1] = 2
            return super().answers(outputs * weights, state, done)


class TestSumsUpInPlace(AnswerTests):
    meant = "test_outputs_are_left_alone"
    also = EVERYTHING

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
            if state is not None:
                outputs[0] += state
            return super().answers(outputs, None, done)


class TestStateInTheReadout(AnswerTests):
    meant = "test_calls_are_pure"
    also = EVERYTHING

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
            before = self.sums if done and self.sums.shape == outputs.shape[1:] else None
            answers, self.sums = super().answers(outputs, before, done)
            return answers, None


class TestStateWithSamplesLast(AnswerTests):
    meant = "test_state_has_a_row_for_every_sample"
    also = ("test_settled_samples_can_leave",)

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
            answers, state = super().answers(outputs, None if state is None else state.movedim(-1, 0), done)
            return answers, state.movedim(0, -1)


class TestKeepsAllOutputs(AnswerTests):
    meant = "test_state_does_not_grow"

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Any, Any]:
            kept = outputs if state is None else torch.cat([state.movedim(1, 0), outputs])
            return kept.cumsum(0)[done:], kept.movedim(0, 1)


class TestRefusesItsOwnSteps(AnswerTests):
    meant = "test_a_number_of_steps_is_agreed_to_or_refused"
    also = EVERYTHING

    class plugin_class(Average_):  # noqa: N801
        """A readout."""

        def check(self, steps: int) -> None:
            raise OptionError("There is no answer.")


# Corrections -------------------------------------------------------------------------------------


class Shift(Correction):
    """Has the mean answer be the ANN's."""

    name = "shift"

    def __init__(self, *, T: int = 8) -> None:  # noqa: N803
        self.T = T

    def correct(self, trial: Trial) -> None:
        if trial.adjusts_output:
            trial.adjust_output(trial.output_bias + self.missing(trial, trial.inputs()))

    def missing(self, trial: Trial, x: Tensor) -> Tensor:
        missing: Tensor = (trial.activations(x).output - trial.run(x, self.T).mean(0)).mean(0)
        return missing


class AdjustmentTests(CorrectionTests):
    plugin_class: ClassVar[Any] = Shift
    networks: ClassVar = {"dense": CorrectionTests.networks["dense"]}
    improves = ("dense",)


class TestSoundCorrection(AdjustmentTests):
    meant = None


def correcting(correct: Any) -> type[Correction]:
    return type("Adjustment", (Shift,), {"correct": correct, "__doc__": "A correction."})


def set_behind_the_back(self: Shift, trial: Trial) -> None:
    """Has `run` pass on what it does not build."""
    run = trial.run
    trial.run = lambda *arguments: run(*arguments) + 1  # type: ignore[method-assign]


class TestTriesAnotherNetwork(AdjustmentTests):
    meant = "test_the_network_that_is_built_is_the_one_that_was_tried"
    also = (
        "test_answers_come_nearer_to_those_of_the_ann",
        "test_other_neurons_are_corrected_or_refused",
        "test_where_weights_may_change_the_network_that_is_built_is_the_one_that_was_tried",
    )
    plugin_class = correcting(set_behind_the_back)


def set_behind_the_back_if_allowed(self: Shift, trial: Trial) -> None:
    """Has `run` use weights that it does not adjust."""
    Shift.correct(self, trial)
    if trial.tunes_weights:
        run, other = trial.run, {layer.name: 2 * layer.weight for layer in trial.layers}
        trial.run = lambda *arguments: run(*arguments, weights=other)  # type: ignore[method-assign]


class TestTriesOtherWeights(AdjustmentTests):
    meant = "test_where_weights_may_change_the_network_that_is_built_is_the_one_that_was_tried"
    plugin_class = correcting(set_behind_the_back_if_allowed)


class TestChangesWeightsUnasked(AdjustmentTests):
    meant = "test_weights_stay_unless_the_caller_allows_their_change"
    also = EVERYTHING

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def correct(self, trial: Trial) -> None:
            super().correct(trial)
            ann: Any = trial._runner._ann  # type: ignore[attr-defined]
            with torch.no_grad():
                ann.get_submodule("1").weight.copy_(ann.get_submodule("1").weight.round(decimals=1))


class TestShiftsTheWrongWay(AdjustmentTests):
    meant = "test_answers_come_nearer_to_those_of_the_ann"

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            return -super().missing(trial, x)


class TestInfiniteInSinglePrecision(AdjustmentTests):
    meant = "test_everything_is_finite"
    also = EVERYTHING

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            return super().missing(trial, x) * (float("inf") if x.dtype == torch.float32 else 1)


class TestDataInPlace(AdjustmentTests):
    meant = "test_the_ann_and_the_data_stay_as_they_are"
    also = EVERYTHING

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            return super().missing(trial, x.sub_(x.mean()))


class TestDrawsSamples(AdjustmentTests):
    meant = "test_two_conversions_agree"
    also = EVERYTHING

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            return super().missing(trial, x[torch.randperm(len(x))[:30]])


class TestDrawsSamplesByIntention(AdjustmentTests):
    meant = None
    plugin_class = TestDrawsSamples.plugin_class
    deterministic = False


class TestGoesOnFromTheLastNetwork(AdjustmentTests):
    meant = "test_remembers_nothing_of_other_networks"

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        share = 1.0

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            self.share, share = self.share / 2, self.share
            return share * super().missing(trial, x)


class TestPrints(AdjustmentTests):
    meant = "test_is_quiet"

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def missing(self, trial: Trial, x: Tensor) -> Tensor:
            print("correcting")
            return super().missing(trial, x)


class TestForPlainNeuronsBySilence(AdjustmentTests):
    meant = "test_other_neurons_are_corrected_or_refused"

    class plugin_class(Shift):  # noqa: N801
        """A correction."""

        def correct(self, trial: Trial) -> None:
            for site in trial.sites:
                if not site.binary:
                    raise TypeError("there is no threshold")
            super().correct(trial)


def analog(module: Any) -> type[LayerMapper]:
    return mapping(lambda site: Analog(lambda operation, sequences: module(1, 2), "pool"))


class TestSoundAnalog(PoolTests):
    meant = None
    plugin_class = analog(CumulativeMaxPool)


class TestAnalogIsNotReset(PoolTests):
    meant = "test_memory_keeps_the_rules"
    also = EVERYTHING
    plugin_class = analog(NeverReset)


class TestAnalogAtEachStep(PoolTests):
    meant = "test_mean_output_nears_the_ann"
    plugin_class = analog(SumOfMaxima)


class PoolsTwo(CumulativeMaxPool):
    def __init__(self, spatial: int = 1, kernel_size: int = 1, **others: Any) -> None:
        super().__init__(spatial, kernel_size, **others)

    def export_options(self) -> dict[str, Any]:
        return {"stride": 2}


class TestPoolWrittenWithoutItsWindow(PoolTests):
    meant = "test_exported_networks_come_back"
    plugin_class = mapping(lambda site: Stateful(partial(PoolsTwo, 1, 2, stride=2), "pool"), exports=(PoolsTwo,))


# Formats -----------------------------------------------------------------------------------------


class Lists(Exporter):
    """One JSON text, numbers included."""

    name = "lists"
    suffixes = (".lists",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        document, tensors = network.as_document()
        numbers = {
            name: {"dtype": str(tensor.dtype).removeprefix("torch."), "values": tensor.tolist()}
            for name, tensor in tensors.items()
        }
        path.write_text(json.dumps([document, numbers]), encoding="utf-8")

    def load(self, path: Path) -> NetworkDescription:
        try:
            document, numbers = json.loads(path.read_text(encoding="utf-8"))
            tensors = {
                name: torch.tensor(one["values"], dtype=getattr(torch, one["dtype"])) for name, one in numbers.items()
            }
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError("it is no such text.") from error
        return NetworkDescription.from_document(document, tensors)


class FormatTests(ExporterTests):
    plugin_class: ClassVar[Any] = Lists


class TestSoundFormat(FormatTests):
    meant = None


class TestSuffixInCapitals(FormatTests):
    meant = "test_is_known_by_name_and_suffix"

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        suffixes = (".LISTS",)


class TestLeavesAPartBehind(FormatTests):
    meant = "test_writes_the_file_and_leaves_the_network_alone"

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def export(self, network: NetworkDescription, path: Path) -> None:
            path.with_suffix(".log").write_text("written", encoding="utf-8")
            super().export(network, path)


class TestNegatesWeights(FormatTests):
    meant = "test_writes_the_file_and_leaves_the_network_alone"
    also = EVERYTHING  # the core notices

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def export(self, network: NetworkDescription, path: Path) -> None:
            super().export(network, path)
            for node in network.nodes:
                for tensor in node.tensors.values():
                    tensor.neg_()


class TestWritesInSinglePrecision(FormatTests):
    meant = "test_the_network_comes_back"

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def load(self, path: Path) -> NetworkDescription:
            network = super().load(path)
            single = [
                dataclasses.replace(node, tensors={key: value.float() for key, value in node.tensors.items()})
                for node in network.nodes
            ]
            return dataclasses.replace(network, nodes=tuple(single))


class NoConvolutions(Lists):
    """A format."""

    def export(self, network: NetworkDescription, path: Path) -> None:
        if any(node.operation.startswith("Conv") for node in network.nodes):
            raise ExportError("it holds convolutions.")
        super().export(network, path)


class TestHoldsNoConvolutions(FormatTests):
    meant = None
    plugin_class = NoConvolutions
    refused = ("small", "residual", "max pool")


class TestRefusesLessThanItSays(FormatTests):
    meant = "test_what_the_format_cannot_hold_is_refused"
    plugin_class = NoConvolutions
    refused = ("small", "residual", "max pool", "leaky")


class TestWritesOnlyBySilence(FormatTests):
    meant = "test_the_network_comes_back"
    also = EVERYTHING

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        load = Exporter.load


class TestWritesOnlyByIntention(FormatTests):
    meant = None
    plugin_class = TestWritesOnlyBySilence.plugin_class
    reads_back = False


class Replayed(Lists):
    """Its other program is a loop over the steps."""

    def replay(self, path: Path, x: Tensor, T: int) -> dict[str, Tensor]:  # noqa: N803
        network = load_network(path, Lists())
        seen: dict[str, list[Tensor]] = {}
        for name, module in network.named_modules():
            if type(module).__name__ == "IFNode":
                module.register_forward_hook(
                    lambda module, args, result, name=name: seen.setdefault(name, []).append(result.clone())
                )
        with torch.no_grad():
            for _ in range(T):
                network(x)
        return {name: torch.stack(spikes) for name, spikes in seen.items()}


class TestSoundReplay(FormatTests):
    meant = None
    plugin_class = Replayed
    replays = True


class TestReplayIsNotTold(FormatTests):
    meant = "test_another_program_emits_the_same_spikes"
    plugin_class = Replayed


class TestAnotherProgramIsAStepLate(FormatTests):
    meant = "test_another_program_emits_the_same_spikes"
    replays = True

    class plugin_class(Replayed):  # noqa: N801
        """A format."""

        def replay(self, path: Path, x: Tensor, T: int) -> dict[str, Tensor]:  # noqa: N803
            return {name: spikes.roll(1, 0) for name, spikes in super().replay(path, x, T).items()}


class TestOtherFilesGiveOtherErrors(FormatTests):
    meant = "test_files_of_another_kind_are_refused"
    also = ("test_cut_files_are_refused",)
    perhaps = ("test_damaged_files_are_refused",)

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def load(self, path: Path) -> NetworkDescription:
            json.loads(path.read_text(encoding="utf-8"))
            return super().load(path)


class TestForgetsTheConversion(FormatTests):
    meant = "test_the_notes_on_the_conversion_come_back"

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def load(self, path: Path) -> NetworkDescription:
            return dataclasses.replace(super().load(path), conversion=None)


class TestForgetsTheConversionByIntention(FormatTests):
    meant = None
    plugin_class = TestForgetsTheConversion.plugin_class
    keeps_notes = False


class TestChecksNothing(FormatTests):
    meant = "test_damaged_files_are_refused"
    also = ("test_the_notes_on_the_conversion_come_back",)  # version 1 has no place for them

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def export(self, network: NetworkDescription, path: Path) -> None:
            super().export(network, path)
            document, numbers = json.loads(path.read_text(encoding="utf-8"))
            del document["checksums"]
            path.write_text(json.dumps([document | {"version": 1}, numbers]), encoding="utf-8")


class TestMakesFolders(FormatTests):
    meant = "test_a_folder_that_is_not_there_is_told"

    class plugin_class(Lists):  # noqa: N801
        """A format."""

        def export(self, network: NetworkDescription, path: Path) -> None:
            path.parent.mkdir(exist_ok=True)
            super().export(network, path)
