"""How arguments of the command line are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sj_ann2snn import OptionError
from sj_ann2snn.cli.arguments import checked_device, named_value, plain, positive, writable
from sj_ann2snn.cli.sweep import options_of_mode, shown_steps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a='1'", "1"),
        ("a=word", "word"),
        ("a=x=y", "x=y"),
        ("a=True", True),
        ("a=false", False),
        ("a=none", None),
        ("a=['head', 'tail']", ["head", "tail"]),
        ("a=", ""),
    ],
)
def test_option_values(text: str, value: object) -> None:
    name, found = named_value(text)
    assert name == "a"
    assert found == value
    assert type(found) is type(value)


def test_dashes_in_option_names_stand_for_underscores() -> None:
    assert named_value("fuse-flag=false") == ("fuse_flag", False)


def test_plain_data_can_be_written_as_json() -> None:
    assert plain({"a": (1, 2.5, None), "b": torch.float32}) == {"a": [1, 2.5, None], "b": "torch.float32"}


@pytest.mark.parametrize(
    ("steps", "shown"),
    [(1, [1]), (2, [1, 2]), (10, [1, 2, 5, 10]), (11, [1, 2, 5, 10, 11]), (100, [1, 2, 5, 10, 20, 50, 100])],
)
def test_shown_steps(steps: int, shown: list[int]) -> None:
    assert shown_steps(steps) == shown


def test_positive_numbers_only() -> None:
    assert positive("7") == 7


@pytest.mark.usefixtures("no_plugins")
def test_options_of_mode() -> None:
    modes = ["max", "99.9%"]
    options = {"percentile_bits": 3, "maxpool": "avg", "unknown": 1}
    assert options_of_mode("99.9%", modes, options) == options
    assert options_of_mode("max", modes, options) == {"maxpool": "avg", "unknown": 1}
    # With no mode that knows it, it stays, for the converter to refuse.
    assert options_of_mode("max", ["max"], options) == options


def test_the_processor_is_the_default_device() -> None:
    assert checked_device(None) == torch.device("cpu")
    with pytest.raises(OptionError, match="cuda"):
        checked_device("no such thing")


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    assert writable(tmp_path / "a" / "b").is_dir()
