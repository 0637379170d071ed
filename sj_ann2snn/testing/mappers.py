"""The contract of layer mappers."""

from __future__ import annotations

import copy
import dataclasses
import gc
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..compat import MemoryModule
from ..contracts.replacements import (
    Average,
    Linear,
    Rearrange,
    Refuse,
    Replacement,
    Weighted,
)
from ..contracts.site import Site
from ..conversion.converter import Converter
from ..errors import UnsupportedError
from ..hooks.specs import hookimpl
from ..simulation.simulate import simulate
from . import stateful
from .contract import PluginTests
from .described import DescribedMemory, is_same_description, keeps_channels_apart, operation_of, outputs_of
from .exported import assert_network_comes_back
from .running import at_once, currents, dropping_rows, step_by_step, tiled

__all__ = ["LayerMapperTests", "MapperCase"]

SAMPLES = 6
STEPS = (64, 512, 4096)


@dataclasses.dataclass(frozen=True)
class MapperCase:
    """A network with an operation that the mapper claims.

    Attributes:
        network: Makes the network, which runs in double precision and in eval mode.
        shape: Shape of one sample.
        refused: The mapper must refuse the operation, so the network's conversion fails.
        memory: The mapper replaces the operation by a module with memory (`Stateful`, or `Analog` with a single tensor
            that the network does not fix); some tests run on this module by itself.
        exported: The network can be written to a file, if the mapper declares `exports`.
        nonnegative: The operation's input is never negative, because a neuron is in front of it; the tests then show it
            no negative values (for a square root or a logarithm, for example).
        options: Options of the mapper.
        tolerance: Relative error of the mean output that must be reached within 4096 steps.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    refused: bool = False
    memory: bool = False
    exported: bool = True
    nonnegative: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 0.01

    def ann(self) -> nn.Module:
        """The network, identical at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.network().double().eval()

    def currents(self, steps: int, *shape: int) -> Tensor:
        """What the module with memory receives, ``[steps, *shape]``."""
        x_seq = currents(steps, *shape)
        return x_seq.abs() if self.nonnegative else x_seq

    def inputs(self) -> Tensor:
        """Samples ``[N, *shape]``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return torch.rand(SAMPLES, *self.shape, dtype=torch.float64)


class LayerMapperTests(PluginTests):
    """Runs the contract of `sj_ann2snn.LayerMapper` on a mapper.

    >>> import torch
    >>> from sj_ann2snn.builtin.pool_mappers import MaxPoolMapper
    >>> from sj_ann2snn.testing import LayerMapperTests, MapperCase
    >>> class TestMaxPool(LayerMapperTests):
    ...     plugin_class = MaxPoolMapper
    ...     @classmethod
    ...     def cases(cls):
    ...         def network():
    ...             return torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool1d(2))
    ...         return {"1d": MapperCase(network, shape=(1, 10))}

    Each case should have a neuron in front of the claimed operation; otherwise nothing there varies over time. Every
    test runs on every case. If a case's report says `exact=False`, its mean output may differ from the ANN's.
    """

    hook = "ann2snn_layer_mappers"

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        """Networks by name, with the operations that the mapper claims."""
        raise NotImplementedError(
            f"{cls.__qualname__}.cases() must name networks with operations that the mapper claims"
        )

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests on every case."""
        kinds: dict[str, Callable[[MapperCase], bool]] = {
            "case": lambda case: not case.refused,
            "memory_case": lambda case: case.memory,
            "refused_case": lambda case: case.refused,
        }
        for argument in kinds.keys() & set(metafunc.fixturenames):
            chosen = {name: case for name, case in self.cases().items() if kinds[argument](case)}
            metafunc.parametrize(argument, list(chosen.values()), ids=list(chosen))

    # What the tests work with ------------------------------------------------------------------

    def asked(self, case: MapperCase) -> list[tuple[Site, Replacement]]:
        """The sites that the mapper received in a conversion of the case, with its replacements."""
        log: list[tuple[Site, Replacement]] = []
        self.converter(case, log).check(case.ann())
        assert log, f"the mapper claims nothing in the network\n{case.ann()}"
        return log

    def converter(self, case: MapperCase, log: list[tuple[Site, Replacement]] | None = None) -> Converter:
        """A converter in which the mapper under test takes precedence."""
        cls = self.plugin_class
        seen: list[tuple[Site, Replacement]] = [] if log is None else log

        class Recording(cls):  # type: ignore[misc, valid-type]  # whatever class is under test
            # The installed one would claim the same sites.
            replaces = (*cls.replaces, cls.name)

            def map(self, site: Site) -> Replacement:
                answer: Replacement = super().map(site)
                seen.append((site, answer))
                return answer

        plugin = SimpleNamespace(ann2snn_layer_mappers=hookimpl(lambda: [Recording]))
        options = {**self.options, **case.options}
        x = case.inputs()
        # With `x` alone, the largest current would equal the threshold, and the order of summation would matter.
        return Converter([torch.cat([x, 1.1 * x])], plugins=[plugin], progress=False, **options)

    def snn(self, case: MapperCase) -> nn.Module:
        """The spiking network of the case."""
        return self.converter(case)(case.ann())

    def with_memory(self, case: MapperCase) -> list[tuple[Site, DescribedMemory]]:
        """The sites for which the mapper described a module with memory."""
        answers = [(site, DescribedMemory.of(site, answer)) for site, answer in self.asked(case)]
        return [(site, answer) for site, answer in answers if answer is not None]

    # The class ---------------------------------------------------------------------------------

    def test_claims_are_types_functions_or_names(self) -> None:
        """Module types, functions, names of tensor methods, and dotted names of functions."""
        for claim in self.plugin_class.claims:
            if isinstance(claim, type):
                assert issubclass(claim, nn.Module), f"{claim!r} is claimed but is not a module type"
            elif isinstance(claim, str):
                known = "." in claim or hasattr(Tensor, claim)
                assert known, f"{claim!r} is claimed; it is neither a method of tensors nor a function's dotted name"
            else:
                assert callable(claim), f"{claim!r} is claimed but is neither a type, a function nor a name"

    # Describing --------------------------------------------------------------------------------

    def test_describes_what_it_claims(self, case: MapperCase) -> None:
        """The mapper returns a `Replacement` other than a refusal."""
        for site, answer in self.asked(case):
            assert isinstance(answer, Replacement), f"map() answered {answer!r} for {site.name}"
            assert not isinstance(answer, Refuse), f"map() refused {site.name}: {answer.why}"
        memory = bool(self.with_memory(case))
        assert memory is case.memory, f"it puts {'a' if memory else 'no'} module with memory there; say memory={memory}"

    def test_describes_the_same_again(self, case: MapperCase) -> None:
        """The core may ask more than once."""
        mapper = self.make(**case.options)
        for site, answer in self.asked(case):
            for _ in range(2):
                again = mapper.map(site)
                same = is_same_description(again, answer)
                assert same, f"map() answered {answer!r}, then {again!r}, for {site.name}"

    def test_leaves_the_network_alone(self, case: MapperCase) -> None:
        """A mapper only describes; the core edits. (The core detects an edit and names the mapper.)"""
        ann = case.ann()
        before = {name: value.clone() for name, value in ann.state_dict().items()}
        self.converter(case).check(ann)
        assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())

    def test_keeps_no_site(self, case: MapperCase) -> None:
        """Neither the mapper nor its replacement keeps the site, and thereby the network, alive."""
        mapper = self.make(**case.options)
        for original, _ in self.asked(case):
            site = dataclasses.replace(original, module=copy.deepcopy(original.module))
            held = weakref.ref(site)
            answer = mapper.map(site)
            del site
            gc.collect()
            assert held() is None, f"the site {original.name} outlives map(), kept by {answer!r} or by the mapper"

    def test_what_is_described_as_linear_is(self, case: MapperCase) -> None:
        """f(x + y) - f(0) = f(x) + f(y) - 2·f(0); for `Average`, f(0) = 0 and channels are not mixed."""
        for site, answer in self.asked(case):
            values = site.values
            inexact = not getattr(answer, "exact", True)
            if not isinstance(answer, (Average, Linear, Rearrange, Weighted)) or len(values) != 1 or inexact:
                continue
            operation = operation_of(site, answer)
            x, y = (torch.randn(values[0].shape, dtype=values[0].dtype) for _ in range(2))
            if case.nonnegative:
                x, y = x.abs(), y.abs()
            zero = operation(torch.zeros_like(x))
            for out, one, other, none in zip(
                *(outputs_of(value) for value in (operation(x + y), operation(x), operation(y), zero)), strict=True
            ):
                said = f"{type(answer).__name__} was answered for {site.name} ({site.operation_name})"
                assert torch.allclose(out - none, one + other - 2 * none), f"{said}, which is not linear"
                if isinstance(answer, Average):
                    assert not none.any(), f"{said}, which adds a constant"
                    assert keeps_channels_apart(operation, x), f"{said}, which mixes channels"

    # Modules with memory -----------------------------------------------------------------------

    def test_memory_makes_a_fresh_module_each_time(self, memory_case: MapperCase) -> None:
        """A SpikingJelly MemoryModule in step mode "s", a separate one for each site."""
        for site, answer in self.with_memory(memory_case):
            one, other = answer.make(), answer.make()
            assert isinstance(one, MemoryModule), f"for {site.name} {one!r} was made, which is not a MemoryModule"
            assert one is not other, f"for {site.name} the same module was made twice"
            assert one.step_mode == "s"
            assert answer.label.strip(), "the label for the report is empty"

    def test_memory_adds_up_to_the_operation(self, memory_case: MapperCase) -> None:
        """At every step, the sum of the outputs so far equals the operation on the summed inputs."""
        for site, answer in self.with_memory(memory_case):
            if answer.analog or not answer.exact:
                continue
            operation = operation_of(site)
            x_seq = memory_case.currents(10, *site.values[0].shape)
            got = step_by_step(answer.make(), x_seq).cumsum(0)
            wanted = torch.stack([operation(x) for x in x_seq.cumsum(0)])
            torch.testing.assert_close(got, wanted, **stateful.TOLERANCE)

    def test_memory_scales_with_its_input(self, memory_case: MapperCase) -> None:
        """The core passes values in other units through it, except for `Analog`."""
        for site, answer in self.with_memory(memory_case):
            if answer.analog:
                continue
            x_seq = memory_case.currents(10, *site.values[0].shape)
            got = step_by_step(answer.make(), 4 * x_seq)
            torch.testing.assert_close(got, 4 * step_by_step(answer.make(), x_seq), **stateful.TOLERANCE)

    @pytest.mark.parametrize(
        "check",
        [
            stateful.assert_step_modes_agree,
            stateful.assert_reset_clears,
            stateful.assert_samples_are_apart,
            stateful.assert_rows_can_be_dropped,
            stateful.assert_copies_are_independent,
            stateful.assert_state_can_be_loaded,
            stateful.assert_leaves_inputs_alone,
        ],
        ids=["step-modes", "reset", "samples", "rows", "copies", "state", "inputs"],
    )
    def test_memory_keeps_the_rules(self, memory_case: MapperCase, check: Callable[..., None]) -> None:
        """Reset works, single-step equals multi-step, samples do not mix, copies are independent."""
        for site, answer in self.with_memory(memory_case):
            check(answer.make, memory_case.currents(10, SAMPLES, *site.values[0].shape[1:]))

    # In a network ------------------------------------------------------------------------------

    def test_normalized_network_computes_what_the_ann_computes(self, case: MapperCase) -> None:
        """The described scales are correct: folding them in changes nothing."""
        ann, x = case.ann(), case.inputs()
        converter = self.converter(case)
        normalized = converter.normalize(ann)
        if all(entry.exact for entry in converter.report.entries):
            with torch.no_grad():
                torch.testing.assert_close(normalized(x), ann(x), rtol=1e-8, atol=1e-8)

    def test_mean_output_nears_the_ann(self, case: MapperCase) -> None:
        """The error of the mean over time falls as 1/T, unless the report says that something is inexact."""
        ann, x = case.ann(), case.inputs()
        converter = self.converter(case)
        snn = converter(ann)
        if not all(entry.exact for entry in converter.report.entries):
            pytest.skip("the report says that this network is approximated")
        with torch.no_grad():
            wanted = ann(x)
        errors: list[float] = []
        for steps in STEPS:
            errors.append(((simulate(snn, x, T=steps) - wanted).norm() / wanted.norm().clamp(min=1e-6)).item())
            if errors[-1] < case.tolerance:
                return
        raise AssertionError(f"relative errors {errors} at T={STEPS}; allowed at the last T: {case.tolerance}")

    def test_network_has_both_step_modes(self, case: MapperCase) -> None:
        """Single-step equals multi-step, and a reset restores the initial behaviour."""
        snn, x = self.snn(case), case.inputs()
        x_seq = x.expand(12, *x.shape)
        wanted = step_by_step(snn, x_seq)
        torch.testing.assert_close(at_once(snn, x_seq), wanted, **stateful.TOLERANCE)
        torch.testing.assert_close(step_by_step(snn, x_seq), wanted, rtol=0, atol=0)

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("budget", [1, 10_000, 1 << 22])
    def test_tiles_and_threads_change_nothing(self, case: MapperCase, budget: int, threads: int) -> None:
        """`simulate` equals the hand-written loop, however it cuts the batch."""
        snn, x = self.snn(case), case.inputs()
        by_hand = step_by_step(snn, x.expand(12, *x.shape)).mean(0)
        with tiled(budget, threads):
            torch.testing.assert_close(simulate(snn, x, T=12), by_hand, **stateful.TOLERANCE)

    def test_settled_samples_can_leave(self, case: MapperCase) -> None:
        """As they do in `evaluate(early_exit=...)`."""
        snn, x = self.snn(case), case.inputs()
        x_seq, rows = x.expand(12, *x.shape), torch.arange(0, SAMPLES, 2)
        wanted = step_by_step(snn, x_seq)[:, rows]
        torch.testing.assert_close(dropping_rows(snn, x_seq, 5, rows), wanted, **stateful.TOLERANCE)

    def test_network_can_be_copied_and_stored(self, case: MapperCase) -> None:
        """By `copy.deepcopy`, and by its `state_dict`."""
        snn, x = self.snn(case), case.inputs()
        x_seq = x.expand(8, *x.shape)
        wanted = step_by_step(snn, x_seq)
        twin = copy.deepcopy(snn)
        twin.load_state_dict(snn.state_dict())
        torch.testing.assert_close(step_by_step(twin, x_seq), wanted, rtol=0, atol=0)

    def test_exported_networks_come_back(self, case: MapperCase) -> None:
        """With the `export_options` of the modules in `exports`."""
        if not case.exported:
            pytest.skip("the case says exported=False")
        assert_network_comes_back(self.snn(case), self.plugin_class.exports, case.inputs())

    def test_refusals_say_why_and_what_helps(self, refused_case: MapperCase) -> None:
        """A refusal names the layer, the reason and a remedy."""
        answers = [answer for _, answer in self.asked(refused_case)]
        refusals = [answer for answer in answers if isinstance(answer, Refuse)]
        assert refused_case.refused, "only refused cases come here"
        assert refusals, f"map() returned {answers}; it had to refuse"
        assert all(refusal.why.strip() for refusal in refusals), "a refusal does not say why"
        assert all(refusal.help.strip() for refusal in refusals), "a refusal does not say what helps"
        with pytest.raises(UnsupportedError) as caught:
            self.converter(refused_case)(refused_case.ann())
        assert refusals[0].why in str(caught.value)
