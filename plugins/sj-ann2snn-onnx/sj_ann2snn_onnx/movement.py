"""Operations that only move elements."""

from __future__ import annotations

import math

import numpy as np
import torch

from sj_ann2snn import NodeDescription, NodeReference, tensors

from .drawing import NoFormError
from .recording import sizes_of
from .work import Made, Work, label_of, references

__all__ = ["RESHAPES", "SAME", "TURNS", "concatenation", "moved", "picked", "reshaped", "same", "turned"]

RESHAPES = frozenset({"Flatten", "Unflatten", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view"})
"""What leaves the order of the elements."""

SAME = frozenset(
    {
        "AlphaDropout",
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "FeatureAlphaDropout",
        "Identity",
        "alpha_dropout",
        "clone",
        "contiguous",
        "detach",
        "double",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "feature_dropout",
        "float",
        "stochastic_depth",
        "to",
        "type",
        "type_as",
    }
)
"""What changes nothing at inference."""

TURNS = frozenset({"movedim", "moveaxis", "permute", "swapaxes", "swapdims", "t", "transpose"})
"""What changes the order of dimensions."""


def same(work: Work, node: NodeDescription) -> str:
    source = work.argument(node, 0, "input", "self")
    if (
        isinstance(source, NodeReference)
        and work.recording.few[source.name].dtype != work.recording.few[node.name].dtype
    ):
        raise NoFormError("it changes the precision")
    return work.read(source)


def reshaped(work: Work, node: NodeDescription) -> str:
    """The same elements in another shape; the number of samples is left open."""
    sizes = work.sizes(node.name)
    if sum(size < 0 for size in sizes) != 1:
        raise NoFormError(f"its result, {list(work.recording.few[node.name].shape)}, has no dimension of samples")
    shape = work.drawing.integers(f"{label_of(node)}.shape", [-1 if size < 0 else size for size in sizes])
    return work.drawing.put("Reshape", [work.input_of(node), shape], label_of(node))


def turned(work: Work, node: NodeDescription) -> str:
    source = work.argument(node, 0, "input", "self")
    dimensions = work.recording.few[source.name].dim()
    marked = work.called(node, torch.empty(tuple(range(2, 2 + dimensions)), device="meta"))
    return work.drawing.put("Transpose", [work.read(source)], label_of(node), perm=[size - 2 for size in marked.shape])


def concatenation(work: Work, node: NodeDescription) -> str:
    """Tensors one behind the other; what does not depend on the input is repeated for every sample."""
    label, drawing = label_of(node), work.drawing
    given = work.argument(node, 0, "tensors")
    axis = int(work.argument(node, 1, "dim", "axis", default=0)) % work.recording.few[node.name].dim()
    if axis == 0 or not isinstance(given, (list, tuple)):
        raise NoFormError("it joins samples")
    names = []
    for one in given:
        name = work.read(one)
        if not work.varies(one):
            example = next(other for other in given if work.varies(other))
            rows = drawing.put("Shape", [work.read(example)], f"{label}.rows", start=0, end=1)
            rest = drawing.integers(f"{label}.rest", work.recording.few[one.name].shape[1:])
            shape = drawing.put("Concat", [rows, rest], f"{label}.shape", axis=0)
            name = drawing.put("Expand", [name, shape], f"{label}.repeated")
        names.append(name)
    return drawing.put("Concat", names, label, axis=axis)


def picked(work: Work, node: NodeDescription) -> Made | None:
    """One of several results; None if the node does something else."""
    if node.operation != "operator.getitem" or not isinstance(node.args[0], NodeReference):
        return None
    several = work.made.get(node.args[0].name)
    return several[node.args[1]] if isinstance(several, list) else None


def moved(work: Work, node: NodeDescription) -> Made | None:
    """Any operation that only moves, repeats or drops elements, or adds zeros; None for others."""
    names = [one for one in dict.fromkeys(references((node.args, dict(node.kwargs)))) if one in work.made]
    found = {one.name: one for one in work.recording.network.graph.nodes}
    if any(not isinstance(work.made[one], str) or work.sizes(one)[:1] != (-1,) for one in names):
        return None
    if found[node.name].op == "call_module":
        module = work.recording.network.get_submodule(str(found[node.name].target))
        if any(hasattr(one, "reset") for one in module.modules()):
            return None  # it remembers something
    places = work.recording.moves(found[node.name], [found[one] for one in names])
    if places is None:
        return None
    label, drawing = label_of(node), work.drawing
    flat = []
    for one in names:
        size = math.prod(work.shape(one))
        shape = drawing.integers(f"{label}.flat_shape", [-1, size])
        flat.append(drawing.put("Reshape", [work.read(NodeReference(one)), shape], f"{label}.flat"))
    joined = drawing.put("Concat", flat, f"{label}.joined", axis=1) if len(flat) > 1 else flat[0]
    if any(bool((index < 0).any()) for index in places):
        joined = _with_a_zero(work, joined, label)
    several = isinstance(work.recording.few[node.name], (tuple, list))
    results = zip(tensors(work.recording.few[node.name]), tensors(work.recording.more[node.name]), places, strict=True)
    made = []
    for few, more, index in results:
        sizes = sizes_of(few, more)
        if sizes[:1] != (-1,):
            raise NoFormError("samples are not in the first dimension of its result")
        last = sum(math.prod(work.shape(one)) for one in names)  # the zero, if there is one
        order = drawing.integers(f"{label}.index", np.where(index < 0, last, index).ravel())
        taken = drawing.put("Gather", [joined, order], f"{label}.taken", axis=1)
        shape = drawing.integers(f"{label}.shape", [-1, *sizes[1:]])
        made.append(drawing.put("Reshape", [taken, shape], label))
    return made if several else made[0]


def _with_a_zero(work: Work, joined: str, label: str) -> str:
    """Add a zero behind the elements of each sample."""
    pads = work.drawing.integers(f"{label}.pads", [0, 0, 0, 1])
    return work.drawing.put("Pad", [joined, pads], f"{label}.with_zero")
