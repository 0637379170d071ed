"""A residual network with max pooling, converted with one scale per channel.

python examples/residual_network.py
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sj_ann2snn import Converter, evaluate

T = 32


class Block(nn.Module):
    """Two convolutions beside a shortcut, added before the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block1 = Block(16)
        self.pool = nn.MaxPool2d(2)
        self.block2 = Block(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.block1(self.stem(x)))
        return self.head(self.block2(x).mean(dim=(2, 3)))


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
y = torch.tensor(digits.target)
order = torch.randperm(len(x))
train, test = order[:1297], order[1297:]

ann = ResNet()
optimizer = torch.optim.Adam(ann.parameters(), lr=5e-3)
for _ in range(6):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(ann(x[batch]), y[batch]).backward()
        optimizer.step()
ann.eval()
with torch.no_grad():
    print(f"ANN                 {(ann(x[test]).argmax(1) == y[test]).double().mean():.4f}")

# Both keep spikes binary and reach the ANN's maximum in the mean: "cumulative" exactly, "momentum" by guessing which
# input fires most. ("pre-spike" would pool the currents, whose fluctuations the maximum turns into an excess.)
for maxpool in ("cumulative", "momentum"):
    converter = Converter([x[train]], mode="99.9%", channel_wise=True, maxpool=maxpool, progress=False)
    result = evaluate(converter(ann), [(x[test], y[test])], T=T, progress=False)
    print(
        f"maxpool {maxpool:<10}  {result.accuracy[-1]:.4f} after {T} steps, {result.accuracy[7]:.4f} after 8, "
        f"{result.spikes_per_sample:.0f} spikes per image"
    )

print(converter.report)
