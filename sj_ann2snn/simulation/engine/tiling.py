"""Decides how many samples and steps to compute at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...support.trees import tensors
from .packed.values import Packed

__all__ = ["TILE_BYTES", "TILE_STEPS", "Tiling"]

TILE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 31}
"""Bytes of a tile's largest activation, by device type; on a CPU it should stay in the cache."""

SINGLE = 4
"""Bytes of a number in single precision."""

ROOM = 4
"""How much larger a tile of a single sample may be where more steps at a time save work."""

SOONER = 4
"""How much sooner samples may leave than a tile of this size would let them."""

TILE_STEPS = {"cpu": 4}
"""Steps that a tile takes at a time, with fewer samples if necessary, by device type; elsewhere all steps."""


class Tiling:
    """The size of tiles, from the size of the activations seen so far.

    Args:
        device: The device type.
        steps: Steps of the whole simulation.
    """

    def __init__(self, device: str, steps: int) -> None:
        self._bytes = TILE_BYTES.get(device, TILE_BYTES["cpu"])
        self._few_steps = min(steps, TILE_STEPS.get(device, steps))
        self._steps = steps
        self._first_steps, self._room, self._lengthened = self._few_steps, 1, False
        self._largest = 0
        """Bytes of the largest activation of one sample at one step."""
        self._expected = 0

    def state(self) -> dict[str, int]:
        """What has been learnt so far; with it, another `Tiling` makes the same tiles."""
        return {
            "bytes": self._bytes,
            "few_steps": self._few_steps,
            "largest": self._largest,
            "room": self._room,
            "lengthened": self._lengthened,
        }

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from what `state` has returned."""
        self._bytes, self._few_steps, self._largest = (state[name] for name in ("bytes", "few_steps", "largest"))
        self._room, self._lengthened = state["room"], bool(state["lengthened"])

    def learn(self, others: Sequence[Tiling]) -> None:
        """Take over what copies of this one have learnt."""
        self._largest = max(one._largest for one in others)
        self._lengthened = any(one._lengthened for one in others)
        self._bytes = min(one._bytes for one in others)
        self._few_steps = min(one._few_steps for one in others)
        self._first_steps = min(one._first_steps for one in others)
        self._room = min(one._room for one in others)

    def expect(self, elements: int) -> None:
        """Expect activations of so many elements for a sample at one step, until a size is known."""
        self._expected = elements * SINGLE

    def lengthen(self, steps: int) -> None:
        """Take at least so many steps at a time, if there are, as soon as sizes are known."""
        if self._lengthened or self._few_steps == self._steps:  # where tiles take all steps, they are large already
            return
        self._lengthened = True
        self._few_steps = max(self._few_steps, min(self._steps, steps))
        self._room = ROOM

    def note(self, value: Any) -> None:
        """Take the size of an activation ``[t, n, ...]`` into account."""
        if isinstance(value, Packed):  # the potentials need more, but not at every step
            self._largest = max(self._largest, math.ceil(math.prod(value.shape[2:]) * value.size))
        for x in tensors(value):
            samples = x.shape[0] * x.shape[1] if x.dim() > 1 else 1
            self._largest = max(self._largest, x.numel() * x.element_size() // max(1, samples))

    @property
    def knows_sizes(self) -> bool:
        """True if sizes are known or expected."""
        return bool(self._largest or self._expected)

    def samples(self) -> int:
        """Samples in the next tile; one until a size is known."""
        largest = self._largest or self._expected
        return max(1, self._bytes // (largest * self._few_steps)) if largest else 1

    def steps(self, samples: int, *, leaving: bool = False) -> int:
        """Number of steps to compute at a time for a tile of `samples`; fewer if samples are `leaving` in between."""
        largest = self._largest or self._expected
        if not largest:
            return self._first_steps
        budget = self._bytes * (self._room if samples == 1 else 1)
        most = max(1, budget // (largest * samples))
        if leaving:
            most = max(min(most, self._few_steps), most // SOONER)
        return min(self._steps, most)

    def shrink(self, samples: int) -> None:
        """A tile of `samples` did not fit into memory: take half as much from now on."""
        taken = (self._largest or self._expected) * samples * self.steps(samples)
        self._room = 1  # which was part of what it took
        self._bytes = min(self._bytes, taken or self._bytes) // 2
        if samples == 1:
            self._few_steps, self._first_steps = (max(1, one // 2) for one in (self._few_steps, self._first_steps))
