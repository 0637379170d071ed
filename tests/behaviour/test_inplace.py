"""In-place operations keep the meaning they had, or the network is refused: it is never silently another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..helpers.networks import Written, refusal


def layers() -> dict[str, nn.Module]:
    return {
        "one": nn.Linear(4, 6),
        "two": nn.Linear(6, 6),
        "three": nn.Linear(6, 6),
        "head": nn.Linear(6, 3),
        "act": nn.ReLU(inplace=True),
        "drop": nn.Dropout(0.5),
        "bounded": nn.ReLU6(inplace=True),
        "leaky": nn.LeakyReLU(0.25, inplace=True),
    }


def relu_module(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    a = net.act(h)
    return net.head(net.two(a) + h)  # h is rectified, too


def relu_function(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    F.relu(h, inplace=True)
    return net.head(h)


def relu_method(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    h.relu_()
    return net.head(torch.relu(net.two(h)) + h)


def torch_relu_(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    torch.relu_(h)
    return net.head(h)


def same_module_twice(net: Any, x: Tensor) -> Tensor:
    h = net.act(net.one(x))
    return net.head(net.act(net.two(h)) + h)


def add_assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h += net.two(h)
    return net.head(torch.relu(h))


def add_assigned_with_alias(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    alias = h
    h += torch.relu(net.two(h))
    return net.head(alias)


def add_assigned_in_between(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    before = net.two(h)
    h += torch.relu(net.three(h))
    return net.head(torch.relu(before) + h)


def sub_assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    view = h.view(-1, 2, 3)
    h -= 0.5
    return net.head(view.flatten(1))


def mul_assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    alias = h
    h *= 2.0
    return net.head(torch.relu(net.two(alias)))


def div_assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    alias = h
    h /= 4.0
    return net.head(alias)


def add_method(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h.add_(torch.relu(net.two(h)), alpha=2)
    return net.head(h)


def several_in_a_row(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    alias = h
    h.mul_(2.0).add_(0.25).relu_()
    return net.head(alias)


def bounded_module(net: Any, x: Tensor) -> Tensor:
    h = net.one(x * 9)
    net.bounded(h)
    return net.head(h)


def leaky_module(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    net.leaky(h)
    return net.head(torch.relu(net.two(h)))


def clamped(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    h.clamp_(min=0)
    return net.head(h)


def dropout_alias(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    dropped = net.drop(h)  # at inference the very same tensor
    dropped.relu_()
    return net.head(h)


def identity_alias(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    same = h.contiguous()
    same.relu_()
    return net.head(h)


def detached_alias(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    h.detach().relu_()
    return net.head(h)


def view_changed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    h.view(-1, 2, 3).relu_()
    return net.head(h)


def base_changed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    view = h.view(-1, 3, 2)
    h.relu_()
    return net.head(view.flatten(1))


def clone_is_apart(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    apart = h.clone()
    apart.relu_()
    return net.head(torch.relu(h - 0.2) + apart)


def read_before(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    before = h * -1.0
    h.relu_()
    return net.head(torch.relu(before) + h)


def input_changed(net: Any, x: Tensor) -> Tensor:
    x.mul_(2.0)
    return net.head(torch.relu(net.one(x)))


def input_changed_with_alias(net: Any, x: Tensor) -> Tensor:
    y = x
    x += 1.0
    return net.head(torch.relu(net.one(y)))


def last_result_unused(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    out = net.head(torch.relu(h))
    h.zero_()
    return out


def part_that_nobody_reads_again(net: Any, x: Tensor) -> Tensor:
    left, right = net.one(x).chunk(2, 1)
    left = left.relu_()
    return net.head(torch.cat([left, torch.relu(right)], 1))


def squeezed(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x)).unsqueeze_(1)
    return net.head(h.squeeze_(1))


def transposed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x).view(-1, 2, 3).transpose(1, 2)
    h.relu_()
    return net.head(h.flatten(1))


FOLLOWED: list[Callable[..., Tensor]] = [
    relu_module,
    relu_function,
    relu_method,
    torch_relu_,
    same_module_twice,
    add_assigned,
    add_assigned_with_alias,
    add_assigned_in_between,
    sub_assigned,
    mul_assigned,
    div_assigned,
    add_method,
    several_in_a_row,
    bounded_module,
    leaky_module,
    clamped,
    dropout_alias,
    identity_alias,
    detached_alias,
    view_changed,
    base_changed,
    clone_is_apart,
    read_before,
    input_changed,
    input_changed_with_alias,
    part_that_nobody_reads_again,
    squeezed,
    transposed,
]


def named(forward: Callable[..., Any]) -> str:
    return forward.__name__


@pytest.mark.parametrize("forward", FOLLOWED, ids=named)
def test_what_is_followed_does_what_the_ann_does(forward: Callable[..., Tensor]) -> None:
    ann = Written(forward, **layers()).double()
    data = torch.randn(60, 4, dtype=torch.float64)
    assert refusal(ann, data, data[:9]) is None


def assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h[:, 0] = 0.0
    return net.head(h)


def assigned_before_the_first_neuron(net: Any, x: Tensor) -> Tensor:
    x[:, 1] = 1.0
    return net.head(torch.relu(net.one(x)))


def part_add_assigned(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h[:, :2] += 1.0
    return net.head(h)


def part_changed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    h[:, :3].relu_()
    return net.head(h)


def chunk_changed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    left, _ = h.chunk(2, 1)
    left.relu_()
    return net.head(h)


def transpose_changed(net: Any, x: Tensor) -> Tensor:
    h = net.one(x).view(-1, 2, 3)
    h.transpose(1, 2).relu_()
    return net.head(torch.relu(net.two(h.flatten(1))))


def part_changed_by_a_module(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    net.act(h[:, 1:4])
    return net.head(h)


def copied_into(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h.copy_(torch.relu(net.two(h)))
    return net.head(h)


def filled(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h.fill_(1.0)
    return net.head(h)


def index_added(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    h.index_fill_(1, torch.tensor([0, 2]), 0.0)
    return net.head(h)


def parameter_changed(net: Any, x: Tensor) -> Tensor:
    net.head.weight.data.mul_(1.5)
    return net.head(torch.relu(net.one(x)))


DIFFERS = "differs from the ANN by a relative error"

REFUSED: dict[Callable[..., Tensor], str] = {
    assigned: "assigns to a part of a tensor",
    assigned_before_the_first_neuron: "assigns to a part of a tensor",
    part_add_assigned: "assigns to a part of a tensor",
    part_changed: "another view of it, is read later",
    chunk_changed: "another view of it, is read later",
    transpose_changed: "another view of it, is read later",
    part_changed_by_a_module: "act (ReLU) at",
    copied_into: "copy (copy_) at",
    filled: "fill (fill_) at",
    index_added: "index_fill (Tensor.index_fill) at",
    parameter_changed: DIFFERS,
}


@pytest.mark.parametrize("forward", REFUSED, ids=named)
def test_what_cannot_be_followed_is_refused(forward: Callable[..., Tensor]) -> None:
    ann = Written(forward, **layers()).double()
    data = torch.randn(60, 4, dtype=torch.float64)
    message = refusal(ann, data, data[:9])
    assert message is not None
    assert REFUSED[forward] in message


def whole_tuple_read(net: Any, x: Tensor) -> Tensor:
    parts = net.one(x).chunk(2, 1)
    parts[0].relu_()
    return net.head(torch.cat(parts, 1))


def written_out(net: Any, x: Tensor) -> Tensor:
    h = torch.relu(net.one(x))
    torch.add(h, 1.0, out=h)
    return net.head(h)


def power_assigned(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    alias = h
    h **= 2
    return net.head(torch.relu(alias))


def clamped_out(net: Any, x: Tensor) -> Tensor:
    h = net.one(x)
    torch.clamp(h, min=0, out=h)
    return net.head(h)


def split_changed(net: Any, x: Tensor) -> Tensor:
    parts = net.one(x).split(3, 1)
    parts[1].mul_(-2.0)
    return net.head(torch.relu(torch.cat(parts, 1)))


UNSEEN: dict[Callable[..., Tensor], str] = {
    whole_tuple_read: "no activation that becomes a spiking neuron",
    written_out: "another tensor (out=)",
    power_assigned: DIFFERS,
    clamped_out: "another tensor (out=)",
    split_changed: DIFFERS,
    last_result_unused: "zero (zero_) at",
}
"""Changes in place that a trace shows wrongly or not at all, and why the network is refused."""


@pytest.mark.parametrize("forward", UNSEEN, ids=named)
def test_never_silently_another_network(forward: Callable[..., Tensor]) -> None:
    ann = Written(forward, **layers()).double()
    data = torch.randn(60, 4, dtype=torch.float64)
    message = refusal(ann, data, data[:9])
    assert message is not None
    assert UNSEEN[forward] in message


def test_a_refusal_names_the_operation_and_its_line() -> None:
    ann = Written(assigned, **layers())
    message = refusal(ann, torch.rand(8, 4), torch.rand(2, 4))
    assert message is not None
    assert f"setitem (setitem) at {__file__}:{assigned.__code__.co_firstlineno + 2}" in message
    assert "Write it out of place." in message


def test_buffers_changed_in_place_are_refused() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        net.shift.mul_(0.5)
        return net.head(torch.relu(net.one(x) + net.shift))

    ann = Written(forward, **layers())
    ann.register_buffer("shift", torch.ones(6))
    message = refusal(ann, torch.rand(8, 4), torch.rand(2, 4))
    assert message is not None
    assert "it changes a parameter or buffer in place" in message


def test_parameters_changed_in_place_are_named() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        shift = net.shift
        shift.clamp_(max=0.5)
        return net.head(torch.relu(net.one(x) + shift))

    ann = Written(forward, **layers(), shift=nn.Parameter(torch.ones(6), requires_grad=False))
    message = refusal(ann, torch.rand(8, 4), torch.rand(2, 4))
    assert message is not None
    assert "it changes a parameter or buffer in place" in message


def test_results_written_into_another_tensor_are_refused() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        torch.add(h, 1, out=h)
        return net.head(h)

    message = refusal(Written(forward, **layers()), torch.rand(8, 4), torch.rand(2, 4))
    assert message is not None
    assert "it writes its result into another tensor (out=)" in message


def test_numbers_may_be_changed_in_place() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        size = x.size(1)
        size += 2
        size *= 1
        return net.head(torch.relu(net.one(x)).view(-1, size))

    data = torch.randn(60, 4, dtype=torch.float64)
    assert refusal(Written(forward, **layers()).double(), data, data[:9]) is None


def test_convolutions_with_views_of_images() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.conv(x)
        a = net.act(h)
        h = net.next(a)
        h += a[:, :, 1:-1, 1:-1]
        return net.head(net.act(h).mean((2, 3)))

    ann = Written(
        forward, conv=nn.Conv2d(1, 4, 3), next=nn.Conv2d(4, 4, 3), act=nn.ReLU(inplace=True), head=nn.Linear(4, 3)
    )
    data = torch.randn(30, 1, 8, 8)
    assert refusal(ann.double(), data.double(), data[:4].double()) is None


def test_dropout_in_place() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        F.dropout(h, 0.5, training=net.training, inplace=True)
        net.gone(h)
        return net.head(torch.relu(net.two(h)) + h)

    ann = Written(forward, **layers(), gone=nn.Dropout(0.5, inplace=True)).double()
    data = torch.randn(60, 4, dtype=torch.float64)
    assert refusal(ann, data, data[:9]) is None
