"""The contract of layer mappers."""

from __future__ import annotations

import copy
import dataclasses
import gc
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..compat import MemoryModule
from ..contracts.replacements import (
    Analog,
    Average,
    Linear,
    NeuronAfterPool,
    Rearrange,
    Refuse,
    Replacement,
    Spike,
    Stateful,
    Weighted,
)
from ..contracts.site import Site, Value
from ..conversion.converter import Converter
from ..errors import UnsupportedError
from ..hooks.specs import hookimpl
from ..simulation.simulate import simulate
from ..support.trees import map_leaves
from . import stateful
from .contract import PluginTests
from .exported import assert_network_comes_back
from .running import at_once, currents, dropping_rows, step_by_step, tiled

__all__ = ["LayerMapperTests", "MapperCase"]

SAMPLES = 6
STEPS = (64, 512, 4096)


@dataclasses.dataclass(frozen=True)
class MapperCase:
    """A network with an operation that the mapper claims.

    Attributes:
        network: Makes it; it is run in double precision and in eval mode.
        shape: Shape of one sample.
        refused: The mapper is to refuse the operation, and the network's conversion fails therefore.
        memory: The mapper puts a module with memory there (`Stateful`, or `Analog` where a single tensor is not fixed
            by the network), on which some tests are run by itself.
        exported: The network can be written to a file, if the mapper declares `exports`.
        options: Of the mapper.
        tolerance: Relative error of the mean output that must be reached, by 4096 steps at the latest.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    refused: bool = False
    memory: bool = False
    exported: bool = True
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 0.01

    def ann(self) -> nn.Module:
        """The network, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.network().double().eval()

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

    Each case should have a neuron in front of the claimed operation, or nothing there varies over time. Every test runs
    on every case. Where a case's report says `exact=False`, its mean output may differ from the ANN's.
    """

    hook = "ann2snn_layer_mappers"

    @classmethod
    def cases(cls) -> Mapping[str, MapperCase]:
        """Networks by name; say here which operations the mapper is for."""
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
        """What the mapper was asked in a conversion of the case, and what it answered."""
        log: list[tuple[Site, Replacement]] = []
        self.converter(case, log).check(case.ann())
        assert log, f"the mapper claims nothing in the network\n{case.ann()}"
        return log

    def converter(self, case: MapperCase, log: list[tuple[Site, Replacement]] | None = None) -> Converter:
        """A converter in which the mapper under test has the first say."""
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
        # Of `x` alone the largest current would meet the threshold to the last bit, and the order of summation count.
        return Converter([torch.cat([x, 1.1 * x])], plugins=[plugin], progress=False, **options)

    def snn(self, case: MapperCase) -> nn.Module:
        """The spiking network of the case."""
        return self.converter(case)(case.ann())

    def with_memory(self, case: MapperCase) -> list[tuple[Site, _Memory]]:
        """The sites for which the mapper described a module with memory."""
        answers = [(site, _Memory.of(site, answer)) for site, answer in self.asked(case)]
        return [(site, answer) for site, answer in answers if answer is not None]

    # The class ---------------------------------------------------------------------------------

    def test_claims_are_types_functions_or_names(self) -> None:
        """Module types, functions, names of tensor methods, and dotted names of functions."""
        for claim in self.plugin_class.claims:
            if isinstance(claim, type):
                assert issubclass(claim, nn.Module), f"{claim!r} is claimed and is no module type"
            elif isinstance(claim, str):
                known = "." in claim or hasattr(Tensor, claim)
                assert known, f"{claim!r} is claimed; it is neither a method of tensors nor a function's dotted name"
            else:
                assert callable(claim), f"{claim!r} is claimed and is neither a type, a function nor a name"

    # Describing --------------------------------------------------------------------------------

    def test_describes_what_it_claims(self, case: MapperCase) -> None:
        """The core asks it, and it answers a `Replacement` other than a refusal."""
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
                assert type(again) is type(answer), f"map() answered {answer!r}, then {again!r}, for {site.name}"

    def test_leaves_the_network_alone(self, case: MapperCase) -> None:
        """It describes; the core alone edits. (The core finds an edit out and names the mapper.)"""
        ann = case.ann()
        before = {name: value.clone() for name, value in ann.state_dict().items()}
        self.converter(case).check(ann)
        assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())

    def test_keeps_no_site(self, case: MapperCase) -> None:
        """Neither the mapper nor its answer holds on to the site, and with it to the network."""
        mapper = self.make(**case.options)
        for original, _ in self.asked(case):
            site = dataclasses.replace(original, module=copy.deepcopy(original.module))
            held = weakref.ref(site)
            answer = mapper.map(site)
            del site
            gc.collect()
            assert held() is None, f"the site {original.name} outlives map(), kept by {answer!r} or by the mapper"

    def test_what_is_described_as_linear_is(self, case: MapperCase) -> None:
        """f(x + y) - f(0) = f(x) + f(y) - 2·f(0); for `Average` f(0) = 0 and channels are kept apart."""
        for site, answer in self.asked(case):
            values = site.values
            inexact = not getattr(answer, "exact", True)
            if not isinstance(answer, (Average, Linear, Rearrange, Weighted)) or len(values) != 1 or inexact:
                continue
            operation = _operation(site, answer)
            x, y = (torch.randn(values[0].shape, dtype=values[0].dtype) for _ in range(2))
            zero = operation(torch.zeros_like(x))
            for out, one, other, none in zip(
                *(_outputs(value) for value in (operation(x + y), operation(x), operation(y), zero)), strict=True
            ):
                said = f"{type(answer).__name__} was answered for {site.name} ({site.operation_name})"
                assert torch.allclose(out - none, one + other - 2 * none), f"{said}, which is not linear"
                if isinstance(answer, Average):
                    assert not none.any(), f"{said}, which adds something of its own"
                    assert _keeps_channels_apart(operation, x), f"{said}, which mixes channels"

    # Modules with memory -----------------------------------------------------------------------

    def test_memory_makes_a_fresh_module_each_time(self, memory_case: MapperCase) -> None:
        """A MemoryModule of SpikingJelly in step mode "s", shared by no two sites."""
        for site, answer in self.with_memory(memory_case):
            one, other = answer.make(), answer.make()
            assert isinstance(one, MemoryModule), f"for {site.name} {one!r} was made, which is no MemoryModule"
            assert one is not other, f"for {site.name} the same module was made twice"
            assert one.step_mode == "s"
            assert answer.label.strip(), "the report has no word for it"

    def test_memory_adds_up_to_the_operation(self, memory_case: MapperCase) -> None:
        """At every step the outputs so far sum up to the operation on the summed inputs."""
        for site, answer in self.with_memory(memory_case):
            if answer.analog or not answer.exact:
                continue
            operation = _operation(site)
            x_seq = currents(10, *site.values[0].shape)
            got = step_by_step(answer.make(), x_seq).cumsum(0)
            wanted = torch.stack([operation(x) for x in x_seq.cumsum(0)])
            torch.testing.assert_close(got, wanted, **stateful.TOLERANCE)

    def test_memory_scales_with_its_input(self, memory_case: MapperCase) -> None:
        """The core carries values in other units through it, `Analog` excepted."""
        for site, answer in self.with_memory(memory_case):
            if answer.analog:
                continue
            x_seq = currents(10, *site.values[0].shape)
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
        """Resettable, single-step equals multi-step, samples apart, copies independent."""
        for site, answer in self.with_memory(memory_case):
            check(answer.make, currents(10, SAMPLES, *site.values[0].shape[1:]))

    # In a network ------------------------------------------------------------------------------

    def test_normalized_network_computes_what_the_ann_computes(self, case: MapperCase) -> None:
        """The described scales are right: with them folded in, nothing changes."""
        ann, x = case.ann(), case.inputs()
        converter = self.converter(case)
        normalized = converter.normalize(ann)
        if all(entry.exact for entry in converter.report.entries):
            with torch.no_grad():
                torch.testing.assert_close(normalized(x), ann(x), rtol=1e-8, atol=1e-8)

    def test_mean_output_nears_the_ann(self, case: MapperCase) -> None:
        """The error of the mean over time falls as 1/T, unless the report calls something inexact."""
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
        raise AssertionError(f"relative errors {errors} at T={STEPS}; {case.tolerance} is allowed at last")

    def test_network_has_both_step_modes(self, case: MapperCase) -> None:
        """Single-step equals multi-step, and after a reset the same comes out again."""
        snn, x = self.snn(case), case.inputs()
        x_seq = x.expand(12, *x.shape)
        wanted = step_by_step(snn, x_seq)
        torch.testing.assert_close(at_once(snn, x_seq), wanted, **stateful.TOLERANCE)
        torch.testing.assert_close(step_by_step(snn, x_seq), wanted, rtol=0, atol=0)

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("budget", [1, 10_000, 1 << 22])
    def test_tiles_and_threads_change_nothing(self, case: MapperCase, budget: int, threads: int) -> None:
        """`simulate` equals the loop written by hand, however it cuts the batch."""
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
        """By what `export_options` says of the modules in `exports`."""
        if not case.exported:
            pytest.skip("the case says exported=False")
        assert_network_comes_back(self.snn(case), self.plugin_class.exports, case.inputs())

    def test_refusals_say_why_and_what_helps(self, refused_case: MapperCase) -> None:
        """A refusal names the layer, the reason, and a way out."""
        answers = [answer for _, answer in self.asked(refused_case)]
        refusals = [answer for answer in answers if isinstance(answer, Refuse)]
        assert refused_case.refused, "only refused cases come here"
        assert refusals, f"map() answered {answers}; it was to refuse"
        assert all(refusal.why.strip() for refusal in refusals), "a refusal does not say why"
        assert all(refusal.help.strip() for refusal in refusals), "a refusal does not say what helps"
        with pytest.raises(UnsupportedError) as caught:
            self.converter(refused_case)(refused_case.ann())
        assert refusals[0].why in str(caught.value)


@dataclasses.dataclass(frozen=True)
class _Memory:
    """A module with memory that takes one tensor, as a mapper described it.

    Attributes:
        make: Makes it.
        label: What the report calls it.
        exact: Its mean over time is the ANN's operation.
        analog: It stands for an operation of any kind.
    """

    make: Callable[[], nn.Module]
    label: str
    exact: bool
    analog: bool

    @staticmethod
    def of(site: Site, answer: Replacement) -> _Memory | None:
        if isinstance(answer, NeuronAfterPool):
            answer = answer.otherwise  # what stands there in a network that leaves the choice
        if isinstance(answer, Stateful):
            return _Memory(answer.make, answer.label, answer.exact, analog=False)
        described = answer.analog if isinstance(answer, Spike) else answer
        if not isinstance(described, Analog) or any(value.constant is None for value in site.values[1:]):
            return None
        make = partial(described.make, _operation(site), (0,))
        return _Memory(make, described.label, described.exact, analog=True)


def _operation(site: Site, answer: Replacement | None = None) -> Callable[[Tensor], Any]:
    """What the site computes, or what the mapper puts there instead, as a function of its first tensor."""
    made = answer.make if isinstance(answer, Average) else None
    first = site.values[0]

    def compute(x: Tensor) -> Any:
        if made is not None:
            return made()(x)
        if site.module is not None:
            return site.module(x)

        def value(leaf: Any) -> Any:
            if leaf is first:
                return x
            return leaf.constant if isinstance(leaf, Value) else leaf

        args, kwargs = map_leaves(site.args, value), map_leaves(site.kwargs, value)
        if isinstance(site.operation, str):
            return getattr(args[0], site.operation)(*args[1:], **kwargs)
        return site.operation(*args, **kwargs)

    def run(x: Tensor) -> Any:
        with torch.no_grad():
            return compute(x)

    return run


def _outputs(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [one for one in value if isinstance(one, Tensor)]


def _keeps_channels_apart(operation: Callable[[Tensor], Any], x: Tensor) -> bool:
    """True if a change in one channel shows in that channel only."""
    if x.dim() < 2 or x.shape[1] < 2:
        return True
    changed = x.clone()
    changed[:, 0] += 1
    out, other = operation(x), operation(changed)
    return bool(out.dim() >= 2 and torch.equal(out[:, 1:], other[:, 1:]))
