"""A torchvision segmentation network, converted as a whole: a class for every pixel.

python examples/segmentation.py
"""

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.segmentation.fcn import FCN, FCNHead

from sj_ann2snn import Converter, simulate

CLASSES = 4


class Backbone(nn.Module):
    """A ResNet-18 without its classifier; torchvision's networks take the maps of the backbone by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(resnet18(weights=None).children())[:-2])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.body(x)}


torch.manual_seed(0)

# Any network that torchvision.models.segmentation builds from ResNets will do. This one is small and has random
# weights, so that the example runs in seconds; use fcn_resnet50(weights="DEFAULT") and your images.
network = FCN(Backbone(), FCNHead(512, CLASSES))
images = torch.rand(8, 3, 64, 64)
with torch.no_grad():
    network.train()(images)  # BatchNorm statistics that fit the random weights
network.eval()

# The network returns a dict of maps, and so does its spiking counterpart. Its interpolation is linear, so the spikes of
# the last layer are enlarged at every step, and their mean is the enlarged mean.
converter = Converter([images], mode="max", channel_wise=True, progress=False)
snn = converter(network)

with torch.no_grad():
    wanted = network(images[:2])["out"]
print(f"{len(converter.report.scales)} spiking layers; output {tuple(wanted.shape)}")
for steps in (8, 32, 128):
    # The last step is the same as in the ANN: the class of a pixel is the map with the largest value.
    found = simulate(snn, images[:2], T=steps)["out"]
    agreement = (found.argmax(1) == wanted.argmax(1)).double().mean().item()
    error = ((found - wanted).norm() / wanted.norm()).item()
    print(f"T={steps:<3}  {agreement:6.1%} of the pixels have the ANN's class; relative error {error:.3f}")
