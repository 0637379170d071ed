"""How many samples and steps are computed at a time."""

from __future__ import annotations

from typing import Any

from ...support.trees import tensors

__all__ = ["TILE_BYTES", "TILE_STEPS", "Tiling"]

TILE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 31}
"""Largest activation of a tile, by device type: on a CPU what stays in its cache."""

TILE_STEPS = {"cpu": 4}
"""Steps of a tile that samples make way for, by device type; elsewhere all of them."""


class Tiling:
    """The size of tiles, from what the activations seen so far take.

    Args:
        device: Type of the device.
        steps: Steps of the whole simulation.
    """

    def __init__(self, device: str, steps: int) -> None:
        self._bytes = TILE_BYTES.get(device, TILE_BYTES["cpu"])
        self._few_steps = min(steps, TILE_STEPS.get(device, steps))
        self._steps = steps
        self._largest = 0
        """Bytes of the largest activation of one sample at one step."""

    def note(self, value: Any) -> None:
        """Take the size of an activation ``[t, n, ...]`` into account."""
        for x in tensors(value):
            samples = x.shape[0] * x.shape[1] if x.dim() > 1 else 1
            self._largest = max(self._largest, x.numel() * x.element_size() // max(1, samples))

    def samples(self) -> int:
        """Samples of the next tile; one as long as no size is known."""
        return max(1, self._bytes // (self._largest * self._few_steps)) if self._largest else 1

    def steps(self, samples: int) -> int:
        """Steps that a tile of `samples` takes at a time."""
        if not self._largest:
            return self._few_steps
        return min(self._steps, max(1, self._bytes // (self._largest * samples)))

    def shrink(self, samples: int) -> None:
        """Memory did not suffice for a tile of `samples`: take half as much from now on."""
        taken = self._largest * samples * self.steps(samples)
        self._bytes = min(self._bytes, taken or self._bytes) // 2
        if samples == 1:
            self._few_steps = max(1, self._few_steps // 2)
