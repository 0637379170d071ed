"""Error messages stand alone: what was given, what is allowed, where, what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sj_ann2snn import (
    BackendError,
    BackendWarning,
    CalibrationError,
    ConversionError,
    Converter,
    DeadLayerError,
    InputError,
    ModeError,
    NonFiniteError,
    Normalization,
    Observer,
    OptionError,
    QuantileSketch,
    TracingError,
    UnsupportedError,
    VerificationError,
    evaluate,
    simulate,
)
from sj_ann2snn.compat import NEURONS_TAKE_BACKEND

from ..helpers.networks import Written, convert


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU())


def images() -> Tensor:
    return torch.rand(20, 4)


class Forgetful(Observer):
    """Never has seen enough."""

    def observe(self, x: Tensor) -> None: ...

    def merge(self, other: Any) -> None: ...

    def end_pass(self) -> bool:
        return True

    def scale(self) -> Tensor:
        return torch.tensor(1.0)


class Endless(Normalization):
    name = "endless"

    def observer(self, site: Any) -> Observer:
        return Forgetful(site)


# Calibration data ------------------------------------------------------------------------------------


def test_no_calibration_data() -> None:
    with pytest.raises(
        CalibrationError, match=r"No calibration data: Converter\(dataloader=\.\.\.\) takes an iterable"
    ):
        Converter(progress=False)(network())


def test_an_empty_loader() -> None:
    with pytest.raises(
        CalibrationError, match="is empty: the dataloader yields no batches. Give it some training images"
    ):
        convert(network(), [])


def test_a_batch_without_samples() -> None:
    with pytest.raises(CalibrationError, match="batch 0 holds no samples"):
        convert(network(), torch.rand(0, 4))


def test_a_first_batch_that_does_not_fit() -> None:
    with pytest.raises(
        CalibrationError, match=r"batch 0 does not fit.*shape \(2, 5\).*RuntimeError.*Give batches in the form"
    ):
        convert(network(), torch.rand(10, 5))


def test_a_later_batch_that_does_not_fit_is_counted() -> None:
    with pytest.raises(CalibrationError, match=r"batch 2 does not fit.*shape \(10, 5\)"):
        convert(network(), [images(), images(), torch.rand(10, 5)])


@pytest.mark.parametrize(
    ("batch", "told"),
    [("images", "a str"), ({"label": torch.zeros(3)}, "a dict with 'label'"), ([], "a list of nothing"), (5, "a int")],
)
def test_a_batch_that_holds_no_input(batch: Any, told: str) -> None:
    with pytest.raises(CalibrationError, match=rf"A batch holds {told}; the network takes 1 input\(s\): input"):
        convert(network(), [batch])


def test_a_mode_that_needs_more_passes_than_an_iterator_has() -> None:
    with pytest.raises(
        CalibrationError, match="pass 2 found no batches.*can be iterated repeatedly instead of an iterator"
    ):
        Converter(iter([images()]), mode=Endless(), progress=False)(network())


def test_a_mode_that_never_settles() -> None:
    with pytest.raises(CalibrationError, match=r"Mode 'endless' \(your own argument\) still asks .* after 100"):
        Converter([images()[:2]], mode=Endless(), progress=False)(network())


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_values_that_are_not_finite_name_layer_and_batch(value: float, kind: str) -> None:
    bad = images()
    bad[7] = value
    ann = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(
        NonFiniteError, match=rf"activation of 0 is {kind} in calibration batch 1 \(4 values; first affected samples: 7"
    ):
        convert(ann, [images(), bad])


def test_a_large_sum_is_not_an_infinite_activation() -> None:
    data = torch.full((40, 4), 1e38)
    converter = Converter([data], progress=False)
    converter(nn.Sequential(nn.ReLU()))
    assert converter.report["0"].scale == pytest.approx((1e38, 1e38))


def test_a_dead_layer() -> None:
    ann = network()
    nn.init.zeros_(ann[2].weight)
    nn.init.constant_(ann[2].bias, -1.0)
    with pytest.raises(DeadLayerError, match=r"3 never fired: .* all of 2 calibration batches.*Calibrate on more"):
        convert(ann, [images(), images()])


# Networks --------------------------------------------------------------------------------------------


def test_something_that_is_no_module() -> None:
    with pytest.raises(ConversionError, match=r"Only a torch\.nn\.Module can be converted, not builtin"):
        convert(torch.relu, images())  # type: ignore[arg-type]


def test_a_branch_on_values_names_the_module() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    ann = nn.Sequential(nn.ReLU(), Written(forward))
    with pytest.raises(TracingError, match=r"cannot trace '1' \(Written\) at .*test_messages\.py:\d+.*leaf_modules"):
        convert(ann, images())


def test_a_network_that_cannot_be_copied() -> None:
    ann = network()
    ann.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(TracingError, match="Sequential cannot be copied .*deepcopy"):
        convert(ann, images())


def test_an_unknown_leaf_module() -> None:
    ann = nn.Sequential()
    ann.add_module("backbone", network())
    with pytest.raises(TracingError, match=r"leaf_modules names 'backbon', .* Did you mean 'backbone'"):
        convert(ann, images(), leaf_modules=["backbon"])


@pytest.mark.parametrize("option", ["leaf_modules", "convert_only"])
@pytest.mark.parametrize(("given", "named"), [(nn.ReLU, "the class ReLU"), (nn.ReLU(), "a ReLU")])
def test_a_module_in_place_of_its_name(option: str, given: Any, named: str) -> None:
    with pytest.raises(OptionError, match=f"{option} takes qualified names of submodules, .* not {named}"):
        convert(network(), images(), **{option: given})


def test_no_part_at_all() -> None:
    with pytest.raises(
        OptionError, match=r"convert_only names no submodule\. Leave it out to convert the whole network"
    ):
        convert(network(), images(), convert_only=[])


def test_an_unknown_part() -> None:
    ann = nn.Sequential()
    ann.add_module("backbone", network())
    with pytest.raises(OptionError, match=r"convert_only names 'backbon', .* Did you mean 'backbone'"):
        convert(ann, images(), convert_only="backbon")


def test_a_part_that_is_not_called() -> None:
    ann = Written(lambda net, x: net.used(x), used=network(), unused=network())
    with pytest.raises(CalibrationError, match="'unused', which the network did not call on calibration batch 0"):
        convert(ann, images(), convert_only="unused")


def test_a_fixed_batch_size() -> None:
    ann = Written(lambda net, x: net.body(x).view(2, 3), body=network())
    with pytest.raises(ConversionError, match=r"fails on 3 samples .*fixed batch size"):
        convert(ann, images())


def test_a_network_without_activation() -> None:
    with pytest.raises(ConversionError, match="no activation that becomes a spiking neuron"):
        convert(nn.Linear(4, 2), images())


def test_a_network_whose_activations_are_all_refused_lists_them() -> None:
    ann = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.Sigmoid())
    with pytest.raises(
        UnsupportedError, match=r"(?s)2 operations .*- 1 \(GELU\): .*- 3 \(Sigmoid\): .*Retrain with ReLU"
    ):
        convert(ann, images())


def test_a_network_on_several_devices() -> None:
    with FakeTensorMode():  # says that it lies on a GPU where there is none
        second = nn.Linear(4, 4, device="cuda:0")
    ann = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), second)
    with pytest.raises(ConversionError, match=r"several devices \(cpu, cuda:0\).*Converter\(device=\.\.\.\)"):
        convert(ann, images())


def test_batchnorm_without_statistics() -> None:
    ann = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU())
    with pytest.raises(
        ConversionError, match=r"1 \(BatchNorm1d\) has no running statistics .*track_running_stats=True"
    ):
        convert(ann, images())


def test_a_hook_that_changes_results_is_found_out() -> None:
    ann = network()
    ann[1].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(VerificationError, match=r"differs from the ANN by .*\(allowed: 0\.001\).*forward hook"):
        convert(ann, images())


def test_the_report_of_nothing() -> None:
    with pytest.raises(ConversionError, match="no report yet: convert a network first"):
        _ = Converter([images()]).report


# Options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "maximum"}, ModeError, "'maximum' is not known. Did you mean 'max'?"),
        ({"mode": 1.5}, ModeError, r"mode=1\.5 is not allowed: a fraction .* \(0, 1\]"),
        ({"mode": "120%"}, ModeError, r"'120%' is not allowed: a percentage must be in \(0, 100\]"),
        ({"mode": "many%"}, ModeError, r"'many%' is not allowed: write a number"),
        (
            {"mode": "99%", "percentile_bits": 40},
            OptionError,
            "percentile_bits=40 is not allowed: it must be an integer from 1 to 16",
        ),
        ({"maxpool": "min"}, OptionError, "maxpool='min' is not known. Allowed are 'cumulative', 'momentum'"),
        ({"maxpool_momentum": 1.0}, OptionError, r"maxpool_momentum=1\.0 is not allowed: it must be in \[0, 1\)"),
        ({"initial_potential": 1.0}, OptionError, r"initial_potential=1\.0 is not allowed: .* \[0, 1\)"),
        (
            {"neuron": "lif"},
            OptionError,
            r"neuron='lif' is not known. Did you mean 'if'\? Known neurons: 'if' \(sj-ann2snn",
        ),
        ({"momentums": 1}, OptionError, "unknown keyword momentums"),
    ],
)
def test_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Converter([images()], **arguments)


def test_an_unknown_backend() -> None:
    with pytest.raises(BackendError, match="backend='jax' is not known. Allowed are None, 'torch' and 'cupy'"):
        convert(network(), images(), backend="jax")


@pytest.mark.skipif(NEURONS_TAKE_BACKEND, reason="these neurons take a backend")
def test_a_backend_where_neurons_choose_themselves() -> None:
    with pytest.warns(BackendWarning, match="backend='cupy' has no effect on SpikingJelly"):
        convert(network(), images(), backend="cupy")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_backend_that_is_not_here() -> None:
    with pytest.raises(BackendError, match="backend='cupy' needs"):
        convert(network(), images(), backend="cupy")


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="these neurons take no backend")
def test_a_backend_reaches_the_neurons() -> None:
    snn = convert(network(), images(), backend="torch")
    assert {module.backend for module in snn.modules() if hasattr(module, "backend")} == {"torch"}


def test_sketches_that_do_not_fit() -> None:
    with pytest.raises(
        InputError, match="A sketch with 2 rows, 12 bits and 24 octaves cannot be merged into one with 1 rows"
    ):
        QuantileSketch().merge(QuantileSketch(2))


# Simulation and evaluation ---------------------------------------------------------------------------


@pytest.fixture
def snn() -> nn.Module:
    spiking: nn.Module = convert(network(), images())
    return spiking


@pytest.mark.parametrize("steps", [0, -3, 2.0, True, None])
def test_numbers_of_steps(snn: nn.Module, steps: Any) -> None:
    with pytest.raises(InputError, match=f"T={steps!r} is not allowed: .* must be an integer of at least 1"):
        simulate(snn, images(), steps)


@pytest.mark.parametrize(
    ("x", "message"), [("images", "must be a tensor"), ((), "must be a tensor"), (torch.rand(0, 4), "has no samples")]
)
def test_inputs(snn: nn.Module, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(snn, x, 3)


def nothing() -> Iterator[Any]:
    yield from ()


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: nothing(), "The loader is empty"),
        (lambda: [images()], r"holds a tensor of shape \(20, 4\).*but no labels: .*use simulate"),
        (lambda: [{"input": images()}], "holds a dict with 'input' but no labels"),
        (
            lambda: [(torch.rand(5, 9), torch.zeros(5, dtype=torch.int64))],
            r"Batch 0 cannot be evaluated.*shape \(5, 9\)",
        ),
    ],
)
def test_loaders(snn: nn.Module, loader: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(snn, loader(), 3, progress=False)


def test_a_network_that_is_no_classifier() -> None:
    ann = nn.Sequential(nn.ReLU(), nn.Conv1d(1, 2, 1))
    snn = convert(ann, torch.rand(9, 1, 5))
    with pytest.raises(
        InputError, match=r"network's output is shape \(9, 2, 5\): a score .* needs labels of shape \(9, 5\)"
    ):
        evaluate(snn, [(torch.rand(9, 1, 5), torch.zeros(9, dtype=torch.int64))], 3, progress=False)
