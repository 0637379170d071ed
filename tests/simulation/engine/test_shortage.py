"""Too little memory makes tiles smaller; Ctrl-C leaves what was done."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, EvaluationInterrupted, InputError, MemoryWarning, OutOfMemoryError, evaluate, simulate
from sj_ann2snn.cli import main
from sj_ann2snn.simulation.engine import runner

from ...helpers.networks import convert, relative_error, run_by_hand, using_threads

SHORTAGES = {
    "torch's own": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "of the processor": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 80000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "Python's": lambda: MemoryError(),
}


@pytest.fixture
def snn() -> Any:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    return convert(ann, images(60))


def images(count: int = 40) -> Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64)


def scarce(monkeypatch: pytest.MonkeyPatch, most: int, shortage: Any) -> list[int]:
    """Let layers fail that take more than `most` samples times steps; the sizes that went well."""
    sizes: list[int] = []
    call = runner.Runner._call

    def limited(self: Any, node: Any, read: Any, watch: Any = None, step_mode: str = "m") -> Any:
        result = call(self, node, read, watch, step_mode)
        if step_mode == "m":
            size = result.shape[0] * result.shape[1]
            if size > most:
                raise shortage()
            sizes.append(size)
        return result

    monkeypatch.setattr(runner.Runner, "_call", limited)
    return sizes


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("most", [30, 4, 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_smaller_tiles_are_tried_until_one_fits(
    snn: Any, threads: int, most: int, shortage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = images(), torch.randint(3, (40,))
    wanted, whole = run_by_hand(snn, x, 10).mean(0), evaluate(snn, [(x, labels)], T=10, progress=False)
    sizes = scarce(monkeypatch, most, SHORTAGES[shortage])
    with using_threads(threads):
        with pytest.warns(MemoryWarning, match=r"not enough memory on cpu to simulate \d+ sample\(s\).*half as much"):
            assert relative_error(simulate(snn, x, T=10), wanted) < 1e-12
        assert max(sizes) <= most
        with pytest.warns(MemoryWarning):
            small = evaluate(snn, [(x, labels)], T=10, progress=False)
    # What a tile had counted before it failed is not counted twice.
    assert small.spikes_per_sample == whole.spikes_per_sample
    assert small.synops_per_sample == whole.synops_per_sample
    assert (small.accuracy, small.layers, small.samples) == (whole.accuracy, whole.layers, whole.samples)


def test_not_even_a_single_sample_fits(snn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0, SHORTAGES["torch's own"])
    with (
        pytest.warns(MemoryWarning),
        pytest.raises(
            OutOfMemoryError, match="on cpu to simulate a single sample for a single step: CUDA out of memory"
        ),
    ):
        simulate(snn, images(), T=10)
    assert {module.v for module in snn.modules() if hasattr(module, "v_threshold")} == {0.0}


def test_other_errors_are_not_taken_for_a_lack_of_memory(snn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0, lambda: RuntimeError("something else"))
    with pytest.raises(InputError, match="fails with RuntimeError: something else"):
        simulate(snn, images(), T=10)


class Interrupting:
    """Batches of which one sends Ctrl-C instead of itself."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __iter__(self) -> Any:
        for index in range(4):
            if index == self.at:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            yield images(10), torch.zeros(10, dtype=torch.int64)


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_ctrl_c_leaves_the_result_so_far(snn: Any) -> None:
    with pytest.raises(EvaluationInterrupted, match=r"Interrupted; the result so far.*20 samples") as caught:
        evaluate(snn, Interrupting(at=2), T=6, progress=False)
    result = caught.value.result
    assert result.samples == 20
    assert len(result.accuracy) == 6
    assert result.spikes_per_sample > 0
    assert result.layers
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_ctrl_c_before_anything_is_done(snn: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        evaluate(snn, Interrupting(at=0), T=6, progress=False)
    assert not isinstance(caught.value, EvaluationInterrupted)


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_the_command_line_prints_what_there_is(
    snn: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        evaluate(snn, Interrupting(at=3), T=6, progress=False)

    monkeypatch.setattr(Converter, "check", interrupted)
    assert main(["check", "torch.nn:Identity", "--input", "3"]) == 130
    assert "30 samples" in capsys.readouterr().err
