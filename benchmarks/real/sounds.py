"""Sounds whose pitch is known, because it was drawn first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LOW, HIGH, PARTIALS = 80, 1000, 12
"""The range of pitches, in Hz, and how many partials they have."""

NOISE = 1.5
"""Its largest standard deviation; that of the tones is about 1. With it the networks begin to err."""


def tones(
    count: int, seconds: float, rate: int, seed: int, low: float = 80, high: float = 1000
) -> tuple[Tensor, Tensor]:
    """Noisy harmonic tones with a slow vibrato: waveforms [N, samples] and their pitch at every sample, in cents.

    Cents count from 10 Hz, as in CREPE and FCPE. Each tone has its own loudness of the partials and its own noise.
    """
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    center = np.exp(draw.uniform(np.log(LOW), np.log(HIGH), (count, 1)))
    vibrato = draw.uniform(0, 30, (count, 1)) * np.sin(2 * np.pi * draw.uniform(3, 6, (count, 1)) * time)
    pitch = center * 2 ** (vibrato / 1200)
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / rate
    waves = np.zeros((count, len(time)))
    slope = draw.uniform(0.5, 2, (count, 1))
    for partial in range(1, PARTIALS + 1):
        loudness = draw.uniform(0.2, 1, (count, 1)) / partial**slope
        loudness[center * partial > 0.45 * rate] = 0
        waves += loudness * np.sin(partial * phase + draw.uniform(0, 2 * np.pi, (count, 1)))
    waves += draw.uniform(0, NOISE, (count, 1)) * draw.standard_normal(waves.shape)
    waves /= np.abs(waves).max(axis=1, keepdims=True)
    return torch.tensor(waves, dtype=torch.float32), torch.tensor(1200 * np.log2(pitch / 10), dtype=torch.float32)


def within_50_cents(found: Tensor, true: Tensor) -> Tensor:
    """The share of frames with the right pitch, by sample: the field's raw pitch accuracy."""
    return ((found - true).abs() < 50).float().flatten(1).mean(1)
