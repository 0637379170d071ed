"""SpikingJelly's CIFAR-10 tutorial, on the recipes of SpikingJelly 2.0; one import line is another one.

    python examples/spikingjelly/resnet18_cifar10.py --dataset-dir DIR --weights resnet18.pth

DIR is what torchvision.datasets.CIFAR10 takes as its root (what is missing there is downloaded), or holds the folders
train and test with one folder of images per class. The weights are a state_dict of SpikingJelly's ResNet18, such as
that of its tutorial; where they are missing, `--epochs 30` trains the network and writes them.
"""

import argparse
from pathlib import Path

import torch
import torchvision
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn.sample_models import cifar10_resnet
from tqdm import tqdm

from sj_ann2snn import ann2snn  # was: from spikingjelly.activation_based import ann2snn


def dataset(root, train, limit):
    transforms = torchvision.transforms
    normalized = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))]
    )
    folder = Path(root) / ("train" if train else "test")
    if folder.is_dir():
        found = torchvision.datasets.ImageFolder(folder, transform=normalized)
    else:
        found = torchvision.datasets.CIFAR10(root, train=train, transform=normalized, download=True)
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:limit]
    return torch.utils.data.Subset(found, chosen.tolist())


def fit(net, device, loader, epochs):
    net.train().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for images, labels in tqdm(loader):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images.to(device)), labels.to(device)).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def val(net, device, loader, T=None):  # noqa: N803
    net.eval().to(device)
    correct, total = 0, 0
    for images, labels in tqdm(loader):
        images = images.to(device)
        if T is not None:
            functional.reset_net(net)
        out = net(images)
        for _ in range(1, T or 1):
            out += net(images)
        correct += (out.argmax(1) == labels.to(device)).sum().item()
        total += len(labels)
    return correct / total


def main():
    parser = argparse.ArgumentParser(description="ResNet-18 on CIFAR-10, converted.")
    parser.add_argument("--dataset-dir", default="data")
    parser.add_argument("--weights", type=Path, default=Path("SJ-cifar10-resnet18_model-sample.pth"))
    parser.add_argument("--epochs", type=int, default=0, help="train that long if there are no weights")
    parser.add_argument("--mode", default="Max", help='"Max", a percentile such as "99.9%%", or a plugin\'s mode')
    parser.add_argument("--channel-wise", action="store_true")
    parser.add_argument("--half-threshold", action="store_true")
    parser.add_argument("--T", type=int, default=400)
    parser.add_argument("--train-images", type=int, help="train and calibrate on that many only")
    parser.add_argument("--test-images", type=int, help="test on that many only")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)

    train_set = dataset(args.dataset_dir, True, args.train_images)
    train_loader = torch.utils.data.DataLoader(train_set, batch_size=100, shuffle=True)
    test_loader = torch.utils.data.DataLoader(dataset(args.dataset_dir, False, args.test_images), batch_size=50)

    model = cifar10_resnet.ResNet18()
    if args.weights.is_file():
        model.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    elif args.epochs:
        fit(model, args.device, train_loader, args.epochs)
        torch.save(model.state_dict(), args.weights)
    else:
        parser.error(f"{args.weights} is missing: name the file with --weights, or train with --epochs 30")
    print(f"ANN accuracy: {val(model, args.device, test_loader):.3f}")

    model_converter = ann2snn.Converter(
        recipe=ann2snn.RateCodingRecipe(
            dataloader=train_loader,
            mode=args.mode,
            channel_wise=args.channel_wise,
            half_threshold=args.half_threshold,
        ),
        device=args.device,
    )
    snn_model = model_converter.convert(model)
    print(f"SNN accuracy, mode {args.mode}, T={args.T}: {val(snn_model, args.device, test_loader, T=args.T):.3f}")


if __name__ == "__main__":
    main()
