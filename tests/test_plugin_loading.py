"""Plugins found through entry points: good ones, broken ones, conflicting ones."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    ConflictError,
    Converter,
    LayerMapper,
    ModeError,
    Normalization,
    Observer,
    PluginError,
    PluginWarning,
    Spike,
    hookimpl,
    simulate,
)
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.registry import Owner, Registry

MODE = """
from sj_ann2snn import hookimpl
from sj_ann2snn.builtin.normalizations import Max

class Mode(Max):
    name = {name!r}
    replaces = {replaces!r}

@hookimpl
def ann2snn_normalizations():
    return [Mode]
"""

MAPPER = """
from torch import nn
from sj_ann2snn import LayerMapper, Spike, hookimpl
from rectifier_layer import Rectifier

class Mapper(LayerMapper):
    name = {name!r}
    claims = ({claims},)
    replaces = {replaces!r}

    def map(self, site):
        return Spike()

@hookimpl
def ann2snn_layer_mappers():
    return [Mapper]
"""

RECTIFIER = """
import torch

class Rectifier(torch.nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, torch.zeros_like(x))
"""
"""A layer that the core does not know."""


class Installed:
    """Distributions written into folders of their own, each put on the path of this process."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch

    def add(
        self,
        name: str,
        source: str,
        *,
        version: str = "1.0",
        folder: str | None = None,
        entry_points: Mapping[str, str] | None = None,
    ) -> None:
        """Install `source` as the one module of a distribution, named as the distribution is."""
        module = name.replace("-", "_")
        place = self.root / (folder or name)
        info = place / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (place / f"{module}.py").write_text(source, encoding="utf-8")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        lines = "".join(f"{key} = {value}\n" for key, value in (entry_points or {"plugin": module}).items())
        (info / "entry_points.txt").write_text(f"[sj_ann2snn]\n{lines}", encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(place))

    def add_mode(self, distribution: str, name: str, *replaces: str, **options: Any) -> None:
        self.add(distribution, MODE.format(name=name, replaces=replaces), **options)

    def add_mapper(self, distribution: str, name: str, *replaces: str, claims: str = "Rectifier") -> None:
        self.add(distribution, MAPPER.format(name=name, claims=claims, replaces=replaces))

    def add_rectifier(self) -> nn.Module:
        """A network with a layer that only plugins know."""
        place = self.root / "rectifier-layer"
        place.mkdir()
        (place / "rectifier_layer.py").write_text(RECTIFIER, encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(place))
        import rectifier_layer  # type: ignore[import-not-found]

        return nn.Sequential(nn.Linear(4, 5), rectifier_layer.Rectifier(), nn.Linear(5, 2))

    def owners(self, registry: Registry) -> set[str]:
        """The distributions of this test that contributed something."""
        found = {one.owner.distribution for classes in registry.classes.values() for one in classes}
        return {name for name in found if (self.root / name).is_dir()}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.delenv(discovery.ALLOW_VARIABLE, raising=False)
    monkeypatch.delenv(discovery.DENY_VARIABLE, raising=False)
    discovery._load.cache_clear()
    yield Installed(tmp_path, monkeypatch)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    discovery._load.cache_clear()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def converted(ann: nn.Module, **arguments: Any) -> Converter:
    converter = Converter([torch.rand(20, 4)], progress=False, **arguments)
    converter(ann)
    return converter


def owner_of_mode(converter: Converter) -> str:
    return type(converter.normalization).__module__.replace("_", "-")


# One good plugin ---------------------------------------------------------------------------------


def test_an_installed_mode_is_known_by_name(installed: Installed) -> None:
    with pytest.raises(ModeError):
        Converter(mode="twice")
    discovery._load.cache_clear()
    installed.add_mode("alpha-modes", "twice")
    converter = converted(network(), mode="Twice")
    assert converter.report.mode == "twice"
    assert converter.report.mode_owner == "alpha-modes 1.0"


def test_an_entry_point_may_name_an_object_or_a_class(installed: Installed) -> None:
    source = (
        "from sj_ann2snn import hookimpl\n"
        "from sj_ann2snn.builtin.normalizations import Max\n"
        "class One(Max):\n    name = 'one'\n"
        "class Two(Max):\n    name = 'two'\n"
        "class Plugin:\n"
        "    def __init__(self, cls=One):\n        self.cls = cls\n"
        "    @hookimpl\n"
        "    def ann2snn_normalizations(self):\n        return [self.cls]\n"
        "plugin = Plugin(Two)\n"
    )
    installed.add("alpha-modes", source, entry_points={"a": "alpha_modes:Plugin", "b": "alpha_modes:plugin"})
    assert owner_of_mode(Converter(mode="one")) == "alpha-modes"
    assert owner_of_mode(Converter(mode="two")) == "alpha-modes"


def test_entry_points_of_other_groups_are_left_alone(installed: Installed) -> None:
    installed.add("alpha-modes", "raise RuntimeError('not asked for')")
    file = next(installed.root.glob("*/*.dist-info/entry_points.txt"))
    file.write_text("[console_scripts]\nplugin = alpha_modes\n", encoding="utf-8")
    assert installed.owners(discovery.load_plugins()) == set()
    assert "alpha_modes" not in sys.modules


def test_a_distribution_twice_on_the_path_loads_once(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "hidden", folder="alpha-modes")
    installed.add_mode("alpha-modes", "twice", folder="first-on-the-path")
    found = [owner for owner, _ in discovery.installed_plugins() if owner.distribution == "alpha-modes"]
    assert found == [Owner("alpha-modes", "1.0", "plugin")]
    assert owner_of_mode(Converter(mode="twice")) == "alpha-modes"
    with pytest.raises(ModeError):
        Converter(mode="hidden")


def test_two_distributions_with_one_entry_point_name_both_load(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "first", entry_points={"same": "alpha_modes"})
    installed.add_mode("beta-modes", "second", entry_points={"same": "beta_modes"})
    assert owner_of_mode(Converter(mode="first")) == "alpha-modes"
    assert owner_of_mode(Converter(mode="second")) == "beta-modes"


def test_plugins_load_once_per_process(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    assert discovery.load_plugins() is discovery.load_plugins()


# Broken plugins ----------------------------------------------------------------------------------

HEAD = "from sj_ann2snn import hookimpl, Normalization, LayerMapper\n"

BROKEN = {
    "import error": (
        "import no_such_package_anywhere",
        "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
    ),
    "missing name in a dependency": (
        "from torch import no_such_name",
        "ImportError: cannot import name 'no_such_name'",
    ),
    "exits while imported": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises while imported": ("raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
    "misspelt hook": (
        HEAD + "@hookimpl\ndef ann2snn_normalisations():\n    return []",
        "unknown hook 'ann2snn_normalisations'.*Hooks: ann2snn_normalizations, ann2snn_layer_mappers, ann2snn_neurons",
    ),
    "hook with arguments": (
        HEAD + "@hookimpl\ndef ann2snn_normalizations(network):\n    return []",
        "hook 'ann2snn_normalizations'.*network",
    ),
    "unmarked hook": (
        "def ann2snn_normalizations():\n    return []",
        "ann2snn_normalizations is not marked with @sj_ann2snn.hookimpl",
    ),
    "no hook": ("answer = 42", "it implements no hook. Hooks: ann2snn_normalizations"),
    "hook that raises": (HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    return 1 / 0", "ZeroDivisionError"),
    "hook that returns nothing": (
        HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    pass",
        r"ann2snn_normalizations\(\) must return a list of classes, it returned None",
    ),
    "hook that returns a class": (
        HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    return Normalization",
        "must return a list of classes, it returned <class",
    ),
    "not a subclass": (
        HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    return [int]",
        r"returned <class 'int'>, which is not a subclass of sj_ann2snn\.Normalization",
    ),
    "subclass of another base": (
        HEAD + "class Mode(Normalization):\n    name = 'x'\n@hookimpl\ndef ann2snn_layer_mappers():\n    return [Mode]",
        r"not a subclass of sj_ann2snn\.LayerMapper",
    ),
    "an instance": (
        HEAD + "from sj_ann2snn.builtin.normalizations import Max\n"
        "@hookimpl\ndef ann2snn_normalizations():\n    return [Max()]",
        "which is not a subclass",
    ),
    "class without a name": (
        HEAD + "class Mode(Normalization):\n    def observer(self, site): ...\n"
        "@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]",
        r"Mode\.name must be a non-empty string, it is None",
    ),
    "class with an empty name": (
        HEAD + "class Mode(Normalization):\n    name = ' '\n    def observer(self, site): ...\n"
        "@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]",
        r"Mode\.name must be a non-empty string, it is ' '",
    ),
    "abstract class": (
        HEAD
        + "class Mode(Normalization):\n    name = 'x'\n@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]",
        "Mode does not implement observer",
    ),
    "replaces is a string": (
        MODE.format(name="twice", replaces="max"),
        r"Mode\.replaces must be a tuple of names, it is 'max'",
    ),
    "mapper without claims": (
        HEAD + "class Mapper(LayerMapper):\n    name = 'x'\n    def map(self, site): ...\n"
        "@hookimpl\ndef ann2snn_layer_mappers():\n    return [Mapper]",
        r"Mapper\.claims must be a non-empty tuple, it is None",
    ),
    "mapper that claims a number": (
        HEAD + "class Mapper(LayerMapper):\n    name = 'x'\n    claims = (3,)\n    def map(self, site): ...\n"
        "@hookimpl\ndef ann2snn_layer_mappers():\n    return [Mapper]",
        r"Mapper\.claims holds 3; allowed are module types, functions and names of tensor methods",
    ),
    "newer hooks": (
        "ANN2SNN_API = 2\n" + MODE.format(name="twice", replaces=()),
        r"written for version 2 of the hooks, this sj-ann2snn has version 1\. Update sj-ann2snn",
    ),
    "older hooks": (
        "ANN2SNN_API = 0\n" + MODE.format(name="twice", replaces=()),
        r"written for version 0 of the hooks, this sj-ann2snn has version 1\. Update it",
    ),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_plugin_is_recorded_and_takes_nothing_else_down(why: str, installed: Installed) -> None:
    source, message = BROKEN[why]
    installed.add_mode("alpha-modes", "good")
    installed.add("broken-plugin", source, version="0.3", entry_points={"broken": "broken_plugin"})
    with pytest.warns(PluginWarning, match=f"(?s)broken-plugin 0.3 .entry point 'broken'.: .*{message}") as warned:
        registry = discovery.load_plugins()
    assert len(warned) == 1
    (failure,) = registry.failures
    assert failure.owner == Owner("broken-plugin", "0.3", "broken")
    assert "Traceback (most recent call last)" in failure.traceback
    assert "\n" not in failure.error
    assert installed.owners(registry) == {"alpha-modes"}
    # Reported once: from here on a second warning would be an error.
    assert owner_of_mode(Converter(mode="good")) == "alpha-modes"
    assert converted(network(), mode="max").report["1"].mapper == "relu"


def test_a_missing_attribute_of_an_entry_point_is_recorded(installed: Installed) -> None:
    installed.add("broken-plugin", "answer = 42", entry_points={"broken": "broken_plugin:plugin"})
    with pytest.warns(PluginWarning, match=r"broken-plugin 1\.0.*has no attribute 'plugin'"):
        discovery.load_plugins()


def test_what_a_broken_plugin_contributed_so_far_is_dropped(installed: Installed) -> None:
    mode = MODE.format(name="twice", replaces=())
    installed.add("broken-plugin", mode + "@hookimpl\ndef ann2snn_layer_mappers():\n    return [int]\n")
    with pytest.warns(PluginWarning, match="broken-plugin"):
        assert installed.owners(discovery.load_plugins()) == set()


def test_several_broken_plugins_are_each_reported(installed: Installed) -> None:
    for name in ("broken-one", "broken-two"):
        installed.add(name, "raise RuntimeError")
    with pytest.warns(PluginWarning) as warned:
        registry = discovery.load_plugins()
    assert [failure.owner.distribution for failure in registry.failures] == ["broken-one", "broken-two"]
    assert len(warned) == 2


def test_an_interrupt_while_a_plugin_is_imported_is_not_swallowed(installed: Installed) -> None:
    installed.add("slow-plugin", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discovery.load_plugins()


def test_the_error_of_an_unknown_mode_lists_what_is_known_and_what_failed(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "low-latency", version="2.1")
    installed.add("broken-plugin", "import no_such_package_anywhere")
    with pytest.warns(PluginWarning), pytest.raises(ModeError) as caught:
        Converter(mode="low-latncy")
    message = str(caught.value)
    assert message.startswith("mode='low-latncy' is not known. Did you mean 'low-latency'?")
    for known in ("low-latency (alpha-modes 2.1)", "max (sj-ann2snn ", "99.9% (sj-ann2snn ", "0.5 (sj-ann2snn "):
        assert known in message
    assert "do not work and may be what is missing: broken-plugin 1.0" in message
    assert "No module named 'no_such_package_anywhere'" in message


def test_no_failed_plugins_are_mentioned_where_none_failed(installed: Installed) -> None:
    with pytest.raises(ModeError) as caught:
        Converter(mode="maxx")
    assert "Did you mean 'max'?" in str(caught.value)
    assert "loaded" not in str(caught.value)


# Conflicts over a mode -----------------------------------------------------------------------------


def two_modes(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    installed.add_mode("beta-modes", "twice", version="0.2")


def test_one_mode_in_two_distributions_is_a_conflict(installed: Installed) -> None:
    two_modes(installed)
    with pytest.raises(ConflictError) as caught:
        Converter(mode="twice")
    message = str(caught.value)
    assert "mode='twice' is claimed by 'twice' of alpha-modes 1.0 and 'twice' of beta-modes 0.2" in message
    assert "Converter(prefer='alpha-modes')" in message
    assert "SJ_ANN2SNN_DISABLE_PLUGINS" in message
    # Whoever does not use the mode is not bothered.
    assert converted(network(), mode="max").report.mode == "max"


@pytest.mark.parametrize("name", ["alpha-modes", "beta-modes"])
@pytest.mark.parametrize("form", [str, str.upper, lambda name: ["some-other-distribution", name]])
def test_prefer_settles_a_conflict(name: str, form: Any, installed: Installed) -> None:
    two_modes(installed)
    assert owner_of_mode(Converter(mode="twice", prefer=form(name))) == name


def test_preferring_both_settles_nothing(installed: Installed) -> None:
    two_modes(installed)
    with pytest.raises(ConflictError):
        Converter(mode="twice", prefer=["alpha-modes", "beta-modes"])


def test_replaces_settles_a_conflict(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    installed.add_mode("beta-modes", "twice", "twice")
    assert owner_of_mode(Converter(mode="twice")) == "beta-modes"


def test_what_was_replaced_cannot_be_preferred(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    installed.add_mode("beta-modes", "twice", "twice")
    assert owner_of_mode(Converter(mode="twice", prefer="alpha-modes")) == "beta-modes"


def test_two_that_replace_each_other_are_a_conflict_that_prefer_settles(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice", "twice")
    installed.add_mode("beta-modes", "twice", "twice")
    with pytest.raises(ConflictError, match=r"alpha-modes 1\.0 and 'twice' of beta-modes 1\.0"):
        Converter(mode="twice")
    assert owner_of_mode(Converter(mode="twice", prefer="alpha-modes")) == "alpha-modes"


@pytest.mark.parametrize("denied", ["alpha-modes", "ALPHA-MODES", "alpha", " alpha , something-else"])
def test_disabling_one_settles_a_conflict(denied: str, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.add_mode("alpha-modes", "twice", entry_points={"alpha": "alpha_modes"})
    installed.add_mode("beta-modes", "twice", entry_points={"beta": "beta_modes"})
    monkeypatch.setenv(discovery.DENY_VARIABLE, denied)
    assert owner_of_mode(Converter(mode="twice")) == "beta-modes"


def test_a_name_of_a_builtin_is_a_conflict_unless_the_plugin_replaces_it(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "max")
    with pytest.raises(
        ConflictError, match=r"mode='max' is claimed by 'max' of alpha-modes 1\.0 and 'max' of sj-ann2snn"
    ):
        Converter(mode="max")
    assert owner_of_mode(Converter(mode="max", prefer="alpha-modes")) == "alpha-modes"
    assert (
        type(Converter(mode="max", prefer="sj-ann2snn").normalization).__module__ == "sj_ann2snn.builtin.normalizations"
    )


def test_a_plugin_replaces_a_builtin(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "max", "max")
    assert owner_of_mode(Converter(mode="max")) == "alpha-modes"
    assert converted(network(), mode="max").report.mode_owner == "alpha-modes 1.0"


# Conflicts over a site -----------------------------------------------------------------------------


def two_mappers(installed: Installed) -> nn.Module:
    ann = installed.add_rectifier()
    installed.add_mapper("alpha-mappers", "alpha")
    installed.add_mapper("beta-mappers", "beta")
    return ann


def test_two_mappers_that_claim_one_site_are_a_conflict(installed: Installed) -> None:
    ann = two_mappers(installed)
    with pytest.raises(ConflictError) as caught:
        converted(ann)
    message = str(caught.value)
    assert "1 (Rectifier) is claimed by 'alpha' of alpha-mappers 1.0 and 'beta' of beta-mappers 1.0" in message
    assert "Converter(prefer='alpha-mappers')" in message
    # A network without that layer is not bothered.
    assert converted(network()).report["1"].mapper == "relu"


@pytest.mark.parametrize("prefer", ["beta-mappers", "beta"])
def test_prefer_settles_who_maps_a_site(prefer: str, installed: Installed) -> None:
    entry = converted(two_mappers(installed), prefer=prefer).report["1"]
    assert (entry.mapper, entry.owner) == ("beta", "beta-mappers 1.0")


def test_a_mapper_named_for_the_site_beats_all(installed: Installed) -> None:
    ann = two_mappers(installed)
    entry = converted(ann, mappers={"1": "Beta"}, prefer="alpha-mappers").report["1"]
    assert entry.mapper == "beta"


def test_a_mapper_instance_for_the_site_beats_all(installed: Installed) -> None:
    class Mine(LayerMapper):
        name = "mine"
        claims = (nn.Identity,)  # what it claims does not matter where it is named

        def map(self, site: Any) -> Spike:
            return Spike()

    entry = converted(two_mappers(installed), mappers={"1": Mine()}, prefer="alpha").report["1"]
    assert (entry.mapper, entry.owner) == ("mine", "your own argument")


def test_replaces_settles_who_maps_a_site(installed: Installed) -> None:
    ann = installed.add_rectifier()
    installed.add_mapper("alpha-mappers", "alpha")
    installed.add_mapper("beta-mappers", "beta", "alpha")
    assert converted(ann).report["1"].mapper == "beta"


def test_disabling_one_settles_who_maps_a_site(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = two_mappers(installed)
    monkeypatch.setenv(discovery.DENY_VARIABLE, "alpha-mappers")
    assert converted(ann).report["1"].mapper == "beta"


def test_a_mapper_for_a_builtin_layer_is_a_conflict_unless_it_replaces(installed: Installed) -> None:
    installed.add_rectifier()
    installed.add_mapper("alpha-mappers", "alpha", claims="nn.ReLU")
    with pytest.raises(
        ConflictError, match=r"1 \(ReLU\) is claimed by 'alpha' of alpha-mappers 1\.0 and 'relu' of sj-ann2snn"
    ):
        converted(network())
    assert converted(network(), prefer="alpha-mappers").report["1"].mapper == "alpha"
    assert converted(network(), prefer="relu").report["1"].mapper == "relu"


def test_a_mapper_replaces_a_builtin(installed: Installed) -> None:
    installed.add_rectifier()
    installed.add_mapper("alpha-mappers", "alpha", "ReLU", claims="nn.ReLU")
    entry = converted(network()).report["1"]
    assert (entry.mapper, entry.owner) == ("alpha", "alpha-mappers 1.0")


# Environment variables -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "loaded"),
    [
        ("", set()),
        (" , ", set()),
        ("alpha-modes", {"alpha-modes"}),
        ("Alpha-Modes , nobody", {"alpha-modes"}),
        ("beta", {"beta-modes"}),
        ("alpha,beta-modes", {"alpha-modes", "beta-modes"}),
    ],
)
def test_the_allow_list_names_distributions_or_entry_points(
    allowed: str, loaded: set[str], installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.add_mode("alpha-modes", "first", entry_points={"alpha": "alpha_modes"})
    installed.add_mode("beta-modes", "second", entry_points={"beta": "beta_modes"})
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, allowed)
    assert installed.owners(discovery.load_plugins()) == loaded
    for name, mode in (("alpha-modes", "first"), ("beta-modes", "second")):
        if name in loaded:
            assert owner_of_mode(Converter(mode=mode)) == name
        else:
            with pytest.raises(ModeError):
                Converter(mode=mode)


def test_an_empty_allow_list_leaves_the_builtins_alone_and_imports_nothing(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.add("broken-plugin", "raise RuntimeError")
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "")
    registry = discovery.load_plugins()
    assert not registry.failures
    assert {one.owner.distribution for classes in registry.classes.values() for one in classes} == {"sj-ann2snn"}
    assert converted(network(), mode="99.9%").report.mode == "99.9%"


def test_denied_beats_allowed(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    two_modes(installed)
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "alpha-modes,beta-modes")
    monkeypatch.setenv(discovery.DENY_VARIABLE, "alpha-modes")
    assert installed.owners(discovery.load_plugins()) == {"beta-modes"}


def test_a_change_of_the_variables_takes_effect(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.add_mode("alpha-modes", "twice")
    assert owner_of_mode(Converter(mode="twice")) == "alpha-modes"
    monkeypatch.setenv(discovery.DENY_VARIABLE, "alpha-modes")
    with pytest.raises(ModeError):
        Converter(mode="twice")


# The order of installation -------------------------------------------------------------------------


def test_the_order_of_installation_changes_no_number(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = installed.add_rectifier()
    ann.append(nn.ReLU())
    installed.add_mode("alpha-modes", "half")
    installed.add_mode("beta-modes", "max", "max")
    installed.add_mapper("gamma-mappers", "alpha")
    installed.add_mapper("delta-mappers", "beta", "alpha")
    x = torch.rand(50, 4)
    found = list(discovery.installed_plugins())
    builtins = discovery.BUILTIN_PLUGINS
    answers = []
    for position, order in enumerate(itertools.permutations(found)):
        if position % 5:
            continue
        monkeypatch.setattr(discovery, "installed_plugins", lambda order=order: iter(order))
        monkeypatch.setattr(discovery, "BUILTIN_PLUGINS", tuple(reversed(builtins)) if position % 2 else builtins)
        discovery._load.cache_clear()
        converter = Converter([x], mode="max", progress=False)
        snn = converter(ann)
        answers.append((simulate(snn, x, T=20), converter.report.as_dict(), snn.code))
    assert len(answers) > 3
    for result, report, code in answers[1:]:
        assert torch.equal(result, answers[0][0])
        assert (report, code) == answers[0][1:]
    assert answers[0][1]["mode_owner"] == "beta-modes 1.0"


def test_the_order_of_plugin_arguments_changes_no_number() -> None:
    class Plugin:
        def __init__(self, cls: type) -> None:
            self.cls = cls

        @hookimpl
        def ann2snn_normalizations(self) -> list[type[Normalization]]:
            return [self.cls]

    class Constant(Observer):
        value = 0.0

        def observe(self, x: torch.Tensor) -> None:
            pass

        def merge(self, other: Any) -> None:
            pass

        def scale(self) -> torch.Tensor:
            return torch.tensor(self.value)

    def mode(called: str, value: float) -> type[Normalization]:
        observer = type("Of", (Constant,), {"value": value})
        return type("Mode", (Normalization,), {"name": called, "observer": lambda self, site: observer(site)})

    plugins = [Plugin(mode(f"constant-{value:g}", value)) for value in (0.5, 1.0, 2.0)]
    ann, x = network(), torch.rand(30, 4)
    for order in itertools.permutations(plugins):
        for value in (0.5, 1.0, 2.0):
            converter = Converter([x], mode=f"constant-{value:g}", plugins=order, progress=False)
            converter(ann)
            assert converter.report["1"].scale == (value, value)


# What register_plugin tells the caller -------------------------------------------------------------


def test_an_object_given_by_the_caller_fails_at_once(installed: Installed) -> None:
    class Misspelt:
        @hookimpl
        def ann2snn_normalisations(self) -> list[type]:
            return []

    before = discovery.load_plugins()
    counts = {hook: len(classes) for hook, classes in before.classes.items()}
    with pytest.raises(PluginError, match="unknown hook 'ann2snn_normalisations'"):
        Converter(plugins=[Misspelt()])
    assert {hook: len(classes) for hook, classes in discovery.load_plugins().classes.items()} == counts


def test_an_object_given_by_the_caller_wins_and_is_used_only_there(installed: Installed) -> None:
    class Mine(Normalization):
        name = "twice"

        def observer(self, site: Any) -> Observer:
            raise NotImplementedError

    class Plugin:
        @hookimpl
        def ann2snn_normalizations(self) -> list[type[Normalization]]:
            return [Mine]

    two_modes(installed)
    assert isinstance(Converter(mode="twice", plugins=[Plugin]).normalization, Mine)
    assert isinstance(Converter(mode="twice", plugins=[Plugin()]).normalization, Mine)
    with pytest.raises(ConflictError):
        Converter(mode="twice")
