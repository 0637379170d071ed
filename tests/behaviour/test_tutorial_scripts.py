"""SpikingJelly's own tutorial scripts, as they are installed, run with one import line changed; so do our versions."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import runpy
import struct
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import ann2snn as theirs
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from sj_ann2snn import Converter, evaluate, simulate

from ..helpers.networks import using_threads

Image = pytest.importorskip("PIL.Image", reason="torchvision reads images with Pillow")
torchvision = pytest.importorskip("torchvision", reason="SpikingJelly's tutorials load their data with torchvision")

SHARED = os.environ.get("SJ_ANN2SNN_SHARED")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "spikingjelly"
HAS_RECIPES = hasattr(theirs, "FXConversionRecipe")

on_recipes = pytest.mark.skipif(not HAS_RECIPES, reason="SpikingJelly 0.0.0.0.14 has no recipes")
with_shared = pytest.mark.skipif(not SHARED, reason="SJ_ANN2SNN_SHARED names no folder with data and networks")
with_examples = pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"{EXAMPLES} is missing: it comes with the repository")

IMPORTS = {
    "from spikingjelly.activation_based import ann2snn\n": "from sj_ann2snn import ann2snn\n",
    "from spikingjelly.activation_based import ann2snn, functional\n": (
        "from sj_ann2snn import ann2snn; from spikingjelly.activation_based import functional\n"
    ),
    "import spikingjelly.activation_based.ann2snn as ann2snn\n": "import sj_ann2snn.ann2snn as ann2snn\n",
}
"""The lines that name SpikingJelly's package in its scripts, and what takes their place."""


class TutorialCNN(nn.Module):
    """SpikingJelly's `sample_models.mnist_cnn.CNN`; 0.0.0.0.14 is distributed without that package."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for channels in (1, 32, 32):
            blocks += [nn.Conv2d(channels, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2)]
        self.network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Residual(nn.Module):
    """A block as in SpikingJelly's `sample_models.cifar10_resnet`: `out += shortcut`, then ReLU."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.relu2(out)


class TutorialResNet(nn.Module):
    """What `sample_models.cifar10_resnet.ResNet18` computes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        blocks, before = [], 64
        for channels in (64, 128, 256, 512):
            for stride in (2 if channels > 64 else 1, 1):
                blocks.append(Residual(before, channels, stride))
                before = channels
        self.layers = nn.Sequential(*blocks)
        self.avg_pool, self.flatten, self.linear = nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.avg_pool(self.layers(self.relu(self.bn1(self.conv1(x)))))))


def sample_models() -> types.ModuleType:
    """SpikingJelly's `sample_models`, or what stands for it where it is not distributed."""
    name = "spikingjelly.activation_based.ann2snn.sample_models"
    if HAS_RECIPES:
        from spikingjelly.activation_based.ann2snn import sample_models
        from spikingjelly.activation_based.ann2snn.sample_models import cifar10_resnet, mnist_cnn

        assert sample_models.mnist_cnn is mnist_cnn
        assert sample_models.cifar10_resnet is cifar10_resnet
        return sample_models
    stand_in = types.ModuleType(name)
    stand_in.mnist_cnn = types.SimpleNamespace(CNN=TutorialCNN)  # type: ignore[attr-defined]
    stand_in.cifar10_resnet = types.SimpleNamespace(ResNet18=TutorialResNet)  # type: ignore[attr-defined]
    return stand_in


def settled(network: nn.Module, x: Tensor) -> nn.Module:
    """`network` with the BatchNorm statistics that training on such data leaves."""
    with torch.no_grad():
        for _ in range(3):
            network.train()(x)
    return network.eval()


def patterns(count: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Noisy copies of ten patterns, and which one each is of."""
    prototypes = torch.rand(10, *shape, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(count) % 10
    return (prototypes[labels] + 0.1 * torch.randn(count, *shape)).clamp(0, 1), labels


def tutorial(name: str, changes: dict[str, str]) -> dict[str, Any]:
    """The names of SpikingJelly's own script `name` with its import line and `changes` applied.

    The changes are those that a user makes: device, paths, fewer steps.
    """
    spec = importlib.util.find_spec("spikingjelly.activation_based.ann2snn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "examples" / name
    if not path.is_file():
        pytest.skip(f"this SpikingJelly comes without {name}")
    source = path.read_text(encoding="utf-8")
    (line,) = [line for line in IMPORTS if line in source]
    source = source.replace(line, IMPORTS[line])
    for old, new in changes.items():
        assert old in source, f"{old} is not in {path}"
        source = source.replace(old, new)
    names: dict[str, Any] = {"__name__": "tutorial", "__file__": str(path)}
    exec(compile(source, str(path), "exec"), names)
    return names


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Any, Any], None]:
    """Puts data in place of a data set of torchvision, the network in place of sample models, and a plot nowhere."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based.ann2snn.sample_models", sample_models())
    monkeypatch.chdir(tmp_path)

    def install(data_set: str, train: Any, test: Any) -> None:
        def make(root: str, train: bool, transform: Any, download: bool, parts: Any = (test, train)) -> TensorDataset:
            return TensorDataset(*parts[train])

        monkeypatch.setattr(torchvision.datasets, data_set, make)

    return install


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Converter, nn.Module]]:
    """Every conversion by this package from here on, with its result."""
    made: list[tuple[Converter, nn.Module]] = []
    call = Converter.__call__

    def noted(self: Converter, ann: nn.Module) -> nn.Module:
        made.append((self, call(self, ann)))
        return made[-1][1]

    monkeypatch.setattr(Converter, "__call__", noted)
    return made


Surroundings = Callable[[str, Any, Any], None]
Converted = list[tuple[Converter, nn.Module]]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """The MNIST tutorial's network, trained on patterns."""
    torch.manual_seed(0)
    network = sample_models().mnist_cnn.CNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    x, y = patterns(300, (1, 28, 28))
    for _ in range(8):
        for images, labels in zip(x.split(50), y.split(50), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    return network.eval()


@pytest.mark.parametrize("sweep", [False, True] if HAS_RECIPES else [True])
def test_mnist_tutorial(
    sweep: bool,
    trained: nn.Module,
    surroundings: Surroundings,
    converted: Converted,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test = patterns(100, (1, 28, 28))
    surroundings("MNIST", patterns(200, (1, 28, 28)), test)
    torch.save(trained.state_dict(), "SJ-mnist-cnn_model-sample.pth")
    if HAS_RECIPES:
        names = tutorial("cnn_mnist.py", {})
        monkeypatch.setattr(
            sys,
            "argv",
            ["cnn_mnist.py", "--device", "cpu", "--time-steps", "24", *(["--plot-mode-sweep"] if sweep else [])],
        )
        names["main"](names["parse_args"]())
    else:
        names = tutorial("cnn_mnist.py", {"'cuda'": "'cpu'", "T = 50": "T = 24"})
        names["main"]()
    modes = ["max", "99.9%", "0.5", "0.333", "0.25", "0.2"] if sweep else ["99.9%"]
    assert [str(one.normalization)[:5] for one, _ in converted] == modes
    text = capsys.readouterr().out
    accuracies = [float(found) for found in re.findall(r"SNN accuracy \(simulation 24 time-steps\): ([\d.]+)", text)]
    # Without the sweep SpikingJelly 2.0's script also runs a recipe that stays SpikingJelly's.
    assert len(accuracies) == (6 if sweep else 2)
    assert accuracies[0] > 0.9
    wanted = [evaluate(snn, [test], 24, progress=False).accuracy[-1] for _, snn in converted]
    assert accuracies[: len(modes)] == wanted


def test_resnet18_tutorial(
    surroundings: Surroundings, converted: Converted, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(16, 3, 32, 32)
    network = settled(sample_models().cifar10_resnet.ResNet18(), images)
    with torch.no_grad():
        labels = network(images).argmax(1)
    surroundings("CIFAR10", (images, labels), (images[:4], labels[:4]))
    torch.save(network.state_dict(), "SJ-cifar10-resnet18_model-sample.pth")
    names = tutorial("resnet18_cifar10.py", {"T = 400": "T = 12", **({} if HAS_RECIPES else {"'cuda:9'": "'cpu'"})})
    names["main"]()
    assert "Validating Accuracy: 1.000" in capsys.readouterr().out
    ((converter, snn),) = converted
    assert str(converter.normalization) == "max"
    rate, found = simulate(snn, images[:4], 12), torch.zeros(())
    with torch.no_grad():
        for module in snn.modules():
            if hasattr(module, "reset"):
                module.reset()
        found = sum((snn(images[:4]) for _ in range(12)), found) / 12
    assert (rate - found).abs().max() < 1e-3 * rate.abs().max()


# ---------------------------------------------------------------- the scripts under examples/spikingjelly


def output_of(name: str, folder: Path, *arguments: str) -> str:
    """What a script prints, run as a program; torch and SpikingJelly are imported already."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patched,
        using_threads(1),
        contextlib.redirect_stdout(out),
        warnings.catch_warnings(),
    ):
        patched.chdir(folder)
        patched.setattr(sys, "argv", [name, *arguments, "--device", "cpu"])
        warnings.simplefilter("default")
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return out.getvalue()


def accuracies_in(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"accuracy.*: ([\d.]+)", text)]


def write_mnist(root: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Images ``[N, 28, 28]`` and labels ``[N]`` of bytes in the files that torchvision looks for."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, (images, labels) in parts.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())


@with_examples
def test_mnist_example_trains_and_converts(tmp_path: Path) -> None:
    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = patterns(count, (28, 28))
        return (255 * x).byte().numpy(), y.byte().numpy()

    write_mnist(tmp_path, {"train": part(600), "t10k": part(100)})
    text = output_of(
        "cnn_mnist.py", tmp_path, "--dataset-dir", ".", "--epochs", "8", "--modes", "max", "99.9%", "1/2", "--T", "24"
    )
    assert len(accuracies_in(text)) == 4
    assert min(accuracies_in(text)) > 0.9
    assert (tmp_path / "mnist_cnn.pth").is_file()


@with_examples
@with_shared
def test_mnist_example_on_mnist(tmp_path: Path) -> None:
    from sj_ann2snn.cli.idx import read_idx

    data = Path(SHARED or "") / "data"
    images = read_idx(data / "t10k-images-idx3-ubyte.gz", 3)
    labels = read_idx(data / "t10k-labels-idx1-ubyte.gz", 1)
    write_mnist(tmp_path, {"train": (images[:8000], labels[:8000]), "t10k": (images[8000:], labels[8000:])})
    weights = str(Path(SHARED or "") / "models" / "mnist_cnn.pth")
    text = output_of(
        "cnn_mnist.py", tmp_path, "--dataset-dir", ".", "--weights", weights, "--modes", "99.9%", "--T", "50"
    )
    ann, snn = accuracies_in(text)
    assert ann == pytest.approx(0.978, abs=1e-4)
    assert snn == pytest.approx(0.9775, abs=0.002)


@pytest.fixture
def cifar_folder(tmp_path: Path) -> Path:
    """Images in the folders that the example takes: of CIFAR-10 where they are at hand, else noise."""
    for part, count in (("train", 24), ("test", 6)):
        if SHARED:
            with np.load(Path(SHARED) / "data" / f"cifar10_{part}_jpeg.npz") as archive:
                blob, ends, labels = archive["blob"], archive["offsets"], archive["labels"]
        for i in range(count):
            label = int(labels[i]) if SHARED else i % 3
            folder = tmp_path / "cifar10" / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            if SHARED:
                (folder / f"{i}.jpg").write_bytes(blob[ends[i] : ends[i + 1]].tobytes())
            else:
                noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(folder / f"{i}.png")
    return tmp_path / "cifar10"


@with_examples
@on_recipes
def test_resnet18_example(tmp_path: Path, cifar_folder: Path) -> None:
    network = settled(sample_models().cifar10_resnet.ResNet18(), torch.randn(16, 3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    folders = ("--dataset-dir", str(cifar_folder), "--weights", str(tmp_path / "weights.pth"))
    text = output_of("resnet18_cifar10.py", tmp_path, *folders, "--mode", "99%", "--channel-wise", "--T", "3")
    assert re.search(r"ANN accuracy: [01]\.\d+\nSNN accuracy, mode 99%, T=3: [01]\.\d+\n", text)


@with_examples
@pytest.mark.parametrize("name", ["cnn_mnist.py", "resnet18_cifar10.py"])
def test_examples_differ_from_scripts_of_spikingjelly_in_one_import_line(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    ours = [line for line in source.splitlines() if "sj_ann2snn" in line]
    assert ours == ["from sj_ann2snn import ann2snn  # was: from spikingjelly.activation_based import ann2snn"]


@with_examples
def test_examples_say_what_is_missing(tmp_path: Path) -> None:
    blank = (np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8))
    write_mnist(tmp_path, {"train": blank, "t10k": blank})
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "cnn_mnist.py"), "--dataset-dir", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "mnist_cnn.pth is missing: name the file with --weights, or train with --epochs 10" in done.stderr
