"""The base class of layer mappers, which define what an operation becomes in the spiking network."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from .replacements import Replacement
from .site import Site

__all__ = ["Claim", "LayerMapper"]

Claim = type[nn.Module] | Callable[..., Any] | str
"""A module type (exact), a function, the name of a tensor method, or the qualified name of a function."""


class LayerMapper(abc.ABC):
    """Defines what the operations that it claims become.

    >>> import torch
    >>> from sj_ann2snn import LayerMapper, Spike
    >>> class HardTanh6(LayerMapper):
    ...     name = "clamp6"
    ...     claims = (torch.nn.ReLU6,)
    ...     def map(self, site):
    ...         return Spike(maximum=6.0)

    Options are the keyword-only parameters of the constructor; users pass them to `Converter`.
    """

    name: ClassVar[str]
    claims: ClassVar[tuple[Claim, ...]]
    """The operations that this mapper claims.

    Types match exactly. A string is the name of a tensor method (`"relu"`). With dots, it is the name of a function in
    a package that need not be installed (`"torchvision.ops.stochastic_depth.stochastic_depth"`).
    """
    replaces: ClassVar[tuple[str, ...]] = ()
    """Names of other mappers that this one replaces, wherever both claim a site."""
    exports: ClassVar[tuple[type[nn.Module], ...]] = ()
    """The layers of this mapper that can be written to a file.

    Each has a method `export_options()`, which returns the keywords with which to construct it: numbers, text, tensors,
    modules, functions of torch.
    """

    @abc.abstractmethod
    def map(self, site: Site) -> Replacement:
        """Describe what `site` becomes. This must not change the module or keep the site."""
