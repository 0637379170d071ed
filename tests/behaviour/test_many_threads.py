"""Several threads may use one network, one converter and one ANN at the same time."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import Tensor, nn

from sj_ann2snn import Converter, NeuronMaker, NeuronSite, evaluate, simulate
from sj_ann2snn.evaluation.evaluate import accuracy_of
from sj_ann2snn.simulation.engine import tiling
from sj_ann2snn.support.torch_functions import FACTORIES

from ..helpers.networks import Graded, GradedMaker, convert, relative_error, run_by_hand, using_threads

THREADS = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        return self.head(self.pool(torch.relu(self.two(h) + h)).flatten(1))


class Own(nn.Module):
    """A layer of a user's own that keeps what it saw."""

    last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.shape
        return x * 2.0


class Locked(Graded):
    """A neuron that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class LockedMaker(NeuronMaker):
    name = "locked"

    def make(self, site: NeuronSite) -> nn.Module:
        return Locked()


class Scratch(Graded):
    """A neuron that computes in a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("room", torch.zeros(1))

    def step(self, x: Tensor, out: Tensor) -> None:
        room: Any = self.room.resize_(x.shape).copy_(x)
        super().step(room, out)


class ScratchMaker(NeuronMaker):
    name = "scratch"

    def make(self, site: NeuronSite) -> nn.Module:
        return Scratch()


def images(count: int = 24) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def hooked() -> Any:
    snn = convert(Net(), images())
    for module in snn.children():  # not all modules: all of SpikingJelly's neurons share one surrogate function
        module.register_forward_hook(lambda module, args, output: None)
    return snn


def by_hand() -> Any:
    return nn.Sequential(
        layer.Conv2d(1, 4, 3), neuron.IFNode(v_reset=None), layer.Flatten(), layer.Linear(64, 3), neuron.IFNode()
    ).eval()


def partly() -> Any:
    return convert(
        nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(64, 3)),
        images(),
        convert_only="0",
    )


NETWORKS: dict[str, Callable[[], Any]] = {
    "graph": lambda: convert(Net(), images()),
    "momentum pool": lambda: convert(Net(), images(), maxpool="momentum"),
    "initial potential": lambda: convert(Net(), images(), initial_potential=0.5),
    "graded neurons": lambda: convert(Net(), images(), neuron=GradedMaker(levels=2)),
    "neurons with buffers": lambda: convert(Net(), images(), neuron=ScratchMaker()),
    "neurons that cannot be copied": lambda: convert(Net(), images(), neuron=LockedMaker()),
    "hooks": hooked,
    "own layer": lambda: convert(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Own(), nn.Flatten(), nn.Linear(64, 3)), images(), leaf_modules="2"
    ),
    "written by hand": by_hand,
    "converted in part": partly,
}
"""Networks that the simulator runs in different ways."""


def jobs(snn: Any) -> list[Callable[[], Any]]:
    """Simulations and evaluations of one network, of different lengths and batches."""
    x, labels = images(), torch.arange(24) % 3

    def tallied(T: int, **options: Any) -> Any:  # noqa: N803
        result = evaluate(snn, [(x[:10], labels[:10]), (x[10:], labels[10:])], T, progress=False, **options)
        return result.accuracy, result.layers, result.synops_per_sample, result.steps_per_sample

    return [
        lambda: simulate(snn, x, T=3),
        lambda: simulate(snn, x[:7], T=11),
        lambda: simulate(snn, x[:1], T=5, readout="potential"),
        lambda: tallied(6),
        lambda: tallied(9, early_exit=0.3),
    ]


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def at_the_same_time(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that start together, each in a thread of its own."""
    meeting = threading.Barrier(len(calls), timeout=60)

    def run(call: Callable[[], Any]) -> Any:
        torch.get_num_threads()  # a new thread takes over the number now
        meeting.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one.result() for one in [pool.submit(run, call) for call in calls]]


@pytest.fixture(autouse=True)
def threads_that_switch_often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", 20_000)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    with using_threads(2):
        yield
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_network_in_many_threads(kind: str) -> None:
    snn = NETWORKS[kind]()
    work = jobs(snn)
    wanted = [call() for call in work]
    found = at_the_same_time(work)
    assert all(map(same, found, wanted))


def state(snn: Any) -> list[Any]:
    modules = list(snn.modules())
    memories = [dict(one._memories) for one in modules if isinstance(one, base.MemoryModule)]
    return [memories, [getattr(one, "step_mode", None) for one in modules], [one.training for one in modules]]


def unchanged(before: list[Any], after: list[Any]) -> bool:
    pairs = [
        (one[name], other[name]) for one, other in zip(before[0], after[0], strict=True) for name in (*one, *other)
    ]
    return before[1:] == after[1:] and all(one is other or one == other for one, other in pairs)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_simulation_leaves_the_network_as_it_is(kind: str, mode: str) -> None:
    snn = NETWORKS[kind]()
    wanted = simulate(snn, images(), T=4)
    functional.set_step_mode(snn, mode)
    if mode == "s":
        snn(images(3))  # with gradients
    before = state(snn)
    values = [value.detach().clone() for one in before[0] for value in one.values() if isinstance(value, Tensor)]
    assert same(simulate(snn, images(), T=4), wanted)
    evaluate(snn, [(images(), torch.zeros(24, dtype=torch.int64))], T=4, progress=False)
    with pytest.raises(Exception, match=r"\w"):
        simulate(snn, images()[..., :2], T=4)
    assert unchanged(before, state(snn))
    after = [value for one in state(snn)[0] for value in one.values() if isinstance(value, Tensor)]
    assert all(map(torch.equal, values, after))


def test_a_network_may_be_stepped_by_hand_meanwhile() -> None:
    snn = NETWORKS["graph"]()
    x = images()
    wanted = run_by_hand(snn, x, 15), simulate(snn, x, T=20)
    found = at_the_same_time([lambda: run_by_hand(snn, x, 15), *[lambda: simulate(snn, x, T=20)] * 3])
    assert torch.equal(found[0], wanted[0])
    assert all(torch.equal(one, wanted[1]) for one in found[1:])


def test_networks_that_share_layers() -> None:
    """One of them runs as it is, the other on copies."""
    part = convert(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), images())
    whole = nn.Sequential(part, layer.Flatten(), layer.Linear(64, 3)).eval()
    work = [*jobs(whole), lambda: simulate(part, images(), T=7)]
    wanted = [call() for call in work]
    assert all(map(same, at_the_same_time(work), wanted))


def test_one_converter_in_many_threads() -> None:
    """While torch.fx traces in one thread, it intercepts the modules of all threads."""
    call, attribute = nn.Module.__call__, nn.Module.__getattr__
    anns = [Net().eval() for _ in range(3)]
    converter = Converter([images()], mode="99.9%", progress=False)
    wanted = [dict(converter(ann).state_dict()) for ann in anns]
    snn, x = convert(anns[0], images()), images()
    answer, output = simulate(snn, x, T=5), anns[0](x)
    for _ in range(3):
        found = at_the_same_time(
            [
                *[lambda ann=ann: dict(converter(ann).state_dict()) for ann in anns],
                lambda: [simulate(snn, x, T=5) for _ in range(5)],
                lambda: [anns[0](x) for _ in range(50)],
            ]
        )
        for one, other in zip(found[:3], wanted, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(torch.equal(one, answer) for one in found[3])
        assert all(torch.equal(one, output) for one in found[4])
    assert (nn.Module.__call__, nn.Module.__getattr__) == (call, attribute)


class Meanwhile(nn.Module):
    """Lets another thread work while this one goes through the forward method."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.work).result()
        return torch.relu(x.reshape(torch.Size([x.shape[0], -1])) + torch.zeros(1))


def test_another_thread_pickles_while_a_network_is_traced() -> None:
    """A queue between processes pickles in a thread of its own, and pickle finds everything by its name."""
    things = [torch.Size([2, 3]), torch.Size, *(getattr(torch, name) for name in FACTORIES)]

    found: list[list[Any]] = []

    def pickled() -> None:
        ForkingPickler.dumps(torch.ones(2))
        found.append([pickle.loads(pickle.dumps(one)) for one in things])

    ann = nn.Sequential(nn.Linear(4, 4), Meanwhile(pickled), nn.Linear(4, 2)).eval()
    kind, x = type(torch), torch.rand(6, 4)
    snn = Converter([x], progress=False)(ann)
    assert relative_error(simulate(snn, x, T=400), ann(x)) < 0.05
    assert len(found) > 1
    assert all(one == things for one in found)
    assert type(torch) is kind
    assert not set(map(id, things[1:])) - {id(getattr(torch, name)) for name in ("Size", *FACTORIES)}


def test_the_accuracy_of_one_ann_in_many_threads() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).train()
    batches = [(images()[:9], torch.arange(9) % 3), (images()[9:], torch.arange(15) % 3)]
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    wanted = accuracy_of(ann, batches)
    assert set(at_the_same_time([lambda: accuracy_of(ann, batches)] * THREADS)) == {wanted}
    assert ann.training
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_threads_with_different_numbers_of_cores() -> None:
    snn, x = NETWORKS["graph"](), images()
    wanted = simulate(snn, x, T=6)
    barrier = threading.Barrier(4, timeout=60)

    def run(count: int) -> Any:
        torch.set_num_threads(count)
        barrier.wait()
        return [simulate(snn, x, T=6) for _ in range(4)], torch.get_num_threads()

    found = at_the_same_time([lambda count=count: run(count) for count in (1, 2, 3, 4)])
    assert [count for _, count in found] == [1, 2, 3, 4]
    assert all((one - wanted).abs().max() < 1e-4 for answers, _ in found for one in answers)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() in (1, 2, 3, 4)
    torch.set_num_threads(2)
