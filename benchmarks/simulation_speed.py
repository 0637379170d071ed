"""Time to simulate a converted network: `simulate` beside SpikingJelly's own converters and plain passes of the ANN.

    python benchmarks/simulation_speed.py [--shared DIR] [--spikingjelly-14 DIR] [--threads 1 2]
    python benchmarks/simulation_speed.py --neuron signed --levels 8 --ways ours ann
    python benchmarks/simulation_speed.py --device cuda --networks resnet20 resnet34 [--precision tf32]

DIR of `--shared` (or the environment variable SJ_ANN2SNN_SHARED) holds models/reference_models.py with the networks
mnist_cnn, resnet20 and vgg_max and their weights, models/NAME.pth; without it only the network that the demo trains is
timed. resnet18, resnet34 and vgg16_bn are torchvision's, with settled statistics and no training; they are timed if
they are named. DIR of `--spikingjelly-14` is made by `pip install --no-deps --target DIR spikingjelly==0.0.0.0.14`.

Every way of computing has a process of its own; they take turns, round after round, and the median counts. `--json`
also writes the medians to a file.

    ours         simulate(snn, x, T), with the neurons that the device has
    ours 0.0.0.0.14  the same on SpikingJelly 0.0.0.0.14 and a CUDA device, where its neurons run on CuPy
    loop         our converted network by hand, step by step
    sj 2.0       SpikingJelly 2.0's RateCodingRecipe, step by step; "multi" with all steps at once
    sj 0.0.0.0.14  its Converter, step by step
    ann          T passes of the ANN; "fused" with BatchNorm folded and images channels_last
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processor import processor_name
from reference_networks import VARIABLE, reference_network
from torch import Tensor, nn

NETWORKS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "demo": ((1, 8, 8), 200, 50),
    "mnist_cnn": ((1, 28, 28), 200, 50),
    "resnet20": ((3, 32, 32), 100, 32),
    "vgg_max": ((3, 32, 32), 100, 32),
    "resnet18": ((3, 224, 224), 4, 32),
    "resnet34": ((3, 224, 224), 64, 32),
    "vgg16_bn": ((3, 224, 224), 4, 32),
}
"""Shape of a sample, samples, time steps."""

TORCHVISION = ("resnet18", "resnet34", "vgg16_bn")

GOALS = {
    "mnist_cnn": (6.0, 4.0, 0.12),
    "resnet20": (2.4, 2.4, 0.13),
    "vgg_max": (2.7, 2.4, 0.22),
    "resnet18": (2.4, 2.4, 0.25),
    "vgg16_bn": (2.4, 2.4, 0.30),
}
"""Times as fast as SpikingJelly 2.0's faster way and as 0.0.0.0.14, and the share of T passes of the ANN."""

SHARES = {"99.9%": 1.0, "max": 0.6}
"""What that share is multiplied by, by mode: in mode max, spikes are fewer."""

ON_GPU = 3.0, 1.5
"""On a CUDA device: times as fast as the loop by hand, and as SpikingJelly 2.0 with all steps at once."""

NEURONS = {"burst": 0.35, "signed": 0.35, "differential": 0.25}
"""That share for other neurons, in every mode and network."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--spikingjelly-14", type=Path, metavar="DIR", help="where 0.0.0.0.14 is installed")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="default: all there are")
    parser.add_argument("--threads", nargs="+", type=int, default=[torch.get_num_threads()])
    parser.add_argument("--mode", default="99.9%", help="of all conversions (default: %(default)s)")
    parser.add_argument("--neuron", default="if", help="of our conversions (default: %(default)s)")
    parser.add_argument("--levels", type=int, help="of such a neuron")
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="default: all that run here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument(
        "--precision", default="float32", help="of ours and of the ANN's products (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians there, too")
    parser.add_argument("--worker", nargs=2, metavar=("WAY", "NETWORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker, args)
        return 0
    networks = args.networks or [
        name for name in NETWORKS if name == "demo" or (args.shared and name not in TORCHVISION)
    ]
    print(f"{processor_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}")
    if args.device.type == "cuda":
        print(f"{torch.cuda.get_device_name(args.device)}, CUDA {torch.version.cuda}, {versions()}, {args.precision}")
    print(f"medians of {args.rounds}, the ways taking turns, an untimed run before each timed one\n")
    found = []
    for threads in args.threads:
        for name in networks:
            seconds = time_network(name, threads, args)
            tell(name, threads, seconds, args)
            found.append({"network": name, "threads": threads, "seconds": seconds})
            if args.json:
                args.json.write_text(json.dumps({**surroundings(args), "networks": found}, indent=1) + "\n")
    return 0


def surroundings(args: argparse.Namespace) -> dict[str, Any]:
    """What the times depend on."""
    on_gpu = args.device.type == "cuda"
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(args.device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "packages": versions(),
        "precision": args.precision,
        "neuron": args.neuron,
        "rounds": args.rounds,
    }


def versions() -> str:
    """What computes neurons on a CUDA device, as far as it is installed."""
    found = []
    for package in ("spikingjelly", "triton", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def tell(name: str, threads: int, seconds: dict[str, float], args: argparse.Namespace) -> None:
    """Print the times of one network and what they amount to."""
    _, samples, steps = NETWORKS[name]
    of = "" if args.neuron == "if" else f", {args.neuron} neurons" + (f", {args.levels} levels" if args.levels else "")
    print(f"{name}, {samples} samples, T={steps}, {threads} thread(s), mode {args.mode}{of}")
    ours = seconds["ours"]
    for way, spent in seconds.items():
        print(f"  {way:15} {spent:8.3f} s   {spent / ours:5.2f} × ours")
    old = [seconds[way] for way in ("sj 2.0", "sj 2.0 multi") if way in seconds]
    goal = GOALS.get(name, (None, None, None)) if args.mode in SHARES else (None, None, None)
    share, beside_loop = goal[2] and goal[2] * SHARES[args.mode], None
    if args.neuron != "if":
        goal, share = (None, None, None), NEURONS.get(args.neuron)
    if args.device.type == "cuda":
        goal, share, beside_loop = (ON_GPU[1], None, None), None, ON_GPU[0]
    ratios = [
        ("against the loop by hand", seconds.get("loop", 0) / ours or None, beside_loop, "≥"),
        ("against SpikingJelly 2.0, its faster way", min(old) / ours if old else None, goal[0], "≥"),
        ("against SpikingJelly 0.0.0.0.14", seconds.get("sj 0.0.0.0.14", 0) / ours or None, goal[1], "≥"),
        ("time over T plain passes of the ANN", ours / seconds["ann"], share, "≤"),
    ]
    for what, ratio, wanted, relation in ratios:
        if ratio is not None:
            print(f"  {what:42} {ratio:5.2f}" + (f"  (goal {relation} {wanted:.3g})" if wanted else ""))
    print(flush=True)


def time_network(name: str, threads: int, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of every way that runs here."""
    ways = [way for way in args.ways or WAYS if args.spikingjelly_14 or way not in ON_14]
    if args.device.type != "cuda":
        ways = [way for way in ways if way != "ours 0.0.0.0.14"]
    workers = {way: Worker(way, name, threads, args) for way in ways}
    try:
        running = {way: worker for way, worker in workers.items() if worker.is_ready()}
        seconds: dict[str, list[float]] = {way: [] for way in running}
        for _ in range(args.rounds):
            for way, worker in running.items():
                seconds[way].append(worker.run())
    finally:
        for worker in workers.values():
            worker.close()
    return {way: statistics.median(all_of_them) for way, all_of_them in seconds.items()}


class Worker:
    """A process that computes one way, once for every line it is sent."""

    def __init__(self, way: str, network: str, threads: int, args: argparse.Namespace) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--worker", way, network, "--threads", str(threads)]
        command += ["--device", str(args.device), "--precision", args.precision, "--mode", args.mode]
        command += ["--neuron", args.neuron, *(["--levels", str(args.levels)] if args.levels else [])]
        if args.shared:
            command += ["--shared", str(args.shared)]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        if way in ON_14:
            environment["PYTHONPATH"] = os.pathsep.join(
                [str(args.spikingjelly_14), *filter(None, [os.environ.get("PYTHONPATH")])]
            )
        self.way = way
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def is_ready(self) -> bool:
        """Wait for it to be set up; False, with the reason on stderr, if it cannot be."""
        if self._answer() == "ready":
            return True
        error = self.process.stderr.read().strip().splitlines() if self.process.stderr else []
        print(f"  {self.way} does not run: {error[-1] if error else 'no reason given'}", file=sys.stderr)
        return False

    def run(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(json.loads(self._answer()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def work(way: str, name: str, args: argparse.Namespace) -> None:
    """Set up, then run once for every line that comes."""
    # What libraries print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(args.threads[0])
    torch.manual_seed(0)
    # torch's own default takes TF32 for convolutions without being asked.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    shape, samples, steps = NETWORKS[name]
    x = torch.rand(samples, *shape).to(args.device)
    ann = network(name, args.shared).to(args.device)
    with torch.no_grad():
        run = WAYS[way](ann, x, steps, args)
        run()
        print("ready", file=answers, flush=True)
        for _ in sys.stdin:
            run()  # others had the caches in the meantime
            wait_for(args.device)
            start = time.perf_counter()
            run()
            wait_for(args.device)
            print(json.dumps(time.perf_counter() - start), file=answers, flush=True)


def wait_for(device: torch.device) -> None:
    """A CUDA device computes on its own; wait until it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def network(name: str, shared: Path | None) -> nn.Module:
    """The trained network of that name, in eval mode."""
    if name == "demo":
        from sj_ann2snn.cli.data import digits
        from sj_ann2snn.cli.tutorial import train, tutorial_network

        data = digits()
        ann = tutorial_network(data.train_images.shape[-1])
        train(ann, data.train_images, data.train_labels, epochs=1, seed=0)
        return ann
    if name in TORCHVISION:
        return settled(name)
    assert shared is not None
    return reference_network(shared, name)


def settled(name: str) -> nn.Module:
    """A network of torchvision's with random weights and the BatchNorm statistics that belong to them."""
    import torchvision

    ann: nn.Module = getattr(torchvision.models, name)()
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        ann(torch.rand(16, 3, 224, 224))
    return ann.eval()


def ours(ann: nn.Module, x: Tensor, steps: int, args: argparse.Namespace) -> Callable[[], Any]:
    from sj_ann2snn import Converter, simulate

    options = {"levels": args.levels} if args.levels else {}
    snn = Converter([x], mode=args.mode, neuron=args.neuron, progress=False, **options)(ann)
    return lambda: simulate(snn, x, steps, precision=args.precision)


def loop(ann: nn.Module, x: Tensor, steps: int, args: argparse.Namespace) -> Callable[[], Any]:
    from sj_ann2snn import Converter

    return by_hand(Converter([x], mode=args.mode, progress=False)(ann), x, steps)


def recipe(ann: nn.Module, x: Tensor, mode: str) -> nn.Module:
    from spikingjelly.activation_based import ann2snn

    snn = ann2snn.Converter(ann2snn.RateCodingRecipe(dataloader=[(x, None)], mode=mode)).convert(ann)
    return snn.eval()


def old(ann: nn.Module, x: Tensor, steps: int, args: argparse.Namespace) -> Callable[[], Any]:
    from spikingjelly.activation_based import ann2snn

    return by_hand(ann2snn.Converter(mode=args.mode, dataloader=[(x, None)])(ann).eval(), x, steps)


def by_hand(snn: nn.Module, x: Tensor, steps: int) -> Callable[[], Any]:
    """The loop of SpikingJelly's tutorial."""
    from spikingjelly.activation_based import functional

    def run() -> Any:
        out: Any = 0.0
        for _ in range(steps):
            out = out + snn(x)
        functional.reset_net(snn)
        return out / steps

    return run


def all_at_once(snn: nn.Module, x: Tensor, steps: int) -> Callable[[], Any]:
    from spikingjelly.activation_based import functional

    functional.set_step_mode(snn, "m")

    def run() -> Any:
        out = snn(x.unsqueeze(0).repeat(steps, *(1,) * x.dim())).mean(0)
        functional.reset_net(snn)
        return out

    return run


def passes(ann: nn.Module, x: Tensor, steps: int, _: Any = None) -> Callable[[], Any]:
    def run() -> None:
        for _ in range(steps):
            ann(x)

    return run


def fused_passes(ann: nn.Module, x: Tensor, steps: int, _: Any) -> Callable[[], Any]:
    from torch.fx.experimental.optimization import fuse

    fused = fuse(copy.deepcopy(ann)).to(memory_format=torch.channels_last)
    return passes(fused, x.to(memory_format=torch.channels_last), steps)


WAYS: dict[str, Callable[[nn.Module, Tensor, int, argparse.Namespace], Callable[[], Any]]] = {
    "ours": ours,
    "ours 0.0.0.0.14": ours,
    "loop": loop,
    "sj 2.0": lambda ann, x, steps, args: by_hand(recipe(ann, x, args.mode), x, steps),
    "sj 2.0 multi": lambda ann, x, steps, args: all_at_once(recipe(ann, x, args.mode), x, steps),
    "sj 0.0.0.0.14": old,
    "ann": passes,
    "ann fused": fused_passes,
}

ON_14 = ("ours 0.0.0.0.14", "sj 0.0.0.0.14")
"""The ways that run on SpikingJelly 0.0.0.0.14."""


if __name__ == "__main__":
    sys.exit(main())
