"""On a CUDA device: the time of a simulation with the channels of images first and innermost, in every precision.

    python benchmarks/cuda_layout.py --shared DIR [--networks resnet20 vgg_max] [--samples 100 1000]

DIR (or the environment variable SJ_ANN2SNN_SHARED) as for simulation_speed.py. It is what `likes_channels_last` in
`sj_ann2snn.simulation.engine.numbers.precision` was decided by.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
from reference_networks import VARIABLE, reference_network

import sj_ann2snn.simulation.engine.simulator as simulator
from sj_ann2snn import Converter, simulate
from sj_ann2snn.compat import spikingjelly_version

STEPS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg_max"])
    parser.add_argument("--samples", nargs="+", type=int, default=[100, 1000])
    args = parser.parse_args()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, SpikingJelly {spikingjelly_version()}, T={STEPS}"
    )
    print("milliseconds, medians of 5: channels first, channels innermost")
    for name in args.networks:
        ann = reference_network(args.shared, name).cuda()
        for samples in args.samples:
            x = torch.rand(samples, 3, 32, 32, device="cuda")
            snn = Converter([x], mode="99.9%", progress=False)(ann)
            for precision in ("float32", "tf32", "bfloat16"):
                first, innermost = (milliseconds(snn, x, precision, last) for last in (False, True))
                print(f"{name:10} {samples:5} samples  {precision:9} {first:8.1f} {innermost:8.1f}", flush=True)


def milliseconds(snn: torch.nn.Module, x: torch.Tensor, precision: str, channels_last: bool) -> float:
    """Median time of a simulation after one that does not count."""
    simulator.likes_channels_last = lambda *_: channels_last  # type: ignore[assignment]
    spent = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        simulate(snn, x, STEPS, precision=precision)
        torch.cuda.synchronize()
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent[1:])


if __name__ == "__main__":
    main()
