"""The package's own dependencies point one way, and importing it stays light."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import sj_ann2snn
from sj_ann2snn.hooks import discovery

PACKAGE = Path(sj_ann2snn.__file__).resolve().parent
PROJECT = PACKAGE.parent / "pyproject.toml"
NAME = "sj_ann2snn"

LEVELS = (
    {"errors", "_version"},
    {"support", "compat"},
    {"contracts", "layers"},
    {"distributed", "hooks", "integers"},
    {"interchange", "simulation"},
    {"conversion", "evaluation", "report"},
    {"diagnosis"},
    {"tuning"},
    {"spikingjelly_recipe", "ann2snn"},
    {"builtin", "testing", "cli", "__main__"},
)
"""The parts of the package from the ground up: each may import those of lower levels, and itself."""

ALSO = {
    "ann2snn": {"spikingjelly_recipe"},
    "testing": {"builtin"},
    "cli": {"builtin", "testing"},
    "__main__": {"cli"},
}
"""What a part may import of its own level."""

WITHIN = {
    "simulation.engine": (
        {"support", "compat", "contracts", "layers", "errors"},
        "knows neither plugins nor conversion",
    ),
    "conversion.graph": ({"support", "compat", "contracts", "layers", "errors"}, "knows no plugin and no stage"),
}
"""What a piece of a part may import besides itself, and why."""

ENGINE = f"{NAME}.simulation.engine"

KINDS = "bits", "levels", "changes", "codes"
"""Of packed values."""

FOLDERS = {
    "compiled": set(),
    "packed": {"compiled"},
    **{kind: {"compiled", "packed"} for kind in KINDS},
    "numbers": {"compiled", "packed", *KINDS},
    "packing": {"compiled", "packed", *KINDS, "numbers", "collectors", "flow"},
}
"""What the folders of the engine may import of it: kinds of packed values know nothing of each other."""


HELPERS_OF_BUILTINS = {f"{NAME}.builtin.{name}" for name in ("c_code", "c_exporter", "zip_members")}
"""Parts of built-in plugins that contain no hook; such a part sees public names only as well."""

BRIDGE = ("ann2snn", "spikingjelly_recipe")
"""What joins SpikingJelly's own converter with this one; nothing else knows of it."""


def module_name(path: Path) -> str:
    parts = [NAME, *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(name: str, tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that is imported anywhere in `tree`, by its full name."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from ((alias.name, statement) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parent = package.split(".")[: len(package.split(".")) - statement.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            for alias in statement.names:
                # ``from . import discovery`` imports a module, ``from .discovery import x`` one of its names.
                found = f"{base}.{alias.name}"
                yield (found if found in SOURCES else base), statement


def inside_functions(tree: ast.AST) -> set[ast.AST]:
    """What does not run while the module is imported."""
    functions = [one for one in ast.walk(tree) if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {inner for function in functions for inner in ast.walk(function)}


def own_imports(name: str) -> set[str]:
    """The modules of the package that `name` imports, the package itself left out."""
    found = {target for target, _ in imports(name, TREES[name])}
    return {target for target in found if target.startswith(f"{NAME}.") and target != name}


def top(name: str) -> str:
    """``graph`` for ``sj_ann2snn.conversion.plan``."""
    return name.split(".")[1] if "." in name else ""


def reached(name: str) -> set[str]:
    """Everything of the package that an import of `name` brings along, by import statements."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for target in own_imports(waiting.pop()) - found:
            found.add(target)
            waiting.append(target)
    return found


def members(part: str) -> list[str]:
    return [name for name in SOURCES if top(name) == part]


def level(part: str) -> int:
    return next(height for height, parts in enumerate(LEVELS) if part in parts)


def test_every_part_has_its_level_and_every_level_its_parts() -> None:
    assert {top(name) for name in SOURCES} - {""} == set().union(*LEVELS)
    assert all(f"{NAME}.{piece}" in SOURCES for piece in WITHIN)


def test_relative_imports_are_resolved() -> None:
    # The rules below are worth nothing if this helper is blind.
    assert f"{NAME}.hooks.discovery" in own_imports(f"{NAME}.conversion.selection")
    assert f"{NAME}.errors" in own_imports(f"{NAME}.conversion.plan")
    assert f"{NAME}.conversion.graph.records" in own_imports(f"{NAME}.conversion.plan")
    assert f"{NAME}.conversion.plan" in reached(f"{NAME}.conversion.converter")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != NAME])
def test_imports_point_downwards(name: str) -> None:
    part = top(name)
    allowed = set().union(*LEVELS[: level(part)]) | {part} | ALSO.get(part, set())
    wrong = {target for target in own_imports(name) if top(target) not in allowed}
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("piece", WITHIN)
def test_pieces_keep_apart_from_the_rest_of_their_part(piece: str) -> None:
    allowed, why = WITHIN[piece]
    for name in SOURCES:
        if not f"{name}.".startswith(f"{NAME}.{piece}."):
            continue
        wrong = {
            target
            for target in own_imports(name)
            if not f"{target}.".startswith(f"{NAME}.{piece}.") and top(target) not in allowed
        }
        assert not wrong, f"{piece} {why}, but {name} imports {sorted(wrong)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_the_engine_build_on_each_other(folder: str) -> None:
    names = [name for name in SOURCES if name.startswith(f"{ENGINE}.{folder}.")]
    assert names
    found = {
        target.removeprefix(f"{ENGINE}.").split(".")[0]
        for name in names
        for target in own_imports(name)
        if target.startswith(f"{ENGINE}.")
    }
    assert found <= {folder} | FOLDERS[folder]


def test_every_folder_of_the_engine_has_its_rule() -> None:
    assert {path.name for path in SOURCES[ENGINE].parent.iterdir() if (path / "__init__.py").exists()} == set(FOLDERS)


def test_no_module_imports_itself_through_others() -> None:
    circles = [name for name in SOURCES if name != NAME and name in reached(name)]
    assert not circles


def test_nothing_but_plugins_and_the_command_line_imports_the_package_itself() -> None:
    for name, tree in TREES.items():
        if top(name) in ("builtin", "cli", "testing", "__main__"):
            continue
        for target, statement in imports(name, tree):
            late = statement in inside_functions(tree)
            assert target != NAME or late, f"{name}:{statement.lineno} imports the package while that is imported"


@pytest.mark.parametrize("part", ["builtin", "cli"])
def test_nothing_imports_what_stands_at_the_end(part: str) -> None:
    importing = {name for name in SOURCES for target in own_imports(name) if top(target) == part}
    # The package itself names built-in classes for type checkers, and imports them only when somebody asks for one.
    assert {top(name) for name in importing - {NAME}} <= {"builtin", "cli", "testing", "__main__"}


def test_only_one_module_knows_spikingjelly() -> None:
    knowing = {
        name
        for name, tree in TREES.items()
        for target, _ in imports(name, tree)
        if target.split(".")[0] == "spikingjelly"
    }
    assert knowing == {f"{NAME}.compat"}


def test_spikingjellys_own_converter_is_imported_only_when_asked_for() -> None:
    importing = []
    for name, tree in TREES.items():
        for target, statement in imports(name, tree):
            names = [target, *(alias.name for alias in getattr(statement, "names", []))]
            if target.split(".")[0] == "spikingjelly" and any("ann2snn" in one for one in names):
                assert statement in inside_functions(tree), f"{name}:{statement.lineno}"
                importing.append(name)
    assert importing == [f"{NAME}.compat"]


def test_only_the_bridge_to_spikingjellys_own_converter_asks_for_it() -> None:
    asking = {
        name
        for name, tree in TREES.items()
        for one in ast.walk(tree)
        if isinstance(one, ast.ImportFrom) and {"own_ann2snn", "recipe_base"} & {alias.name for alias in one.names}
    }
    assert {top(name) for name in asking} == set(BRIDGE)
    importing = {name for name in SOURCES for target in own_imports(name) if top(target) in BRIDGE}
    assert {top(name) for name in importing} <= {"", *BRIDGE}


@pytest.mark.parametrize("name", members("builtin"))
def test_builtins_are_plugins_that_see_public_names_only(name: str) -> None:
    for target, statement in imports(name, TREES[name]):
        if target.split(".")[0] != NAME or target in HELPERS_OF_BUILTINS:
            continue
        assert target == NAME, f"{name}:{statement.lineno} imports {target}"
        assert isinstance(statement, ast.ImportFrom), f"{name}:{statement.lineno} imports the package as a whole"
        hidden = {alias.name for alias in statement.names} - set(sj_ann2snn.__all__)
        assert not hidden, f"{name}:{statement.lineno} imports {sorted(hidden)}, which are not in __all__"


def test_every_builtin_module_is_loaded_as_a_plugin() -> None:
    loaded = set(discovery.BUILTIN_PLUGINS)
    hooked = {
        name
        for name in members("builtin")
        if any(isinstance(one, ast.FunctionDef) and one.name.startswith("ann2snn_") for one in TREES[name].body)
    }
    assert hooked == loaded


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(set(sj_ann2snn.__all__)) == sj_ann2snn.__all__
    assert all(hasattr(sj_ann2snn, name) for name in sj_ann2snn.__all__)


HEAVY = (
    "matplotlib",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
    "torchvision",
    "cupy",
    "pandas",
    "PIL",
    "hatchling",
    "onnx",
    "onnx2pytorch",
    "onnxruntime",
)

PROBE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch, tqdm.auto
from spikingjelly.activation_based import base, functional, layer, neuron
before = set(sys.modules)
import sj_ann2snn
print(json.dumps({"before": sorted(before), "after": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """The modules in a fresh interpreter, before and after the package is imported."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {when: set(names) for when, names in json.loads(done.stdout).items()}


def test_import_is_light(imported: dict[str, set[str]]) -> None:
    assert not imported["after"].intersection(HEAVY)


def test_import_adds_no_package_that_spikingjelly_does_not_import(imported: dict[str, set[str]]) -> None:
    new = {name.split(".")[0] for name in imported["after"] - imported["before"]}
    declared = {"numpy", "pluggy", "spikingjelly", "torch", "tqdm"}
    foreign = {name for name in new if name not in sys.stdlib_module_names} - declared - {NAME}
    assert not foreign


def test_import_loads_no_plugin_and_no_converter_of_spikingjelly(imported: dict[str, set[str]]) -> None:
    assert not [name for name in imported["after"] if name.startswith(f"{NAME}.builtin.")]
    assert not [name for name in imported["after"] - imported["before"] if name.startswith("spikingjelly")]


@pytest.mark.skipif(not PROJECT.is_file(), reason=f"{PROJECT} is missing: the package is not run from its repository")
def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    built = ProjectMetadata(str(PROJECT.parent), PluginManager())
    assert built.name == "sj-ann2snn"
    assert built.version == sj_ann2snn.__version__


def test_the_installed_version_is_the_modules() -> None:
    assert importlib.metadata.version("sj-ann2snn") == sj_ann2snn.__version__
