"""The neurons of one layer of a network on trial, which corrections adjust."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat import is_plain_if, reset_net
from ..support.blame import Culprit, blame
from ..support.shapes import along_axis, along_steps
from ..support.wording import shown

__all__ = ["TrialSite"]


class TrialSite:
    """The neurons of one spiking layer of the network on trial, with their adjustments so far.

    Currents and outputs are in units of one spike at the mode's scale (λ, for an IF neuron), regardless of `scale`.
    They are shown with the channels in front, ``[C, ...]``, wherever the network has them. A layer with one scale for
    all and no channels has C = 1.

    Attributes:
        name: Qualified name of the layer; followed by ``_negative`` for a site whose current is `negated`.
        shape: Shape of one sample: ``[C, ...]``. Wherever the network has its channels, they come first here; a site
            whose channels are not known counts as one channel, ``[1, ...]``.
        binary: True for a neuron that emits 0 or 1, SpikingJelly's plain IF.
        negated: True for the second of the two neurons that replace an activation of both signs (LeakyReLU, PReLU,
            abs). Its current is the negated one, and what it emits is multiplied by the slope and subtracted.
        scale: Factor of λ, ``[C]``.
        bias: Added to the current at every step, ``[C]``, in the units of the current.
        step_bias: Added to the current at step t as well, ``[T, C]``, in the units of the current; at step T and later,
            nothing is added. None for none.
        initial_potential: Membrane potential after a reset, in units of the (adjusted) threshold: ``[C, ...]``, or
            anything that broadcasts to it.
        largest_scale: Largest allowed `scale`, ``[C]``, if the activation has an upper bound (ReLU6); otherwise None.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        neuron: nn.Module,
        start: float,
        like: Tensor,
        largest_scale: Tensor | None = None,
        *,
        negated: bool = False,
        maker: Culprit | None = None,
    ) -> None:
        self.name, self.shape, self.largest_scale, self.negated = name, shape, largest_scale, negated
        self.binary = is_plain_if(neuron)
        self.scale = torch.ones(self.channels, dtype=like.dtype, device=like.device)
        self.bias = torch.zeros_like(self.scale)
        self.step_bias: Tensor | None = None
        self.initial_potential = torch.full((1,) * len(shape), start, dtype=like.dtype, device=like.device)
        self._neuron, self._start = neuron, start
        self._maker = maker or Culprit("The neuron")

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0]

    def along_channels(self, value: Tensor) -> Tensor:
        """A vector ``[C]``, reshaped to broadcast over ``[C, ...]``."""
        return along_axis(value, len(self.shape))

    def along_steps(self, value: Tensor, steps: int) -> Tensor:
        """Biases per step ``[T, C]``, for `steps` steps, reshaped to broadcast over ``[T, N, C, ...]``.

        Steps without a bias have zeros; gradients pass.
        """
        return along_steps(value, steps).reshape(steps, 1, -1, *(1,) * (len(self.shape) - 1))

    @torch.no_grad()
    def fire(
        self,
        currents: Tensor,
        *,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        step_bias: Tensor | None = None,
        initial_potential: Tensor | None = None,
    ) -> Tensor:
        """What the neuron emits after a reset; arguments override its own adjustments.

        Args:
            currents: ``[T, N, C, ...]``.
            scale: ``[C]``.
            bias: ``[C]``.
            step_bias: ``[T, C]``, for any T.
            initial_potential: Broadcasts to ``[C, ...]``.

        Returns:
            A tensor in the shape of `currents`, without gradient.
        """
        factor = self.along_channels(self.scale if scale is None else scale)
        potential = self.initial_potential if initial_potential is None else initial_potential
        added = self.along_channels(self.bias if bias is None else bias)
        own = self.step_bias if step_bias is None else step_bias
        if own is not None:
            added = added + self.along_steps(own, len(currents))
        driven = (currents + added) / factor
        driven[0] += potential - self._start
        reset_net(self._neuron)
        self._neuron.step_mode = "m"  # type: ignore[assignment]
        with blame(self._maker, f"run on trial at {self.name}", self._neuron, "forward"):
            emitted: Tensor = self._neuron(driven) * factor
        reset_net(self._neuron)
        return emitted

    @property
    def added_potential(self) -> Tensor | None:
        """The potential to add to the neuron's own initial potential; None if it is zero."""
        added = self.initial_potential - self._start
        return added if bool(added.any()) else None

    def __repr__(self) -> str:
        return f"TrialSite({shown(self.name)}, shape={self.shape})"
