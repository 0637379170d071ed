"""Train a small network on scikit-learn's digits, convert it, and compare accuracy over time steps.

python examples/basic_conversion.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sj_ann2snn import Converter, evaluate

T = 50

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train_set = TensorDataset(images[order[:1297]], labels[order[:1297]])
test_set = TensorDataset(images[order[1297:]], labels[order[1297:]])
train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
test_loader = DataLoader(test_set, batch_size=250)

# An ordinary ANN: nothing about it knows of spikes.
ann = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 2 * 2, 10),
)
optimizer = torch.optim.Adam(ann.parameters(), lr=3e-3)
for _ in range(6):
    for x, y in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(ann(x), y).backward()
        optimizer.step()
ann.eval()
with torch.no_grad():
    correct = sum(int((ann(x).argmax(1) == y).sum()) for x, y in test_loader)
print(f"ANN accuracy {correct / len(test_set):.4f}")

# The calibration data tells how large activations become; the labels are not used.
converter = Converter(train_loader, mode="99.9%", progress=False)
snn = converter(ann)
print(converter.report)

result = evaluate(snn, test_loader, T=T, progress=False)
for t in (5, 10, 20, T):
    print(f"SNN accuracy after {t:2} steps {result.accuracy[t - 1]:.4f}")
print(f"{result.spikes_per_sample:.0f} spikes and {result.synops_per_sample:.0f} synaptic operations per image")
