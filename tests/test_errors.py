"""Errors beyond those of single messages: their types, their causes, and that none says what it does not know."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Ann2SnnError,
    CalibrationError,
    ConversionError,
    Converter,
    DeadLayerError,
    NonFiniteError,
    PluginError,
    TracingError,
    UnsupportedError,
    VerificationError,
    errors,
)
from sj_ann2snn.conversion.verify import relative_error, require_same

from .networks import Written, convert


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 4)


# Types ----------------------------------------------------------------------------------------------


def test_every_error_is_the_packages_own() -> None:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert sorted(cls.__name__ for cls in found) == sorted(errors.__all__)
    found.remove(errors.EvaluationInterrupted)  # Ctrl-C is no error, and `except Exception` must not catch it
    assert issubclass(errors.EvaluationInterrupted, KeyboardInterrupt)
    for cls in found:
        assert issubclass(cls, UserWarning if cls.__name__.endswith("Warning") else Ann2SnnError)
        assert inspect.getdoc(cls)


def test_errors_can_be_caught_as_what_python_calls_them() -> None:
    assert issubclass(errors.ModeError, ValueError)
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.OptionError, TypeError)
    assert issubclass(errors.OutOfMemoryError, MemoryError)
    assert issubclass(errors.ScaleError, PluginError)
    for cls in (TracingError, UnsupportedError, VerificationError, CalibrationError):
        assert issubclass(cls, ConversionError)
    for cls in (NonFiniteError, DeadLayerError):
        assert issubclass(cls, CalibrationError)


# Messages are the package's own words -----------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_debugging_notes_of_torch_in_values_that_are_not_finite(value: float) -> None:
    data = images()
    data[3, 1] = value
    with pytest.raises(NonFiniteError) as caught:
        convert(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), data)
    assert "While executing" not in str(caught.value)
    assert "tlparse" not in str(caught.value)


def test_no_debugging_notes_of_torch_where_a_batch_does_not_fit() -> None:
    with pytest.raises(CalibrationError, match="batch 1 does not fit") as caught:
        convert(network(), [images(), torch.rand(5, 3)])
    assert "While executing" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_no_debugging_notes_of_torch_where_the_batch_size_is_fixed() -> None:
    ann = Written(lambda net, x: net.body(x).view(2, 3), body=network())
    with pytest.raises(ConversionError, match="fixed batch size") as caught:
        convert(ann, images())
    assert "While executing" not in str(caught.value)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_batch_that_is_not_finite_is_named(position: int) -> None:
    batches = [images(4) for _ in range(3)]
    batches[position][2, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=rf"calibration batch {position} \(\d+ values, samples 2 of"):
        convert(network(), batches)


def test_the_layer_that_is_not_finite_is_named_and_not_the_ones_behind() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    with torch.no_grad():
        ann[2].bias[3] = float("inf")
    with pytest.raises(NonFiniteError, match="The activation of 3 is infinite"):
        convert(ann, images())


@pytest.mark.parametrize("progress", [False, True])
def test_an_empty_generator_is_empty_calibration_data(progress: bool) -> None:
    def nothing() -> Any:
        yield from ()

    with pytest.raises(CalibrationError, match="yields no batch"):
        Converter(nothing(), progress=progress)(network())


def test_an_exhausted_iterator_is_empty_calibration_data() -> None:
    once = iter([images()])
    converter = Converter(once, progress=False)
    converter(network())
    with pytest.raises(CalibrationError, match="yields no batch"):
        converter(network())


@pytest.mark.parametrize("loader", [5, images, network()])
def test_calibration_data_that_is_not_iterable(loader: Any) -> None:
    with pytest.raises(CalibrationError, match="iterable of batches"):
        Converter(loader, progress=False)(network())


def test_a_tensor_is_not_a_loader() -> None:
    with pytest.raises(CalibrationError, match="batch 0 does not fit the network"):
        Converter(images(), progress=False)(network())


def test_a_later_batch_without_samples() -> None:
    with pytest.raises(CalibrationError, match="batch 1") as caught:
        convert(network(), [images(), images(0)])
    assert not isinstance(caught.value, PluginError)


def test_loaders_that_fail_are_not_swallowed() -> None:
    def broken() -> Any:
        yield images()
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        Converter(broken(), progress=False)(network())


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("mode", ["max", "99%", 0.5])
def test_a_dead_layer_is_named_in_every_mode(mode: Any, channel_wise: bool) -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.constant_(ann[2].weight, -1.0)
    nn.init.constant_(ann[2].bias, -1.0)
    with pytest.raises(DeadLayerError, match=r"^3 never fired: .* all of 2 calibration batches") as caught:
        convert(ann, [images(), images()], mode=mode, channel_wise=channel_wise)
    assert f"'{Converter(mode=mode).normalization}'" in str(caught.value)


# Verification -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda ann: ann[1].register_forward_hook(lambda module, inputs, output: output + 1),
        lambda ann: ann[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)),
        lambda ann: ann[1].register_forward_hook(lambda module, args, kwargs, output: output * 3, with_kwargs=True),
        lambda ann: ann.register_forward_hook(lambda module, inputs, output: output.softmax(1)),
    ],
)
def test_hooks_that_change_results_are_found_out(change: Any) -> None:
    ann = network()
    change(ann)
    with pytest.raises(VerificationError, match="first two calibration samples"):
        convert(ann, images())
    snn = convert(ann, images(), verify=False)  # by the user's word
    assert snn is not None


def test_hooks_that_only_look_are_no_problem() -> None:
    ann = network()
    seen: list[Any] = []
    ann[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert convert(ann, images()) is not None


def test_state_kept_between_calls_is_found_out() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * float(self.calls)

    with pytest.raises(VerificationError, match="state kept between calls"):
        convert(nn.Sequential(network(), Counting()), images())


def test_randomness_at_inference_is_found_out() -> None:
    ann = Written(lambda net, x: net.body(x + torch.randn(4)), body=network())
    with pytest.raises(VerificationError, match="randomness at inference"):
        convert(ann, images())


def test_outputs_are_compared_wherever_they_are() -> None:
    one = {"a": torch.ones(3), "b": [torch.zeros(2), (torch.full((2,), 5.0), "text", None)]}
    same = {"a": torch.ones(3), "b": [torch.zeros(2), (torch.full((2,), 5.0), "text", None)]}
    require_same(same, one)
    same["b"][1][0][1] = 5.1  # type: ignore[index]
    with pytest.raises(VerificationError):
        require_same(same, one)
    assert relative_error(same, one)[0] == pytest.approx(0.1 / 50**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (torch.ones(3), torch.ones(4)),
        (torch.ones(3), (torch.ones(3), torch.ones(3))),
        ((torch.ones(3), torch.ones(3)), torch.ones(3)),
        (torch.ones(3), torch.full((3,), float("nan"))),
        (torch.full((3,), float("nan")), torch.ones(3)),
        (torch.full((3,), 1e-3), torch.zeros(3)),
    ],
)
def test_outputs_that_are_not_comparable_differ(got: Any, wanted: Any) -> None:
    with pytest.raises(VerificationError):
        require_same(got, wanted)


@pytest.mark.parametrize(("dtype", "allowed", "too_much"), [(torch.float32, 5e-4, 5e-3), (torch.float64, 5e-9, 5e-8)])
def test_what_rounding_explains_is_allowed(dtype: torch.dtype, allowed: float, too_much: float) -> None:
    wanted = torch.ones(10, dtype=dtype)
    require_same(wanted * (1 + allowed), wanted)
    with pytest.raises(VerificationError):
        require_same(wanted * (1 + too_much), wanted)


# Networks ---------------------------------------------------------------------------------------------


def test_an_untraceable_loop_names_the_innermost_module_and_its_line() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for row in x:
                x = x + row
            return x

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(Inner())

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.block(x))

    line = Inner.forward.__code__.co_firstlineno + 1
    with pytest.raises(TracingError, match=r"cannot trace 'block\.0' \(Inner\)") as caught:
        convert(Outer(), images())
    assert f"{__file__}:{line}" in str(caught.value)


def test_a_network_on_a_device_without_data() -> None:
    ann = nn.Sequential(nn.Linear(4, 6, device="meta"), nn.ReLU(), nn.Linear(6, 3, device="meta"))
    with pytest.raises(ConversionError):
        convert(ann, images())


@pytest.mark.parametrize("given", [None, 5, "network", nn.Linear, lambda x: x])
@pytest.mark.parametrize("method", ["__call__", "normalize", "check"])
def test_only_modules_are_converted(given: Any, method: str) -> None:
    converter = Converter([images()], progress=False)
    with pytest.raises(ConversionError, match=r"Only a torch\.nn\.Module can be converted, not"):
        getattr(converter, method)(given)


def test_a_named_site_that_does_not_exist() -> None:
    converter = Converter([images()], mappers={"layers.1": "relu"}, progress=False)
    with pytest.raises(errors.OptionError, match=r"'layers\.1', which is not a site of the network") as caught:
        converter(network())
    assert "Its sites are 0, 1, 2." in str(caught.value)


def test_a_failure_leaves_the_converter_usable() -> None:
    converter = Converter([images()], progress=False)
    with pytest.raises(UnsupportedError):
        converter(nn.Sequential(network(), nn.Softmax(1)))
    assert converter(network()) is not None
    assert len(converter.report.scales) == 1
