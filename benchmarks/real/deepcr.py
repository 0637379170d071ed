"""deepCR: U-Nets that find cosmic rays in images of the Hubble Space Telescope, and paint over them.

The sky is scikit-image's part of the Hubble Deep Field. Detector noise and the rays are drawn, so the truth is known.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .task import Task

SIZE = 64
ELECTRONS, SKY, READ_NOISE = 4.0, 40.0, 5.0
"""Per grey level, of the background, and of reading out."""


def mask(calibration: int, test: int) -> Task:
    seen, _, _ = images(calibration, 1)
    inputs, _, rays = images(test, 2)
    return Task(
        network=model().maskNet.module,
        package="deepcr",
        data="Hubble Deep Field with drawn cosmic rays",
        calibration=list(seen.split(8)),
        inputs=inputs,
        targets=rays,
        metric=dice,
        measures="dice of the masks",
    )


def inpainting(calibration: int, test: int) -> Task:
    def masked(count: int, seed: int) -> tuple[Tensor, Tensor]:
        image, sky, rays = images(count, seed)
        return torch.cat([image * (1 - rays), rays], 1), torch.cat([sky, rays], 1)

    seen, _ = masked(calibration, 1)
    inputs, targets = masked(test, 2)
    return Task(
        network=model().inpaintNet.module,
        package="deepcr",
        data="Hubble Deep Field with drawn cosmic rays",
        calibration=list(seen.split(8)),
        inputs=inputs,
        targets=targets,
        metric=right_sky,
        measures="painted pixels within 3σ of the sky",
    )


def model() -> nn.Module:
    from deepCR import deepCR

    found: nn.Module = deepCR(mask="ACS-WFC", inpaint="ACS-WFC-F606W-2-32", device="CPU")
    return found


def images(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images in electrons, the same without noise and rays, and the rays as 0 and 1: [N, 1, SIZE, SIZE] each.

    Seeds see parts of the sky of their own: odd ones the upper half, even ones the lower half.
    """
    import skimage

    field = skimage.data.hubble_deep_field().mean(2)
    half = len(field) // 2
    field = field[:half] if seed % 2 else field[half:]
    draw = np.random.default_rng(seed)
    sky, rays, shown = (np.zeros((count, 1, SIZE, SIZE)) for _ in range(3))
    for index in range(count):
        y, x = draw.integers(0, field.shape[0] - SIZE), draw.integers(0, field.shape[1] - SIZE)
        sky[index, 0] = SKY + ELECTRONS * field[y : y + SIZE, x : x + SIZE]
        deposit = cosmic_rays(draw)
        rays[index, 0] = deposit > 3 * READ_NOISE
        shown[index, 0] = draw.poisson(sky[index, 0]) + draw.normal(0, READ_NOISE, (SIZE, SIZE)) + deposit
    parts = (torch.tensor(one, dtype=torch.float32) for one in (shown, sky, rays))
    return next(parts), next(parts), next(parts)


def cosmic_rays(draw: np.random.Generator) -> np.ndarray:
    """Electrons in straight tracks, most of them short."""
    deposit = np.zeros((SIZE, SIZE))
    for _ in range(draw.integers(2, 7)):
        length, angle = 1 + draw.exponential(8), draw.uniform(0, np.pi)
        energy = np.exp(draw.uniform(np.log(150), np.log(3000)))
        y, x = draw.uniform(0, SIZE, 2)
        for step in np.arange(0, length, 0.1):
            at = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            if max(at) < SIZE and min(at) >= 0:
                deposit[at] += 0.1 * energy
    return deposit


def dice(output: Tensor, target: Tensor) -> Tensor:
    found = (output > 0.5).float()
    return 2 * (found * target).flatten(1).sum(1) / (found + target).flatten(1).sum(1).clamp(min=1)


def right_sky(output: Tensor, target: Tensor) -> Tensor:
    sky, rays = target[:, :1], target[:, 1:]
    noise = (sky + READ_NOISE**2).sqrt()
    right = ((output - sky).abs() < 3 * noise).float() * rays
    return right.flatten(1).sum(1) / rays.flatten(1).sum(1).clamp(min=1)
