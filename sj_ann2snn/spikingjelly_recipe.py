"""A recipe that lets SpikingJelly 2.0's own converter produce what `Converter` produces."""

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

    The result is the network that `sj_ann2snn.Converter(dataloader, mode=mode, ...)(ann)` returns, on the device of
    SpikingJelly's converter. `ann` itself is left as it is.

    Args:
        dataloader: Calibration data, as for `Converter`.
        mode: As for `Converter`: `"max"`, `"99.9%"`, `0.5`, the name of any plugin's mode, or an instance.
        momentum: No effect.
        fuse_flag: False keeps every BatchNorm as an affine map.
        channel_wise: One scale per channel instead of one per layer.
        options: Any other keyword of `Converter` except `device`. The first five arguments are the positional arguments
            of SpikingJelly's `RateCodingRecipe`. Of its keywords, `half_threshold=True` means `initial_potential=0.5`,
            and `pre_spike_maxpool=True` means `maxpool="pre-spike"`, per channel or per layer.

    Raises:
        VersionError: The installed SpikingJelly is 0.0.0.0.14, which has no recipes.
        ModeError, OptionError, ConflictError: As for `Converter`.
    """
    made = _recipe_class()
    if "device" in options:
        raise OptionError(
            f"recipe got device={options['device']!r}. Give the device to SpikingJelly's converter: "
            "Converter(recipe=..., device=...)."
        )
    if momentum is not UNSET:
        warn_of_momentum(momentum, stacklevel=3)
    options = translate_options(options, stacklevel=3)
    converter = Converter(dataloader, mode=mode, fuse_flag=fuse_flag, channel_wise=channel_wise, **options)
    return made(converter)


class ConverterRecipe:
    """What `recipe` returns; also an `FXConversionRecipe` of SpikingJelly.

    SpikingJelly's converter calls the methods in the order in which they are defined here. It traces the network by
    itself, which works for fewer networks than `Converter` can convert. So the recipe does the whole conversion before
    that, and SpikingJelly traces a placeholder.

    Attributes:
        converter: The converter that the recipe uses, for `converter.check(ann)` and `converter.normalization`.
    """

    def __init__(self, converter: Converter) -> None:
        self.converter = converter
        self._report: ConversionReport | None = None
        # Keyed by SpikingJelly's converter, because several converters may share a recipe.
        self._converted: WeakKeyDictionary[Any, nn.Module] = WeakKeyDictionary()

    @property
    def report(self) -> ConversionReport:
        """The report of the last conversion: what each operation became, which mapper decided, with which scale.

        Raises:
            ConversionError: Nothing has been converted yet.
        """
        if self._report is None:
            raise ConversionError("There is no report yet: convert a network first, Converter(recipe).convert(ann).")
        return self._report

    def before_trace(self, converter: Any, ann: nn.Module) -> nn.Module:
        """Convert `ann`, and return a placeholder for SpikingJelly's converter to trace."""
        own = copy.copy(self.converter)
        own.device = torch.device(converter.device)
        self._converted[converter] = own(ann)
        self._report = own.report
        return nn.Identity()

    def after_trace(self, converter: Any, fx_model: fx.GraphModule) -> nn.Module:
        """The converted network; the following methods leave it as it is."""
        return self._converted.pop(converter)


@functools.cache
def _recipe_class() -> type[ConverterRecipe]:
    """`ConverterRecipe` as a subclass of SpikingJelly's recipe, made only when a recipe is requested."""
    return type("ConverterRecipe", (ConverterRecipe, recipe_base()), {"__module__": __name__})
