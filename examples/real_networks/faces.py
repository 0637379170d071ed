"""Face detection with spiking networks: the three networks of MTCNN convert, its pipeline stays as it is.

    python examples/real_networks/faces.py
    python examples/real_networks/faces.py --neuron if --mode 99.9% --T 128

MTCNN searches a picture at several sizes with a small network (PNet), refines the candidates with a second one (RNet),
and places boxes and landmarks with a third one (ONet). All are PReLU networks that end in a softmax.

Test pictures: scikit-image's astronaut, and a sheet of 24 faces and 12 other patches out of its part of Labeled Faces
in the Wild. The ANN finds all faces and takes none of the other patches for one; so does the spiking detector:

    neuron, sizes of a spike    mode    T     IoU of the boxes with the ANN's    time beside T runs of the ANN
    differential, 16            max     8     1.000                              1.6
    if                          99.9%   8     0.879                              0.8
    if                          99.9%   32    0.940                              0.6
    if                          99.9%   128   0.960                              0.6

The sheet, processor time of one thread. The calibration sees a coffee cup, a cat and another sheet of other faces.
"""

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import NamedTuple

INSTALL = (
    "pip install --no-deps facenet-pytorch && pip install torchvision requests scikit-image matplotlib "
    ". ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-differential"
)
try:
    import matplotlib.pyplot as plt
    import numpy as np
    import sj_ann2snn_analog  # noqa: F401 - maps softmax
    import sj_ann2snn_differential  # noqa: F401 - the neuron
    import skimage.data
    import skimage.transform
    from facenet_pytorch import MTCNN
    from PIL import Image
    from torch import Tensor, nn

    from sj_ann2snn import Converter, simulate
except ImportError as error:
    sys.exit(f"{error.name} is missing. Install what this example needs: {INSTALL}")

NEURONS = {"differential": {"neuron": "differential", "thresholds": 16}, "if": {"initial_potential": 0.5}}
BLUE, ORANGE = "#0072B2", "#E69F00"  # of Okabe and Ito, for every kind of colour vision
SIZE, MARGIN, COLUMNS = 64, 16, 6  # of the sheet of faces, in pixels


class Spiking(nn.Module):
    """Takes the place of an ANN: `T` time steps of its spiking network."""

    def __init__(self, snn: nn.Module, T: int) -> None:  # noqa: N803
        super().__init__()
        self.snn, self.T = snn, T

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return simulate(self.snn, x, T=self.T)


def to_spiking(detector: MTCNN, pictures: list[np.ndarray], *, T: int, mode: str, neuron: str) -> MTCNN:  # noqa: N803
    """The same detector with spiking networks, calibrated on what its networks see in `pictures`."""
    spiking = copy.deepcopy(detector)
    for name in ("pnet", "rnet", "onet"):
        ann, seen = getattr(detector, name), []
        hook = ann.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        for picture in pictures:
            detector.detect(picture)
        hook.remove()

        converter = Converter(seen, mode=mode, channel_wise=True, **NEURONS[neuron], progress=False)
        setattr(spiking, name, Spiking(converter(ann), T))
    return spiking


def sheet(patches: list[int]) -> np.ndarray:
    """Patches of scikit-image's part of Labeled Faces in the Wild, enlarged: 0 to 99 are faces, 100 to 199 are not."""
    every = np.load(Path(skimage.__file__).parent / "data/lfw_subset.npy")
    cell = SIZE + MARGIN
    out = np.full((cell * -(-len(patches) // COLUMNS), cell * min(COLUMNS, len(patches))), 0.5)
    for place, index in enumerate(patches):
        patch = every[index] - every[index].min()
        y, x = (cell * at + MARGIN // 2 for at in divmod(place, COLUMNS))
        out[y : y + SIZE, x : x + SIZE] = skimage.transform.resize(patch / patch.max(), (SIZE, SIZE), order=3)
    return np.repeat(np.uint8(255 * out.clip(0, 1))[..., None], 3, axis=2)


class Answer(NamedTuple):
    boxes: np.ndarray  # [n, 4]: left, top, right, bottom
    points: np.ndarray  # [n, 5, 2]: eyes, nose, corners of the mouth
    seconds: float


def detect(detector: MTCNN, picture: np.ndarray) -> Answer:
    start = time.process_time()
    boxes, _, points = detector.detect(picture, landmarks=True)
    seconds = time.process_time() - start
    if boxes is None:
        return Answer(np.empty((0, 4)), np.empty((0, 5, 2)), seconds)
    return Answer(boxes.astype(float), points.astype(float), seconds)


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of `boxes` with the best of `others`."""
    if not len(boxes) or not len(others):
        return np.zeros(len(boxes))
    a, b = boxes[:, None], others[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(0).prod(-1)
    areas = [(c[..., 2:] - c[..., :2]).prod(-1) for c in (a, b)]
    return (common / (areas[0] + areas[1] - common)).max(1)


def found(boxes: np.ndarray, patches: list[int]) -> tuple[int, int]:
    """How many faces of a sheet have a box, and how many other patches."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 // (SIZE + MARGIN)
    hit = {patches[int(y) * COLUMNS + int(x)] for x, y in centres}
    return sum(index < 100 for index in hit), sum(index >= 100 for index in hit)


def draw(pictures: dict[str, np.ndarray], answers: dict[str, dict[str, Answer]], path: str) -> None:
    figure, grid = plt.subplots(1, len(pictures), figsize=(9, 4.9), layout="constrained")
    looks = [
        {"color": BLUE, "linewidth": 4, "marker": "o"},
        {"color": ORANGE, "linewidth": 1.4, "linestyle": (0, (4, 2)), "marker": "x"},
    ]
    for axes, (title, picture) in zip(grid, pictures.items(), strict=True):
        axes.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=255)
        axes.set(title=title, xticks=[], yticks=[])
        for (name, answer), look in zip(answers[title].items(), looks, strict=True):
            for (left, top, right, bottom), points in zip(answer.boxes, answer.points, strict=True):
                axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], **look | {"marker": ""})
                cross = {"linestyle": "", "markersize": (right - left) / 16, "markeredgewidth": 1}
                axes.plot(*points.T, **look | cross)
            axes.plot([], [], label=name, **look)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.set_dpi(110)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)  # a third of the size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--T", type=int, default=8, help="time steps")
    parser.add_argument("--mode", default="max", help="mode of the converter")
    parser.add_argument("--neuron", default="differential", choices=NEURONS)
    parser.add_argument("--out", default="faces.png", help="the picture to write")
    parser.add_argument("--quick", action="store_true", help="small pictures, few of them")
    args = parser.parse_args()

    faces, others = (range(60, 66), range(160, 163)) if args.quick else (range(60, 84), range(160, 172))
    patches = np.random.default_rng(0).permutation([*faces, *others]).tolist()
    astronaut = skimage.data.astronaut()[:320, 60:380]
    pictures = {
        "astronaut": astronaut[60:180, 110:220] if args.quick else astronaut,
        f"{len(faces)} faces, {len(others)} other patches": sheet(patches),
    }
    calibration = (
        [sheet([*range(8), *range(100, 104)])]
        if args.quick
        else [sheet([*range(60), *range(100, 130)]), skimage.data.coffee(), skimage.data.chelsea()]
    )

    ann = MTCNN(keep_all=True, select_largest=False)
    snn = to_spiking(ann, calibration, T=args.T, mode=args.mode, neuron=args.neuron)
    name = f"SNN, {args.T} steps"
    answers = {title: {"ANN": detect(ann, x), name: detect(snn, x)} for title, x in pictures.items()}

    for title, (wanted, got) in ((title, pair.values()) for title, pair in answers.items()):
        print(f"{title}: ANN {len(wanted.boxes)} boxes, SNN {len(got.boxes)}", end="; ")
        print(f"IoU of each box of the ANN with the SNN's: mean {overlap(wanted.boxes, got.boxes).mean():.4f}")
        print(f"{got.seconds:.1f} s of processor time; {args.T} times the ANN's {args.T * wanted.seconds:.1f} s")
    for name, answer in answers[title].items():
        hit, wrong = found(answer.boxes, patches)
        print(f"{name:14} {hit} of {len(faces)} faces found, {wrong} of {len(others)} other patches taken for a face")
    draw(pictures, answers, args.out)


if __name__ == "__main__":
    main()
