"""Several processes get the bits of one, and end together if one of them fails or is lost."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sj_ann2snn import Converter, Distributed, OptionError, evaluate
from sj_ann2snn.distributed.packing import digest, packed, unpacked
from sj_ann2snn.distributed.session import together

ROOT = Path(__file__).parents[2]

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork") or not torch.distributed.is_available(), reason="no fork, or torch without gloo"
)


def launched(scenario: str, folder: Path) -> Any:
    """What the ranks of a program of its own found, as it forks."""
    out = folder / "found"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.processes", scenario, str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads(out.read_bytes())


@needs_fork
def test_1_2_3_and_5_processes_get_the_bits_of_one(tmp_path: Path) -> None:
    found = launched("same_bits", tmp_path)
    assert len(found) == 2 * (1 + 2 + 3 + 5)
    assert {how: names for how, names in found.items() if names} == {}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return launched("failures", tmp_path_factory.mktemp("failures"))


LOADER = "The calibration data cannot be read: batch 1 fails with OSError: no such file."
LOST = "Rank {} is lost: it gave no sign of life for 4 s"


@needs_fork
@pytest.mark.parametrize(
    ("scenario", "broken", "own", "others"),
    [
        (
            "a loader fails in a conversion",
            1,
            ("CalibrationError", LOADER),
            f"Rank 1 failed: CalibrationError: {LOADER}",
        ),
        (
            "a loader fails in an evaluation",
            1,
            ("InputError", "The loader cannot be read"),
            "Rank 1 failed: InputError:",
        ),
        ("killed in a conversion", 1, None, LOST.format(1)),
        ("killed in an evaluation", 2, None, LOST.format(2)),
        ("suspended in a conversion", 1, None, LOST.format(1)),
        ("killed with the store", 0, None, "Rank {} lost the store of the process group"),
        ("failed with the store", 0, ("CalibrationError", LOADER), f"Rank 0 failed: CalibrationError: {LOADER}"),
    ],
)
def test_a_rank_that_fails_or_is_lost_ends_all(
    failures: dict[str, list[Any]], scenario: str, broken: int, own: tuple[str, str] | None, others: str
) -> None:
    for rank, found in enumerate(failures[scenario]):
        if rank == broken:
            assert (found is None) == (own is None), found
            if own is not None:
                assert (found[0], found[1][: len(own[1])]) == own
            continue
        kind, text, seconds = found
        assert kind == "DistributedError", found
        assert text.startswith(others.format(rank)), found
        assert seconds < 20


@needs_fork
@pytest.mark.parametrize(
    ("scenario", "errors"),
    [
        ("other data", ["DistributedError: Rank 1 has another first batch of calibration data than rank 0."] * 2),
        (
            "another number of batches",
            [
                "InputError: The ranks read different numbers of batches: 4 on rank 0, 5 on rank 1.",
                "DistributedError: Rank 0 failed: InputError: The ranks read different numbers of batches:",
            ],
        ),
        ("another network", ["DistributedError: Rank 1 has another ANN than rank 0."] * 3),
        (
            "another call",
            [
                "DistributedError: Rank 0 called evaluate(T=4) with distributed=True, rank 1 evaluate(T=5) with",
                "DistributedError: Rank 1 called evaluate(T=5) with distributed=True, rank 0 evaluate(T=4) with",
            ],
        ),
        ("nobody else", ["DistributedError: Rank 1 did not come: it has not called the same function within 4 s"]),
    ],
)
def test_what_does_not_fit_is_named(failures: dict[str, list[Any]], scenario: str, errors: list[str]) -> None:
    found = [f"{one[0]}: {one[1]}" for one in failures[scenario] if one is not None]
    assert [one[: len(error)] for one, error in zip(found, errors, strict=False)] == errors


@needs_fork
@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        (
            "unmergeable",
            "OptionError: Mode 'unmergeable' (your own argument) cannot be used with distributed=: its obs",
        ),
        (
            "unpicklable",
            "PluginError: Mode 'unpicklable' (your own argument) cannot be used with distributed=: its obs",
        ),
    ],
)
def test_what_fails_on_all_ranks_is_named_on_all(failures: dict[str, list[Any]], scenario: str, error: str) -> None:
    """By the rank itself, or by another one that met the same error first: which one that is depends on their pace."""
    found = [f"{one[0]}: {one[1]}" for one in failures[scenario]]
    assert len(found) == 2
    for rank, one in enumerate(found):
        assert one.startswith((error, f"DistributedError: Rank {1 - rank} failed: {error}")), one
    assert any(one.startswith(error) for one in found)


@needs_fork
def test_after_a_failure_the_next_call_works(failures: dict[str, list[Any]]) -> None:
    (first, network), (other, same) = failures["goes on"]
    assert (first, other) == ("DistributedError", "CalibrationError")
    assert network == same


def test_one_process_needs_no_group() -> None:
    with together(False, "f()") as ranks:
        assert (ranks.several, ranks.is_first, ranks.size) == (False, True, 1)
        assert list(ranks.share("abc")) == ["a", "b", "c"]


def test_without_a_group_the_message_says_how_to_get_one() -> None:
    with pytest.raises(OptionError, match=r"distributed=True needs a process group: call .*init_process_group"):
        Converter([torch.rand(4, 3)], distributed=True, progress=False)(torch.nn.Linear(3, 3))


@pytest.mark.parametrize("given", ["shard", 2, ["sharded"]])
def test_other_values_of_distributed(given: Any) -> None:
    with pytest.raises(OptionError, match=r"distributed=.* is not allowed\. Allowed are False, True"):
        Converter(distributed=given)
    with pytest.raises(OptionError, match=r"Allowed are False, True"):
        evaluate(torch.nn.ReLU(), [], 4, distributed=given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sharded": "yes"}, r"Distributed\(sharded='yes'\) is not allowed: it must be True or False"),
        ({"timeout": 0}, r"Distributed\(timeout=0\) is not allowed: it must be a number of seconds above 0"),
        ({"wait": "long"}, r"Distributed\(wait='long'\) is not allowed"),
        ({"timeout": float("nan")}, r"Distributed\(timeout=nan\)"),
    ],
)
def test_settings_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Distributed(**arguments)


@pytest.mark.gpu
def test_a_group_of_nccl(tmp_path: Path) -> None:
    ann = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    x = torch.rand(40, 6)
    data = [(part, part.argmax(1) % 3) for part in x.split(7)]

    def results(given: bool) -> Any:
        snn = Converter(data, "cuda", "99%", progress=False, distributed=given)(ann)
        return digest(snn), evaluate(snn, data, 4, ann=ann, progress=False, distributed=given).values

    wanted = results(False)
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert results(True) == wanted
    finally:
        torch.distributed.destroy_process_group()


def test_values_travel_as_they_are() -> None:
    value = {"counts": torch.zeros(100_000, dtype=torch.int64), "text": "ö", "view": torch.arange(6.0)[::2]}
    data = packed(value)
    assert len(data) < 10_000  # counters are mostly zeros
    found = unpacked(data)
    assert found["text"] == "ö"
    assert torch.equal(found["counts"], value["counts"])
    assert torch.equal(found["view"], value["view"])


def test_digests_see_every_part() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert digest(one) != digest(other)
    assert digest({"x": torch.ones(2)}) != digest({"y": torch.ones(2)})
    assert digest(torch.ones(2)) != digest(torch.ones(2, 1))
    assert digest([1, [2]]) != digest([1, 2])
