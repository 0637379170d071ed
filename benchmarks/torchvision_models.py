"""Every classification model of torchvision, converted: error of the mean output against the ANN, beside SpikingJelly.

    python benchmarks/torchvision_models.py --results DIR                 # measures; goes on where it was stopped
    python benchmarks/torchvision_models.py --results DIR --page FILE     # writes the table of what is there

Random weights with ten classes, BatchNorm statistics settled by three batches of normal noise; 64 samples 3×64×64
calibrate (or of the smallest size the model takes), the first `--samples` of them are simulated, all with one scale per
channel and neurons that start at half a threshold. A converted network is one whose relative L2 error goes to zero as
T grows; the columns are

    if           plain IF neurons
    burst        up to 16 spikes a step: `pip install ./plugins/sj-ann2snn-burst`
    differential spikes of 16 sizes: `pip install ./plugins/sj-ann2snn-differential`; they need no more than T = 32
    spikingjelly SpikingJelly's own converter, with the same settings

`--samples 2` takes about an hour on two cores, all 64 samples about half a day.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sj_ann2snn import Ann2SnnError, Converter, __version__
from sj_ann2snn.compat import reset_net, spikingjelly_version
from sj_ann2snn.simulation.engine import OverTime, Simulator

STEPS = (32, 128, 512)
CLASSES = 10
CALIBRATION = 64
SIZES = (64, 75, 96, 128, 224)
COLUMNS = ("if", "burst", "differential", "spikingjelly")
LEVELS = THRESHOLDS = 16
GOAL, GOAL_LAYERS = 0.05, 34


@dataclass(frozen=True)
class Row:
    """One model in one column.

    Attributes:
        model: Its name in torchvision.
        column: One of `COLUMNS`.
        size: Height and width of the input.
        layers: Weighted layers on its longest path, None if torch.fx cannot tell.
        samples: How many were simulated.
        refused: Why it does not convert; empty if it does.
        error: Relative L2 error of the mean output, by number of steps.
        agreement: Share of the samples with the ANN's argmax, by number of steps.
        seconds: For the conversion and the simulation.
        versions: Of what ran.
    """

    model: str
    column: str
    size: int
    layers: int | None
    samples: int
    refused: str
    error: dict[str, float]
    agreement: dict[str, float]
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description="torchvision's classification models, converted.")
    parser.add_argument("--results", type=Path, required=True, help="folder of the measured rows, one file each")
    parser.add_argument("--models", nargs="*", default=all_models(), metavar="NAME", help="default: all")
    parser.add_argument("--columns", nargs="*", default=COLUMNS, choices=COLUMNS)
    parser.add_argument(
        "--samples", type=int, default=CALIBRATION, help=f"to simulate, at most {CALIBRATION} (default)"
    )
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
            row = measure(model, column, min(args.samples, CALIBRATION))
            file.write_text(json.dumps(asdict(row), indent=1) + "\n", encoding="utf-8")
            print(f"{model:20} {column:13} {row.refused or row.error} ({row.seconds:.0f} s)", flush=True)
    return 0


def all_models() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def measure(model: str, column: str, samples: int) -> Row:
    """Convert one model, run it, and compare it with the ANN."""
    torch.manual_seed(0)
    ann, size = settled(model)
    x = torch.randn(CALIBRATION, 3, size, size)
    start = time.perf_counter()
    with torch.no_grad():
        wanted = ann(x[:samples])
    error: dict[str, float] = {}
    agreement: dict[str, float] = {}
    try:
        means = RUNNERS[column](ann, x, samples)
        refused = ""
    except Exception as problem:
        refused = reason(problem)
        means = {}
    for steps, mean in means.items():
        error[str(steps)] = float((mean - wanted).norm() / wanted.norm())
        agreement[str(steps)] = float((mean.argmax(1) == wanted.argmax(1)).double().mean())
    return Row(
        model,
        column,
        size,
        weighted_layers(ann),
        samples,
        refused,
        error,
        agreement,
        round(time.perf_counter() - start, 1),
        versions(),
    )


def settled(model: str) -> tuple[nn.Module, int]:
    """The model with random weights and settled BatchNorm statistics, and the smallest size it takes."""
    options = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
    ann = torchvision.models.get_model(model, weights=None, num_classes=CLASSES, **options)
    size = smallest_size(ann.eval())
    for module in ann.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None  # the plain mean over the batches
            module.train()
    with torch.no_grad():
        for _ in range(3):
            ann(torch.randn(32, 3, size, size))
    return ann.eval(), size


def smallest_size(ann: nn.Module) -> int:
    for size in SIZES:
        try:
            with torch.no_grad():
                answer = ann(torch.randn(2, 3, size, size))
        except (RuntimeError, AssertionError, ValueError):
            continue
        if answer.shape == (2, CLASSES):
            return size
    raise ValueError(f"takes none of the sizes {SIZES}")


def weighted_layers(ann: nn.Module) -> int | None:
    """Linear and Conv layers on the longest path."""
    try:
        graph = fx.symbolic_trace(ann)
    except Exception:  # whatever a forward that cannot be traced raises
        return None
    depth: dict[fx.Node, int] = {}
    for node in graph.graph.nodes:
        weighted = node.op == "call_module" and isinstance(graph.get_submodule(node.target), (nn.Linear, _ConvNd))
        depth[node] = max((depth[source] for source in node.all_input_nodes), default=0) + weighted
    return max(depth.values())


def ours(ann: nn.Module, x: Tensor, samples: int, shown: tuple[int, ...] = STEPS, **options: Any) -> dict[int, Tensor]:
    """The mean output by number of steps, from one run of the longest."""
    snn = Converter([x], mode="max", channel_wise=True, progress=False, **options)(ann)
    tiles = Simulator(snn, max(shown)).run_all((x[:samples],), lambda _: OverTime())
    total = torch.cat(tiles, dim=1).cumsum(0)
    return {steps: total[steps - 1] / steps for steps in shown}


def spikingjelly(ann: nn.Module, x: Tensor, samples: int) -> dict[int, Tensor]:
    """The same with SpikingJelly's own converter, run step by step."""
    from spikingjelly.activation_based import ann2snn

    recipe = ann2snn.RateCodingRecipe(dataloader=[(x, None)], mode="Max", channel_wise=True, half_threshold=True)
    snn = ann2snn.Converter(recipe).convert(ann)
    means: dict[int, Tensor] = {}
    total: Any = 0.0
    reset_net(snn)
    with torch.no_grad():
        for step in range(1, max(STEPS) + 1):
            total = total + snn(x[:samples])
            if step in STEPS:
                means[step] = total / step
    return means


RUNNERS: dict[str, Callable[[nn.Module, Tensor, int], dict[int, Tensor]]] = {
    "if": lambda ann, x, samples: ours(ann, x, samples, initial_potential=0.5),
    "burst": lambda ann, x, samples: ours(ann, x, samples, neuron="burst", levels=LEVELS),
    "differential": lambda ann, x, samples: ours(
        ann, x, samples, STEPS[:1], neuron="differential", thresholds=THRESHOLDS
    ),
    "spikingjelly": spikingjelly,
}


def reason(problem: Exception) -> str:
    """Why a network does not convert, in a table's cell."""
    listed = getattr(problem, "problems", ())
    if listed:
        counts = Counter(one.operation for one in listed)
        return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.most_common())
    if not isinstance(problem, Ann2SnnError):
        traceback.print_exception(problem, limit=-2, file=sys.stderr)
    first = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
    return f"{type(problem).__name__}: {re.sub(r' at 0x[0-9a-f]+', '', first)}"


def versions() -> dict[str, str]:
    return {
        "sj-ann2snn": __version__,
        "SpikingJelly": spikingjelly_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "Python": platform.python_version(),
    }


def read_rows(folder: Path) -> dict[str, dict[str, Row]]:
    """The measured rows, by model and column, in torchvision's order."""
    rows: dict[str, dict[str, Row]] = {}
    for model in all_models():
        for column in COLUMNS:
            file = folder / f"{model}.{column}.json"
            if file.is_file():
                rows.setdefault(model, {})[column] = Row(**json.loads(file.read_text()))
    return rows


def page(rows: dict[str, dict[str, Row]]) -> str:
    """What was measured, as Markdown."""
    converted = {model: row for model, row in rows.items() if not row["if"].refused}
    refused = {model: row["if"] for model, row in rows.items() if row["if"].refused}
    counts = sorted({one.samples for row in converted.values() for one in row.values()})
    samples = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    ran = next(iter(converted.values()))["if"].versions
    head = ("model", "layers", "pixels", "IF", "burst", "differential, T = 32", "SpikingJelly")
    body = [
        (model, str(row["if"].layers or "–"), str(row["if"].size), *(cell(row.get(column)) for column in COLUMNS))
        for model, row in converted.items()
    ]
    return PAGE.format(
        models=len(rows),
        converted=len(converted),
        samples=samples,
        levels=LEVELS,
        thresholds=THRESHOLDS,
        spikingjelly=ran["SpikingJelly"],
        table="\n".join(markdown_table([head, *body])),
        verdicts="\n".join(verdicts(converted)),
        refused="\n".join(
            markdown_table(
                [("model", "stands in the way"), *((model, cell(row)) for model, row in refused.items())],
            )
        ),
        versions=", ".join(f"{name} {version}" for name, version in ran.items()),
    )


PAGE = """\
# torchvision's models

{converted} of {models} classification models convert. The others are refused, with a list of the operations that
prevent the conversion.

The models have random weights and ten classes. Their BatchNorm statistics come from three batches of normal noise.
The calibration uses 64 images of normal noise, in the smallest of the sizes 64, 75, 96, 128 and 224 pixels that a
model accepts; {samples} of them are simulated. Scales are the maximum per channel; IF neurons and bursts start at
half a threshold. A cell shows the relative L2 error of the mean output against the ANN at T = 32, 128 and 512, and in
brackets the share of images whose largest output is the ANN's after the last of these. *Layers* counts the weighted
layers on the longest path.

- **IF**: SpikingJelly's IF neurons.
- **burst**: up to {levels} spikes per step (`neuron="burst", levels={levels}`, from `plugins/sj-ann2snn-burst`).
- **differential**: spikes of {thresholds} sizes (`neuron="differential", thresholds={thresholds}`, from
  `plugins/sj-ann2snn-differential`), at T = 32 only.
- **SpikingJelly**: `RateCodingRecipe` of SpikingJelly {spikingjelly} with the same settings; its network runs step by
  step.

{table}

{verdicts}

Where the error of plain IF neurons stays high, no single layer is wrong: every layer adds the rounding of its rates,
and a random deep network passes it on and amplifies it a little. Trained networks are far more forgiving.

## What is refused

{refused}

## Detection and segmentation

Segmentation networks on ResNets (`fcn_resnet50`, `fcn_resnet101`, `deeplabv3_resnet50`, `deeplabv3_resnet101`) convert
as a whole and return the dict of maps that the ANN returns; `examples/segmentation.py` runs one. On MobileNet v3,
DeepLab and LR-ASPP are refused, with a list of their hard swish and hard sigmoid functions. With
`sj-ann2snn-analog` they convert to hybrids.

A detector decides by values (which boxes overlap?), so it cannot be traced as a whole. The error names the parts that
convert, and `convert_only` takes them:

```python
from torchvision.models.detection import fasterrcnn_resnet50_fpn

detector = fasterrcnn_resnet50_fpn(weights="DEFAULT").eval()
parts = ["backbone", "rpn.head", "roi_heads.box_head"]
snn = Converter(dataloader=loader, mode="99.9%", channel_wise=True, convert_only=parts)(detector)  # (images, targets)
boxes = simulate(snn, images, T=64)  # a list of dicts with boxes, labels and scores, as from the detector
```

Batches are what the detector takes: a list of images of any sizes, alone or in front of the targets. `simulate` runs
each part for T steps where the detector calls it, and hands its mean output to the rest, which runs once: anchors,
proposals, RoIAlign and non-maximum suppression are those of the ANN. `examples/detection.py` is a complete run.

| detector | parts that convert | what does not |
|---|---|---|
| `fasterrcnn_resnet50_fpn` | `backbone`, `rpn.head`, `roi_heads.box_head` | |
| `maskrcnn_resnet50_fpn` | these, `roi_heads.mask_head`, `roi_heads.mask_predictor` | |
| `keypointrcnn_resnet50_fpn` | these, `roi_heads.keypoint_head` | |
| `retinanet_resnet50_fpn` | `backbone`, `head` | |
| `retinanet_resnet50_fpn_v2`, `fcos_resnet50_fpn` | `backbone` | `head`: GroupNorm |
| `ssd300_vgg16` | `backbone.features`, `backbone.extra.0` to `.4` | `backbone`: it divides maps by their norm |
| `ssdlite320_mobilenet_v3_large` | `backbone`, `head`, with `sj-ann2snn-analog` | hard swish, hard sigmoid |

What has no neurons (`head` of SSD, `roi_heads.box_predictor`) stays as it is in any case.

## Measure it yourself

```console
pip install . ./plugins/sj-ann2snn-burst ./plugins/sj-ann2snn-differential
python benchmarks/torchvision_models.py --results rows --samples 2
python benchmarks/torchvision_models.py --results rows --page docs/torchvision.md
```

An interrupted run continues where it stopped. Measured with {versions}.
"""


def cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if row.refused:
        return row.refused.replace("|", "\\|")
    shown = sorted(map(int, row.error))
    errors = " / ".join(f"{row.error[str(steps)]:.2g}" for steps in shown)
    return f"{errors} ({row.agreement[str(shown[-1])]:.0%})"


def verdicts(converted: dict[str, dict[str, Row]]) -> list[str]:
    """For each column whether the errors fall as T grows, and are small up to a depth."""
    lines = []
    for column in COLUMNS:
        rows = [row[column] for row in converted.values() if column in row and not row[column].refused]
        errors = {row.model: [row.error[str(steps)] for steps in STEPS if str(steps) in row.error] for row in rows}
        if column == "differential":
            worst = max(errors, key=lambda model: errors[model][-1])
            lines.append(
                f"- **{column}**: {len(rows)} converted; at T = {STEPS[0]} the largest error, of {worst}, is "
                f"{errors[worst][-1]:.2g}."
            )
            continue
        rising = [model for model, (few, more, most) in errors.items() if not few > more > most]
        shallow = [row.model for row in rows if row.layers is not None and row.layers <= GOAL_LAYERS]
        above = [model for model in shallow if errors[model][-1] > GOAL]
        lines.append(
            f"- **{column}**: {len(rows)} converted; the error falls with T "
            + (f"except for {', '.join(rising)}" if rising else "for all of them")
            + f"; of the {len(shallow)} with at most {GOAL_LAYERS} layers it is above {GOAL} at T = {max(STEPS)} for "
            + (", ".join(above) if above else "none")
            + "."
        )
    return lines


def markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines


if __name__ == "__main__":
    sys.exit(main())
