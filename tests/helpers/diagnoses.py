"""Diagnoses of small networks, for pages and pictures."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Diagnosis, diagnose

from .networks import Written, randomized

__all__ = ["HOSTILE", "LONG", "deepened", "diagnosed", "residual", "two_outputs"]

HOSTILE = "<script>alert(1)</script>&\"'\u202ex\x07"
"""A layer's name that breaks pages."""

LONG = "a_long_name_" * 12
"""A layer's name that breaks layouts."""


def residual() -> nn.Module:
    """A network with a skip connection, a max pool, an activation of both signs, and names that are hard on a page."""

    def forward(net: Any, x: Tensor) -> Any:
        x = net._modules[HOSTILE](net.norm(net.first(x)))
        x = net.pool(x)
        x = net._modules[LONG](x + net.second(x))
        return net.head(x.flatten(1))

    net = Written(
        forward,
        first=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        pool=nn.MaxPool2d(2),
        second=nn.Conv2d(4, 4, 3, padding=1),
        head=nn.Linear(36, 5),
    )
    net.add_module(HOSTILE, nn.ReLU())
    net.add_module(LONG, nn.LeakyReLU(0.1))
    return randomized(net)


def two_outputs() -> nn.Module:
    """A network that returns a dict."""

    def forward(net: Any, x: Tensor) -> Any:
        x = torch.relu(net.first(x.flatten(1)))
        return {"scores": net.second(x), "boxes": torch.relu(net.third(x))}

    return Written(forward, first=nn.Linear(64, 8), second=nn.Linear(8, 3), third=nn.Linear(8, 2)).eval()


def diagnosed(ann: nn.Module, steps: int = 12, *, labels: bool = True, **options: Any) -> Diagnosis:
    """The diagnosis of a network of images ``[N, 1, 8, 8]``, with the ANN's answers for labels."""
    torch.manual_seed(0)
    x = torch.rand(30, 1, 8, 8)
    snn = Converter([x], progress=False, **{"mode": 0.4, "maxpool": "momentum", **options})(ann)
    with torch.no_grad():
        answer = ann(x)
    given = [(x, answer.argmax(1))] if labels and isinstance(answer, Tensor) else [x]
    return diagnose(ann, snn, given, steps, progress=False)


def deepened(data: dict[str, Any], layers: int) -> dict[str, Any]:
    """The data of a page, as if the network had that many layers, each feeding the next."""
    found = copy.deepcopy(data)
    origin = found["layers"][0]
    seen = found["observed"]["layers"][origin["name"]]
    names = [f"stage{index // 10}.block{index}.relu" for index in range(layers)]
    found["layers"] = [{**copy.deepcopy(origin), "name": name} for name in names]
    found["worst"] = names
    found["observed"]["layers"] = dict.fromkeys(names, seen)
    found["observed"]["graph"] = [
        {"name": "x", "kind": "input", "sources": [], "through": []},
        *(
            {"name": name, "kind": "layer", "sources": names[max(0, index - 3) : index] or ["x"], "through": ["conv"]}
            for index, name in enumerate(names)
        ),
    ]
    return found
