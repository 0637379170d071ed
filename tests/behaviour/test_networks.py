"""Which networks convert: they share, nest and parametrize modules, take several inputs, and reshape by sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from sj_ann2snn import Converter, Scaler, simulate

from ..helpers.cnn import answer, cnn, images
from ..helpers.networks import Written, convert, multi_step, relative_error, run_by_hand

# Networks that share, nest, parametrize -------------------------------------------------------------


def test_a_module_called_twice_has_two_neurons_and_two_scales() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.act(net.body(x))
        return net.head(net.act(net.body(h)))

    ann = Written(forward, body=nn.Linear(4, 4), act=nn.ReLU(), head=nn.Linear(4, 2)).double()
    nn.init.uniform_(ann.body.weight, 0.2, 0.9)
    data = torch.rand(40, 4, dtype=torch.float64)
    converter = Converter([data], progress=False)
    snn = converter(ann)
    scales = converter.report.scales
    assert list(scales) == ["act", "act#2"]
    first = torch.relu(ann.body(data))
    assert scales["act"][0] == pytest.approx(first.max().item())
    assert scales["act#2"][0] == pytest.approx(torch.relu(ann.body(first)).max().item())
    neurons = [module for module in snn.modules() if isinstance(module, neuron.IFNode)]
    assert len(set(map(id, neurons))) == 2
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02
    assert ann.body.weight is dict(ann.named_parameters())["body.weight"]


def test_tied_parameters_are_folded_apart() -> None:
    ann = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    ann[2].weight = ann[0].weight
    data = torch.rand(40, 4, dtype=torch.float64) * 3
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert not torch.equal(snn.get_submodule("0").weight, snn.get_submodule("2").weight)
    assert ann[2].weight is ann[0].weight
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02


def test_one_module_object_under_two_names() -> None:
    act, layer = nn.ReLU(), nn.Linear(4, 4)
    ann = nn.Sequential(layer, act, layer, act, nn.Linear(4, 2))
    data = torch.rand(40, 4)
    snn = convert(ann, data)
    assert sum(isinstance(module, neuron.IFNode) for module in snn.modules()) == 2
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02


NORMED = {
    "weight_norm": lambda layer: parametrizations.weight_norm(layer),
    "spectral_norm": lambda layer: parametrizations.spectral_norm(layer),
    "orthogonal": lambda layer: parametrizations.orthogonal(layer),
}


@pytest.mark.parametrize("name", NORMED)
def test_parametrized_weights(name: str) -> None:
    ann = nn.Sequential(NORMED[name](nn.Linear(4, 6)), nn.ReLU(), NORMED[name](nn.Linear(6, 3)))
    data = torch.rand(40, 4)
    for _ in range(20):
        ann(data)  # spectral norm's power iteration settles
    wanted = ann.eval()(data).detach()
    snn = convert(ann, data)
    assert not any(parametrize.is_parametrized(module) for module in snn.modules())
    assert relative_error(simulate(snn, data, T=500), wanted) < 0.02


@pytest.mark.parametrize("name", NORMED)
def test_an_ann_with_parametrized_weights_is_left_as_it_was(name: str) -> None:
    ann = nn.Sequential(NORMED[name](nn.Linear(4, 6)), nn.ReLU(), NORMED[name](nn.Linear(6, 3))).eval()
    data = torch.rand(40, 4)
    wanted = ann(data).detach()
    convert(ann, data)
    assert parametrize.is_parametrized(ann[0])
    assert torch.equal(ann(data), wanted)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated", "ignore:.*spectral_norm.* is deprecated")
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_weights_computed_by_hooks(name: str) -> None:
    norm = getattr(nn.utils, name)
    ann = nn.Sequential(norm(nn.Conv2d(1, 4, 3)), nn.ReLU(), norm(nn.Conv2d(4, 2, 3)))
    data = images()
    for _ in range(20):
        ann(data)
    with torch.no_grad():
        # The hook computes the weight anew; one with a gradient history could not be copied.
        wanted = ann.eval()(data)
    snn = convert(ann, data)
    assert len(ann[0]._forward_pre_hooks) == 1
    assert relative_error(simulate(snn, data, T=500), wanted) < 0.02


def test_nested_modules_with_functions_inside() -> None:
    class Block(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(features, features), nn.Linear(features, features)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.two(F.relu(self.one(x))) + x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 6)
            self.blocks = nn.ModuleList([nn.Sequential(Block(6)), Block(6)])
            self.heads = nn.ModuleDict({"a": nn.Linear(6, 2)})

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x)

    ann, data = Net(), torch.rand(50, 4)
    converter = Converter([data], progress=False)
    snn = converter(ann)
    assert list(converter.report.scales) == [
        "relu", "blocks.0.0.relu", "blocks.0.0.relu#2", "blocks.1.relu", "blocks.1.relu#2",
    ]  # fmt: skip
    assert isinstance(snn.get_submodule("blocks.0.0.one"), nn.Linear)
    assert relative_error(simulate(snn, data, T=800), ann(data).detach()) < 0.03


def test_subclasses_of_torchs_layers() -> None:
    class Named(nn.Conv2d):
        """Keeps torch's forward."""

    class Rectifier(nn.ReLU):
        """Likewise."""

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2.0

    ann = nn.Sequential(Named(1, 3, 3), Rectifier(), nn.Flatten(), Doubled(108, 4), Rectifier()).double()
    data = images().double()
    with torch.no_grad():
        assert relative_error(Converter([data], progress=False).normalize(ann)(data), ann(data)) < 1e-12
    snn = convert(ann, data)
    assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03


def test_optional_arguments_of_forward_stay_at_their_defaults() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 3.0, *, flip: bool = False) -> Tensor:
            h = torch.relu(self.one(x))
            if mask is not None:
                h = h * mask
            if flip:
                h = -h
            return self.two(h) * scale

    ann, data = Net(), torch.rand(40, 4)
    snn = convert(ann, [(data, torch.zeros(40))])
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, image: Tensor, context: Tensor) -> Tensor:
        return self.head(torch.relu(self.left(image)) + torch.relu(self.right(context)))


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "tuple with labels", "dict with labels"])
def test_several_inputs(kind: str) -> None:
    ann, image, context = TwoInputs(), torch.rand(40, 4), torch.rand(40, 3)
    labels = torch.zeros(40)
    batch: Any = {
        "tuple": (image, context),
        "list": [image, context],
        "dict": {"context": context, "image": image},
        "tuple with labels": (image, context, labels),
        "dict with labels": {"label": labels, "context": context, "image": image},
    }[kind]
    snn = convert(ann, [batch])
    wanted = ann(image, context).detach()
    assert relative_error(run_by_hand(snn, image, 500, context).mean(0), wanted) < 0.02
    assert relative_error(simulate(snn, (image, context), T=500), wanted) < 0.02


def test_inputs_that_are_keyword_only() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return self.body(x * scale)

    ann, x, scale = Net(), torch.rand(40, 4), torch.rand(40, 1)
    snn = convert(ann, [{"x": x, "scale": scale}])
    assert relative_error(simulate(snn, (x, scale), T=500), ann(x, scale=scale).detach()) < 0.02


def test_an_input_that_is_a_number() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

        def forward(self, x: Tensor, factor: float) -> Tensor:
            return self.body(x * factor)

    ann, x = Net(), torch.rand(40, 4)
    snn = convert(ann, [(x, 2.0)])
    for factor in (2.0, 1.5):
        assert relative_error(simulate(snn, (x, factor), T=500), ann(x, factor).detach()) < 0.02


def test_the_device_may_be_given() -> None:
    ann, x = cnn(), images()
    snn = convert(ann, x, device="cpu")
    assert {parameter.device.type for parameter in snn.parameters()} == {"cpu"}
    assert torch.equal(run_by_hand(snn, x, 5), run_by_hand(convert(ann, x, device=torch.device("cpu")), x, 5))


def test_outputs_in_tuples_lists_and_dicts() -> None:
    def forward(net: Any, x: Tensor) -> dict[str, Any]:
        h = torch.relu(net.one(x))
        return {"logits": net.two(h), "parts": [h, (net.one(x), x * 2)]}

    ann, data = Written(forward, one=nn.Linear(4, 6), two=nn.Linear(6, 2)), torch.rand(40, 4)
    snn = convert(ann, data)
    got, wanted = simulate(snn, data, T=500), ann(data)
    functional.reset_net(snn)
    with torch.no_grad():
        once = snn(data)
    functional.reset_net(snn)
    for output in (got, once):
        assert isinstance(output, dict)
        assert isinstance(output["parts"], list)
        assert isinstance(output["parts"][1], tuple)
    assert relative_error(got["logits"], wanted["logits"]) < 0.02
    assert relative_error(got["parts"][0], wanted["parts"][0]) < 0.02
    assert torch.allclose(got["parts"][1][0], wanted["parts"][1][0], atol=1e-5)
    assert torch.allclose(got["parts"][1][1], data * 2, atol=1e-6)


def test_integer_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.one, self.two = nn.Embedding(10, 6), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(self.embed(ids).mean(1))))

    ann, ids = Net(), torch.randint(0, 10, (50, 7))
    snn = convert(ann, ids)
    assert relative_error(simulate(snn, ids, T=500), ann(ids).detach()) < 0.02
    assert torch.allclose(multi_step(snn, ids, 6), run_by_hand(snn, ids, 6), atol=1e-6)


def test_a_network_without_parameters() -> None:
    x = torch.randn(20, 3)
    snn = convert(nn.Sequential(nn.ReLU(), nn.Flatten()), x)
    assert relative_error(simulate(snn, x, T=400), x.relu()) < 0.01
    # No weights take the scales: one scaler stands in front of the neuron, one behind it.
    assert sum(isinstance(module, Scaler) for module in snn.modules()) == 2


# Reshaping by sizes ---------------------------------------------------------------------------------


RESHAPES = {
    "view(x.size(0), -1)": lambda x, h: h.view(x.size(0), -1),
    "view(h.size(0), -1)": lambda x, h: h.view(h.size(0), -1),
    "view(h.shape[0], -1)": lambda x, h: h.view(h.shape[0], -1),
    "view(x.shape[0], -1)": lambda x, h: h.view(x.shape[0], -1),
    "view(len(x), -1)": lambda x, h: h.view(h.size()[0], -1),
    "reshape(-1, c * w * w)": lambda x, h: h.reshape(-1, h.size(1) * h.size(2) * h.size(3)),
    "view(-1, n)": lambda x, h: h.view(-1, 108),
    "torch.flatten": lambda x, h: torch.flatten(h, 1),
    "flatten(start_dim=1)": lambda x, h: h.flatten(start_dim=1),
    "flatten(-3)": lambda x, h: h.flatten(-3),
    "unpacked": lambda x, h: _unpacked(h),
    "view_as": lambda x, h: h.view_as(x.expand(-1, 3, -1, -1)[:, :, 1:-1, 1:-1]).flatten(1),
    "permuted and back": lambda x, h: h.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).flatten(1),
}


def _unpacked(h: Tensor) -> Tensor:
    samples, channels, height, width = h.shape
    return h.reshape(samples, channels * height * width)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", RESHAPES)
def test_reshaping_by_sizes_works_in_every_step_mode(name: str, channel_wise: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(RESHAPES[name](x, torch.relu(net.conv(x))))

    ann, data = Written(forward, conv=nn.Conv2d(1, 3, 3), head=nn.Linear(108, 4)).double(), images().double()
    snn = convert(ann, data, channel_wise=channel_wise)
    x = images(5).double()
    by_hand = run_by_hand(snn, x, 60)
    assert relative_error(multi_step(snn, x, 60), by_hand) < 1e-12
    assert relative_error(simulate(snn, x, T=60), by_hand.mean(0)) < 1e-12
    assert relative_error(simulate(snn, x, T=500), answer(ann, x)) < 0.03


def test_reshaping_the_static_input_by_its_size() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        n = x.size(0)
        h = torch.relu(net.one(x.view(n, -1)))
        return net.two(h.view(n, 2, 4).sum(2).reshape(n, 2))

    ann, data = Written(forward, one=nn.Linear(64, 8), two=nn.Linear(2, 3)).double(), images().double()
    snn = convert(ann, data)
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12
    assert relative_error(simulate(snn, data, T=500), answer(ann, data)) < 0.02
