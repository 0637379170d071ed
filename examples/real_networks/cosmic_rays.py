"""A mask of cosmic rays with a spiking network: the U-Net of deepCR converts, its pipeline stays as it is.

    python examples/real_networks/cosmic_rays.py
    python examples/real_networks/cosmic_rays.py --neuron if --mode 99.9% --T 128

deepCR finds the pixels that cosmic rays hit in pictures of the Hubble Space Telescope. Its U-Net (MaxPool,
ConvTranspose, concatenation) ends in a sigmoid. The sky and the rays are synthesized, so the hit pixels are known.

Mask against truth (the ANN: IoU 0.897), and mask against the ANN's:

    neuron, sizes of a spike    mode    T     IoU, truth   IoU, ANN   time beside T passes
    differential, 16            max     8     0.897        1.000      1.3
    if                          99.9%   8     0.584        0.567      0.8
    if                          99.9%   32    0.916        0.885      0.6
    if                          99.9%   128   0.927        0.927      0.5

Processor time of one thread. The calibration sees sixteen smaller fields. That binary spikes score above the ANN is
chance: their mask is another one.
"""

import argparse
import sys
import time

INSTALL = "pip install deepCR matplotlib . ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-differential"
try:
    import matplotlib.pyplot as plt
    import numpy as np
    import sj_ann2snn_analog  # noqa: F401 - maps the sigmoid at the end
    import sj_ann2snn_differential  # noqa: F401 - the neuron
    import torch
    from deepCR import deepCR
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from torch import Tensor, nn

    from sj_ann2snn import Converter, simulate
except ImportError as error:
    sys.exit(f"{error.name} is missing. Install what this example needs: {INSTALL}")

NEURONS = {"differential": {"neuron": "differential", "thresholds": 16}, "if": {"initial_potential": 0.5}}
WHITE, BLACK, BLUE, ORANGE = "#FFFFFF", "#222222", "#0072B2", "#E69F00"  # Okabe and Ito, for every colour vision
BACKGROUND, READ_NOISE = 100, 5  # electrons per pixel


class Spiking(nn.Module):
    """Takes the place of an ANN: `T` time steps of its spiking network."""

    def __init__(self, snn: nn.Module, T: int) -> None:  # noqa: N803
        super().__init__()
        self.snn, self.T = snn, T

    def forward(self, x: Tensor) -> Tensor:
        return simulate(self.snn, x, T=self.T)


def exposure(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A square field of stars and galaxies in electrons, and which of its pixels cosmic rays hit."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    light = np.full((size, size), float(BACKGROUND))
    for _ in range(size**2 // 400):  # stars: Moffat profiles, two pixels wide
        at, flux = rng.uniform(0, size, 2), 10 ** rng.uniform(2, 4.5)
        light += 0.15 * flux * (1 + ((x - at[0]) ** 2 + (y - at[1]) ** 2) / 3.2) ** -2.5
    for _ in range(size**2 // 3000):  # galaxies: exponential discs
        at, angle, thin, wide = rng.uniform(0, size, 2), rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.uniform(1, 5)
        along = (x - at[0]) * np.cos(angle) + (y - at[1]) * np.sin(angle)
        across = (y - at[1]) * np.cos(angle) - (x - at[0]) * np.sin(angle)
        light += 10 ** rng.uniform(1, 2.3) * np.exp(-np.hypot(along, across / thin) / wide)
    charge = np.zeros((size, size))
    for _ in range(size**2 // 500):  # cosmic rays: straight tracks
        at, angle, strength = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi), 10 ** rng.uniform(2.3, 3.6)
        for along in np.arange(0, 1 + min(rng.exponential(6), 60), 0.1):
            column, row = (at + along * np.array([np.cos(angle), np.sin(angle)])).astype(int)
            if 0 <= row < size and 0 <= column < size:
                charge[row, column] += 0.1 * strength * rng.gamma(4, 0.25)
    picture = rng.poisson(light + charge) + rng.normal(0, READ_NOISE, light.shape)
    return picture.astype(np.float32), charge > np.sqrt(light + READ_NOISE**2)


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / max(1, (mask | other).sum())


def draw(field: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray], path: str) -> None:
    shown = (slice(0, 128), slice(0, 128))
    figure, grid = plt.subplots(2, 2, figsize=(7.6, 8.1), layout="constrained")
    (sky, hit), answers = grid[0], grid[1]
    sky.imshow(np.arcsinh((field[shown] - BACKGROUND) / 50), cmap="gray", vmin=-1, vmax=4.5)
    sky.set_title("exposure")
    colours = ListedColormap([WHITE, BLACK, BLUE, ORANGE])
    hit.imshow(truth[shown], cmap=colours, vmin=0, vmax=3)
    hit.set_title("truth: pixels hit by cosmic rays")
    for axes, (name, mask) in zip(answers, masks.items(), strict=True):
        kinds = np.select([truth & mask, truth & ~mask, ~truth & mask], [1, 2, 3], 0)
        axes.imshow(kinds[shown], cmap=colours, vmin=0, vmax=3)
        axes.set_title(f"{name}: IoU {iou(mask, truth):.3f}")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    kinds = {"found": BLACK, "missed": BLUE, "marked in error": ORANGE}
    handles = [Patch(color=colour, label=label) for label, colour in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--T", type=int, default=8, help="time steps")
    parser.add_argument("--mode", default="max", help="mode of the converter")
    parser.add_argument("--neuron", default="differential", choices=NEURONS)
    parser.add_argument("--out", default="cosmic_rays.png", help="the picture to write")
    parser.add_argument("--quick", action="store_true", help="a small field, little calibration")
    args = parser.parse_args()

    detector = deepCR(mask="ACS-WFC")
    calibration = [torch.tensor(exposure(128, seed)[0])[None, None] for seed in range(1, 3 if args.quick else 17)]
    field, truth = exposure(64 if args.quick else 256, seed=0)

    masks, seconds = {}, {}
    start = time.process_time()
    masks["ANN"] = detector.clean(field) > 0
    ann_seconds = time.process_time() - start

    converter = Converter(calibration, mode=args.mode, channel_wise=True, **NEURONS[args.neuron], progress=False)
    snn = converter(detector.maskNet)
    print(converter.report)

    detector.maskNet = Spiking(snn, args.T)
    start = time.process_time()
    masks[f"SNN, {args.T} steps"] = detector.clean(field) > 0
    seconds = time.process_time() - start

    for name, mask in masks.items():
        precision, recall = (mask & truth).sum() / max(1, mask.sum()), (mask & truth).sum() / truth.sum()
        print(f"{name:14} IoU {iou(mask, truth):.3f}, precision {precision:.3f}, recall {recall:.3f}")
    print(f"IoU of the masks of SNN and ANN: {iou(*masks.values()):.4f}")
    print(f"{seconds:.1f} s of processor time; {args.T} passes of the ANN take {args.T * ann_seconds:.1f} s")
    draw(field, truth, masks, args.out)


if __name__ == "__main__":
    main()
