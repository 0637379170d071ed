"""``sj-ann2snn compare``."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sj_ann2snn
from sj_ann2snn import Converter, evaluate
from sj_ann2snn.cli import compare, main
from sj_ann2snn.cli.arguments import CONVERTER_KEYWORDS, REFUSED

from ..helpers.command_line import compared, failing, run

# compare -----------------------------------------------------------------------------------------


def test_compare_prints_a_table_and_writes_a_picture(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("--modes", "max", "99.9%", "0.5", "--out", "results")) == 0
    out, err = capsys.readouterr()
    assert "ANN accuracy 1.0000 on 120 samples" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("max", "99.9%", "0.5"))}
    assert list(rows) == ["max", "99.9%", "0.5"]
    head = next(line for line in out.splitlines() if line.startswith("mode"))
    assert head.split() == ["mode", "t=1", "t=2", "t=5", "t=10", "t=12", "spikes", "synops", "seconds"]
    scales = next(line.split() for line in out.splitlines() if line.startswith("1  "))
    assert float(scales[1]) == pytest.approx(2 * float(scales[3]), rel=1e-3), "0.5 is half of max"
    assert "mode max: converting" in err
    from matplotlib.image import imread

    picture = imread(workplace / "results" / "accuracy.png")
    assert picture.shape[0] > 400
    assert picture.std() > 0.05
    assert f"wrote {Path('results', 'accuracy.png')}" in out


def test_compare_says_what_the_package_says(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("--modes", "1/2", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    import usercode  # type: ignore[import-not-found]

    calibration, test = usercode.data()
    converter = Converter(calibration, mode=0.5, progress=False)
    result = evaluate(converter(usercode.network()), test, 12, progress=False)
    (mode,) = found["modes"]
    assert mode["accuracy"] == list(result.accuracy)
    assert mode["spikes_per_sample"] == result.spikes_per_sample
    assert mode["synops_per_sample"] == result.synops_per_sample
    assert mode["lambdas"] == {name: {"min": low, "max": high} for name, (low, high) in converter.report.scales.items()}
    assert (mode["mode"], mode["normalization"]) == ("1/2", "0.5")
    assert found["T"] == 12
    assert found["samples"] == 120
    assert found["ann_accuracy"] == 1.0
    assert found["versions"]["sj_ann2snn"] == sj_ann2snn.__version__
    written = workplace / "sj-ann2snn-compare"
    assert json.loads((written / "compare.json").read_text(encoding="utf-8")) == found
    assert (written / "accuracy.png").is_file()


def test_compare_leaves_the_path_as_it_was(workplace: Path) -> None:
    before = list(sys.path)
    assert main(compared("--modes", "max")) == 0
    assert sys.path == before


def test_a_network_and_loaders_may_be_given_as_they_are(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "usercode:ready", "--data", "usercode:ready_data", "--T", "3", "--modes", "max", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["ann_accuracy"] == 1.0


def test_a_mode_named_twice_runs_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("--modes", "max", "0.5", "max", "--json")) == 0
    assert [mode["mode"] for mode in json.loads(capsys.readouterr().out)["modes"]] == ["max", "0.5"]


def test_channel_wise_scales_differ_within_a_layer(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("--modes", "max", "--channel-wise")) == 0
    assert re.search(r"^1 +[\d.]+ to [\d.]+$", capsys.readouterr().out, re.MULTILINE)


def test_options_reach_the_conversion(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spikes(*arguments: str) -> float:
        assert main(compared("--modes", "max", "--json", *arguments)) == 0
        value: float = json.loads(capsys.readouterr().out)["modes"][0]["spikes_per_sample"]
        return value

    assert spikes("--option", "initial_potential=0.5") > spikes()


def test_the_readout_reaches_the_evaluation(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def accuracy(*arguments: str) -> list[float]:
        assert main(compared("--modes", "1/4", "--json", *arguments)) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["readout"] == (list(arguments[1:]) or None)
        return list(found["modes"][0]["accuracy"])

    mean = accuracy()
    assert accuracy("--readout", "potential") == mean
    assert accuracy("--readout", "delayed", "delay=0") == mean
    assert accuracy("--readout", "delayed", "delay=11")[:11] == mean[:11]
    assert accuracy("--readout", "delayed", "delay=11")[-1] == accuracy("--readout", "last")[-1]


@pytest.mark.parametrize(
    ("readout", "told"),
    [
        (["average"], "readout='average' is not known. Known readouts: 'delayed' (sj-ann2snn"),
        (
            ["delayed", "dely=2"],
            "Readout 'delayed' got the unknown option dely. Did you mean 'delay'? Its options: delay.",
        ),
        (["mean", "delay=2"], "Readout 'mean' got the unknown option delay. It has no options."),
        (["delayed", "delay=12"], "A readout with delay=12 is not allowed for T=12"),
        (["delayed", "4"], "--readout delayed 4: '4' is not allowed: write an option as name=value."),
    ],
)
def test_a_bad_readout_is_told_before_anything_runs(
    readout: list[str], told: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(compared("--readout", *readout)) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert not out
    assert "converting" not in err


def test_an_option_goes_to_the_modes_that_know_it(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("--modes", "max", "90%", "--option", "percentile_bits=1", "--json")) == 0
    coarse = json.loads(capsys.readouterr().out)
    assert main(compared("--modes", "max", "90%", "--json")) == 0
    fine = json.loads(capsys.readouterr().out)
    assert coarse["options"] == {"percentile_bits": 1}
    assert coarse["modes"][0]["lambdas"] == fine["modes"][0]["lambdas"]
    assert coarse["modes"][1]["lambdas"] != fine["modes"][1]["lambdas"]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("usercode", "'usercode' is not MODULE:NAME"),
        (":network", "':network' is not MODULE:NAME"),
        ("nosuchmodule:network", "there is no module 'nosuchmodule' in "),
        ("usercode.inner:network", "there is no module 'usercode.inner'"),
        ("usercode.py:network", "Write the module's name, not the file's: usercode."),
        ("usercode:netwrok", "usercode has no 'netwrok'. It has "),
        ("usercode:network.missing", "has no 'missing'"),
        ("usercode:nothing", "usercode:nothing returns a NoneType; it must return a trained torch.nn.Module"),
        ("usercode:answer", "usercode:answer returns an int; it must return a trained torch.nn.Module"),
        ("usercode:failing", "usercode:failing: calling it failed with KeyError: 'weights.pth'"),
        ("usercode:silent", "usercode:silent: calling it failed with ValueError\n"),
        ("userbroken:network", "importing userbroken failed with ModuleNotFoundError: No module named 'no_such_"),
        ("usersyntax:network", "importing usersyntax failed with SyntaxError"),
        ("usercode:Product", "(operator.mul)"),
    ],
)
def test_bad_networks_are_told(target: str, told: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in failing(capsys, "compare", target, "--data", "usercode:data", "--modes", "max", "--T", "2")


def test_the_users_own_failure_shows_where_it_happened(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = failing(capsys, "compare", "usercode:failing", "--data", "usercode:data")
    assert 'return {}["weights.pth"]' in told
    assert "usercode.py" in told
    assert "targets.py" not in told, "the package's own frames help nobody"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("usercode:nothing", "--data usercode:nothing returns a NoneType; it must return two"),
        ("usercode:three", "--data usercode:three returns a tuple of 3; it must return two"),
        ("usercode:numbers", "returns an int as calibration loader; it must be an iterable"),
        ("usercode:pair_of_iterators", "as calibration loader, which can be read only once"),
        ("usercode:two_inputs_missing", "no labels"),
    ],
)
def test_bad_loaders_are_told(target: str, told: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in failing(capsys, "compare", "usercode:network", "--data", target, "--modes", "max", "--T", "2")


def test_an_unknown_mode_is_told_before_anything_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = failing(capsys, "compare", "usercode:failing", "--data", "usercode:data", "--modes", "max", "maxx")
    assert "mode='maxx' is not known. Did you mean 'max'?" in told


def test_a_mode_out_of_range_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(0, 1]" in failing(capsys, *compared("--modes", "1.5"))


def test_an_unknown_option_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "usercode:failing", "--data", "usercode:data", "--modes", "99.9%"]
    told = failing(capsys, *arguments, "--option", "percentile_bit=3")
    assert "unknown keyword percentile_bit. Did you mean 'percentile_bits'?" in told


@pytest.mark.parametrize(("name", "instead"), sorted(compare.OWN_ARGUMENTS.items()))
def test_an_option_with_an_argument_of_its_own_is_told(
    name: str, instead: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(capsys, *compared("--option", f"{name}=1")).strip().endswith(f"use {instead} instead.")


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_makes_no_sense_here_is_told(
    name: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not allowed on the command line" in failing(capsys, *compared("--option", f"{name}=1"))


def test_every_keyword_of_the_converter_is_accounted_for() -> None:
    keywords = {
        name
        for name, parameter in inspect.signature(Converter).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    sorted_into = [*CONVERTER_KEYWORDS, *compare.OWN_ARGUMENTS, *REFUSED]
    assert sorted(sorted_into) == sorted(keywords)


def test_a_device_that_is_not_there_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--device nonsense cannot be used here" in failing(capsys, *compared("--device", "nonsense"))
    assert "--device cuda:99 cannot be used here" in failing(capsys, *compared("--device", "cuda:99"))


def test_a_folder_that_cannot_be_made_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "file").write_text("", encoding="utf-8")
    assert "--out file cannot be used" in failing(capsys, *compared("--modes", "max", "--out", "file"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--T", "0"], "argument --T: '0' is not allowed: it must be an integer of at least 1"),
        (["--T", "2.5"], "argument --T: '2.5' is not allowed"),
        (["--option", "maxpool"], "argument --option: 'maxpool' is not allowed: write an option as name=value"),
        (["--option", "max pool=1"], "write an option as name=value"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], told: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(compared(*arguments))
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_ctrl_c_ends_quietly(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "usercode:interrupted", "--data", "usercode:data"]) == 130
    out, err = capsys.readouterr()
    assert not out
    assert not err


def test_compare_as_a_program(workplace: Path) -> None:
    done = run(*compared("--modes", "max", "--json"), cwd=workplace, SJ_ANN2SNN_LOAD_PLUGINS="")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["modes"][0]["mode"] == "max"


# Small parts -------------------------------------------------------------------------------------


def test_the_users_network_is_left_where_it_is(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workplace))
    import usercode

    before = {name: value.clone() for name, value in usercode.ready.state_dict().items()}
    arguments = ["compare", "usercode:ready", "--data", "usercode:data", "--T", "2", "--modes", "max"]
    assert main(arguments) == 0
    assert isinstance(usercode.ready[1], nn.ReLU)
    torch.testing.assert_close(usercode.ready.state_dict(), before)


def test_compare_goes_on_from_its_checkpoints(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = compared("--modes", "max", "1/2", "--json", "--checkpoint", "run.json")
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert sorted(one.name for one in workplace.glob("run*")) == ["run.1_2.json", "run.max.json"]
    monkeypatch.setattr(sj_ann2snn.simulation.engine.Simulator, "run_all", lambda *args: pytest.fail("it simulates"))
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main([*arguments, "--T", "13"]) == 2
    assert "run.max.json belongs to another run: the conversion's T was 12, and is 13" in capsys.readouterr().err
