"""SpikingJelly's MNIST tutorial, called as on SpikingJelly 0.0.0.0.14; one import line is another one. Runs on 2.0 too.

    python examples/spikingjelly/cnn_mnist.py --dataset-dir DIR --weights mnist_cnn.pth

DIR is what torchvision.datasets.MNIST takes as its root; what is missing there is downloaded. Where the weights are
missing, `--epochs 10` trains the network and writes them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from tqdm import tqdm

from sj_ann2snn import ann2snn  # was: from spikingjelly.activation_based import ann2snn

# Scripts write the fractions as 1.0 / 2 and so on.
MODES = {"max": "max", "99.9%": "99.9%", **{f"1/{n}": 1.0 / n for n in (2, 3, 4, 5)}}


def network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1),
        nn.BatchNorm2d(32, eps=1e-3),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(32, 32, 3, 1),
        nn.BatchNorm2d(32, eps=1e-3),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(32, 32, 3, 1),
        nn.BatchNorm2d(32, eps=1e-3),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(32, 10),
        nn.ReLU(),
    )


def train(net, device, loader, epochs):
    # Not through the last ReLU, behind which a class that is negative for all images would have no gradient.
    logits = net[:-1].to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=5e-4)
    for _ in range(epochs):
        for images, labels in tqdm(loader):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(images.to(device)), labels.to(device)).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(net, device, loader, T=None):  # noqa: N803
    """Of an ANN; of a spiking network, after each of T steps."""
    net.eval().to(device)
    correct, total = np.zeros(T or 1), 0
    for images, labels in tqdm(loader):
        images, labels = images.to(device), labels.to(device)
        for module in net.modules():
            if hasattr(module, "reset"):
                module.reset()
        out = 0.0
        for t in range(T or 1):
            out = out + net(images)
            correct[t] += (out.argmax(1) == labels).sum().item()
        total += len(labels)
    return correct / total


def main():
    parser = argparse.ArgumentParser(description="MNIST: six modes of conversion.")
    parser.add_argument("--dataset-dir", default="data")
    parser.add_argument("--weights", type=Path, default=Path("mnist_cnn.pth"))
    parser.add_argument("--epochs", type=int, default=0, help="train that long if there are no weights")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--T", type=int, default=50)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)

    to_tensor = torchvision.transforms.ToTensor()
    train_set, test_set = (
        torchvision.datasets.MNIST(args.dataset_dir, train=part, transform=to_tensor, download=True)
        for part in (True, False)
    )
    train_loader = torch.utils.data.DataLoader(train_set, batch_size=100, shuffle=True)
    test_loader = torch.utils.data.DataLoader(test_set, batch_size=50)

    model = network()
    if args.weights.is_file():
        model.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    elif args.epochs:
        train(model, args.device, train_loader, args.epochs)
        torch.save(model.state_dict(), args.weights)
    else:
        parser.error(f"{args.weights} is missing: name the file with --weights, or train with --epochs 10")
    model.to(args.device)
    print(f"ANN accuracy: {accuracy(model, args.device, test_loader)[0]:.4f}")

    for name in args.modes:
        model_converter = ann2snn.Converter(mode=MODES[name], dataloader=train_loader)
        snn_model = model_converter(model)
        print(f"SNN accuracy, mode {name}, T={args.T}: {accuracy(snn_model, args.device, test_loader, args.T)[-1]:.4f}")


if __name__ == "__main__":
    main()
