"""A recipe with which SpikingJelly 2.0's own converter makes what `Converter` makes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from .compat import recipe_base
from .conversion.converter import Converter
from .conversion.legacy_arguments import UNSET, translate_options, warn_of_momentum
from .conversion.report import ConversionReport
from .errors import ConversionError, OptionError

__all__ = ["ConverterRecipe", "recipe"]


def recipe(
    dataloader: Iterable[Any] | None = None,
    mode: object = "max",
    momentum: Any = UNSET,
    fuse_flag: bool = True,
    channel_wise: bool | None = None,
    **options: Any,
) -> ConverterRecipe:
    """A recipe for SpikingJelly 2.0's own `Converter`, with every mode and option of `sj_ann2snn.Converter`.

    >>> import torch
    >>> import sj_ann2snn
    >>> from spikingjelly.activation_based import ann2snn
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> if hasattr(ann2snn, "FXConversionRecipe"):  # SpikingJelly 2.0
    ...     recipe = sj_ann2snn.recipe(dataloader=[torch.rand(100, 4)], mode="99.9%", progress=False)
    ...     snn = ann2snn.Converter(recipe=recipe, device="cpu").convert(ann)

    The network is the one that `sj_ann2snn.Converter(dataloader, mode=mode, ...)(ann)` returns, on the device of
    SpikingJelly's converter. `ann` itself stays as it is.

    Args:
        dataloader: Calibration data, as for `Converter`.
        mode: As for `Converter`: `"max"`, `"99.9%"`, `0.5`, the name of any plugin's mode, or an instance.
        momentum: Without effect.
        fuse_flag: False keeps every BatchNorm as an affine map.
        channel_wise: One scale per channel instead of one per layer.
        options: Any other keyword of `Converter` but `device`. Of SpikingJelly's `RateCodingRecipe`, whose positional
            arguments are the first five, `half_threshold=True` stands for `initial_potential=0.5` and
            `pre_spike_maxpool=True` for `maxpool="pre-spike"`, be it per channel or per layer.

    Raises:
        VersionError: SpikingJelly has no recipes: the installed one is 0.0.0.0.14.
        ModeError, OptionError, ConflictError: As for `Converter`.
    """
    made = _recipe_class()
    if "device" in options:
        raise OptionError(
            f"recipe got device={options['device']!r}. The device is an argument of SpikingJelly's converter: "
            "Converter(recipe=..., device=...)."
        )
    if momentum is not UNSET:
        warn_of_momentum(momentum, stacklevel=3)
    options = translate_options(options, stacklevel=3)
    converter = Converter(dataloader, mode=mode, fuse_flag=fuse_flag, channel_wise=channel_wise, **options)
    return made(converter)


class ConverterRecipe:
    """What `recipe` returns; also an `FXConversionRecipe` of SpikingJelly.

    SpikingJelly's converter calls the methods in the order in which they stand here. It traces the network by
    itself, which fewer networks allow than `Converter` takes; so the whole conversion is done before that, and what
    it traces is a stand-in.

    Attributes:
        converter: The converter behind it, for `converter.check(ann)` and `converter.normalization`.
    """

    def __init__(self, converter: Converter) -> None:
        self.converter = converter
        self._report: ConversionReport | None = None
        # By SpikingJelly's converter, as one recipe may serve several.
        self._converted: WeakKeyDictionary[Any, nn.Module] = WeakKeyDictionary()

    @property
    def report(self) -> ConversionReport:
        """What the last conversion mapped to what, by whom, with which scale.

        Raises:
            ConversionError: Nothing was converted yet.
        """
        if self._report is None:
            raise ConversionError("There is no report yet: convert a network first, Converter(recipe).convert(ann).")
        return self._report

    def before_trace(self, converter: Any, ann: nn.Module) -> nn.Module:
        """Convert `ann`, and give SpikingJelly's converter something else to trace."""
        own = copy.copy(self.converter)
        own.device = torch.device(converter.device)
        self._converted[converter] = own(ann)
        self._report = own.report
        return nn.Identity()

    def after_trace(self, converter: Any, fx_model: fx.GraphModule) -> nn.Module:
        """The converted network, which the steps that follow leave as it is."""
        return self._converted.pop(converter)


@functools.cache
def _recipe_class() -> type[ConverterRecipe]:
    """`ConverterRecipe` as a class that SpikingJelly knows, made only where somebody wants a recipe."""
    return type("ConverterRecipe", (ConverterRecipe, recipe_base()), {"__module__": __name__})
