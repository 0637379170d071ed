"""Train the networks of the few-steps tables on CIFAR-10.

    python benchmarks/train_cifar10.py NAME --shared DIR [--device cuda] [--bfloat16] [--epochs N] [--out DIR]

DIR of `--shared` (or the environment variable SJ_ANN2SNN_SHARED) holds data/cifar10_train_jpeg.npz and
data/cifar10_test_jpeg.npz. The first 47,500 training images train the network, shifted, mirrored and partly covered;
the last 2,500 are never shown to it, so that settings can be chosen on them. The test images are looked at once, at the
end. On two cores with instructions for bfloat16 it takes the better part of an hour.

The recipe for `vgg8` is that of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv:2404.00498), with
ReLUs: a first convolution that whitens 2×2 patches, convolutions that start as the identity, BatchNorms without gains
and with fast biases, images mirrored in turn, smoothed labels.

It writes NAME.pth, a state dict, and NAME.log, what it printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from cifar10 import NETWORKS, WEIGHTS, normalized, pixels
from reference_networks import VARIABLE
from torch import Tensor, nn

TRAINED_ON = slice(0, 47_500)
HELD_OUT = slice(47_500, 50_000)
BATCH = 256
FAST = 64
"""How much faster biases of BatchNorms learn where they have no gains."""

LOGITS = 1 / 9
"""What answers are multiplied by where convolutions start as the identity."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    rate: float
    momentum: float
    weight_decay: float
    smoothing: float
    warm_up: float
    shift: int
    covered: int
    from_identity: bool


RECIPES = {
    "wide_resnet20": Recipe(30, 0.4, 0.9, 5e-4, 0.1, 0.15, 4, 0, from_identity=False),
    "vgg8": Recipe(36, 0.3, 0.85, 1.3e-3, 0.2, 0.2, 4, 10, from_identity=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--bfloat16", action="store_true", help="convolutions in half precision; on CUDA in any case")
    parser.add_argument("--epochs", type=int, help="default: what the network's recipe says")
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
    device, recipe = args.device, RECIPES[args.network]
    epochs = args.epochs or recipe.epochs
    images, labels = (x.to(device) for x in pixels(args.shared, "train"))
    network = NETWORKS[args.network]()
    if recipe.from_identity:
        start_as_identity(network, normalized(images[:5000].cpu()))
    network = network.to(device, memory_format=torch.channels_last)
    half = args.bfloat16 or device.type == "cuda"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    count = sum(parameter.numel() for parameter in network.parameters())
    tell(f"{args.network}, {count:,} parameters, seed {args.seed}, {name}, torch {torch.__version__}")
    tell(f"{epochs} epochs, {BATCH} images a batch, convolutions in {'bfloat16' if half else 'float32'}")
    tell(str(recipe))

    trained, answers = images[TRAINED_ON], labels[TRAINED_ON]
    shown = Shown(trained, recipe.shift, recipe.covered)
    optimizer = torch.optim.SGD(list(groups(network, recipe)), momentum=recipe.momentum, nesterov=True)
    scale = LOGITS if recipe.from_identity else 1.0
    steps = len(trained) // BATCH
    start = time.perf_counter()
    for epoch in range(epochs):
        total = torch.zeros((), device=device)
        for step, chosen in enumerate(torch.randperm(len(trained), device=device).split(BATCH)[:steps]):
            part = schedule((epoch + step / steps) / epochs, recipe.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * part
            x = shown(chosen, epoch)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                y = network(x)
            loss = nn.functional.cross_entropy(y.float() * scale, answers[chosen], label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if (epoch + 1) % 4 == 0 or epoch + 1 == epochs:
            held_out = accuracy(network, images[HELD_OUT], labels[HELD_OUT])
            spent = time.perf_counter() - start
            tell(f"epoch {epoch + 1:3}  loss {float(total) / steps:.4f}  held-out images {held_out:.4f}  {spent:.0f} s")
    network[-1].weight.data *= scale
    network[-1].bias.data *= scale
    settle(network, trained)
    torch.save(state(network), args.out / f"{args.network}.pth")
    tell(f"BatchNorms settled: held-out images {accuracy(network, images[HELD_OUT], labels[HELD_OUT]):.4f}")
    tell(f"test images: {accuracy(network, *(x.to(device) for x in pixels(args.shared, 'test'))):.4f}")


class Shown:
    """Training images as the network sees them: shifted and mirrored, with a square covered.

    Each image is mirrored in every second epoch, which shows more of it than drawing by lot does.

    Args:
        images: uint8 ``[N, 3, 32, 32]``.
        shift: Pixels by which they are shifted at most; what is missing is reflected.
        covered: Side of the square.
    """

    def __init__(self, images: Tensor, shift: int, covered: int) -> None:
        self._padded = nn.functional.pad(images.float(), (shift,) * 4, mode="reflect").byte().permute(0, 2, 3, 1)
        self._padded = self._padded.contiguous()
        self._mirrored = torch.rand(len(images), device=images.device) < 0.5
        self._shift, self._covered = shift, covered

    def __call__(self, chosen: Tensor, epoch: int) -> Tensor:
        count, device = len(chosen), chosen.device
        places = torch.arange(32, device=device)
        rows, columns = (places + torch.randint(2 * self._shift + 1, (count, 1), device=device) for _ in range(2))
        mirrored = self._mirrored[chosen] ^ bool(epoch % 2)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        x = normalized(self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2))
        if self._covered:
            inside = [
                (places >= start) & (places < start + self._covered)
                for start in (torch.randint(33 - self._covered, (count, 1), device=device) for _ in range(2))
            ]
            x = x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)
        return x.contiguous(memory_format=torch.channels_last)


def start_as_identity(network: nn.Module, images: Tensor) -> None:
    """Let the first convolution whiten patches, the others pass on their inputs, and BatchNorms have no gains."""
    first, *others = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    patches = nn.functional.unfold(images, first.kernel_size).permute(0, 2, 1).flatten(0, 1)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    whitening = (directions / torch.sqrt(variances + 5e-4)).T.reshape(-1, *first.weight.shape[1:])
    with torch.no_grad():
        first.weight.copy_(torch.cat((whitening, -whitening)))
        first.bias.zero_()
        for convolution in others:
            nn.init.dirac_(convolution.weight[: convolution.in_channels])
    first.weight.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(False)


def groups(network: nn.Module, recipe: Recipe) -> Iterator[dict[str, object]]:
    """The parameters that learn, with their learning rates and weight decays."""
    fast, others = [], []
    for module in network.modules():
        mine = fast if isinstance(module, nn.BatchNorm2d) and recipe.from_identity else others
        mine += [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
    yield {"params": others, "highest": recipe.rate, "weight_decay": recipe.weight_decay}
    if fast:
        yield {"params": fast, "highest": recipe.rate * FAST, "weight_decay": recipe.weight_decay / FAST}


def schedule(done: float, warm_up: float) -> float:
    """Share of the highest learning rate when `done` of the training lies behind: up a line, down another."""
    return 0.2 + 0.8 * done / warm_up if done < warm_up else (1 - done) / (1 - warm_up)


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """Take the statistics of BatchNorms over images as they are, in single precision."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    for x in images[:10_000].split(500):
        network(normalized(x).contiguous(memory_format=torch.channels_last))


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
