"""The contract of exporters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..contracts.notes_document import write_notes
from ..conversion.converter import Converter
from ..errors import ExportError, FormatError, OptionError
from ..evaluation.export_check import check_export
from ..hooks.discovery import load_plugins, using
from ..hooks.registry import CALLER
from ..hooks.validation import register_plugin
from ..interchange import describe
from ..interchange.files import export, find_exporter, load_network
from ..simulation.simulate import simulate
from .contract import PluginTests
from .running import small_network, step_by_step

__all__ = ["ExporterTests"]

STEPS = 12

FLIPS = 40
"""Bits that are changed, one at a time, across the file."""


class _Residual(nn.Module):
    """A residual sum, and constant values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.offset = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return torch.relu(x + self.second(x) + self.offset)[:, :2].flatten(1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small": lambda: small_network().float(),
    "residual": _Residual,
    "leaky": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.LeakyReLU(), nn.Linear(5, 2)),
    "max pool": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
    "double": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2)).double(),
}


class ExporterTests(PluginTests):
    """Runs the contract of `sj_ann2snn.Exporter` on an exporter.

    >>> from sj_ann2snn.builtin.exporters import Archive
    >>> class TestArchive(ExporterTests):
    ...     plugin_class = Archive
    ...     options = {"compress": True}

    Attributes:
        reads_back: It can load the files that it writes.
        keeps_notes: Its files hold what the network notes about its conversion, `NetworkDescription.conversion`.
            Without it, `diagnose` knows neither λ nor bounds in a network that was read back.
        replays: Its `replay` runs a file in another program, whose spikes are the network's own. Without it, `replay`
            raises an `ExportError`.
        not_replayed: Names of networks whose numbers the other program rounds, so that it may emit other spikes.
        refused: Names of the kit's networks, `NETWORKS`, that the format cannot hold; it refuses them with an
            `ExportError`.
        weights: The `weights` of `Converter` for a format that holds networks of integers only.
        networks: Networks of your own by name, for images of 1x8x8, that the format holds; the tests run on them, too.
            A format that refuses all of the kit's networks needs one.
    """

    hook = "ann2snn_exporters"
    reads_back: ClassVar[bool] = True
    keeps_notes: ClassVar[bool] = True
    replays: ClassVar[bool] = False
    not_replayed: ClassVar[Collection[str]] = ()
    refused: ClassVar[Collection[str]] = ()
    weights: ClassVar[str | None] = None
    networks: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests on every network that the format holds, or refuses."""
        unknown = set(self.refused) - set(NETWORKS)
        assert not unknown, f"refused names {sorted(unknown)}; the kit's networks are {', '.join(NETWORKS)}"
        for argument, names in (("name", self._held()), ("refused_name", tuple(self.refused))):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, names)

    @classmethod
    def _held(cls) -> tuple[str, ...]:
        held = (*(name for name in NETWORKS if name not in cls.refused), *cls.networks)
        assert held, "the format refuses all of the kit's networks; name some that it holds in `networks`"
        return held

    @property
    def file(self) -> str:
        """A file name for the format."""
        return f"network{(*self.plugin_class.suffixes, '.out')[0]}"

    def converted(self, name: str) -> tuple[nn.Module, Tensor]:
        """One of the networks, with samples."""
        ann = {**NETWORKS, **self.networks}[name]()
        x = torch.rand(20, 1, 8, 8, dtype=next(ann.parameters()).dtype)
        weights = None if name in self.refused else self.weights
        return Converter([x], weights=weights, progress=False)(ann), x

    @contextmanager
    def offered(self) -> Iterator[None]:
        """While the context is open, a plugin offers it by name; otherwise there are only the built-ins."""
        registry = load_plugins().copy()
        known = registry.classes[self.hook]
        known[:] = [one for one in known if one.cls is not self.plugin_class]
        register_plugin(registry, self.as_plugin(), CALLER)
        with using(registry):
            yield

    def test_is_known_by_name_and_suffix(self, tmp_path: Path) -> None:
        """In upper or lower case, with its options; a misspelt option is an error."""
        name = self.plugin_class.name
        with self.offered():
            for written in (name, name.upper()):
                assert isinstance(find_exporter(tmp_path / "x", written, dict(self.options)), self.plugin_class)
            for suffix in self.plugin_class.suffixes:
                assert isinstance(find_exporter(tmp_path / f"x{suffix}", None, {}), self.plugin_class)
            with pytest.raises(OptionError, match="no_such_option_of_any_plugin"):
                find_exporter(tmp_path / "x", name, {"no_such_option_of_any_plugin": 1})

    def test_writes_the_file_and_leaves_the_network_alone(self, name: str, tmp_path: Path) -> None:
        """An existing file is overwritten, and nothing else is left in the folder."""
        snn, _ = self.converted(name)
        description = describe(snn, {})
        path = tmp_path / self.file
        path.write_bytes(b"what was there before")
        self.make().export(description, path)
        assert [one.name for one in tmp_path.iterdir()] == [self.file]
        assert path.read_bytes() != b"what was there before"
        before, after = describe(snn, {}).as_document(), description.as_document()
        assert before[0] == after[0], "export() changed the description"
        assert all(torch.equal(tensor, after[1][key]) for key, tensor in before[1].items()), "export() changed a tensor"

    def test_the_network_comes_back(self, name: str, tmp_path: Path) -> None:
        """To the last bit: the same output at every step. A write-only format raises a `FormatError`."""
        snn, x = self.converted(name)
        path = tmp_path / self.file
        export(snn, path, self.make())
        if not self.reads_back:
            with pytest.raises(FormatError):
                load_network(path, self.make())
            return
        loaded = load_network(path, self.make())
        inputs = x.expand(STEPS, *x.shape)
        assert torch.equal(step_by_step(loaded, inputs), step_by_step(snn, inputs))
        assert torch.equal(simulate(loaded, x, STEPS), simulate(snn, x, STEPS))
        found, wanted = (replace(describe(network, {}), conversion=None) for network in (loaded, snn))
        assert found.as_document()[0] == wanted.as_document()[0]

    def test_the_notes_on_the_conversion_come_back(self, name: str, tmp_path: Path) -> None:
        """λ and bounds of every neuron, to the last bit, for diagnoses of the network that was read back."""
        self.require("reads_back")
        self.require("keeps_notes")
        snn, _ = self.converted(name)
        path = tmp_path / self.file
        export(snn, path, self.make())
        found, wanted = (describe(network, {}).conversion for network in (load_network(path, self.make()), snn))
        assert wanted is not None, "the converter writes no notes"
        assert found is not None, "load() returned a description without `conversion`, which export() was given"
        written = [write_notes(one, {}) for one in (found, wanted)]
        assert written[0] == written[1]
        assert all(map(torch.equal, found.tensors, wanted.tensors)), "load() returned other tensors of `conversion`"

    def test_another_program_emits_the_same_spikes(self, name: str, tmp_path: Path) -> None:
        """Every neuron at every step. Without another program, an `ExportError`."""
        snn, x = self.converted(name)
        path = tmp_path / self.file
        export(snn, path, self.make())
        if not self.replays:
            with pytest.raises(ExportError):
                check_export(snn, path, x, STEPS, self.make())
            return
        found = check_export(snn, path, x, STEPS, self.make())
        assert found.agrees or name in self.not_replayed, str(found)
        assert found.spikes > 0, "the network never fires, so nothing was compared"

    def test_what_the_format_cannot_hold_is_refused(self, refused_name: str, tmp_path: Path) -> None:
        """With an `ExportError`, and without a file that looks like a network."""
        snn, _ = self.converted(refused_name)
        with pytest.raises(ExportError):
            export(snn, tmp_path / self.file, self.make())
        assert not (tmp_path / self.file).exists(), "a refused export leaves a file behind"

    def test_files_of_another_kind_are_refused(self, tmp_path: Path) -> None:
        """With a `FormatError`, which users catch."""
        self.require("reads_back")
        path = tmp_path / self.file
        for content in (b"", b"{}", b"hello\n", bytes(range(256)) * 8):
            path.write_bytes(content)
            with pytest.raises(FormatError):
                load_network(path, self.make())
        with pytest.raises(FormatError):
            load_network(tmp_path / "none", self.make())

    def test_cut_files_are_refused(self, tmp_path: Path) -> None:
        """Half a download is refused."""
        self.require("reads_back")
        path = tmp_path / self.file
        export(self.converted(self._held()[-1])[0], path, self.make())
        path.write_bytes(path.read_bytes()[:-400])
        with pytest.raises(FormatError):
            load_network(path, self.make())

    def test_damaged_files_are_refused(self, tmp_path: Path) -> None:
        """A changed bit gives a `FormatError`, or the same network where nothing reads it; never another network."""
        self.require("reads_back")
        path = tmp_path / self.file
        held = self._held()
        export(self.converted("leaky" if "leaky" in held else held[-1])[0], path, self.make())
        content = path.read_bytes()
        wanted = describe(load_network(path, self.make()), {}).as_document()[0]
        for number in range(FLIPS):
            position, bit = divmod((8 * len(content) * number // FLIPS + number) % (8 * len(content)), 8)
            path.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
            try:
                found = describe(load_network(path, self.make()), {}).as_document()[0]
            except FormatError:
                continue
            assert found == wanted, f"with bit {bit} of byte {position} changed, load() returned another network"

    def test_a_folder_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        """With an `ExportError`; the exporter only needs to raise an `OSError`."""
        exporter: Any = self.make()
        with pytest.raises(ExportError):
            export(self.converted(self._held()[-1])[0], tmp_path / "nowhere" / self.file, exporter)
