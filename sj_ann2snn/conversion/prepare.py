"""Brings an ANN into the form that is planned and calibrated: traced, canonical, run on two samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import CalibrationError, ConversionError, InputError
from ..support.batches import HALF, Signature, count_samples, forward_signature, move, run_batch, to_full_precision
from ..support.shapes import along_axis
from ..support.trees import map_tensors, tensors
from ..support.wording import first_line, listed
from .draft import Draft
from .graph.canonical import absorb_batchnorm, isolate_attributes, remove_unused, unshare_modules
from .graph.constants import fold_constants
from .graph.functional_layers import functional_to_layers
from .graph.functionalize import functionalize
from .graph.naming import node_label, operation_name
from .graph.own_network import owned_copy, remove_hooks, require_python, unwrapped
from .graph.records import Record, record
from .graph.spellings import normalize_spellings
from .graph.state import PlainState, written_tensors
from .graph.structures import index_fields, open_output
from .graph.tracing import SOURCE, trace
from .graph.unread_indices import drop_unread_indices
from .graph.written_bounds import join_bounds
from .problems import Problem

__all__ = ["device_of", "prepare", "record_of", "working_copy"]


def device_of(ann: nn.Module, asked: torch.device | None) -> torch.device:
    """The device on which to convert.

    Raises:
        ConversionError: `ann` is not a network, or it lies on several devices and `asked` is None.
    """
    if not isinstance(ann, nn.Module):
        raise ConversionError(f"Only a torch.nn.Module can be converted, not {type(ann).__name__}.")
    devices = sorted({tensor.device for tensor in (*ann.parameters(), *ann.buffers())}, key=str)
    if torch.device("meta") in devices:
        raise ConversionError(
            "The network has parameters or buffers on the device 'meta', which holds shapes but no values. Load the "
            "weights first: ann.to_empty(device='cpu'), then ann.load_state_dict(...)."
        )
    if asked is not None:
        return asked
    if len(devices) > 1:
        raise ConversionError(
            f"The network lies on several devices ({', '.join(map(str, devices))}); say where to convert it "
            "with Converter(device=...)."
        )
    return devices[0] if devices else torch.device("cpu")


def prepare(
    ann: nn.Module,
    batch: Any,
    *,
    device: torch.device,
    leaf_types: Collection[type[nn.Module]],
    leaf_modules: Sequence[str],
    fuse_batchnorm: bool,
) -> Draft:
    """A canonical copy of `ann`, not planned yet; `ann` itself is left as it is.

    Args:
        ann: The trained network.
        batch: The first calibration batch.
        device: Device of the conversion.
        leaf_types: Module types that are not traced into.
        leaf_modules: Qualified names of modules that are not traced into.
        fuse_batchnorm: Fold BatchNorm into the layers before it.

    Raises:
        ConversionError: The network cannot be copied, traced or run on the batch.
    """
    require_python(ann)
    copied = working_copy(ann, device)
    asked = forward_signature(copied, batch)
    # Run the network before the hooks are dropped, to notice later if one of them changes what it computes.
    state = PlainState(copied)
    samples, more, output = _examples(copied, asked, batch, device)
    _require_repeatable(copied, state, output, asked, samples, device)
    remove_hooks(copied)
    state.restore()
    module = trace(copied, asked, (samples, more), leaf_types, leaf_modules)
    structure = open_output(module)
    recorded = record_of(module, samples)
    index_fields(module, recorded)
    refused = functionalize(module, recorded)
    problems = tuple(_problem(module, node, why) for node, why in refused)
    normalize_spellings(module, record_of(module, samples))
    fold_constants(module)
    isolate_attributes(module)
    unshare_modules(module)
    drop_unread_indices(module)
    join_bounds(module, record_of(module, samples))
    remove_unused(module)
    recorded = record_of(module, samples)
    functional_to_layers(module, recorded)
    absorb_batchnorm(module, recorded, fuse=fuse_batchnorm)
    remove_unused(module)
    return Draft(module, Signature.of(module), device, samples, more, output, problems, structure)


def working_copy(ann: nn.Module, device: torch.device) -> nn.Module:
    """A copy of `ann` in eval mode on `device`, at least in single precision.

    Raises:
        ConversionError: `ann` cannot be copied.
    """
    copied = owned_copy(unwrapped(ann)).to(device)
    if any(tensor.dtype in HALF for tensor in (*copied.parameters(), *copied.buffers())):
        # Membrane potentials add up over many steps, for which half precision is too coarse.
        copied = copied.float()
    return copied


def _run(module: nn.Module, asked: Signature, samples: tuple[Any, ...], device: torch.device) -> Any:
    """The network's output for the samples; the call may not write to the network.

    Raises:
        ConversionError: It writes to a parameter or buffer.
    """
    before = written_tensors(module)
    with torch.no_grad():
        output = run_batch(asked.caller(module), map_tensors(samples, Tensor.clone), 0, asked, device)
    after = written_tensors(module)
    changed = [name for name, version in before.items() if name in after and after[name] != version]
    if changed:
        raise ConversionError(
            f"The network keeps state between calls: it changes a parameter or buffer in place ({listed(changed)}), "
            "but a spiking network runs at every step. Compute the value without writing to the parameter or buffer."
        )
    return output


def _require_repeatable(
    module: nn.Module,
    state: PlainState,
    output: Any,
    asked: Signature,
    samples: tuple[Any, ...],
    device: torch.device,
) -> None:
    """Refuse a network whose second call gives another result because of what the first one left behind.

    Raises:
        ConversionError: It keeps state in attributes.
    """
    changed = state.changed()
    if not changed:
        return
    again = _run(module, asked, samples, device)
    if not all(map(_equal, tensors(output), tensors(again))):
        raise ConversionError(
            f"The network keeps state between calls: a call writes to {', '.join(changed)}, and the next call with the "
            "same input gives another result. A spiking network runs at every step. Compute what the network needs "
            "from its input alone, or pass the state as an input."
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return bool(torch.equal(one, other))
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _examples(
    module: nn.Module, asked: Signature, batch: Any, device: torch.device
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Two samples, three samples, and the network's output for the two."""
    try:
        inputs = asked.inputs_of(batch)
    except InputError as error:
        raise CalibrationError(f"Calibration batch 0 does not fit the network. {error}") from error
    listed_samples = len(inputs) == 1 and isinstance(inputs[0], (list, tuple))
    try:
        more = _samples(inputs, device, 3)
        samples = map_tensors(more, lambda x: x[:2] if x.dim() else x)
        return samples, more, _run(module, asked, samples, device)
    except CalibrationError:
        if not listed_samples:
            raise
    # The tensors of the list are not batches, so each is a sample: the images of a detector, which differ in size.
    entries = to_full_precision(move((inputs[0] * 3)[:3], device))
    return (entries[:2],), (entries,), _run(module, asked, (entries[:2],), device)


def _samples(inputs: tuple[Any, ...], device: torch.device, count: int) -> tuple[Any, ...]:
    """The first `count` samples of the inputs; a smaller batch is repeated."""

    def take(value: Tensor) -> Tensor:
        if not value.dim():
            return value
        if not value.shape[0]:
            raise CalibrationError("Calibration batch 0 holds no samples.")
        taken: Tensor = to_full_precision(torch.cat([value] * (1 + count // value.shape[0]))[:count])
        if taken.is_floating_point() and value.shape[0] < count:
            # Make repeated samples differ; otherwise nothing would show whether the network mixes them.
            rounds = torch.arange(count, device=taken.device).div(value.shape[0], rounding_mode="floor")
            taken = taken * along_axis(1 + 0.125 * rounds.to(taken.dtype), taken.dim())
        return taken.to(device)

    return tuple(map_tensors(value, take) for value in inputs)


def record_of(module: fx.GraphModule, samples: tuple[Any, ...]) -> Record:
    """What the nodes of `module` yield for `samples`.

    Raises:
        ConversionError: The traced network fails on that number of samples.
    """
    try:
        return record(module, map_tensors(samples, Tensor.clone))
    except Exception as error:
        raise ConversionError(
            f"The traced network fails on {count_samples(samples)} samples ({type(error).__name__}: "
            f"{first_line(error)}). The usual cause is a fixed batch size in the forward, as in view(32, -1); use "
            "x.size(0) or flatten(1)."
        ) from error


def _problem(module: fx.GraphModule, node: fx.Node, why: str) -> Problem:
    if node.op == "call_module":
        operation = type(module.get_submodule(str(node.target))).__name__
    else:
        operation = operation_name(node.target)
    return Problem(node_label(module, node), operation, node.meta.get(SOURCE, ""), why, "Write it out of place.")
