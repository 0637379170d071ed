"""What adaptive and global max pooling become."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import CumulativeMax, LayerMapper, Refuse, Replacement, Site, Stateful, Value

from .layers import SpatialMax

__all__ = ["AdaptiveMaxPoolMapper", "SpatialMaxMapper"]

_POOLS: dict[str, type[nn.Module]] = {
    "1d": nn.AdaptiveMaxPool1d,
    "2d": nn.AdaptiveMaxPool2d,
    "3d": nn.AdaptiveMaxPool3d,
}

_LABEL = "cumulative max"


class AdaptiveMaxPoolMapper(LayerMapper):
    """Adaptive max pooling becomes the growth of the cumulative maximum, exact at every step.

    >>> import torch
    >>> from sj_ann2snn import Site
    >>> pool = torch.nn.AdaptiveMaxPool2d(1, return_indices=True)
    >>> AdaptiveMaxPoolMapper().map(Site("pool", torch.nn.AdaptiveMaxPool2d, module=pool)).why
    'it returns the indices of the maxima, which change with every spike'
    """

    name = "adaptive-max-pool"
    claims = (
        nn.AdaptiveMaxPool1d,
        nn.AdaptiveMaxPool2d,
        nn.AdaptiveMaxPool3d,
        F.adaptive_max_pool1d,
        F.adaptive_max_pool2d,
        F.adaptive_max_pool3d,
        # torch.fx records these functions if indices are requested.
        F.adaptive_max_pool1d_with_indices,
        F.adaptive_max_pool2d_with_indices,
        F.adaptive_max_pool3d_with_indices,
        torch.adaptive_max_pool1d,
    )

    def map(self, site: Site) -> Replacement:
        if not isinstance(site.output, Value):
            return Refuse(
                "it returns the indices of the maxima, which change with every spike",
                "pool with torch.nn.AdaptiveMaxPool1d, 2d or 3d and without return_indices",
            )
        output_size = site.argument("output_size", 1)
        pool = _POOLS[site.operation_name[-2:].lower()]
        return Stateful(partial(_adaptive, pool, output_size), _LABEL)


class SpatialMaxMapper(LayerMapper):
    """Maxima over dimensions, ``x.amax((2, 3))``, become the growth of the cumulative maximum.

    >>> import torch
    >>> from sj_ann2snn import Site, Value, Varies
    >>> x = Value((2, 3, 4, 4), torch.float32, Varies.VARYING)
    >>> SpatialMaxMapper().map(Site("amax", "amax", args=(x, (2, 3)))).label
    'cumulative max'
    """

    name = "spatial-max"
    exports = (SpatialMax,)
    claims = (torch.amax, "amax")

    def map(self, site: Site) -> Replacement:
        ndim = len(site.values[0].shape)
        # torch also accepts NumPy's names.
        given = site.argument("dim", 1, site.kwargs.get("axis", ()))
        keepdim = bool(site.argument("keepdim", 2, site.kwargs.get("keepdims", False)))
        dims = tuple(sorted(dim % ndim for dim in ([given] if isinstance(given, int) else given)))
        if not dims or dims[0] == 0:
            return Refuse("it takes the maximum over all samples of the batch", "name the dimensions, from 1 on")
        return Stateful(partial(_spatial, dims, keepdim), _LABEL)


def _adaptive(pool: type[nn.Module], output_size: Any) -> CumulativeMax:
    return CumulativeMax(pool(output_size))


def _spatial(dims: tuple[int, ...], keepdim: bool) -> CumulativeMax:
    return CumulativeMax(SpatialMax(dims, keepdim))
