"""Basic Pitch: the notes in two seconds of music, as an ONNX file that begins with a constant-Q transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .onnx import network_of
from .task import Task

RATE, HOP, LENGTH = 22050, 256, 43844
FRAMES, KEYS, LOWEST = 172, 88, 21
"""Of the piano roll; the lowest key as a MIDI number."""

THRESHOLD = 0.3
"""Of the probability of a note in a frame, as in Basic Pitch."""


def network(calibration: int, test: int) -> Task:
    model = network_of("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
    seen, _ = music(calibration, 1)
    inputs, targets = music(test, 2)
    return Task(
        network=model,
        package="basic-pitch",
        data="synthesized notes",
        calibration=list(seen.split(2)),
        inputs=inputs,
        targets=targets,
        metric=notes_found,
        measures="F of notes in frames",
    )


def music(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Plucked notes, several at a time, [N, LENGTH, 1]; and which sound in which frame, [N, FRAMES, KEYS]."""
    draw = np.random.default_rng(seed)
    time = np.arange(LENGTH) / RATE
    waves, roll = np.zeros((count, LENGTH)), torch.zeros(count, FRAMES, KEYS)
    for index in range(count):
        for _ in range(draw.integers(4, 10)):
            key = int(draw.integers(40, 80))
            begin, seconds = draw.uniform(0, 1.4), draw.uniform(0.25, 0.6)
            sounding = (time >= begin) & (time < begin + seconds)
            envelope = sounding * np.minimum(1, 200 * (time - begin)) * np.exp(-1.5 * (time - begin))
            for partial in range(1, 9):
                pitch = partial * 440 * 2 ** ((key - 69) / 12)
                waves[index] += 0.2 * envelope / partial * np.sin(2 * np.pi * pitch * time + draw.uniform(0, 6))
            first, last = (round(at * RATE / HOP) for at in (begin, begin + seconds))
            roll[index, first : min(last, FRAMES), key - LOWEST] = 1
    return torch.tensor(waves, dtype=torch.float32)[..., None], roll


def notes_found(output: Any, target: Tensor) -> Tensor:
    """F over the cells of the piano roll, the second of three outputs."""
    found = (output[1] > THRESHOLD).float()
    hits = (found * target).flatten(1).sum(1)
    return 2 * hits / (found.flatten(1).sum(1) + target.flatten(1).sum(1)).clamp(min=1)
