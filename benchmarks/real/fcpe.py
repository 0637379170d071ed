"""FCPE (torchfcpe): the pitch of every frame of a mel spectrogram, as 360 classes.

Of its activations one is a LeakyReLU, which spikes; GLU, SiLU and the normalizations are computed on analog values.
"""

from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor, nn

from .sounds import tones, within_50_cents
from .task import Task

RATE, HOP, SECONDS = 16000, 160, 0.4


def network(calibration: int, test: int) -> Task:
    import torchfcpe

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its options
        model = torchfcpe.spawn_bundled_infer_model("cpu")
    decode = model.model.latent2cents_local_decoder
    seen, _ = spectrograms(model, calibration, 1)
    inputs, targets = spectrograms(model, test, 2)

    def right_pitch(output: Tensor, target: Tensor) -> Tensor:
        return within_50_cents(decode(output, mask=False)[..., 0], target)

    return Task(
        network=model.model.eval(),
        package="torchfcpe",
        data="synthesized tones",
        calibration=list(seen.split(8)),
        inputs=inputs,
        targets=targets,
        metric=right_pitch,
        measures="frames within 50 cents",
    )


def spectrograms(model: nn.Module, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mel spectrograms [N, frames, bands], and the pitch of every frame."""
    waves, pitch = tones(count, SECONDS, RATE, seed)
    with torch.no_grad():
        mel = model.wav2mel(waves[..., None], RATE)
    at = (torch.arange(mel.shape[1]) * HOP).clamp(max=pitch.shape[1] - 1)
    return mel, pitch[:, at]
