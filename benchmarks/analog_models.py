"""torchvision's models that convert with sj-ann2snn-analog only: error of the mean output against the ANN over time.

    pip install ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-signed
    python benchmarks/analog_models.py            # prints a table; a quarter of an hour on one core

Random weights with ten classes, BatchNorm statistics settled by three batches of normal noise; 16 samples of the same
noise calibrate, in the smallest size of 64 to 224 pixels that a model takes. The first four of them are simulated, for
the largest model the first one. One scale per channel; IF neurons start at half a threshold. The columns are

    if      IF neurons where the ANN has ReLUs, nothing else spikes
    signed  signed neurons of 32 levels there
    spiking the same, and behind every smooth activation and normalization as well (`analog_neuron=True`)
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_models import markdown_table, settled

from sj_ann2snn import Converter, NoSpikesWarning
from sj_ann2snn.simulation import OverTime, Simulator

MODELS = (
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
STEPS = (16, 64, 256)
CALIBRATION = 16
SAMPLES = {"vit_b_16": 1}
"""How many are simulated, where it is not `MANY`."""
MANY = 4
COLUMNS: dict[str, dict[str, Any]] = {
    "if": {"initial_potential": 0.5},
    "signed": {"neuron": "signed", "levels": 32},
    "spiking": {"neuron": "signed", "levels": 32, "analog_neuron": True},
}


def main() -> int:
    parser = argparse.ArgumentParser(description="torchvision's models with operations that do not spike.")
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="NAME")
    args = parser.parse_args()
    rows = [("model", "pixels", *(f"{name}, spiking layers" for name in COLUMNS))]
    for model in args.models:
        torch.manual_seed(0)
        ann, size = settled(model)
        drawn(ann)
        x = torch.randn(CALIBRATION, 3, size, size)
        rows.append((model, str(size), *(cell(ann, x, model, name) for name in COLUMNS)))
    print("\n".join(markdown_table(rows)))
    return 0


def drawn(ann: nn.Module) -> None:
    """Draw the weights of a last layer that torchvision starts at zero: there is no error relative to nothing."""
    for layer in ann.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.xavier_uniform_(layer.weight)


def cell(ann: nn.Module, x: Tensor, model: str, column: str) -> str:
    """Relative L2 error at each of `STEPS`, and how many layers spike."""
    start, samples = time.perf_counter(), x[: SAMPLES.get(model, MANY)]
    with torch.no_grad():
        wanted = ann(samples)
    converter = Converter([x], mode="max", channel_wise=True, progress=False, **COLUMNS[column])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoSpikesWarning)
        snn = converter(ann)
    tiles = Simulator(snn, max(STEPS)).run_all((samples,), lambda _: OverTime())
    total = torch.cat(tiles, dim=1).cumsum(0)
    errors = [float((total[steps - 1] / steps - wanted).norm() / wanted.norm()) for steps in STEPS]
    shown = " / ".join(f"{error:.2g}" if error > 1e-4 else "< 1e-4" for error in errors)
    text = f"{shown}, {len(converter.report.scales)}"
    print(f"{model:20} {column:8} {text} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
    return text


if __name__ == "__main__":
    sys.exit(main())
