"""Copies of the user's network that the converter may change: without wrappers and hooks, with plain weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.prune import BasePruningMethod

from ...errors import TracingError

__all__ = ["owned_copy", "remove_hooks", "require_python", "unwrapped", "wrapped_in"]

_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
"""Modules that only pass their input to another one, and the attribute that holds it."""


def wrapped_in(module: nn.Module) -> nn.Module | None:
    """The network inside a wrapper, such as `DataParallel` or the result of `torch.compile`; None for other modules."""
    for cls in type(module).__mro__:
        attribute = _WRAPPERS.get(f"{cls.__module__}.{cls.__qualname__}")
        if attribute is not None:
            inner = getattr(module, attribute)
            return inner if isinstance(inner, nn.Module) else None
    return None


def unwrapped(module: nn.Module) -> nn.Module:
    """`module` without any wrapper around it.

    >>> unwrapped(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    inner = wrapped_in(module)
    return module if inner is None else unwrapped(inner)


def require_python(module: nn.Module) -> None:
    """Check that a network is written in Python, so that its operations can be followed.

    Raises:
        TracingError: It, or a part of it, is TorchScript.
    """
    scripted = [name for name, child in module.named_modules() if isinstance(child, torch.jit.ScriptModule)]
    # Name the outermost modules only: everything inside TorchScript is TorchScript, too.
    outermost = [name for name in scripted if name.rpartition(".")[0] not in scripted or not name]
    if not outermost:
        return
    names = ", ".join(map(repr, outermost[:5]))
    what = "The network is TorchScript" if outermost[0] == "" else f"The network holds TorchScript ({names})"
    raise TracingError(
        f"{what}, the output of torch.jit.script or torch.jit.trace, whose operations torch.fx cannot follow. Convert "
        "the Python network it was made from: build that network and load the weights with "
        "network.load_state_dict(scripted.state_dict())."
    )


def owned_copy(module: nn.Module) -> nn.Module:
    """A deep copy in eval mode that shares nothing with `module`.

    Raises:
        TracingError: The network cannot be copied.
    """
    # torch refuses to copy computed tensors, such as the weight that pruning computes before every call.
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed_tensors(module)}
    try:
        copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise TracingError(
            f"The network {type(module).__name__} cannot be copied ({error!r}), and converting must not change "
            "the original. Make it support copy.deepcopy."
        ) from error
    return copied.eval()


def _computed_tensors(module: nn.Module) -> Iterator[Tensor]:
    for child in module.modules():
        for value in (*vars(child).values(), *child._buffers.values()):
            yield from _with_history(value, depth=3)


def _with_history(value: Any, depth: int) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif depth and isinstance(value, dict):
        for item in list(value.values()):
            yield from _with_history(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from _with_history(item, depth - 1)


def remove_hooks(module: nn.Module) -> None:
    """Replace computed weights by their values, and drop all hooks.

    Weights are computed by parametrizations, by weight norm and spectral norm, by pruning, or by hooks of the user; in
    all cases the value is that of the last call.
    """
    for child in module.modules():
        _materialize_weights(child)
        for hooks in (child._forward_hooks, child._forward_pre_hooks):
            hooks.clear()
        if isinstance(child, (nn.Linear, _ConvNd, _BatchNorm)):
            for name in ("weight", "bias"):
                _make_parameter(child, name)
            _drop_raw_weights(child)


def _materialize_weights(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        # torch's remove_parametrizations changes the class, which the original network shares.
        values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value.clone()))
    for hook in list(module._forward_pre_hooks.values()):
        if type(hook).__name__ == "WeightNorm":
            remove_weight_norm(module, hook.name)  # type: ignore[attr-defined]
        elif type(hook).__name__ == "SpectralNorm":
            remove_spectral_norm(module, hook.name)  # type: ignore[attr-defined]
        elif isinstance(hook, BasePruningMethod):
            hook.remove(module)


def _drop_raw_weights(module: nn.Module) -> None:
    """Remove the parameters from which a hook computed the weight, such as ``weight_orig``."""
    if not type(module).forward.__module__.startswith("torch.nn."):
        return  # a forward of the user's may read them
    for name in [name for name in module._parameters if name not in ("weight", "bias")]:
        del module._parameters[name]


def _make_parameter(module: nn.Module, name: str) -> None:
    """Make a weight that is a buffer or a plain tensor a parameter, as the layer's class has it."""
    value = getattr(module, name, None)
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return
    module._buffers.pop(name, None)
    vars(module).pop(name, None)
    module._parameters[name] = nn.Parameter(value.detach().clone(), requires_grad=False)
