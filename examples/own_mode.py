"""A normalization mode of your own, handed to the converter as a plugin object.

    python examples/own_mode.py

The mode sets λ to the mean of the positive activations plus k of their standard deviations. In a distribution
of its own, named by an entry point of the group `sj_ann2snn`, it would be found without `plugins=[...]`.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, Normalization, Observer, OptionError, evaluate, hookimpl


class MeanSigmaObserver(Observer):
    """Sums up what a mean and a standard deviation need; sums of several observers can be merged."""

    def __init__(self, site: CalibrationSite, k: float) -> None:
        super().__init__(site)
        self.k = k
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def observe(self, x: Tensor) -> None:
        active = x[x > 0].double()
        self.count += active.numel()
        self.total += active.sum().item()
        self.squares += active.square().sum().item()

    def merge(self, other: "MeanSigmaObserver") -> None:
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    def scale(self) -> Tensor:
        mean = self.total / max(1, self.count)
        variance = max(0.0, self.squares / max(1, self.count) - mean**2)
        return torch.tensor(mean + self.k * variance**0.5)


class MeanSigma(Normalization):
    """λ is the mean of the positive activations plus k standard deviations."""

    name = "mean-sigma"

    def __init__(self, *, k: float = 3.0) -> None:
        if k < 0:
            raise OptionError(f"k={k} is not allowed: it counts standard deviations, from 0 up.")
        self.k = k

    def observer(self, site: CalibrationSite) -> MeanSigmaObserver:
        return MeanSigmaObserver(site, self.k)


class Plugin:
    """What a plugin module would hold at its top level."""

    @hookimpl
    def ann2snn_normalizations(self) -> list[type[Normalization]]:
        return [MeanSigma]


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32) / 16
y = torch.tensor(digits.target)
order = torch.randperm(len(x))
train, test = order[:1297], order[1297:]

ann = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(ann.parameters(), lr=3e-3)
for _ in range(15):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(ann(x[batch]), y[batch]).backward()
        optimizer.step()
ann.eval()
with torch.no_grad():
    print(f"ANN                {(ann(x[test]).argmax(1) == y[test]).double().mean():.4f}")

for options in ({"mode": "max"}, {"mode": "mean-sigma"}, {"mode": "mean-sigma", "k": 2.0}):
    converter = Converter([x[train]], plugins=[Plugin()], progress=False, **options)
    result = evaluate(converter(ann), [(x[test], y[test])], T=50, progress=False)
    name = " ".join(f"{value}" if key == "mode" else f"{key}={value}" for key, value in options.items())
    scales = ", ".join(f"{low:.3g}" for low, _ in converter.report.scales.values())
    print(f"{name:<16}   {result.accuracy[-1]:.4f} after 50 steps, {result.accuracy[9]:.4f} after 10; λ {scales}")
