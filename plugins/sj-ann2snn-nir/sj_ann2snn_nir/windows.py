"""Windows of convolutions and pools, and equal weights for other windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .signals import NoNodeError

__all__ = ["Window", "dense", "diagonal", "dilated", "output_size", "pair", "sizes_behind", "square", "window_of"]


@dataclass(frozen=True)
class Window:
    """A window in one or two dimensions.

    >>> Window((3, 3)).stride, Window((3,), (2,)).dilation
    ((1, 1), (1,))
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            if not getattr(self, name):
                object.__setattr__(self, name, (default,) * len(self.kernel))


def output_size(window: Window, place: int, size: int) -> int:
    """Positions of a window along a dimension.

    >>> output_size(Window((3, 3), (2, 2), (1, 1)), 0, 8)
    4
    """
    span = window.dilation[place] * (window.kernel[place] - 1) + 1
    return (size + 2 * window.padding[place] - span) // window.stride[place] + 1


def dense(weight: Any, groups: int) -> Any:
    """Weights of a convolution without groups that computes the same: zeros between the groups.

    >>> dense(np.array([[[2.0]], [[3.0]]]), groups=2)[:, :, 0]
    array([[2., 0.],
           [0., 3.]])
    """
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    made = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        made[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return made


def diagonal(scales: Any, dims: int) -> Any:
    """Weights that scale each channel: of a linear layer (`dims` 0) or of a convolution with kernels of one.

    >>> diagonal(np.array([2.0, 3.0]), 2).shape
    (2, 2, 1, 1)
    """
    return np.diag(scales).reshape(len(scales), len(scales), *(1,) * dims)


def dilated(weight: Any, window: Window) -> tuple[Any, Window]:
    """The same convolution without dilation: zeros between the weights.

    >>> dilated(np.ones((1, 1, 2, 2)), Window((2, 2), dilation=(2, 2)))[1].kernel
    (3, 3)
    """
    kernel = tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True))
    made = np.zeros((*weight.shape[:2], *kernel), weight.dtype)
    made[(slice(None), slice(None), *(slice(None, None, d) for d in window.dilation))] = weight
    return made, Window(kernel, window.stride, window.padding)


def square(weight: Any, window: Window) -> tuple[Any, Window] | None:
    """The same convolution with a square kernel, by zeros on both sides and more padding; None if there is none.

    >>> weight, window = square(np.ones((1, 1, 1, 3)), Window((1, 3), padding=(0, 1)))
    >>> weight[0, 0].tolist(), window.padding
    ([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], (1, 1))
    """
    largest = max(window.kernel)
    missing = [largest - k for k in window.kernel]
    if any(one % 2 for one in missing):
        return None
    sides = [one // 2 for one in missing]
    made = np.pad(weight, [(0, 0), (0, 0), *((side, side) for side in sides)])
    padding = tuple(p + side * d for p, side, d in zip(window.padding, sides, window.dilation, strict=True))
    return made, Window((largest, largest), window.stride, padding, window.dilation)


def window_of(options: Mapping[str, Any], dims: int) -> Window:
    kernel, stride, dilation = (sizes_of(options[name], dims) for name in ("kernel_size", "stride", "dilation"))
    padding = options["padding"]
    if padding == "valid":
        padding = 0
    if padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if any(span % 2 for span in spans):
            raise NoNodeError("padding='same' of an even kernel pads one side more, for which NIR has no node")
        padding = [span // 2 for span in spans]
    return Window(kernel, stride, sizes_of(padding, dims), dilation)


def sizes_behind(window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
    after = tuple(output_size(window, place, size) for place, size in enumerate(sizes))
    if min(after) < 1:
        raise NoNodeError(
            f"its window of {window.kernel} does not fit into {tuple(sizes)}. Is input_shape that of a sample?"
        )
    return after


def sizes_of(given: Any, dims: int) -> tuple[int, ...]:
    return (int(given),) * dims if isinstance(given, int) else tuple(int(one) for one in given)


def pair(given: Any) -> tuple[Any, ...]:
    return (given, given) if isinstance(given, int) or given is None else tuple(given)
