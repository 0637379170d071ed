"""Plugins found through entry points: good and broken ones, allowed and denied ones, in any order."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    Converter,
    ModeError,
    Normalization,
    Observer,
    PluginWarning,
    hookimpl,
    simulate,
)
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.registry import Owner

from ..helpers.installed import MODE, Installed, converted, network, owner_of_mode, two_modes

# One good plugin ---------------------------------------------------------------------------------


def test_an_installed_mode_is_known_by_name(installed: Installed) -> None:
    with pytest.raises(ModeError, match="mode='twice' is not known"):
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
    with pytest.raises(ModeError, match="mode='hidden' is not known"):
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
        r"ann2snn_normalizations\(\) must return a list of classes, but it returned None",
    ),
    "hook that returns a class": (
        HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    return Normalization",
        "must return a list of classes, but it returned <class",
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
        r"Mode\.name must be a non-empty string, not None",
    ),
    "class with an empty name": (
        HEAD + "class Mode(Normalization):\n    name = ' '\n    def observer(self, site): ...\n"
        "@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]",
        r"Mode\.name must be a non-empty string, not ' '",
    ),
    "abstract class": (
        HEAD
        + "class Mode(Normalization):\n    name = 'x'\n@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]",
        "Mode does not implement observer",
    ),
    "replaces is a string": (
        MODE.format(name="twice", replaces="max"),
        r"Mode\.replaces must be a tuple of names, not 'max'",
    ),
    "mapper without claims": (
        HEAD + "class Mapper(LayerMapper):\n    name = 'x'\n    def map(self, site): ...\n"
        "@hookimpl\ndef ann2snn_layer_mappers():\n    return [Mapper]",
        r"Mapper\.claims must be a non-empty tuple, not None",
    ),
    "mapper that claims a number": (
        HEAD + "class Mapper(LayerMapper):\n    name = 'x'\n    claims = (3,)\n    def map(self, site): ...\n"
        "@hookimpl\ndef ann2snn_layer_mappers():\n    return [Mapper]",
        r"Mapper\.claims holds 3; allowed are module types, functions and names of tensor methods",
    ),
    "newer hooks": (
        "ANN2SNN_API = 2\n" + MODE.format(name="twice", replaces=()),
        r"written for hook API version 2, but this sj-ann2snn has version 1\. Update sj-ann2snn",
    ),
    "older hooks": (
        "ANN2SNN_API = 0\n" + MODE.format(name="twice", replaces=()),
        r"written for hook API version 0, but this sj-ann2snn has version 1\. Update the plugin",
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
    assert "do not work, and one of them may provide it: broken-plugin 1.0" in message
    assert "No module named 'no_such_package_anywhere'" in message


def test_no_failed_plugins_are_mentioned_where_none_failed(installed: Installed) -> None:
    with pytest.raises(ModeError) as caught:
        Converter(mode="maxx")
    assert "Did you mean 'max'?" in str(caught.value)
    assert "loaded" not in str(caught.value)


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
            with pytest.raises(ModeError, match=f"mode='{mode}' is not known"):
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
    with pytest.raises(ModeError, match="mode='twice' is not known"):
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
