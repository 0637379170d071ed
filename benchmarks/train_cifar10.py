"""Train the networks of the few-steps tables on CIFAR-10.

    python benchmarks/train_cifar10.py NAME --shared DIR [--device cuda] [--epochs 200] [--at-most SECONDS] [--out DIR]

DIR of `--shared` (or the environment variable SJ_ANN2SNN_SHARED) holds data/cifar10_train_jpeg.npz and
data/cifar10_test_jpeg.npz. The first 47,500 training images train the network, shifted by up to four pixels and
mirrored at random; the last 2,500 are never shown to it, so that settings can be chosen on them. The test images are
looked at once, at the end. Two hundred epochs take minutes on a GPU and hours on two cores.

It writes NAME.pth, a state dict, and NAME.log, what it printed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from cifar10 import NETWORKS, WEIGHTS, normalized, pixels
from reference_networks import VARIABLE
from torch import Tensor, nn

TRAINED_ON = slice(0, 47_500)
HELD_OUT = slice(47_500, 50_000)
BATCH = 128
MOMENTUM, WARM_UP = 0.9, 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="(default: %(default)s)")
    parser.add_argument("--smoothing", type=float, default=0.0, help="of the labels (default: %(default)s)")
    parser.add_argument(
        "--at-most", type=float, default=math.inf, metavar="SECONDS", help="take fewer epochs if they would take longer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"--shared or {VARIABLE} must name the folder that holds data/")
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / f"{args.network}.log").open("w") as log:

        def tell(line: str) -> None:
            for stream in (sys.stdout, log):
                print(line, file=stream, flush=True)

        train(args, tell)
    return 0


def train(args: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Train, save and test one network."""
    torch.manual_seed(args.seed)
    device = args.device
    images, labels = (x.to(device) for x in pixels(args.shared, "train"))
    network = NETWORKS[args.network]().to(device, memory_format=torch.channels_last)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    count = sum(parameter.numel() for parameter in network.parameters())
    tell(f"{args.network}, {count:,} parameters, seed {args.seed}, {name}, torch {torch.__version__}")
    tell(f"SGD, {BATCH} images a batch, rate {args.rate}, momentum {MOMENTUM} (Nesterov)")
    tell(f"weight decay {args.weight_decay}, label smoothing {args.smoothing}")

    trained, answers = images[TRAINED_ON], labels[TRAINED_ON]
    steps = len(trained) // BATCH
    descend = Descent(network, device, args.weight_decay, args.smoothing)
    start = time.perf_counter()
    epochs, epoch = args.epochs, 0
    while epoch < epochs:
        order = torch.randperm(len(trained), device=device)
        shown = augmented(trained[order])
        total = torch.zeros((), device=device)
        for step in range(steps):
            batch = slice(step * BATCH, (step + 1) * BATCH)
            rate = args.rate * schedule((epoch + step / steps) / epochs)
            total += descend(shown[batch], answers[order[batch]], rate)
        loss = float(total) / steps
        epoch += 1
        spent = time.perf_counter() - start
        if epoch == 3 and epoch + (args.at_most - spent) / (spent / epoch) < epochs:
            epochs = int(epoch + (args.at_most - spent) / (spent / epoch))
            tell(f"{spent / epoch:.2f} s an epoch: {epochs} epochs")
        if epoch % 10 == 0 or epoch == epochs:
            held_out = accuracy(network, images[HELD_OUT], labels[HELD_OUT])
            tell(f"epoch {epoch:3}  loss {loss:.4f}  held-out images {held_out:.4f}  {spent:.0f} s")
            torch.save(state(network), args.out / f"{args.network}.pth")
    tell(f"test images: {accuracy(network, *(x.to(device) for x in pixels(args.shared, 'test'))):.4f}")


class Descent:
    """One step of stochastic gradient descent; on a CUDA device its kernels are recorded once and replayed."""

    def __init__(self, network: nn.Module, device: torch.device, weight_decay: float, smoothing: float) -> None:
        self._network, self._device, self._smoothing = network, device, smoothing
        torch.backends.cudnn.benchmark = True
        self._rate = torch.zeros((), device=device)
        self._optimizer = torch.optim.SGD(
            network.parameters(), self._rate, MOMENTUM, weight_decay=weight_decay, nesterov=True, fused=True
        )
        self._x: Tensor | None = None
        self._recorded: torch.cuda.CUDAGraph | None = None
        self._taken = 0

    def __call__(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        """Take a step, and return the loss before it."""
        self._rate.fill_(rate)
        if self._x is None:
            self._x, self._y = torch.empty_like(x), torch.empty_like(y)
        self._x.copy_(x)
        self._y.copy_(y)
        if self._recorded is not None:
            self._recorded.replay()
            return self._loss
        self._taken += 1
        if self._device.type != "cuda" or self._taken <= 5:
            # On a stream of its own, as a recording wants what comes before it to be.
            with aside(self._device):
                return self._step()
        self._recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._recorded):
            self._loss = self._step()
        self._recorded.replay()
        return self._loss

    def _step(self) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        half = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            loss = nn.functional.cross_entropy(self._network(self._x), self._y, label_smoothing=self._smoothing)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


@contextlib.contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """A stream of its own on a CUDA device."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def schedule(done: float) -> float:
    """Share of the highest learning rate when `done` of the training lies behind: up a line, down half a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def augmented(images: Tensor) -> Tensor:
    """Every image shifted by up to four pixels and mirrored at random, as the network takes it."""
    count, device = len(images), images.device
    padded = nn.functional.pad(normalized(images), (4, 4, 4, 4))
    places = torch.arange(32, device=device)
    rows = places + torch.randint(9, (count, 1), device=device)
    columns = places + torch.randint(9, (count, 1), device=device)
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    index = torch.arange(count, device=device)[:, None, None]
    shown = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return shown.permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images that `network` names rightly, in single precision."""
    network.eval()
    right = sum(
        int((network(normalized(x).contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    network.train()
    return right / len(images)


def state(network: nn.Module) -> dict[str, Tensor]:
    """What is saved: weights in half precision, which costs no accuracy and half the file."""
    return {
        name: (tensor.half() if tensor.dim() > 1 else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }


if __name__ == "__main__":
    sys.exit(main())
