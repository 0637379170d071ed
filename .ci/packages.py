"""Builds the wheels and source archives of the core and of all plugins, checks them, and uses them elsewhere.

    .venv/bin/pip install ".[release]"
    .venv/bin/python .ci/packages.py [--out DIR]

1. `python -m build` makes a source archive of each distribution, and the wheel from that, not from the checkout.
2. `twine check --strict` reads their metadata and renders their descriptions.
3. Their contents are compared with packages.json: an archive holds the files that git tracks in the folders named
   there, and the metadata named there; nothing is missing and nothing else is inside.
4. All wheels are installed into an empty environment outside of the checkout, from DIR alone. Every requirement that
   their metadata states must be met.
5. There, from a folder outside of the checkout: the package and the plugins are those of the environment, every plugin
   is found, and the demo runs.

The dependencies (torch and the like, 6 GB from PyPI) are not installed again: the environment sees those of the
environment that runs this script. So this shows that the archives are complete and that the stated requirements are
enough for versions that are installed here; it does not show that pip can download them. The README's test command, the
first step of run, does.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("packages.json")


def call(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} fails:\n{done.stdout}{done.stderr}")
    return done.stdout


def distributions() -> dict[str, Path]:
    """The folder of every distribution, by name."""
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    return {tomllib.loads((one / "pyproject.toml").read_text())["project"]["name"]: one for one in folders}


def build(folder: Path, out: Path) -> None:
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder)


def members(archive: Path) -> set[str]:
    """The files in an archive, without the folder that names the version."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = [name for name in wheel.namelist() if not name.endswith("/")]
        return {f"METADATA/{name.partition('.dist-info/')[2]}" if ".dist-info/" in name else name for name in names}
    with tarfile.open(archive) as source:
        return {one.name.partition("/")[2] for one in source.getmembers() if one.isfile()}


def expected(folder: Path, rules: dict[str, list[str]]) -> set[str]:
    """The files that an archive must hold."""
    tracked = call("git", "ls-files", "-z", "--cached", *rules["tracked"], cwd=folder).split("\0")
    return {*(name for name in tracked if name), *rules["added"]}


def compare(name: str, folder: Path, out: Path, rules: dict[str, Any]) -> list[str]:
    """What is wrong with the contents of a distribution's archives."""
    file = name.replace("-", "_")
    found = sorted(out.glob(f"{file}-[0-9]*"))
    if len(found) != 2:
        return [f"{name}: expected a wheel and a source archive, found {[one.name for one in found]}"]
    wrong = []
    for archive in found:
        kind = "wheel" if archive.suffix == ".whl" else "sdist"
        own = {key: [value.replace("{package}", file) for value in values] for key, values in rules[kind].items()}
        wanted = expected(folder, own)
        inside = members(archive)
        wrong += [f"{archive.name} lacks {one}" for one in sorted(wanted - inside)]
        wrong += [f"{archive.name} holds {one}, which is not on the list" for one in sorted(inside - wanted)]
    return wrong


def unmet(names: list[str]) -> list[str]:
    """Requirements of the distributions that are not met in this environment."""
    wrong = []
    for name in names:
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                version = ""
            if not version or not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{name} requires {requirement}; installed is {version or 'nothing'}")
    return wrong


def run_elsewhere(names: list[str], out: Path, folder: Path) -> None:
    """Install the wheels into an empty environment, and use them."""
    place = folder / "environment"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    wheels = sorted(out.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps"]
    call(*pip, *wheels, cwd=folder, PIP_CONSTRAINT="", PIP_FIND_LINKS="")
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Dependencies only; what lies in the environment itself comes first.
    seen = [one for one in sys.path if Path(one).name == "site-packages"]
    (own / "dependencies.pth").write_text("".join(f"{one}\n" for one in seen))
    clean = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    where = call(python, "-c", "import sj_ann2snn; print(sj_ann2snn.__file__)", cwd=folder, **clean).strip()
    if not Path(where).is_relative_to(own):
        sys.exit(f"{where} was imported, not the installed wheel")
    problems = call(python, __file__, "--unmet", *names, cwd=folder, **clean)
    if problems:
        sys.exit(f"Requirements are not met:\n{problems}")
    program = place / "bin" / "sj-ann2snn"
    listed = json.loads(call(program, "plugins", "--json", cwd=folder, **clean))
    missing = [name for name in names if name not in json.dumps(listed)]
    if missing:
        sys.exit(f"sj-ann2snn plugins does not list {missing}")
    demo = json.loads(call(program, "demo", "--modes", "max", "99.9%", "--json", cwd=folder, **clean))
    if demo["ann_accuracy"] < 0.9 or any(mode["accuracy"][-1] < 0.9 for mode in demo["modes"]):
        sys.exit(f"The demo is inaccurate: {demo['ann_accuracy']}")
    print(f"{len(wheels)} wheels installed and used in {place}; the demo's ANN reaches {demo['ann_accuracy']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the archives here (default: a temporary folder)")
    parser.add_argument("--unmet", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.unmet:
        print("\n".join(unmet(args.unmet)), end="")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        out = (args.out or folder / "archives").resolve()
        if out.exists() and any(out.iterdir()):
            sys.exit(f"{out} holds files already; name an empty folder.")
        found = distributions()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: build(one, out), found.values()))
        call(sys.executable, "-m", "twine", "check", "--strict", *sorted(out.iterdir()))
        rules = json.loads(LIST.read_text())
        wrong = [
            problem
            for name, path in found.items()
            for problem in compare(name, path, out, rules["core" if path == ROOT else "plugin"])
        ]
        if wrong:
            sys.exit("The contents of the archives are not those of packages.json:\n" + "\n".join(wrong))
        print(f"{len(list(out.iterdir()))} archives built; metadata and contents are as they should be")
        run_elsewhere(list(found), out, folder)
        shutil.rmtree(folder / "environment")


if __name__ == "__main__":
    main()
