"""``sj-ann2snn bench``: how fast the user's network runs here, compared with a loop by hand and passes of the ANN."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..compat import reset_net, set_step_mode, spikingjelly_version
from ..conversion.converter import Converter
from ..conversion.report import format_table
from ..errors import InputError, OptionError
from ..evaluation.evaluate import ann_values, evaluate
from ..evaluation.result import short
from ..simulation.engine import Call, Collector, Simulator
from ..simulation.engine.numbers.firing import is_spiking
from ..simulation.simulate import simulate
from ..support.batches import describe_batch, forward_signature, move
from ..support.loaders import Batches
from ..support.trees import tensors
from ..support.wording import first_line
from .arguments import Subparsers, add_network, add_option_argument, checked_device, converter_options, positive, steps
from .arguments import threads as thread_count
from .check import LARGEST_INPUT, input_tensor
from .metrics import add_metric_argument, metric_of, needs_ann
from .streams import tell
from .sweep import metric_title
from .targets import load_loaders, load_network
from .users_code import users_code

__all__ = ["BenchResult", "Timing", "add_parser", "run", "time_ways", "where_time_goes"]

OWN_ARGUMENTS = {"T": "--T", "dataloader": "--input or --data", "device": "--device", "mode": "--mode"}
"""Keywords of the converter for which the command has its own argument."""

SIMULATE, LOOP, MULTI_STEP, ANN = "simulate", "loop by hand", "multi-step", "ANN passes"

LAYERS = (nn.Linear, _ConvNd)

SPIKING, OF_ANN = "spiking network", "ANN"

EXAMPLE = """\
examples:

    sj-ann2snn bench models:trained --input 3x32x32 --samples 100 --T 32
    sj-ann2snn bench models:trained --data models:loaders --threads 2 --json

These ways take turns, after one run each that is not timed:

    simulate      sj_ann2snn.simulate(snn, x, T)
    loop by hand  the converted network step by step, as SpikingJelly's tutorial runs it
    multi-step    the converted network in SpikingJelly's step mode "m", all steps at once
    ANN passes    the ANN, T times
"""


@dataclass(frozen=True)
class Timing:
    """One way of computing: the median seconds, or why it was not timed.

    Attributes:
        way: Its name.
        seconds: The median.
        problem: Why it was not timed.
        first: Seconds of the first run, which compiles the loops that this machine has not compiled before.
    """

    way: str
    seconds: float | None
    problem: str = ""
    first: float | None = None


@dataclass(frozen=True)
class BenchResult:
    """The result of one benchmark.

    Attributes:
        network: The network, as named on the command line.
        samples: Number of simulated samples.
        T: Number of time steps.
        device: The device.
        threads: Number of threads of torch.
        timings: One for each way of computing.
        shares: Share of the time of `simulate` on one core, by kind of layer.
        loops: The loops over packed spikes that `simulate` chose, by layer.
        versions: Versions of the packages involved.
        values: What the metrics say after the last step, by name, of the spiking network and of the ANN; empty if none
            was asked for.
    """

    network: str
    samples: int
    T: int
    device: str
    threads: int
    timings: tuple[Timing, ...]
    shares: dict[str, float]
    loops: dict[str, str]
    versions: dict[str, str]
    values: dict[str, dict[str, float]]

    def __str__(self) -> str:
        simulated = next(one for one in self.timings if one.way == SIMULATE)
        ours = simulated.seconds
        assert ours is not None
        rows = [("way", "seconds", "× simulate")]
        for one in self.timings:
            rows.append(
                (one.way, "–", one.problem)
                if one.seconds is None
                else (one.way, f"{one.seconds:.4g}", f"{one.seconds / ours:.2f}")
            )
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        packed = ", ".join(f"{name} ({loop})" for name, loop in self.loops.items())
        return "\n".join(
            [
                f"{self.network}: {self.samples} samples, T={self.T}, {self.device}, {self.threads} thread(s), "
                + ", ".join(f"{name} {version}" for name, version in self.versions.items()),
                "",
                *format_table(rows),
                "",
                f"first run of simulate: {simulated.first:.3g} s; compiled loops are kept on disk",
                f"where the time of simulate goes: {shares}",
                *([f"layers on packed spikes: {packed}"] if packed else []),
                *(
                    f"{metric_title(name)} after T={self.T}: {short(found[SPIKING])} (ANN {short(found[OF_ANN])})"
                    for name, found in self.values.items()
                ),
            ]
        )


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="time your network on this machine",
        description="Convert your network and time its simulation, a loop by hand, SpikingJelly's multi-step mode and "
        "the same number of passes of the ANN. Prints medians, and where the time goes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_network(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", type=input_tensor, metavar="SHAPE", help="shape of one sample, 3x32x32, filled with random values"
    )
    source.add_argument(
        "--data",
        metavar="MODULE:LOADERS",
        help="function that returns (calibration_loader, test_loader); the samples come from the test loader",
    )
    parser.add_argument("--mode", default="max", help="mode of the conversion (default: max)")
    parser.add_argument("--samples", type=positive, default=100, metavar="N", help="samples (default: 100)")
    parser.add_argument("--T", type=steps, default=32, metavar="STEPS", help="time steps (default: 32)")
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--threads", type=thread_count, help="threads of torch (default: torch's own setting)")
    parser.add_argument("--device", default=None, help="device, such as cpu or cuda:0 (default: cpu)")
    add_metric_argument(parser)
    add_option_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time every way of computing and print the result."""
    options = converter_options(args.option, OWN_ARGUMENTS)
    device = checked_device(args.device)
    measured = args.metric is not None or args.against_ann
    if measured and not args.data:
        raise OptionError("--metric measures the network on your test data: give --data MODULE:LOADERS.")
    with users_code(), threads(args.threads) as count:
        metric = metric_of(args.metric)
        against_ann = needs_ann(metric, args.against_ann)
        ann = load_network(args.network).eval().to(device)
        if args.data:
            calibration, test = load_loaders(args.data)
            x = first_samples(ann, test, args.samples)
        else:
            size = args.samples * args.input[0].numel() * args.input.itemsize
            if size > LARGEST_INPUT:
                raise OptionError(
                    f"--samples {args.samples} is not allowed: samples of that shape have {size:,} bytes; at most "
                    f"{LARGEST_INPUT:,} are allowed."
                )
            test = None
            x = args.input[torch.arange(args.samples) % len(args.input)]
            calibration = [x]
        x = move(x, device)
        snn = Converter(calibration, mode=args.mode, T=args.T, progress=False, **options)(ann)
        timings = time_ways(ann, snn, x, args.T, args.repeats)
        shares, loops = where_time_goes(snn, x, args.T)
        values = measure(ann, snn, test, args.T, metric, against_ann) if measured else {}
        result = BenchResult(
            args.network,
            len(x),
            args.T,
            torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            count,
            timings,
            shares,
            loops,
            {
                "SpikingJelly": spikingjelly_version(),
                "torch": str(torch.__version__),
                "Python": platform.python_version(),
            },
            values,
        )
    print(json.dumps(asdict(result), indent=2, ensure_ascii=False) if args.json else result)
    return 0


def measure(
    ann: nn.Module, snn: nn.Module, test: Any, steps: int, metric: Any, against_ann: bool
) -> dict[str, dict[str, float]]:
    """What the metrics say of both networks on all of the test data."""
    judge = ann if against_ann else None
    of_ann = ann_values(ann, test, metric, against=judge)
    spiking = evaluate(snn, test, steps, metric=metric, ann=judge, progress=sys.stderr.isatty()).values
    return {name: {SPIKING: spiking[name][-1], OF_ANN: value} for name, value in of_ann.items()}


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """While the context is open, let torch use that many threads; yields their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)


def first_samples(ann: nn.Module, loader: Any, count: int) -> Tensor:
    """The first samples of a loader.

    Raises:
        InputError: The network takes more than one input, or the loader is empty, fails, or is none.
    """
    signature, found, samples = forward_signature(ann), [], 0
    for batch in Batches(loader, "The test loader", "bench", InputError):
        inputs = signature.inputs_of(batch)
        if len(inputs) != 1 or not inputs[0].dim():
            raise InputError(
                "bench only times networks with one input [N, ...]; a batch of the test loader is "
                f"{describe_batch(batch)}."
            )
        found.append(inputs[0])
        samples += len(inputs[0])
        if samples >= count:
            break
    if not found:
        raise InputError("The test loader is empty: it yields no batches to simulate.")
    return torch.cat(found)[:count]


def time_ways(ann: nn.Module, snn: nn.Module, x: Tensor, steps: int, repeats: int) -> tuple[Timing, ...]:
    """Median seconds of every way; the ways take turns, and one that does not run here has no timing."""

    def by_hand() -> None:
        total: Any = 0.0
        for _ in range(steps):
            total = total + tensors(snn(x))[0]

    def multi_step() -> None:
        tensors(snn(x.unsqueeze(0).expand(steps, *x.shape)))[0].mean(0)

    def passes() -> None:
        for _ in range(steps):
            ann(x)

    ways: dict[str, Callable[[], Any]] = {
        SIMULATE: lambda: simulate(snn, x, steps),
        LOOP: by_hand,
        MULTI_STEP: multi_step,
        ANN: passes,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    first: dict[str, float] = {}
    problems: dict[str, str] = {}
    for index in range(repeats + 1):
        for way, compute in ways.items():
            if way in problems:
                continue
            set_step_mode(snn, "m" if way == MULTI_STEP else "s")
            reset_net(snn)
            try:
                spent = timed(compute, x.device)
            except (RuntimeError, MemoryError) as error:
                if way == SIMULATE:
                    raise
                problems[way] = f"does not run: {first_line(error)}"
                continue
            if index:
                seconds[way].append(spent)
                continue
            first[way] = spent
            if sys.stderr.isatty():
                tell(f"{way}: {spent:.3g} s for a first run")
    set_step_mode(snn, "s")
    reset_net(snn)
    return tuple(
        Timing(way, None, problems[way]) if way in problems else Timing(way, statistics.median(times), "", first[way])
        for way, times in seconds.items()
    )


@torch.no_grad()
def timed(compute: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has finished."""
    synchronize(device)
    start = time.perf_counter()
    compute()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Shares(Collector):
    """Adds up the time between one layer and the next, and notes which loops compute them."""

    watches_spikes = True

    def __init__(self, seconds: dict[str, float], loops: dict[str, set[str]], device: torch.device) -> None:
        self._seconds, self._loops, self._device = seconds, loops, device
        self._last = time.perf_counter()

    def watch(self, call: Call) -> None:
        """Charge the time since the last layer to the one just computed."""
        self._tick(kind_of(call.operation))
        if call.loop and isinstance(call.operation, LAYERS):
            self._loops[call.name].add(call.loop)

    def add(self, outputs: Any) -> None:
        self._tick("rest")

    def result(self) -> None:
        self._tick("rest")

    def _tick(self, kind: str) -> None:
        synchronize(self._device)
        now = time.perf_counter()
        self._seconds[kind] += now - self._last
        self._last = now


def kind_of(module: Any) -> str:
    if isinstance(module, LAYERS):
        return "convolutions and linear layers"
    if is_spiking(module):
        return "neurons"
    operation = getattr(module, "operation", module)
    name = operation if isinstance(operation, str) else getattr(operation, "__name__", type(operation).__name__)
    return "pooling" if "pool" in name.lower() else "rest"


def where_time_goes(snn: nn.Module, x: Tensor, steps: int) -> tuple[dict[str, float], dict[str, str]]:
    """Share of a simulation's time on one core, by kind of layer; and the loops of layers on packed spikes, by name.

    The layers in front of the first neurons, which are computed once, count towards these neurons. Neurons that are
    one loop with a convolution count towards that.
    """
    seconds: dict[str, float] = defaultdict(float)
    loops: dict[str, set[str]] = defaultdict(set)
    with threads(1):
        Simulator(snn, steps).run_all((x,), lambda _: Shares(seconds, loops, x.device))
    total = sum(seconds.values())
    shares = {kind: seconds[kind] / total for kind in sorted(seconds, key=seconds.__getitem__, reverse=True)}
    return shares, {name: " or ".join(sorted(found)) for name, found in loops.items()}
