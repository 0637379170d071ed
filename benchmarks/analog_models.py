"""torchvision's models that convert with sj-ann2snn-analog only: error of the mean output against the ANN over time.

    pip install ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-signed ./plugins/sj-ann2snn-differential
    python benchmarks/analog_models.py --results DIR                 # measures; goes on where it was stopped
    python benchmarks/analog_models.py --results DIR --page FILE     # writes the table of what is there

Random weights with ten classes, BatchNorm statistics settled by three batches of normal noise; 16 samples of the same
noise calibrate, in the smallest size of 64 to 224 pixels that a model takes, and the first `--samples` of them are
simulated. One scale per channel; IF neurons start at half a threshold. The columns are

    if      IF neurons where the ANN has ReLUs, nothing else spikes
    signed  signed neurons of 32 levels there
    spiking the same, and behind every smooth activation and normalization as well (`analog_neuron=True`)
    differential   differential neurons with 16 sizes of spikes in all of these places
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision_models import markdown_table, settled, versions

from sj_ann2snn import Converter, NoSpikesWarning
from sj_ann2snn.simulation.engine import OverTime, Simulator

MODELS = (
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
    "mobilenet_v3_large",
    "efficientnet_v2_s",
    "swin_v2_t",
)
STEPS = (16, 64, 256)
CALIBRATION = 16
LEVELS, SIZES = 32, 16
GOAL = 0.05
COLUMNS: dict[str, dict[str, Any]] = {
    "if": {"initial_potential": 0.5},
    "signed": {"neuron": "signed", "levels": LEVELS},
    "spiking": {"neuron": "signed", "levels": LEVELS, "analog_neuron": True},
    "differential": {"neuron": "differential", "thresholds": SIZES, "analog_neuron": True},
}


@dataclass(frozen=True)
class Row:
    """One model in one column.

    Attributes:
        model: Its name in torchvision.
        column: One of `COLUMNS`.
        size: Height and width of the input.
        samples: How many were simulated.
        spiking: Layers that spike.
        analog: Operations that are computed on analog values.
        error: Relative L2 error of the mean output, by number of steps.
        seconds: For the conversion and the simulation.
        versions: Of what ran.
    """

    model: str
    column: str
    size: int
    samples: int
    spiking: int
    analog: int
    error: dict[str, float]
    seconds: float
    versions: dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description="torchvision's models with operations that do not spike.")
    parser.add_argument("--results", type=Path, required=True, help="folder of the measured rows, one file each")
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="NAME", help="of torchvision")
    parser.add_argument("--columns", nargs="*", default=tuple(COLUMNS), choices=COLUMNS)
    parser.add_argument("--samples", type=int, default=2, help=f"to simulate, at most {CALIBRATION} (default: 2)")
    parser.add_argument("--page", type=Path, help="write the table there and measure nothing")
    args = parser.parse_args()
    if args.page:
        args.page.write_text(page(read_rows(args.results)), encoding="utf-8")
        return 0
    args.results.mkdir(parents=True, exist_ok=True)
    for model in args.models:
        for column in args.columns:
            file = args.results / f"{model}.{column}.json"
            if file.is_file() and json.loads(file.read_text())["samples"] >= args.samples:
                continue
            plain = args.results / f"{model}.if.json"
            if column == "signed" and plain.is_file() and not json.loads(plain.read_text())["spiking"]:
                continue  # no ReLU, no neurons: the same network
            row = measure(model, column, min(args.samples, CALIBRATION))
            file.write_text(json.dumps(asdict(row), indent=1) + "\n", encoding="utf-8")
            print(f"{model:20} {column:8} {row.error} ({row.seconds:.0f} s)", flush=True)
    return 0


def measure(model: str, column: str, samples: int) -> Row:
    """Convert one model, run it, and compare it with the ANN."""
    torch.manual_seed(0)
    ann, size = settled(model)
    drawn(ann)
    x = torch.randn(CALIBRATION, 3, size, size)
    start = time.perf_counter()
    with torch.no_grad():
        wanted = ann(x[:samples])
    converter = Converter([x], mode="max", channel_wise=True, progress=False, **COLUMNS[column])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoSpikesWarning)
        snn = converter(ann)
    tiles = Simulator(snn, max(STEPS)).run_all((x[:samples],), lambda _: OverTime())
    total = torch.cat(tiles, dim=1).cumsum(0)
    return Row(
        model,
        column,
        size,
        samples,
        len(converter.report.scales),
        sum(entry.analog for entry in converter.report),
        {str(steps): float((total[steps - 1] / steps - wanted).norm() / wanted.norm()) for steps in STEPS},
        round(time.perf_counter() - start, 1),
        versions(),
    )


def drawn(ann: nn.Module) -> None:
    """Draw what torchvision starts at zero or at nearly zero: there is no error relative to nothing."""
    for layer in ann.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.xavier_uniform_(layer.weight)
        if isinstance(getattr(layer, "layer_scale", None), nn.Parameter):
            nn.init.uniform_(layer.layer_scale, 0.5, 1.5)  # ConvNeXt: 1e-6, which hides all its blocks


def read_rows(folder: Path) -> dict[str, dict[str, Row]]:
    """The measured rows, by model and column."""
    rows: dict[str, dict[str, Row]] = {}
    for file in folder.glob("*.json"):
        row = Row(**json.loads(file.read_text()))
        rows.setdefault(row.model, {})[row.column] = row
    known = [model for model in MODELS if model in rows]
    return {model: rows[model] for model in (*known, *sorted(set(rows) - set(known)))}


def page(rows: dict[str, dict[str, Row]]) -> str:
    """What was measured, as Markdown."""
    every = [row for columns in rows.values() for row in columns.values()]
    return PAGE.format(
        levels=LEVELS,
        sizes=SIZES,
        table="\n".join(markdown_table([HEAD, *(line(columns) for columns in rows.values())])),
        verdicts="\n".join(verdicts(rows)),
        versions="; or ".join(
            dict.fromkeys(", ".join(f"{name} {version}" for name, version in row.versions.items()) for row in every)
        ),
    )


PAGE = """\
# torchvision's models with smooth activations, gates, normalization and attention

With `plugins/sj-ann2snn-analog`, these models convert to hybrids: operations that no neuron can do are computed on
analog values.

The models have random weights and ten classes. Their BatchNorm statistics come from three batches of normal noise. The
calibration uses 16 images of normal noise, in the smallest of the sizes 64, 75, 96, 128 and 224 pixels that a model
accepts; the table states how many of them are simulated. Scales are the maximum per channel, which is the last
dimension in transformers and inside ConvNeXt's blocks. A cell shows the relative L2 error of the mean output against
the ANN at T = 16, 64 and 256, and in brackets the number of spiking layers. Two initializations are replaced by random
values: the output layer of ViT, which is zero in torchvision, and the factors of ConvNeXt's blocks, which are 1e-6 in
torchvision and here between 0.5 and 1.5.

- **IF**: IF neurons in place of the ANN's ReLUs, starting at half a threshold.
- **signed**: signed neurons in place of the ReLUs (`neuron="signed", levels={levels}`, from
  `plugins/sj-ann2snn-signed`).
- **signed, everywhere**: also behind every smooth activation and normalization (`analog_neuron=True`).
- **differential, everywhere**: differential neurons in the same places (`neuron="differential", thresholds={sizes}`,
  from `plugins/sj-ann2snn-differential`).

{table}

{verdicts}

![One SiLU at work, and the error over time](images/analog.png)

Left: two IF neurons drive one SiLU. The SiLU is computed on the mean of its current, not on the current of each step,
and the mean of its output is SiLU of that mean. Right: the column "signed, everywhere".

For a constant input, a model without a spiking layer gives the ANN's answer at every step. The error of the other
models is the rounding of the neurons' rates, which every layer of random weights passes on ([table](torchvision.md)).
With the same analog operations, several spikes per step (signed neurons, or `neuron="burst", levels={levels}`) reduce
it to a tenth or less, and differential neurons to less than that after 16 steps.

## Measure it yourself

```console
pip install . ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-signed ./plugins/sj-ann2snn-differential
python benchmarks/analog_models.py --results rows
python benchmarks/analog_models.py --results rows --page docs/analog.md
python benchmarks/analog_figure.py --results rows --picture docs/images/analog.png
```

An interrupted run continues where it stopped. Measured with {versions}.
"""


HEAD = ("model", "pixels", "images", "IF", "signed", "signed, everywhere", "differential, everywhere")


def line(columns: dict[str, Row]) -> tuple[str, ...]:
    row, counts = next(iter(columns.values())), sorted({row.samples for row in columns.values()})
    images = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
    return row.model, str(row.size), images, *(cell(columns, column) for column in COLUMNS)


def cell(columns: dict[str, Row], column: str) -> str:
    row = columns.get(column)
    if row is None:
        return "the same" if "if" in columns and not columns["if"].spiking else "not measured"
    errors = [row.error[str(steps)] for steps in STEPS]
    shown = "< 1e-4" if max(errors) < 1e-4 else " / ".join(f"{error:.2g}" for error in errors)
    return f"{shown} ({row.spiking})"


def verdicts(rows: dict[str, dict[str, Row]]) -> list[str]:
    """For each column whether the errors fall as T grows, and are small in the end."""
    lines = []
    for column, title in zip(COLUMNS, HEAD[-len(COLUMNS) :], strict=True):
        found = [columns.get(column, columns.get("if")) for columns in rows.values()]
        errors = {row.model: [row.error[str(steps)] for steps in STEPS] for row in found if row}
        above = [model for model, (*_, last) in errors.items() if last > GOAL]
        lines.append(
            f"- **{title}**: {len(errors)} measured; at T = {max(STEPS)} the error is above {GOAL} for "
            + (", ".join(above) if above else "none")
            + "."
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
