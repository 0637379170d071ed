"""The converter end to end: what it leaves alone and what it returns."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, functional, neuron
from torch import Tensor, fx, nn

from sj_ann2snn import Converter, NonFiniteError, UnsupportedError, evaluate, simulate

from ..helpers.cnn import answer, cnn, images
from ..helpers.networks import Written, convert, multi_step, relative_error, run_by_hand, scalers

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
    with pytest.raises(UnsupportedError, match=r"1 \(Softmax\)"):
        convert(ann, images())
    assert_same(state_of(ann), before)
    with pytest.raises(NonFiniteError, match=r"The activation of 0\.2 is NaN in calibration batch 0"):
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
    stepped = [module for module in snn.modules() if hasattr(module, "step_mode")]
    assert stepped
    assert all(isinstance(module, base.StepModule) for module in stepped)
    called = [str(node.target) for node in snn.graph.nodes if node.op == "call_module"]
    assert called
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


def test_a_progress_bar_is_shown_if_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    ann, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.rand(5, 3)
    snn = Converter([x, x], progress=False)(ann)
    evaluate(snn, [(x, torch.zeros(5, dtype=torch.int64))], T=2, progress=False)
    assert capsys.readouterr().err == ""
    Converter([x, x])(ann)
    evaluate(snn, [(x, torch.zeros(5, dtype=torch.int64))], T=2)
    shown = capsys.readouterr().err
    assert "calibrating" in shown
    assert "2/2" in shown
    assert "simulating T=2" in shown
