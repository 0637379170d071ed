"""How the defaults of the joint correction were chosen: divergence and points lost on training images held out.

    python benchmarks/low_latency_settings.py --shared DIR [--network resnet20]

The first 1,024 training images calibrate, as in low_latency.py; the last 2,500 training images judge. No test image is
read. Needs the plugin sj-ann2snn-calibration; half an hour on two cores. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from low_latency import BATCH, CALIBRATION, images
from reference_networks import VARIABLE, reference_network
from torch.nn.functional import kl_div

from sj_ann2snn import Converter, simulate

RATES = (0.02, 0.04, 0.08)
"""Learning rates to try, each divided by T."""

DELAYS = {4: (1, 2), 8: (4, 2), 16: (8, 4), 32: (16, 8)}
"""Steps to leave out, by T: the first with every rate, the others with the middle one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--steps", nargs="+", type=int, default=list(DELAYS))
    parser.add_argument("--judges", type=int, default=2500, help="training images that judge (default: %(default)s)")
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"name the folder with the data and the networks: --shared DIR, or set {VARIABLE}")
    ann = reference_network(args.shared, args.network)
    calibration = list(images(args.shared, "train", CALIBRATION)[0].split(BATCH))
    x, labels = images(args.shared, "train", args.judges, last=True)
    with torch.no_grad():
        wanted = torch.cat([ann(part) for part in x.split(250)])
    right = (wanted.argmax(1) == labels).float().mean().item()
    print(f"{args.network}: the ANN's accuracy on the images that judge is {right:.4f}.\n")
    print("| T | delay | learning rate · T | divergence | points lost | conversion |\n|---|---|---|---|---|---|")
    for steps in args.steps:
        for delay in DELAYS[steps]:
            for rate in RATES if delay == DELAYS[steps][0] else RATES[1:2]:
                start = time.perf_counter()
                options = {"delay": delay, "learning_rate": rate / steps}
                snn = Converter(calibration, mode="low-latency", T=steps, progress=False, **options)(ann)
                spent = time.perf_counter() - start
                answer = torch.cat([simulate(snn, part, T=steps) for part in x.split(250)])
                given, target = answer.log_softmax(1), wanted.log_softmax(1)
                divergence = kl_div(given, target, reduction="batchmean", log_target=True)
                lost = 100 * (right - (answer.argmax(1) == labels).float().mean().item())
                print(f"| {steps} | {delay} | {rate} | {divergence:.4f} | {lost:.2f} | {spent:.0f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
