"""What cannot be prepared for conversion: the error names the module, the device or the site, and the converter stays usable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    ConversionError,
    Converter,
    TracingError,
    UnsupportedError,
    errors,
)

from ..helpers.networks import convert


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 4)


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


@pytest.mark.parametrize("first", ["meta", "cpu"])
def test_a_network_without_values(first: str) -> None:
    ann = nn.Sequential(nn.Linear(4, 6, device=first), nn.ReLU(), nn.Linear(6, 3, device="meta"))
    with pytest.raises(ConversionError, match="on the device 'meta'.*load_state_dict"):
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
    assert "The sites are 0, 1, 2." in str(caught.value)


def test_a_failure_leaves_the_converter_usable() -> None:
    converter = Converter([images()], progress=False)
    with pytest.raises(UnsupportedError, match=r"1 \(Softmax\)"):
        converter(nn.Sequential(network(), nn.Softmax(1)))
    converter(network())
    assert len(converter.report.scales) == 1
