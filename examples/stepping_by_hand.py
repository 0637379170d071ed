"""The converted network is an ordinary SpikingJelly network: step it by hand, or all steps at once.

python examples/stepping_by_hand.py
"""

import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, monitor, neuron
from torch import nn

from sj_ann2snn import Converter, simulate

T = 32

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
y = torch.tensor(digits.target)
order = torch.randperm(len(x))
train, test = order[:1297], order[1297:]

ann = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 4 * 4, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
)
optimizer = torch.optim.Adam(ann.parameters(), lr=3e-3)
for _ in range(6):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(ann(x[batch]), y[batch]).backward()
        optimizer.step()
ann.eval()

snn = Converter([x[train]], mode="99.9%", progress=False)(ann)
images, labels = x[test], y[test]

# 1. Step by step, stopping whenever you like. Always reset first: neurons remember their potential.
functional.reset_net(snn)
with torch.no_grad():
    total = torch.zeros(len(images), 10)
    for t in range(1, T + 1):
        total += snn(images)
        if t in (4, 8, 16, T):
            print(f"after {t:2} steps  {(total.argmax(1) == labels).double().mean():.4f}")
by_hand = total / T

# 2. All steps at once: input [T, N, ...], output [T, N, classes]. SpikingJelly's monitors work as ever.
functional.reset_net(snn)
functional.set_step_mode(snn, "m")
spikes = monitor.OutputMonitor(snn, neuron.IFNode)
with torch.no_grad():
    at_once = snn(images.expand(T, *images.shape)).mean(0)
for name in spikes.monitored_layers:
    print(f"layer {name}: {spikes[name][0].mean():.4f} spikes per neuron and step")
spikes.remove_hooks()
functional.set_step_mode(snn, "s")
functional.reset_net(snn)

# 3. The package's own runner, which needs the least memory.
simulated = simulate(snn, images, T=T)

print(
    f"largest difference to stepping by hand: {(at_once - by_hand).abs().max():.2g} all at once, "
    f"{(simulated - by_hand).abs().max():.2g} simulated"
)
torch.testing.assert_close(at_once, by_hand)
torch.testing.assert_close(simulated, by_hand)
