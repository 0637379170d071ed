"""Convolutions of spikes by table lookup beside the dense ones, by size and firing rate, on one core.

python benchmarks/lookup.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from sj_ann2snn.simulation.engine.numbers.lookup import LookupConvolution, lookup_convolution

RATES = (0.01, 0.05, 0.2, 0.5)

# Channels in and out, window, stride, height of the image, images.
CONVOLUTIONS = [
    (16, 16, 3, 1, 32, 64),
    (32, 32, 3, 1, 16, 128),
    (32, 64, 3, 2, 16, 128),
    (64, 64, 3, 1, 8, 256),
    (64, 64, 3, 1, 56, 4),
    (128, 128, 3, 1, 8, 128),
    (256, 256, 3, 1, 14, 32),
    (16, 32, 1, 2, 32, 64),
    (64, 256, 1, 1, 56, 4),
    (256, 64, 1, 1, 56, 4),
    (1024, 256, 1, 1, 14, 32),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("dense time / lookup time, medians; firing rate " + "  ".join(f"{rate:5}" for rate in RATES))
    for channels, outputs, window, stride, size, images in CONVOLUTIONS:
        conv = nn.Conv2d(channels, outputs, window, stride, window // 2).to(memory_format=torch.channels_last)
        lookup = lookup_convolution(conv)
        if lookup is None:
            raise SystemExit("No lookup here: it takes numba.")
        gains = [gain(conv, lookup, images, size, rate, args.rounds) for rate in RATES]
        name = f"{channels} to {outputs}, {window}×{window}, stride {stride}, {size}×{size}"
        print(f"{name:46} " + "  ".join(f"{one:5.2f}" for one in gains), flush=True)


def gain(conv: nn.Conv2d, lookup: LookupConvolution, images: int, size: int, rate: float, rounds: int) -> float:
    """How many times as fast as the dense convolution the lookup is."""
    spikes = (torch.rand(images, conv.in_channels, size, size) < rate).float()
    x = spikes.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        ways: list[Callable[[], object]] = [lambda: conv(x), lambda: lookup(conv, x.unsqueeze(0), False)]
        seconds: list[list[float]] = [[], []]
        for _ in range(rounds + 1):
            for way, spent in zip(ways, seconds, strict=True):
                start = time.perf_counter()
                way()
                spent.append(time.perf_counter() - start)
    dense, looked_up = (statistics.median(spent[1:]) for spent in seconds)
    return dense / looked_up


if __name__ == "__main__":
    main()
