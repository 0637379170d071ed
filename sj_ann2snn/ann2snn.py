"""SpikingJelly's package `ann2snn` with this package's conversion: a script changes only its import line.

>>> from sj_ann2snn import ann2snn  # instead of: from spikingjelly.activation_based import ann2snn
>>> ann2snn.download_url.__module__  # everything unrelated to ReLU networks is SpikingJelly's
'spikingjelly.activation_based.ann2snn.utils'

| name | what it is |
|---|---|
| `RateCodingRecipe` | `sj_ann2snn.recipe`; SpikingJelly 2.0 only |
| `Converter` | with a recipe, SpikingJelly's own converter; with the arguments of 0.0.0.0.14, `sj_ann2snn.Converter` |
| any other | SpikingJelly's |
"""

from __future__ import annotations

from typing import Any

from .compat import own_ann2snn, spikingjelly_version
from .conversion.converter import Converter as _Converter
from .spikingjelly_recipe import recipe


def _has_recipes() -> bool:
    return hasattr(own_ann2snn(), "FXConversionRecipe")


def _either_converter(*args: Any, **keywords: Any) -> Any:
    """SpikingJelly's converter if a recipe is given, otherwise this package's."""
    theirs = own_ann2snn()
    recipes = (str, theirs.FXConversionRecipe, theirs.ModuleConversionRecipe)
    if "recipe" in keywords or isinstance(args[0] if args else None, recipes):
        return theirs.Converter(*args, **keywords)
    return _Converter(*args, **keywords)


def __getattr__(name: str) -> Any:
    # Python itself looks up names such as __path__, which would make this a package.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Converter":
        return _either_converter if _has_recipes() else _Converter
    if name == "RateCodingRecipe" and _has_recipes():
        return recipe
    theirs = own_ann2snn()
    if hasattr(theirs, name):
        return getattr(theirs, name)
    hint = ""
    if not _has_recipes() and name.endswith(("Recipe", "Converter")):
        hint = " Recipes came with 2.0; Converter(dataloader=..., mode=...) takes every mode of sj_ann2snn."
    raise AttributeError(f"ann2snn of SpikingJelly {spikingjelly_version()} has no {name!r}.{hint}")


def __dir__() -> list[str]:
    return sorted({"Converter", *(name for name in dir(own_ann2snn()) if not name.startswith("_"))})
