"""PESTO (pesto-pitch): the pitch of one frame of a constant-Q transform, as 384 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sounds import tones, within_50_cents
from .task import Task

RATE, STEP = 16000, 10.0
A4 = 1200 * torch.log2(torch.tensor(44.0)).item()
"""In cents above 10 Hz."""


def encoder(calibration: int, test: int) -> Task:
    import pesto
    from pesto.utils import reduce_activations

    model = pesto.load_model("mir-1k_g7", step_size=STEP, sampling_rate=RATE).eval()
    seen, _ = frames(model, calibration, 1)
    inputs, targets = frames(model, test, 2)
    shift = -round(model.shift.item() * model.bins_per_semitone)

    def right_pitch(output: Tensor, target: Tensor) -> Tensor:
        semitones = reduce_activations(output.roll(shift, -1), reduction=model.reduction)
        return within_50_cents((semitones[:, None] - 69) * 100 + A4, target)

    return Task(
        network=model.encoder,
        package="pesto-pitch",
        data="synthesized tones",
        calibration=list(seen.split(32)),
        inputs=inputs,
        targets=targets,
        metric=right_pitch,
        measures="frames within 50 cents",
    )


def frames(model: nn.Module, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """What the encoder is given in the middle of each tone, and the pitch there."""
    waves, pitch = tones(count, 0.5, RATE, seed)
    given: list[Tensor] = []
    hook = model.encoder.register_forward_pre_hook(lambda _, args: given.append(args[0].clone()))
    with torch.no_grad():
        model(waves)
    hook.remove()
    by_tone = given[0].unflatten(0, (count, -1))
    middle = by_tone.shape[1] // 2
    return by_tone[:, middle], pitch[:, round(middle * STEP / 1000 * RATE), None]
