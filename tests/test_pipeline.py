"""The converter end to end: what it leaves alone, what it returns, and which networks it takes."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, functional, neuron
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, parametrize

from sj_ann2snn import ConversionError, Converter, NonFiniteError, Scaler, UnsupportedError, evaluate, simulate

from .networks import Written, convert, multi_step, randomized, relative_error, run_by_hand, scalers


def cnn(head: int = 5) -> nn.Sequential:
    ann = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, head),
    )
    return randomized(ann)  # type: ignore[return-value]


def images(count: int = 40, size: int = 8) -> Tensor:
    return torch.rand(count, 1, size, size)


def answer(ann: nn.Module, x: Tensor) -> Tensor:
    """What the ANN says at inference, on a copy."""
    with torch.no_grad():
        return copy.deepcopy(ann).eval()(x)


# The ANN is left as it was --------------------------------------------------------------------------


def state_of(ann: nn.Module) -> dict[str, Any]:
    """Everything a conversion might disturb, by value and by identity."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in ann.state_dict(keep_vars=False).items()},
        "identities": {name: id(tensor) for name, tensor in ann.state_dict(keep_vars=True).items()},
        "modules": {name: (id(one), type(one)) for name, one in ann.named_modules()},
        "training": {name: one.training for name, one in ann.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in ann.named_parameters()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in ann.named_parameters()},
        "hooks": {
            name: (
                [*one._forward_hooks.values()],
                [*one._forward_pre_hooks.values()],
                [*one._backward_hooks.values()],
            )
            for name, one in ann.named_modules()
        },
        "attributes": {name: sorted(one.__dict__) for name, one in ann.named_modules()},
    }


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("training", ["all", "none", "mixed"])
@pytest.mark.parametrize("how", ["convert", "normalize", "check", "convert_only"])
def test_the_ann_is_left_as_it_was(training: str, how: str) -> None:
    ann = nn.Sequential(cnn(6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    ann.train(training == "all")
    if training == "mixed":
        ann[0][1].train()
        ann[0].training = True
        ann[2].train()
    ann[0][0].weight.requires_grad_(False)
    ann[2](torch.rand(3, 6)).sum().backward()
    seen: list[str] = []
    ann[2].register_forward_hook(lambda module, inputs, output: seen.append("hook"))
    ann[0][4].register_forward_pre_hook(lambda module, inputs: seen.append("pre"))
    ann[0][0].register_full_backward_hook(lambda module, gradients, outputs: None)
    data = images()
    before, given = state_of(ann), data.clone()
    converter = Converter([data], progress=False, convert_only="0" if how == "convert_only" else None)
    {"convert": converter, "convert_only": converter, "normalize": converter.normalize, "check": converter.check}[how](
        ann
    )
    assert_same(state_of(ann), before)
    assert torch.equal(data, given)
    seen.clear()
    ann.eval()(data[:2])
    assert seen == ["pre", "hook"]


def test_the_ann_is_left_as_it_was_when_conversion_fails() -> None:
    ann = nn.Sequential(cnn(6), nn.Softmax(1), nn.ReLU(), nn.Linear(6, 2)).train()
    before = state_of(ann)
    with pytest.raises(UnsupportedError):
        convert(ann, images())
    assert_same(state_of(ann), before)
    with pytest.raises(NonFiniteError):
        convert(nn.Sequential(cnn(6), nn.ReLU()), torch.cat([images(4), images(4) * float("inf")]))


def test_the_spiking_network_shares_no_memory_with_the_ann() -> None:
    ann = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU())
    ann.register_buffer("unused", torch.ones(2))
    snn = convert(ann, torch.rand(30, 4))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*ann.parameters(), *ann.buffers())}
    assert own.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in (*snn.parameters(), *snn.buffers()))
    x = torch.rand(2, 4)
    before = run_by_hand(snn, x, 10)
    with torch.no_grad():
        for parameter in ann.parameters():
            parameter.zero_()
    assert torch.equal(run_by_hand(snn, x, 10), before)


def test_convert_only_leaves_the_calibration_data_as_it_was() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.body(x.mul_(2.0))

    ann = Written(forward, body=nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    data = torch.rand(20, 4)
    given = data.clone()
    convert(ann, data, convert_only="body")
    assert torch.equal(data, given)


def test_calibration_data_is_left_as_it_was_by_a_network_that_writes_to_its_input() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.body(x.mul_(2.0))

    ann = Written(forward, body=nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    data = torch.rand(20, 4)
    given = data.clone()
    snn = convert(ann, data)
    assert torch.equal(data, given)
    assert relative_error(simulate(snn, data, T=500), ann(data.clone()).detach()) < 0.02
    assert torch.equal(data, given)


# What is returned -----------------------------------------------------------------------------------


def test_the_result_is_a_graph_module_of_spikingjelly_modules() -> None:
    snn = convert(cnn(), images())
    assert isinstance(snn, fx.GraphModule)
    assert not snn.training
    neurons = [module for module in snn.modules() if isinstance(module, neuron.IFNode)]
    assert len(neurons) == 2
    for node in neurons:
        assert (node.v_threshold, node.v_reset, node.step_mode) == (1.0, None, "s")
    assert all(isinstance(module, base.StepModule) for module in snn.modules() if hasattr(module, "step_mode"))
    called = [str(node.target) for node in snn.graph.nodes if node.op == "call_module"]
    assert all(hasattr(snn.get_submodule(name), "step_mode") for name in called)
    kinds = [type(snn.get_submodule(name)).__module__.split(".")[0] for name in ("0", "3", "4", "7", "8", "10")]
    assert set(kinds) == {"spikingjelly"}
    assert not any(isinstance(module, (nn.BatchNorm2d, nn.Dropout, nn.ReLU)) for module in snn.modules())


def test_layers_keep_their_names() -> None:
    snn = convert(nn.Sequential(cnn(), nn.ReLU()), images())
    assert isinstance(snn.get_submodule("0.0"), nn.Conv2d)
    assert isinstance(snn.get_submodule("0.2"), neuron.IFNode)
    assert isinstance(snn.get_submodule("0.10"), nn.Linear)


@pytest.mark.parametrize("mode", ["max", "99.9%", 0.5])
@pytest.mark.parametrize("channel_wise", [False, True])
def test_the_mean_over_time_is_the_anns_answer(mode: Any, channel_wise: bool) -> None:
    ann, x = cnn(), images()
    snn = convert(ann, x, mode=mode, channel_wise=channel_wise)
    bound = 0.03 if mode == "max" else 0.7  # below the maximum rates saturate
    assert relative_error(simulate(snn, x, T=600), answer(ann, x)) < bound


def test_a_hand_written_loop_is_reproducible_after_a_reset() -> None:
    snn, x = convert(cnn(), images()), images(3)
    first = run_by_hand(snn, x, 12)
    assert torch.equal(run_by_hand(snn, x, 12), first)
    assert not torch.equal(first[0], first[5])
    with torch.no_grad():
        unclean = torch.stack([snn(x) for _ in range(12)])  # clean after run_by_hand
        again = torch.stack([snn(x) for _ in range(12)])  # goes on from there
    functional.reset_net(snn)
    assert torch.equal(unclean, first)
    assert not torch.equal(again, first)


def test_multi_step_is_the_loop() -> None:
    snn, x = convert(cnn(), images()), images(3)
    assert torch.allclose(multi_step(snn, x, 15), run_by_hand(snn, x, 15), atol=1e-6)


def test_another_precision() -> None:
    ann, x = cnn(), images()
    snn = convert(ann, x).to(torch.float64)
    out = run_by_hand(snn, x.double(), 300)
    assert out.dtype == torch.float64
    assert relative_error(out.mean(0), answer(ann.double(), x.double())) < 0.05
    assert all(tensor.dtype == torch.float64 for tensor in (*snn.parameters(), *snn.buffers()))
    assert convert(cnn().double(), images().double())(images(2).double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "half_data",
    [False, True],
)
def test_half_precision_networks_are_raised_to_single(dtype: torch.dtype, half_data: bool) -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    data = torch.rand(50, 4).to(dtype)
    snn = convert(ann, data if half_data else data.float())
    assert {p.dtype for p in snn.parameters()} == {torch.float32}
    assert {p.dtype for p in ann.parameters()} == {dtype}
    wanted = answer(ann.float(), data.float())
    assert relative_error(simulate(snn, data, T=500), wanted) < 0.02


def test_copies_are_independent() -> None:
    snn, x = convert(cnn(), images()), images(3)
    wanted = run_by_hand(snn, x, 10)
    with torch.no_grad():
        snn(x)  # leave something in the neurons
    other = copy.deepcopy(snn)
    functional.reset_net(snn)
    assert torch.equal(run_by_hand(other, x, 10), wanted)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(run_by_hand(snn, x, 10), wanted)


def test_state_dict_round_trip() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        return torch.relu(net.two(h) + h)

    ann, x = Written(forward, one=nn.Linear(4, 4), two=nn.Linear(4, 4)), torch.rand(20, 4)
    snn = convert(ann, x)
    other = convert(Written(forward, one=nn.Linear(4, 4), two=nn.Linear(4, 4)), torch.rand(20, 4))
    assert not torch.equal(run_by_hand(other, x, 10), run_by_hand(snn, x, 10))
    buffer = io.BytesIO()
    torch.save(snn.state_dict(), buffer)
    buffer.seek(0)
    assert scalers(snn)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(run_by_hand(other, x, 10), run_by_hand(snn, x, 10))


def test_the_whole_network_can_be_saved() -> None:
    snn, x = convert(cnn(), images()), images(3)
    buffer = io.BytesIO()
    torch.save(snn, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(run_by_hand(loaded, x, 10), run_by_hand(snn, x, 10))
    assert torch.equal(multi_step(loaded, x, 10), multi_step(snn, x, 10))


@pytest.mark.parametrize("maxpool", ["cumulative", "momentum", "avg"])
def test_copies_and_saved_networks_with_functions_and_pools(maxpool: str) -> None:
    ann = Written(
        lambda net, x: net.head(F.max_pool2d(torch.relu(net.conv(x)), 2).view(x.size(0), -1)),
        conv=nn.Conv2d(1, 3, 3),
        head=nn.Linear(27, 4),
    )
    snn, x = convert(ann, images(), maxpool=maxpool), images(3)
    buffer = io.BytesIO()
    torch.save(snn, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(snn), torch.load(buffer, weights_only=False)):
        assert torch.equal(run_by_hand(other, x, 10), run_by_hand(snn, x, 10))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_other_batch_sizes(count: int) -> None:
    ann, x = cnn(), images(count)
    snn = convert(ann, [images(16), images(16), images(5)])
    assert torch.allclose(multi_step(snn, x, 8), run_by_hand(snn, x, 8), atol=1e-6)
    assert relative_error(simulate(snn, x, T=500), answer(ann, x)) < 0.08


def test_other_image_sizes() -> None:
    ann = cnn()
    snn = convert(ann, images(32, 8))
    for size in (6, 12, 17):
        x = images(4, size)
        assert relative_error(simulate(snn, x, T=500), answer(ann, x)) < 0.08
        assert torch.allclose(multi_step(snn, x, 8), run_by_hand(snn, x, 8), atol=1e-6)


def test_a_single_calibration_sample() -> None:
    ann, x = cnn(), images(1)
    assert relative_error(simulate(convert(ann, x), x, T=500), answer(ann, x)) < 0.05


def test_a_converter_converts_again() -> None:
    one, other, x = cnn(), cnn(), images()
    converter = Converter([x], progress=False)
    first, second, third = converter(one), converter(other), converter(one)
    assert torch.equal(run_by_hand(first, x, 10), run_by_hand(third, x, 10))
    assert not torch.equal(run_by_hand(first, x, 10), run_by_hand(second, x, 10))
    assert relative_error(simulate(second, x, T=500), answer(other, x)) < 0.05


@pytest.mark.parametrize("progress", [False, True])
def test_a_one_shot_iterator_loses_no_batch(progress: bool) -> None:
    for largest in range(3):
        batches = [torch.full((2, 3), 7.0 if index == largest else 1.0) for index in range(3)]
        converter = Converter(iter(batches), progress=progress)
        converter(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
        assert converter.report["0"].scale == (7.0, 7.0)


def test_a_loader_is_opened_once_to_look_at_it_and_once_to_calibrate() -> None:
    class Loader:
        opened = 0

        def __iter__(self) -> Any:
            self.opened += 1
            return iter([torch.rand(4, 3)])

    loader = Loader()
    Converter(loader, progress=False)(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))  # type: ignore[arg-type]
    assert loader.opened <= 2


# The report -----------------------------------------------------------------------------------------


def test_the_report() -> None:
    converter = Converter([images()], mode="99%", progress=False)
    snn = converter(cnn())
    report = converter.report
    assert [(entry.name, entry.operation, entry.becomes) for entry in report] == [
        ("0", "Conv2d + BatchNorm2d", "itself"),
        ("2", "ReLU", "if neuron"),
        ("3", "AvgPool2d", "itself"),
        ("4", "Conv2d + BatchNorm2d", "itself"),
        ("6", "ReLU", "if neuron"),
        ("7", "AdaptiveAvgPool2d", "itself"),
        ("8", "Flatten", "itself"),
        ("9", "Dropout", "nothing"),
        ("10", "Linear", "itself"),
    ]
    assert (report.mode, report.neuron, report.scalers) == ("99%", "if", ())
    assert report.mode_owner.startswith("sj-ann2snn ")
    assert list(report.scales) == ["2", "6"]
    assert all(entry.owner.startswith("sj-ann2snn ") and entry.exact for entry in report)
    assert {entry.mapper for entry in report} == {
        "weighted", "relu", "average-pool", "rearrange", "dropout",
    }  # fmt: skip
    text = str(report)
    for part in ("mode 99%", "if neuron", "Conv2d + BatchNorm2d", f"{report['2'].scale[0]:.4g}"):
        assert part in text
    assert len(text.splitlines()) == 3 + len(report.entries)
    assert report.as_dict()["entries"][1]["scale"] == report["2"].scale
    with pytest.raises(KeyError, match="'99' is not in the report; it has 0, 2, 3"):
        report["99"]
    assert isinstance(snn, fx.GraphModule)


def test_the_report_names_scalers_and_approximations() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())
    converter = Converter([images()], maxpool="momentum", channel_wise=True, progress=False)
    snn = converter(ann)
    assert converter.report.scalers == tuple(scalers(snn))
    assert len(converter.report.scalers) == 1
    text = str(converter.report)
    assert "momentum max pool (approximate)" in text
    assert "scalers that no weights absorb: 3_scaler" in text
    low, high = converter.report["1"].scale
    assert low < high
    assert f"{low:.3g} to {high:.3g}" in text


def test_the_report_says_where_in_the_code() -> None:
    ann = Written(lambda net, x: net.head(torch.relu(net.body(x))), body=nn.Linear(2, 3), head=nn.Linear(3, 2))
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(ann)
    line = ann.written.__code__.co_firstlineno
    assert converter.report["relu"].source == f"{__file__}:{line}"


def test_the_report_knows_no_line_where_torch_makes_the_call() -> None:
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    assert converter.report["1"].source == ""


def test_a_function_and_a_module_of_one_name_have_two_names() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.relu(net.two(net.relu(net.one(x)).relu())))

    ann = Written(forward, one=nn.Linear(2, 3), relu=nn.ReLU(), two=nn.Linear(3, 3), head=nn.Linear(3, 2))
    converter = Converter([torch.rand(9, 2)], progress=False)
    converter(ann)
    assert len(converter.report.scales) == 3


def test_no_report_before_a_conversion() -> None:
    with pytest.raises(ConversionError, match="no report yet"):
        _ = Converter([images()]).report


def test_a_check_says_what_would_become_of_everything() -> None:
    converter = Converter([images()], progress=False)
    check = converter.check(cnn())
    assert check.convertible
    assert [entry.becomes for entry in check.entries].count("if neuron") == 2
    assert all(entry.scale is None for entry in check.entries)
    assert "convertible" in str(check)
    refused = converter.check(nn.Sequential(cnn(), nn.Softmax(1), nn.ReLU(), nn.GELU()))
    assert not refused.convertible
    assert [problem.name for problem in refused.problems] == ["1", "3"]
    assert "not convertible: 2 operations refused" in str(refused)
    assert refused.as_dict()["convertible"] is False
    linear = converter.check(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    assert not linear.convertible
    assert "no activation becomes a spiking neuron" in str(linear)


def test_a_progress_bar_is_shown_if_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    ann, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.rand(5, 3)
    snn = Converter([x, x], progress=False)(ann)
    evaluate(snn, [(x, torch.zeros(5))], T=2, progress=False)
    assert capsys.readouterr().err == ""
    Converter([x, x])(ann)
    evaluate(snn, [(x, torch.zeros(5))], T=2)
    shown = capsys.readouterr().err
    assert "calibrating" in shown
    assert "2/2" in shown
    assert "simulating T=2" in shown


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
    for answer in (got, once):
        assert isinstance(answer, dict)
        assert isinstance(answer["parts"], list)
        assert isinstance(answer["parts"][1], tuple)
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


# convert_only ---------------------------------------------------------------------------------------


def test_one_submodule_can_be_converted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.body, self.after = nn.Sigmoid(), cnn(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) < -1e9:  # torch.fx could not trace this
                return x
            return self.after(self.body(self.before(x)))

    ann, x = Net(), images()
    converter = Converter([x], convert_only="body", progress=False)
    snn = converter(ann)
    assert type(snn) is Net
    assert isinstance(snn.body, fx.GraphModule)
    assert snn.body is not ann.body
    assert list(converter.report.scales) == ["2", "6"]
    by_hand = run_by_hand(snn, x, 500).mean(0)
    assert relative_error(by_hand, answer(ann, x)) < 0.05
    assert relative_error(simulate(snn, x, T=500), by_hand) < 1e-5
