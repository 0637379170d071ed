"""Converts layers to a type, options and tensors, and back.

A file can only name types of `torch.nn`, of this package, and types that plugins declare in `exports`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..compat import if_neuron_from, if_neuron_options, layer
from ..contracts.checksums import why_not_plain
from ..contracts.network_description import OperationDescription, qualified_type
from ..contracts.values import encode
from ..errors import ExportError, FormatError
from ..hooks.known_plugins import provider_of_module
from ..layers import (
    ChannelAffine,
    CumulativeMax,
    CumulativeMaxPool,
    InitialPotential,
    IntegerIF,
    IntegerInput,
    MomentumMaxPool,
    NormalizedReLU,
    Scaler,
    StepBias,
    SumPool,
)
from ..support.blame import Culprit, blame
from ..support.wording import described, listed
from .operations import GETATTR, find_function, function_name, shown

__all__ = ["IF", "build_layer", "copy_to_cpu", "describe_layer", "torch_layer"]

WITH_TENSOR: dict[tuple[type[nn.Module], str], str] = {
    (nn.MultiheadAttention, "bias"): "in_proj_bias",
    (nn.MultiheadAttention, "add_bias_kv"): "bias_k",
}
"""Constructor arguments that ask for a tensor, with the tensor's name."""

FACTORIES = frozenset({torch.arange, torch.empty, torch.eye, torch.full, torch.ones, torch.tensor, torch.zeros})
"""Functions with which layers make their tensors."""

ALLOCATIONS = 8
"""Tensors that a constructor may make for each that it keeps; torch's make up to two."""

IF = "IFNode"
"""The operation name of SpikingJelly's IF neuron."""

OWN: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        ChannelAffine,
        CumulativeMax,
        CumulativeMaxPool,
        InitialPotential,
        IntegerIF,
        IntegerInput,
        MomentumMaxPool,
        NormalizedReLU,
        Scaler,
        StepBias,
        SumPool,
    )
}


def describe_layer(
    module: nn.Module, declared: Mapping[str, type[nn.Module]], maker: Culprit | None = None
) -> OperationDescription:
    """The type, options and tensors of `module`.

    Args:
        module: A layer of a converted network.
        declared: The layers that plugins declare in `exports`, by qualified name.
        maker: The plugin that declares this one, for messages.

    Raises:
        ExportError: The layer cannot be described; the message, to be placed after the layer's name, says why.
    """
    options = if_neuron_options(module)
    if options is not None:
        return OperationDescription("layer", IF, options)
    named = OWN.get(type(module).__name__)
    if named is type(module):
        return _from_options(named.__name__, module, declared, maker)
    qualified = qualified_type(type(module))
    if declared.get(qualified) is type(module):
        return _from_options(qualified, module, declared, maker)
    torch_type = torch_layer(module)
    if torch_type is None:
        raise ExportError(
            "a file cannot name its type: allowed are layers of torch.nn, SpikingJelly's IF neuron and the layers that "
            "installed plugins declare in `exports`"
        )
    return _describe_torch(module, torch_type)


def build_layer(
    operation: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor], declared: Mapping[str, type[nn.Module]]
) -> nn.Module:
    """The layer that `describe_layer` described.

    Raises:
        FormatError: There is no such layer, or it does not take these options and tensors.
    """
    cls = OWN.get(operation) or declared.get(operation)
    try:
        if operation == IF:
            return if_neuron_from(**options)
        if cls is not None:
            return cls(**{name: _option(value, declared) for name, value in options.items()}, **tensors)
        return _build_torch(_torch_type(operation), options, tensors)
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(
            f"cannot be made with the options {repr(dict(options))[:500]} and the tensors {listed(sorted(tensors))} "
            f"(in {operation}, {described(error)})"
        ) from error


def torch_layer(module: nn.Module) -> type[nn.Module] | None:
    """The class of `torch.nn` that computes what `module` computes: its own class, or the base of an equivalent one.

    >>> torch_layer(nn.Conv2d(1, 1, 1)), torch_layer(nn.Sequential())
    (<class 'torch.nn.modules.conv.Conv2d'>, None)
    """
    for cls in type(module).__mro__:
        if _is_layer_of_torch(cls):
            return cls
        stepwise = getattr(layer, cls.__name__, None) is cls
        if not stepwise and cls is not type(module).__mro__[-1] and _overrides(cls) and not _is_mixin(module, cls):
            return None
    return None


def _is_mixin(module: nn.Module, cls: type) -> bool:
    """True for the mixins of SpikingJelly's counterpart of a layer."""
    found = getattr(layer, type(module).__name__, None)
    return found is type(module) and not issubclass(cls, nn.Module)


def _is_layer_of_torch(cls: type) -> bool:
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    return (
        getattr(nn, cls.__name__, None) is cls
        and issubclass(cls, nn.Module)
        and cls is not nn.Module
        and not issubclass(cls, containers)
    )


def _overrides(cls: type) -> bool:
    """True if a subclass may compute something else than its base."""
    harmless = {"__init__", "extra_repr", "reset_parameters"}
    return any(callable(value) and name not in harmless for name, value in vars(cls).items() if name != "__class__")


def _torch_type(operation: str) -> type[nn.Module]:
    found = getattr(nn, operation, None)
    if isinstance(found, type) and _is_layer_of_torch(found):
        return found
    if "." in operation:
        raise FormatError(
            f"is of the type {operation}, which no installed plugin declares in `exports`. {_where_from(operation)}"
        )
    raise FormatError(f"is of the type {operation!r}, which torch {torch.__version__} and sj-ann2snn do not have")


def _where_from(operation: str) -> str:
    known = provider_of_module(operation)
    if known is not None:
        return f"It comes with {known}"
    return f"Install the distribution that provides the package {operation.partition('.')[0]!r}"


def _option(value: Any, declared: Mapping[str, type[nn.Module]]) -> Any:
    if not isinstance(value, OperationDescription):
        return value
    if value.kind == "layer":
        return build_layer(value.operation, value.options, value.tensors, declared)
    function = find_function(value.operation)
    if value.kind != "function" or function is None or value.operation == GETATTR:
        raise FormatError(f"holds the {value.kind} {value.operation!r}, which is not a function of torch on tensors")
    return function


def _from_options(
    operation: str, module: Any, declared: Mapping[str, type[nn.Module]], maker: Culprit | None
) -> OperationDescription:
    with blame(maker or Culprit(f"The layer {operation}"), "describing the layer", module, "export_options"):
        found: dict[str, Any] = dict(module.export_options())
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    options = {name: _describe_option(value, declared) for name, value in found.items() if name not in tensors}
    return OperationDescription(
        "layer", operation, options, {name: copy_to_cpu(tensor, name) for name, tensor in tensors.items()}
    )


def _describe_option(value: Any, declared: Mapping[str, type[nn.Module]]) -> Any:
    if isinstance(value, nn.Module):
        return describe_layer(value, declared)
    if callable(value):
        name = function_name(value)
        if name is None or name == GETATTR:
            raise ExportError(f"it holds {shown(value)}, but a file can only name functions of torch and operators")
        return OperationDescription("function", name)
    encode(value)
    return value


def _describe_torch(module: nn.Module, cls: type[nn.Module]) -> OperationDescription:
    options: dict[str, Any] = {}
    # A layer without its own constructor (Sigmoid) inherits that of all modules, which accepts anything.
    parameters = {} if cls.__init__ is nn.Module.__init__ else inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ExportError(f"the arguments of torch.nn.{cls.__name__} cannot be read off it")
        if name in ("device", "dtype") or name.startswith("_"):
            continue
        tensor = WITH_TENSOR.get((cls, name), "bias" if name == "bias" else None)
        if tensor is not None:
            options[name] = getattr(module, tensor) is not None
        elif hasattr(module, name):
            options[name] = getattr(module, name)
        elif parameter.default is not None:  # otherwise it is an old name of another argument
            raise ExportError(f"torch.nn.{cls.__name__} does not keep its argument {name!r}")
    encode(options)
    tensors = {name: copy_to_cpu(tensor, name) for name, tensor in module.state_dict().items()}
    try:
        again = _build_torch(cls, options, tensors)
    except Exception as error:
        raise ExportError(
            f"torch.nn.{cls.__name__} cannot be rebuilt from its attributes ({type(error).__name__}: {error})"
        ) from error
    if nn.Module.__repr__(again) != _plain_repr(module, cls) or dict(module.named_buffers()).keys() - tensors.keys():
        raise ExportError(f"it differs from a torch.nn.{cls.__name__} with its arguments: it was changed later")
    return OperationDescription("layer", cls.__name__, options, tensors)


def _plain_repr(module: nn.Module, cls: type[nn.Module]) -> str:
    if type(module) is cls:
        return nn.Module.__repr__(module)
    # SpikingJelly adds the step mode.
    return f"{cls.__name__}({cls.extra_repr(module)})"


def _build_torch(cls: type[nn.Module], options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    # The weights are replaced at once, so do not allocate or initialize them.
    with torch.device("meta"), _AtMost(ALLOCATIONS * (1 + len(tensors))):
        module = cls(**options)
    module.load_state_dict(dict(tensors), assign=True)
    without_values = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if without_values:
        raise ValueError(f"the tensors {without_values} are missing")
    return module.eval()


class _AtMost(TorchFunctionMode):
    """Lets a constructor make a number of tensors, so that ``RNN(num_layers=10**6)`` ends before a million layers.

    A constructor makes a few tensors for each one that it keeps, and those that it keeps are given.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORIES:
            self.left -= 1
            if self.left < 0:
                raise ValueError("it would have more tensors than are given")
        return func(*args, **(kwargs or {}))


def copy_to_cpu(tensor: Tensor, name: str) -> Tensor:
    """A plain copy on the CPU, contiguous and with its own memory.

    Raises:
        ExportError: The tensor has no plain values; `name` says which it is.
    """
    problem = why_not_plain(tensor)
    if problem:
        raise ExportError(f"its {name} {problem}")
    # A view would bring all of its memory along, a subclass of Tensor its class, a conjugate only a flag.
    plain = tensor.detach().as_subclass(Tensor).resolve_conj().resolve_neg()
    return plain.to("cpu", copy=True, memory_format=torch.contiguous_format)
