"""The contract of normalization modes."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import pickle
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ..contracts.normalization import CalibrationSite, Normalization, Observer
from ..conversion.calibrate import MAX_PASSES
from ..conversion.converter import Converter
from ..conversion.memory_growth import kept_values
from ..simulation.simulate import simulate
from .contract import PluginTests
from .running import small_network

__all__ = ["NormalizationTests"]

CHANNELS = 3
LAYER = CalibrationSite("layer")
PER_CHANNEL = CalibrationSite("layer", channel_axis=1, channels=CHANNELS)

both_sites = pytest.mark.parametrize("site", [LAYER, PER_CHANNEL], ids=["layer", "channels"])

OTHER_MODES = ("max", "99.9%", 0.5, "no-such-mode-anywhere", "", None, True, object(), b"max", ("max",), 1j)


class NormalizationTests(PluginTests):
    """Runs the contract of `sj_ann2snn.Normalization` on a mode.

    >>> from sj_ann2snn.builtin.normalizations import Percentile
    >>> class TestPercentile(NormalizationTests):
    ...     plugin_class = Percentile
    ...     modes = ("99.9%", "50 %")
    ...     relative_error = 2**-8

    Attributes:
        modes: How users write the mode; by default its `example`, or its name.
        rtol: Tolerance for rounding.
        relative_error: The error that the mode declares for its scale, if it counts in bins or draws samples.
        proportional: Activations k times as large give a λ k times as large.
        independent_of_batches: The same data in other batches gives the same λ.
        independent_of_order: The same batches in another order give the same λ.
        mergeable: Merging observers that each saw a part of the data equals one observer that saw all of it; in every
            pass, if the mode needs several.
        constant_memory: An observer does not grow with the data.
        alike_channels: The mode treats all channels alike: exchanging channels exchanges their scales.
    """

    hook = "ann2snn_normalizations"
    modes: ClassVar[tuple[Any, ...]] = ()
    rtol: ClassVar[float] = 1e-6
    relative_error: ClassVar[float] = 0.0
    proportional: ClassVar[bool] = True
    independent_of_batches: ClassVar[bool] = True
    independent_of_order: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    constant_memory: ClassVar[bool] = True
    alike_channels: ClassVar[bool] = True

    # What the tests work with ------------------------------------------------------------------

    def written(self) -> tuple[Any, ...]:
        """The spellings of the mode that are tested."""
        return self.modes or (self.plugin_class.example or self.plugin_class.name,)

    def parsed(self, mode: Any = None) -> Normalization:
        """The mode as a user gets it."""
        mode = self.written()[0] if mode is None else mode
        cls: type[Normalization] = self.plugin_class
        found = cls.parse(mode, **self.options)
        assert isinstance(found, cls), f"parse({mode!r}) answered {found!r}"
        return found

    def activations(self, samples: int = 60) -> Tensor:
        """Activations of a ReLU layer, ``[samples, channels, 7]``; the channels differ in magnitude."""
        sizes = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
        return torch.randn(samples, CHANNELS, 7, dtype=torch.float64).relu() * sizes[:, None]

    def observed(self, site: CalibrationSite, batches: Iterable[Tensor]) -> Observer:
        """An observer after all its passes over the data."""
        observer = self.parsed().observer(site)
        assert isinstance(observer, Observer), f"observer() answered {observer!r}"
        data = list(batches)
        for _ in range(MAX_PASSES):
            for batch in data:
                observer.observe(batch.clone())
            if not observer.end_pass():
                return observer
        raise AssertionError(f"the observer asks for another pass after {MAX_PASSES} passes")

    def merged(
        self,
        site: CalibrationSite,
        parts: Sequence[Sequence[Tensor]],
        copied: Callable[[Observer], Observer] = copy.deepcopy,
    ) -> Observer:
        """An observer merged from one for each part of the data, in every pass.

        After a pass, the observers of all parts are merged, and `end_pass` of the merged one is called. If it asks for
        another pass, every part continues with a copy of it.
        """
        observers: list[Observer] = [self.parsed().observer(site) for _ in parts]
        for _ in range(MAX_PASSES):
            for observer, batches in zip(observers, parts, strict=True):
                for batch in batches:
                    observer.observe(batch.clone())
            first, *others = (copied(one) for one in observers)
            for other in others:
                first.merge(other)
            if not first.end_pass():
                return first
            observers = [copied(first) for _ in parts]
        raise AssertionError(f"the merged observer asks for another pass after {MAX_PASSES} passes")

    def scale(self, site: CalibrationSite, batches: Iterable[Tensor]) -> Tensor:
        """λ for the data."""
        return self.observed(site, batches).scale()

    def assert_same(self, got: Tensor, wanted: Tensor, rtol: float) -> None:
        """Both are the same scale, up to `rtol`."""
        torch.testing.assert_close(got.double().cpu(), wanted.double().cpu(), rtol=rtol, atol=0)

    # parse -------------------------------------------------------------------------------------

    def check_parameter(self, name: str, parameter: inspect.Parameter) -> None:
        """`parse` may pass positional parameters; options are the keyword-only parameters."""
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty, f"the option {name} has no default"

    def test_parse_knows_its_modes(self) -> None:
        """In every spelling, with surrounding blanks."""
        for mode in self.written():
            self.parsed(mode)
            if isinstance(mode, str):
                self.parsed(f" {mode} ")

    def test_parse_disregards_case(self) -> None:
        """Like all names."""
        for mode in self.written():
            for form in (str.upper, str.lower, str.title) if isinstance(mode, str) else ():
                self.parsed(form(mode))

    def test_parse_leaves_other_modes_alone(self) -> None:
        """None for anything that is not its own mode: text, a number or any other object."""
        own = {str(mode).lower() for mode in (*self.written(), self.plugin_class.name, *self.plugin_class.replaces)}
        for mode in OTHER_MODES:
            if str(mode).lower() not in own:
                found = self.plugin_class.parse(mode)
                assert found is None, f"parse({mode!r}) answered {found!r}, though that is another one's mode"

    def test_parse_takes_the_options(self) -> None:
        """Options reach the mode through the converter, and a misspelt option is an error."""
        converter = Converter(mode=self.written()[0], plugins=[self.as_plugin()], **self.options)
        assert isinstance(converter.normalization, self.plugin_class)
        with pytest.raises(TypeError, match="no_such_option_of_any_plugin"):
            Converter(mode=self.written()[0], plugins=[self.as_plugin()], no_such_option_of_any_plugin=1)

    def test_anytime_options_are_allowed(self) -> None:
        """`tune` gives them together with the largest number of steps."""
        anytime = vars(self.plugin_class).get("anytime", {})  # a subclass may have other options than its base
        if anytime:
            self.make(**anytime, T=32)

    def test_text_reads_back(self) -> None:
        """The report shows `str(mode)`, and a user can write it as a mode."""
        for mode in self.written():
            text = str(self.parsed(mode))
            assert str(self.parsed(text)) == text

    # Scales ------------------------------------------------------------------------------------

    @both_sites
    def test_scale_is_positive_and_finite(self, site: CalibrationSite) -> None:
        """For activations of any size, mostly silent ones, a single sample and currents of both signs."""
        x = self.activations()
        rare = torch.where(torch.rand_like(x) < 0.01, x, 0.0)
        rare[0] = x.amax(0)
        kinds = {"usual": x, "large": x * 1e8, "small": x * 1e-8, "rare": rare, "one": x[:1] + 0.1}
        kinds |= {"constant": torch.ones_like(x), "currents": torch.randn_like(x) + 0.2}
        for kind, data in kinds.items():
            scale = self.scale(site, torch.split(data, 16))
            assert isinstance(scale, Tensor), f"scale() answered {scale!r}"
            good = bool((scale > 0).all()) and bool(torch.isfinite(scale).all())
            assert good, f"for {kind} activations the scale is {scale.tolist()}"

    @both_sites
    def test_scale_is_a_scalar_or_one_for_each_channel(self, site: CalibrationSite) -> None:
        """Nothing else can be folded into weights."""
        scale = self.scale(site, [self.activations()])
        allowed = {()} if site.channels is None else {(), (site.channels,)}
        assert tuple(scale.shape) in allowed, f"the scale has the shape {tuple(scale.shape)}"
        assert scale.dtype.is_floating_point, f"the scale has the dtype {scale.dtype}"

    @both_sites
    def test_scale_is_where_the_activations_are(self, site: CalibrationSite) -> None:
        """The scale is on the activations' device, or on the CPU."""
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            scale = self.scale(site, [self.activations().to(device)])
            assert scale.device.type in ("cpu", device), f"the scale is on {scale.device}, the activations on {device}"

    @both_sites
    def test_scale_does_not_depend_on_the_precision(self, site: CalibrationSite) -> None:
        """Single and double precision give the same scale, up to rounding."""
        x = self.activations()
        wanted, got = self.scale(site, [x]), self.scale(site, [x.float()])
        self.assert_same(got, wanted, rtol=1e-4 + 2 * self.relative_error)

    @both_sites
    def test_scale_is_proportional_to_the_activations(self, site: CalibrationSite) -> None:
        """scale(k·x) = k·scale(x)."""
        self.require("proportional")
        x = self.activations()
        wanted = self.scale(site, [x])
        for k in (0.01, 3.7, 1000.0):
            self.assert_same(self.scale(site, [k * x]), k * wanted, rtol=self.rtol + 2 * self.relative_error)

    def test_dead_channels_have_a_scale(self) -> None:
        """A channel that was silent in calibration must still pass a signal later."""
        x = self.activations()
        x[:, 1] = 0
        scale = self.scale(PER_CHANNEL, torch.split(x, 16))
        assert bool((scale > 0).all()), f"the scales are {scale.tolist()}, the second channel being silent"
        assert bool(torch.isfinite(scale).all())

    def test_channels_are_alike(self) -> None:
        """Channels in another order have the same scales in that order."""
        self.require("alike_channels")
        x, order = self.activations(), torch.tensor([2, 0, 1])
        scale = self.scale(PER_CHANNEL, [x])
        wanted = scale[order] if scale.dim() else scale
        self.assert_same(self.scale(PER_CHANNEL, [x[:, order]]), wanted, rtol=self.rtol + 2 * self.relative_error)

    # Independence of how the data comes --------------------------------------------------------

    @both_sites
    def test_scale_does_not_depend_on_the_batches(self, site: CalibrationSite) -> None:
        """The same data in batches of 1, 7 and 59 samples."""
        self.require("independent_of_batches")
        x = self.activations()
        wanted = self.scale(site, [x])
        for size in (1, 7, 59):
            self.assert_same(self.scale(site, torch.split(x, size)), wanted, rtol=self.rtol)

    @both_sites
    def test_scale_does_not_depend_on_the_order(self, site: CalibrationSite) -> None:
        """The same batches from the last to the first."""
        self.require("independent_of_order")
        batches = torch.split(self.activations(), 7)
        self.assert_same(self.scale(site, batches[::-1]), self.scale(site, batches), rtol=self.rtol)

    @both_sites
    def test_merged_observers_equal_one_that_saw_all(self, site: CalibrationSite) -> None:
        """In any order of merging, including a part without samples and an observer that saw nothing."""
        self.require("mergeable")
        x = self.activations()
        parts: list[Sequence[Tensor]] = [[x[:7]], [x[7:8], x[8:20]], [], [x[20:]]]
        wanted = self.scale(site, [x])
        for order in itertools.permutations(range(len(parts))):
            merged = self.merged(site, [parts[index] for index in order])
            self.assert_same(merged.scale(), wanted, rtol=self.rtol)

    @both_sites
    def test_exact_merges_are_exact(self, site: CalibrationSite) -> None:
        """Where `exact_merge` is True, merging gives the same bits in any order; several processes rely on it."""
        self.require("mergeable")
        if not self.parsed().observer(site).exact_merge:
            pytest.skip(f"the observers of {self.plugin_class.__qualname__} say exact_merge = False")
        x = self.activations()
        wanted = self.scale(site, torch.split(x, 7))
        for order in itertools.permutations([x[:7], x[7:30], x[30:31], x[31:]]):
            found = self.merged(site, [[part] for part in order]).scale()
            assert torch.equal(found, wanted), f"merged in another order, the scale is {found}, not {wanted}"

    def test_observers_travel_between_processes(self) -> None:
        """A pickled observer continues as before; this is how observers of different parts are merged."""
        self.require("mergeable")
        x = self.activations()
        observer = self.merged(PER_CHANNEL, [[x[:20]], [x[20:]]], lambda one: pickle.loads(pickle.dumps(one)))
        self.assert_same(observer.scale(), self.scale(PER_CHANNEL, [x]), rtol=self.rtol)

    def test_observers_are_independent_of_each_other(self) -> None:
        """The observers of different sites do not affect each other."""
        mode, x = self.parsed(), self.activations()
        wanted = self.scale(LAYER, [x])
        one, other = mode.observer(LAYER), mode.observer(LAYER)
        for _ in range(MAX_PASSES):
            one.observe(x.clone())
            other.observe(100 * x)
            asked = [one.end_pass(), other.end_pass()]
            if not any(asked):
                break
        self.assert_same(one.scale(), wanted, rtol=self.rtol)

    # Observing ---------------------------------------------------------------------------------

    def test_observe_leaves_the_activations_alone(self) -> None:
        """It returns None or a replacement of the same shape, and never writes to the activations."""
        x = self.activations()
        shown = x.clone()
        answer = self.parsed().observer(LAYER).observe(shown)
        assert torch.equal(shown, x), "observe() changed the activations in place"
        if answer is not None:
            assert isinstance(answer, Tensor), f"observe() answered {answer!r}"
            assert answer.shape == x.shape, f"observe() passes on {tuple(answer.shape)} for {tuple(x.shape)}"
            assert bool(torch.isfinite(answer).all())

    def test_observers_keep_no_data(self) -> None:
        """No reference to a batch, and no growth with the number of values shown."""
        self.require("constant_memory")
        observer = self.parsed().observer(LAYER)
        sizes, held = [], []
        for _ in range(9):
            x = self.activations(300)
            shown = x.numel()
            held.append(weakref.ref(x))
            observer.observe(x)
            del x
            sizes.append((kept_values(observer), len(pickle.dumps(observer))))
        kept = sum(ref() is not None for ref in held)
        assert not kept, f"the observer holds on to {kept} of {len(held)} batches"
        values, size = (last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
        assert values < 4 * shown, f"the observer grew by {values} values while it was shown {8 * shown}"
        assert size < 4 * shown, f"pickled, the observer grew by {size} bytes while it was shown {8 * shown} values"

    def test_passes_come_to_an_end(self) -> None:
        """`end_pass` returns True or False, and eventually False."""
        observer = self.parsed().observer(LAYER)
        answers = []
        for _ in range(MAX_PASSES):
            observer.observe(self.activations())
            answers.append(observer.end_pass())
            if not answers[-1]:
                break
        assert answers[-1] is False, f"after {len(answers)} passes end_pass() answers {answers[-1]!r}"
        assert all(isinstance(one, bool) for one in answers), f"end_pass() answered {answers}"

    # In a conversion ---------------------------------------------------------------------------

    @pytest.mark.parametrize("channel_wise", [False, True], ids=["layer", "channels"])
    def test_converts_a_network(self, channel_wise: bool) -> None:
        """The converter accepts its scales, and the converted network runs."""
        ann, x = small_network(), torch.rand(50, 1, 8, 8, dtype=torch.float64)
        converter = Converter(
            [x[:30], x[30:]],
            mode=self.written()[0],
            plugins=[self.as_plugin()],
            channel_wise=channel_wise,
            progress=False,
            **self.options,
        )
        rate = simulate(converter(ann), x, T=8)
        assert rate.shape == (50, 3)
        assert bool(torch.isfinite(rate).all())
        scales = [entry.scale for entry in converter.report.entries if entry.scale is not None]
        assert len(scales) == 2
        assert all(0 < low <= high < math.inf for low, high in scales)
        assert converter.report.mode == str(self.parsed())
