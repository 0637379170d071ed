"""Mappers for operations that move elements: reshape, slice, concat, pad."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import Average, LayerMapper, Linear, Rearrange, Refuse, Replacement, Site, Value, Varies, hookimpl

ANN2SNN_API = 1


class RearrangeMapper(LayerMapper):
    """Reshaping, selecting and joining move values without changing them."""

    name = "rearrange"
    claims = (
        nn.Flatten,
        nn.Unflatten,
        nn.PixelShuffle,
        nn.PixelUnshuffle,
        nn.ChannelShuffle,
        F.pixel_shuffle,
        F.pixel_unshuffle,
        F.channel_shuffle,
        operator.getitem,
        torch.cat,
        torch.concat,
        torch.stack,
        torch.flatten,
        torch.unflatten,
        torch.reshape,
        torch.permute,
        torch.transpose,
        torch.swapaxes,
        torch.movedim,
        torch.squeeze,
        torch.unsqueeze,
        torch.chunk,
        torch.split,
        torch.tensor_split,
        torch.unbind,
        torch.narrow,
        torch.select,
        torch.roll,
        torch.flip,
        torch.clone,
        torch.detach,
        torch.tile,
        torch.swapdims,
        torch.moveaxis,
        torch.concatenate,
        torch.hstack,
        torch.dstack,
        torch.column_stack,
        torch.hsplit,
        torch.dsplit,
        torch.fliplr,
        torch.rot90,
        torch.ravel,
        torch.diagonal,
        torch.broadcast_to,
        torch.index_select,
        torch.repeat_interleave,
        "swapdims",
        "moveaxis",
        "hsplit",
        "dsplit",
        "fliplr",
        "rot90",
        "ravel",
        "diagonal",
        "broadcast_to",
        "index_select",
        "repeat_interleave",
        "unfold",
        "flatten",
        "unflatten",
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "roll",
        "flip",
        "clone",
        "detach",
        "expand",
        "expand_as",
        "repeat",
        "tile",
        "t",
    )

    def map(self, site: Site) -> Replacement:
        indexed = site.operation in (operator.getitem, torch.index_select, "index_select", torch.repeat_interleave)
        if indexed and len(site.values) > 1:
            return Linear(varying=(0,))  # selected by an index tensor, which must not vary
        return Rearrange()


class PaddingMapper(LayerMapper):
    """Padding by zeros or by values of the tensor itself."""

    name = "padding"
    claims = (
        nn.ZeroPad1d,
        nn.ZeroPad2d,
        nn.ZeroPad3d,
        nn.ConstantPad1d,
        nn.ConstantPad2d,
        nn.ConstantPad3d,
        nn.ReflectionPad1d,
        nn.ReflectionPad2d,
        nn.ReflectionPad3d,
        nn.ReplicationPad1d,
        nn.ReplicationPad2d,
        nn.ReplicationPad3d,
        F.pad,
    )

    def map(self, site: Site) -> Replacement:
        if not isinstance(site.output, Value):
            return Linear()
        value = site.argument("value", 3, 0.0)
        kept = site.values[0].shape[:2] == site.output.shape[:2]
        if value:
            return Linear()
        return Average() if kept else Rearrange()


class SelectionMapper(LayerMapper):
    """Selecting by a mask that is the same at every step: an attention mask, a border, a dead channel."""

    name = "selection"
    claims = (torch.where, torch.masked_fill, torch.tril, torch.triu, "where", "masked_fill", "tril", "triu")

    def map(self, site: Site) -> Replacement:
        mask = None
        if site.operation is torch.where:
            mask = site.argument("condition", 0)
        elif site.operation in ("where", torch.masked_fill, "masked_fill"):
            mask = site.argument("condition" if site.operation == "where" else "mask", 1)
        if (isinstance(mask, Value) and mask.varies is Varies.VARYING) or (len(site.values) == 1 and mask is not None):
            return Refuse("it selects by values that change with every spike", "Replace it with max pooling or ReLU")
        return Linear()


class CastMapper(LayerMapper):
    """Casts between single and double precision are linear up to rounding."""

    name = "cast"
    claims = ("float", "double", "to", "type", "type_as", "half", "bfloat16")

    def map(self, site: Site) -> Replacement:
        before, after = site.values[0], site.output
        if isinstance(after, Value) and {before.dtype, after.dtype} <= {torch.float32, torch.float64}:
            return Linear(varying=(0,))
        given = f"{before.dtype} to {after.dtype}" if isinstance(after, Value) else f"{before.dtype}"
        return Refuse(f"it casts {given}, which rounds sums of spikes", "leave the cast out")


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [CastMapper, PaddingMapper, RearrangeMapper, SelectionMapper]
