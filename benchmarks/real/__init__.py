"""Trained networks that packages on the Python index carry in their wheels, one module each.

`TASKS` names them. A function of it returns a `Task`: the network, data for it, and what its output is worth there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from .task import Task

TASKS = {
    "CREPE tiny": "crepe:tiny",
    "CREPE full": "crepe:full",
    "MTCNN PNet": "mtcnn:pnet",
    "MTCNN RNet": "mtcnn:rnet",
    "MTCNN ONet": "mtcnn:onet",
    "deepCR mask": "deepcr:mask",
    "deepCR inpainting": "deepcr:inpainting",
    "PESTO": "pesto:encoder",
    "FCPE": "fcpe:network",
    "BatDetect2": "batdetect2:network",
    "Basic Pitch": "basic_pitch:network",
    "open_nsfw": "opennsfw:network",
}
"""Module and function by the network's name, in the order of the page."""


def load(name: str, calibration: int, test: int) -> Task:
    """The task of this name, with so many samples; ImportError if a package is missing."""
    module, _, function = TASKS[name].partition(":")
    make: Callable[[int, int], Task] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return make(calibration, test)
