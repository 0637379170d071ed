"""Shows plugins the values of a site with the channels behind the samples, wherever the network has them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ChannelLayout"]


@dataclass(frozen=True)
class ChannelLayout:
    """Where a site has its channels.

    >>> import torch
    >>> x = torch.zeros(8, 10, 3)
    >>> ChannelLayout(2).to_front(x).shape, ChannelLayout(None).to_front(x).shape
    (torch.Size([8, 3, 10]), torch.Size([8, 1, 10, 3]))

    Attributes:
        axis: The dimension of ``[N, ...]`` that holds the channels; None if the site counts as a single channel.
    """

    axis: int | None

    def to_front(self, x: Tensor, before: int = 1) -> Tensor:
        """`x` with the channels moved behind the first `before` dimensions: 1 for ``[N, ...]``, 2 with time."""
        return x.unsqueeze(before) if self.axis is None else x.movedim(self.axis - 1 + before, before)

    def to_place(self, x: Tensor, before: int = 1) -> Tensor:
        """The reverse of `to_front`."""
        return x.squeeze(before) if self.axis is None else x.movedim(before, self.axis - 1 + before)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a sample with the channels moved to the front."""
        if self.axis is None:
            return (1, *shape)
        index = self.axis - 1
        return (shape[index], *shape[:index], *shape[index + 1 :])
