"""The command line: modes, plugins, compare, and what all commands share."""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sj_ann2snn
from sj_ann2snn import Converter, OptionError, evaluate, load_network, simulate
from sj_ann2snn.cli import compare, main
from sj_ann2snn.cli.arguments import CONVERTER_KEYWORDS, REFUSED, checked_device, named_value, plain, positive, writable
from sj_ann2snn.cli.sweep import options_of_mode, shown_steps

RUN = "import sys; from sj_ann2snn.cli import main; sys.exit(main())"
BOTH_FORMS = "main(['plugins']); print('and as JSON'); sys.exit(main(['plugins', '--json']))"

GOOD_PLUGIN = '''
from sj_ann2snn import hookimpl
from sj_ann2snn.builtin.normalizations import Max

class Twice(Max):
    """Pretends that everything is twice as large.

    More of it.
    """
    name = "twice"

    def __init__(self, *, strength: float = 2.0) -> None:
        self.strength = strength

@hookimpl
def ann2snn_normalizations():
    return [Twice]
'''
BROKEN_PLUGIN = "raise RuntimeError('no luck today')\n"


def run(
    *arguments: str, path: Path | None = None, cwd: Path | None = None, program: str = RUN, **environment: str
) -> Any:
    """The command line in a process of its own."""
    places = [str(path)] if path else []
    inherited = os.environ.get("PYTHONPATH")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*places, *([inherited] if inherited else [])]),
            **environment,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def install(folder: Path, name: str, version: str, source: str) -> None:
    """A plugin distribution as pip would leave it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[sj_ann2snn]\nmain = {module}\n", encoding="utf-8")


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-ins alone, whatever is installed where the tests run."""
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    monkeypatch.delenv("SJ_ANN2SNN_DISABLE_PLUGINS", raising=False)


# The program -------------------------------------------------------------------------------------


def test_the_script_is_installed() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="sj-ann2snn")
    assert script.load() is main


def test_version_names_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"sj-ann2snn {sj_ann2snn.__version__} (SpikingJelly ")
    assert f"torch {torch.__version__}" in out
    assert not err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("demo", "compare", "modes", "plugins", "--version"))


@pytest.mark.parametrize("command", ["demo", "compare", "modes", "plugins"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "%%" not in text


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["convert"])
    assert stopped.value.code == 2
    assert "convert" in capsys.readouterr().err


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from sj_ann2snn.cli import main; main(['modes', '--json']); "
        "heavy = {'matplotlib', 'sklearn', 'tensorboard', 'torchvision'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("no_plugins")
def test_a_narrow_terminal_gets_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["modes"]) == 0
    assert b"? is the true maximum" in written.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="pipes break differently there")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "modes"], stdout=gone, stderr=subprocess.PIPE, timeout=300, check=False
        )
    assert done.stderr == b""
    assert done.returncode == 141


# modes -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_plugins")
def test_modes_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == ["0.5", "max", "99.9%"]
    assert "true maximum" in lines[2]
    assert f"Percentile, sj-ann2snn {sj_ann2snn.__version__}; options: percentile_bits=None" in lines[5]


@pytest.mark.usefixtures("no_plugins")
def test_modes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modes", "--json"]) == 0
    modes = {mode["mode"]: mode for mode in json.loads(capsys.readouterr().out)["modes"]}
    assert set(modes) == {"max", "0.5", "99.9%"}
    assert modes["99.9%"] == {
        "mode": "99.9%",
        "name": "percentile",
        "class": "Percentile",
        "module": "sj_ann2snn.builtin.normalizations",
        "distribution": "sj-ann2snn",
        "version": sj_ann2snn.__version__,
        "entry_point": "sj_ann2snn.builtin.normalizations",
        "options": {"percentile_bits": {"required": False, "default": None}},
        "description": modes["99.9%"]["description"],
    }
    assert modes["99.9%"]["description"].startswith("λ is the true p-percentile")


def test_modes_of_plugins_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "sj-test-twice")
    assert main(["modes"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^twice +Pretends that everything is twice as large\.$", out, re.MULTILINE)
    assert "Twice, sj-test-twice 1.2; options: strength=2.0" in out


def test_a_broken_plugin_is_one_plain_line_on_stderr(tmp_path: Path) -> None:
    install(tmp_path, "sj-test-broken", "0.3", BROKEN_PLUGIN)
    done = run("modes", path=tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "sj-test-broken 0.3" in line
    assert "no luck today" in line
    assert "max" in done.stdout


# plugins -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_plugins")
def test_plugins_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"sj-ann2snn {sj_ann2snn.__version__}"
    assert "  sj_ann2snn.builtin.normalizations\n    ann2snn_normalizations: Max, Fraction, Percentile" in out
    assert "ReLUMapper" in out
    assert not err


@pytest.mark.usefixtures("no_plugins")
def test_plugins_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == []
    hooks = {hook for plugin in found["plugins"] for hook in plugin["hooks"]}
    assert {"ann2snn_normalizations", "ann2snn_layer_mappers", "ann2snn_neurons"} <= hooks
    (modes,) = [plugin for plugin in found["plugins"] if plugin["entry_point"].endswith(".normalizations")]
    assert {"name": "max", "class": "Max", "module": "sj_ann2snn.builtin.normalizations"} in modes["hooks"][
        "ann2snn_normalizations"
    ]


def test_failed_plugins_are_told_with_their_traceback(tmp_path: Path) -> None:
    install(tmp_path, "sj-test-broken", "0.3", BROKEN_PLUGIN)
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    done = run("plugins", path=tmp_path, program=RUN.replace("sys.exit(main())", BOTH_FORMS))
    assert done.returncode == 1
    assert not done.stderr, "the warning points here and would only repeat it"
    text, _, data = done.stdout.partition("and as JSON\n")
    assert "sj-test-broken 0.3 (entry point main) could not be loaded: RuntimeError: no luck today" in text
    assert re.search(r'^    .*sj_test_broken\.py", line 1', text, re.MULTILINE)
    assert "sj-test-twice 1.2\n  main\n    ann2snn_normalizations: Twice" in text
    (failed,) = json.loads(data)["failed"]
    assert (failed["distribution"], failed["version"], failed["entry_point"]) == ("sj-test-broken", "0.3", "main")
    assert failed["error"] == "RuntimeError: no luck today"
    assert failed["traceback"].startswith("Traceback (most recent call last)")
    assert "sj_test_broken.py" in failed["traceback"]


@pytest.mark.parametrize(
    ("variable", "value"), [("SJ_ANN2SNN_DISABLE_PLUGINS", "sj-test-twice"), ("SJ_ANN2SNN_LOAD_PLUGINS", "")]
)
def test_plugins_left_out_by_the_environment_are_told(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(variable, value)
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert f"sj-test-twice 1.2 (entry point main) is installed and not in use: {variable}='{value}' leaves" in out


# compare -----------------------------------------------------------------------------------------

USER_CODE = """
import torch
from torch import nn

STEPS_SEEN = []

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(10, 3))

def data():
    torch.manual_seed(1)
    x = torch.rand(120, 6)
    with torch.no_grad():
        y = network()(x).argmax(1)
    return [(x, y)], [(x[:70], y[:70]), (x[70:], y[70:])]

ready = network()
ready_data = data()
pair_of_iterators = lambda: tuple(iter(loader) for loader in data())
answer = 42

def nothing():
    return None

def three():
    return 1, 2, 3

def numbers():
    return 1, 2

def failing():
    return {}["weights.pth"]

def silent():
    raise ValueError

def interrupted():
    raise KeyboardInterrupt

def two_inputs_missing():
    return [torch.rand(4, 6)], [torch.rand(4, 6)]

class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return torch.relu(self.a(x)) * torch.relu(self.b(x))
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with the user's module."""
    (tmp_path / "usercode.py").write_text(USER_CODE, encoding="utf-8")
    (tmp_path / "userbroken.py").write_text("import no_such_package_at_all\n", encoding="utf-8")
    (tmp_path / "usersyntax.py").write_text("def f(:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    yield tmp_path
    for name in ("usercode", "userbroken", "usersyntax"):
        sys.modules.pop(name, None)


def compared(*arguments: str) -> list[str]:
    return ["compare", "usercode:network", "--data", "usercode:data", "--T", "12", *arguments]


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


def test_check_prints_a_table_and_says_yes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:network", "--input", "6"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^1 +ReLU +if neuron +relu", shown, re.MULTILINE)
    assert shown.splitlines()[-1] == "convertible"


def test_check_lists_all_that_is_refused_and_why(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:Product", "--input", "6"]) == 1
    shown = capsys.readouterr().out
    line = USER_CODE[: USER_CODE.index("return torch.relu(self.a(x))")].count("\n") + 1
    assert re.search(rf"^mul +operator\.mul +refused +product +usercode\.py:{line}$", shown, re.MULTILINE)
    assert shown.splitlines()[-2] == "not convertible: 1 operation refused"
    assert shown.splitlines()[-1].startswith("  - operator.mul: it multiplies two spike streams")


def test_check_as_json_agrees_with_the_table(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:Product", "--input", "6", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["convertible"] is False
    assert [problem["name"] for problem in found["problems"]] == ["mul"]
    assert [entry["becomes"] for entry in found["entries"]].count("if neuron") == 2


def test_check_takes_a_batch_of_the_users_data(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "usercode:network", "--data", "usercode:data"]) == 0
    assert "convertible" in capsys.readouterr().out


def test_check_honours_options(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "usercode:Product", "--input", "6"]
    assert main([*arguments, "--option", "convert_only=a"]) == 1
    assert "no activation becomes a spiking neuron" in capsys.readouterr().out
    assert main(["check", "usercode:network", "--input", "6", "--option", "leaf_modules=2"]) == 0
    assert "MaxPool1d" in capsys.readouterr().out


def test_check_says_what_a_made_up_input_may_be(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, told in (
        ("3xx", "is written 3x32x32"),
        ("0", "is written 3x32x32"),
        ("6:float33", "'float33' is no dtype"),
    ):
        with pytest.raises(SystemExit):
            main(["check", "usercode:network", "--input", text])
        assert told in capsys.readouterr().err
    assert "fails on it with RuntimeError" in failing(capsys, "check", "usercode:network", "--input", "5")
    assert "say it with --input or --data" in failing(
        capsys, "check", "usercode:network", "--input", "6", "--option", "dataloader=1"
    )


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
            "Readout 'delayed' got the unknown option dely. Did you mean 'delay'? It knows: delay.",
        ),
        (["mean", "delay=2"], "Readout 'mean' got the unknown option delay. It has no options."),
        (["delayed", "delay=12"], "A readout with delay=12 is not allowed for T=12"),
        (["delayed", "4"], "--readout delayed 4: '4' is not allowed: an option is written name=value."),
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


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with an error of the package."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return err[err.index("error: ") :]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("usercode", "'usercode' is not MODULE:NAME"),
        (":network", "':network' is not MODULE:NAME"),
        ("nosuchmodule:network", "there is no module 'nosuchmodule'. Looked in "),
        ("usercode.inner:network", "there is no module 'usercode.inner'"),
        ("usercode.py:network", "Write the module's name, not the file's: usercode."),
        ("usercode:netwrok", "usercode has no 'netwrok'. It has "),
        ("usercode:network.missing", "has no 'missing'"),
        ("usercode:nothing", "usercode:nothing gives a NoneType; it must give a trained torch.nn.Module"),
        ("usercode:answer", "usercode:answer gives an int; it must give a trained torch.nn.Module"),
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
        ("usercode:nothing", "--data usercode:nothing gives a NoneType; it must give two"),
        ("usercode:three", "--data usercode:three gives a tuple of 3; it must give two"),
        ("usercode:numbers", "gives an int as calibration loader; it must be an iterable"),
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
    assert failing(capsys, *compared("--option", f"{name}=1")).strip().endswith(f"say it with {instead}.")


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
        (["--T", "0"], "argument --T: '0' is not allowed: it must be a whole number from 1 up"),
        (["--T", "2.5"], "argument --T: '2.5' is not allowed"),
        (["--option", "maxpool"], "argument --option: 'maxpool' is not allowed: an option is written name=value"),
        (["--option", "max pool=1"], "an option is written name=value"),
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


def test_the_users_network_is_left_where_it_is(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workplace))
    import usercode

    before = {name: value.clone() for name, value in usercode.ready.state_dict().items()}
    arguments = ["compare", "usercode:ready", "--data", "usercode:data", "--T", "2", "--modes", "max"]
    assert main(arguments) == 0
    assert isinstance(usercode.ready[1], nn.ReLU)
    torch.testing.assert_close(usercode.ready.state_dict(), before)


# export --------------------------------------------------------------------------------------------


def test_export_writes_the_network_that_the_converter_makes(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "usercode:network", "--data", "usercode:data", "--mode", "99%"]
    assert main([*arguments, "--out", "net.zip", "--option", "initial_potential=0.5"]) == 0
    out = capsys.readouterr().out
    assert f"wrote net.zip (archive, {Path('net.zip').stat().st_size:,} bytes)" in out
    assert main([*arguments, "--out", "net.dat", "--format", "torch", "--channel-wise", "--T", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["file"], found["bytes"]) == ("torch", "net.dat", Path("net.dat").stat().st_size)
    usercode = importlib.import_module("usercode")
    calibration, _ = usercode.data()
    images = next(iter(calibration))[0]
    for file, format, options in (
        ("net.zip", None, {"initial_potential": 0.5}),
        ("net.dat", "torch", {"channel_wise": True}),
    ):
        loaded = load_network(file, format)
        snn = Converter(calibration, mode="99%", progress=False, **options)(usercode.network())
        assert torch.equal(simulate(loaded, images, T=12), simulate(snn, images, T=12))


def test_export_says_what_is_wrong_before_anything_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "usercode:failing", "--data", "usercode:data"]
    assert "belongs to no format. Known formats: 'archive' (.zip)" in failing(capsys, *arguments, "--out", "net.dat")
    assert "format='nir' is not known" in failing(capsys, *arguments, "--out", "net.zip", "--format", "nir")
    assert "--option mode=... is not allowed: say it with --mode" in failing(
        capsys, *arguments, "--out", "net.zip", "--option", "mode=max"
    )
    assert "cannot be written" in failing(
        capsys, "export", "usercode:network", "--data", "usercode:data", "--out", "no/net.zip"
    )
    assert not Path("net.zip").exists()
