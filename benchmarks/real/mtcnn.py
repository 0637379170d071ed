"""MTCNN (facenet-pytorch): three networks that find faces, each on the windows that the one before it leaves.

The faces are the 100 of scikit-image's part of LFW, planted into its photographs of textures.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .task import Task

THRESHOLDS = {"PNet": 0.6, "RNet": 0.7, "ONet": 0.7}
"""Of the probability of a face, as in MTCNN."""

WINDOW = {"PNet": 12, "RNet": 24, "ONet": 48}
"""Pixels of the side of what a network looks at."""

SCENE, SHIFT = 96, 0.25
"""Pixels of a scene, and by which part of its side a window may miss its face."""

FACES = {1: (0, 50), 2: (50, 100)}
"""By seed: calibration and test see different people."""


def make(which: str, calibration: int, test: int) -> Task:
    from facenet_pytorch.models import mtcnn

    seen, _ = windows(which, calibration, 1)
    inputs, targets = windows(which, test, 2)
    return Task(
        network=getattr(mtcnn, which)().eval(),
        package="facenet-pytorch",
        data="faces of LFW in textures, and textures",
        calibration=list(seen.split(32)),
        inputs=inputs,
        targets=targets,
        metric=partial(windows_judged, THRESHOLDS[which]),
        measures="windows judged right; faces with IoU > 0.5",
    )


pnet, rnet, onet = partial(make, "PNet"), partial(make, "RNet"), partial(make, "ONet")


def windows(which: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Half of the windows hold a face, a little off, the others hold none.

    The targets are boxes (x, y, x, y) with the window as the unit; NaN where there is no face.
    """
    draw = np.random.default_rng(seed)
    faces, textures = pictures()
    first, last = FACES[seed]
    size = WINDOW[which]
    shown, boxes = [], torch.full((count, 4), torch.nan)
    for index in range(count):
        texture = textures[draw.integers(len(textures))]
        y, x = draw.integers(0, 512 - SCENE, 2)
        scene = texture[y : y + SCENE, x : x + SCENE].copy()
        side = int(draw.integers(40, 60))
        corner = draw.integers(15, SCENE - 15 - side, 2)
        window = np.array([*corner, *(corner + side)], float)
        if index % 2 == 0:
            face = resized(faces[draw.integers(first, last)], side)
            scene[corner[1] : corner[1] + side, corner[0] : corner[0] + side] = face
            window += side * draw.uniform(-SHIFT, SHIFT, 4)
            across = window[2:] - window[:2]
            true = np.array([*corner, *(corner + side)], float)
            boxes[index] = torch.tensor((true - np.tile(window[:2], 2)) / np.tile(across, 2))
        left, top, right, bottom = window.round().astype(int).clip(0, SCENE)
        shown.append(resized(scene[top:bottom, left:right], size))
    grey = (torch.tensor(np.stack(shown), dtype=torch.float32) - 127.5) / 128
    return grey[:, None].expand(-1, 3, -1, -1).contiguous(), boxes


def pictures() -> tuple[np.ndarray, list[np.ndarray]]:
    """Grey faces and textures, with values from 0 to 255."""
    import skimage

    faces = 255 * skimage.data.lfw_subset()[:100]
    return faces, [getattr(skimage.data, name)().astype(float) for name in ("brick", "grass", "gravel")]


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    given = torch.tensor(picture, dtype=torch.float32)[None, None]
    mode = "area" if size < min(picture.shape) else "bilinear"
    return F.interpolate(given, (size, size), mode=mode)[0, 0].numpy()


def windows_judged(threshold: float, output: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """1 for a face that is found with an IoU above 0.5 and for a window without one that is rejected, else 0."""
    offset, score = output[0].flatten(1), output[-1][:, 1].flatten()
    found = score > threshold
    box = offset + torch.tensor([0.0, 0.0, 1.0, 1.0])
    is_face = ~target.isnan().any(1)
    return torch.where(is_face, found & (iou(box, target) > 0.5), ~found).float()


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Of boxes in rows."""
    common = (torch.minimum(one, other)[:, 2:] - torch.maximum(one, other)[:, :2]).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one, other)]
    return common / (areas[0] + areas[1] - common)
