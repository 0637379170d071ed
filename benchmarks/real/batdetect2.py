"""BatDetect2: echolocation calls in a spectrogram, as boxes. Its network returns a named tuple, and has attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .task import Task

RATE, SECONDS, CALLS = 256000, 0.2, 4
NOISE = 0.25
"""As loud as the middle of the calls: the network begins to miss some."""

THRESHOLD, NEAR = 0.3, 0.006
"""Of the detector, and how many seconds a call may be away from where it is found."""

PIXEL, FIRST_PIXEL = 0.001, 0.0015
"""Seconds of a column of the spectrogram, and where the first one lies."""


def network(calibration: int, test: int) -> Task:
    from batdetect2 import api

    model, _ = api.load_model()
    seen, _ = spectrograms(calibration, 1)
    inputs, targets = spectrograms(test, 2)
    return Task(
        network=model.eval(),
        package="batdetect2",
        data="synthesized calls of a pipistrelle's kind",
        calibration=list(seen.split(2)),
        inputs=inputs,
        targets=targets,
        metric=calls_found,
        measures="F of calls found",
        batch=2,
    )


def spectrograms(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """As the package makes them, and when the calls start, in seconds: sweeps from high to low in noise."""
    from batdetect2 import api

    draw = np.random.default_rng(seed)
    shown, starts = [], []
    for _ in range(count):
        wave = NOISE * draw.standard_normal(round(RATE * SECONDS))
        begins = 0.01 + 0.045 * np.arange(CALLS) + draw.uniform(0, 0.02, CALLS)
        for begin in begins:
            time = np.arange(round(RATE * draw.uniform(0.004, 0.008))) / RATE
            low, high = draw.uniform(40e3, 48e3), draw.uniform(70e3, 100e3)
            pitch = low + (high - low) * np.exp(-6 * time / time[-1])
            call = np.hanning(len(time)) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
            at = round(RATE * begin)
            wave[at : at + len(time)] += draw.uniform(0.1, 0.5) * call
        shown.append(api.generate_spectrogram(wave.astype(np.float32), RATE, device=torch.device("cpu")))
        starts.append(torch.tensor(begins, dtype=torch.float32))
    return torch.cat(shown).float(), torch.stack(starts)


def calls_found(output: Any, target: Tensor) -> Tensor:
    """F of the detections after the package's non-maximum suppression (a maximum in 9 × 9 pixels)."""
    score = output.pred_det[:, 0]
    peaks = (score == F.max_pool2d(score[:, None], 9, 1, 4)[:, 0]) & (score > THRESHOLD)
    values = []
    for found, starts in zip(peaks, target, strict=True):
        times = found.nonzero()[:, 1] * PIXEL + FIRST_PIXEL
        near = (times[:, None] - starts[None]).abs() < NEAR
        hits = near.any(0).sum().item()
        values.append(2 * hits / max(1, len(times) + len(starts)))
    return torch.tensor(values)
