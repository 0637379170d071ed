"""Conflicts between plugins over a mode or a site, and what settles them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from sj_ann2snn import (
    ConflictError,
    Converter,
    LayerMapper,
    Normalization,
    Observer,
    PluginError,
    Spike,
    hookimpl,
)
from sj_ann2snn.hooks import discovery

from ..helpers.installed import Installed, converted, network, owner_of_mode, two_modes
from ..helpers.plugins import plugin

# Conflicts over a mode -----------------------------------------------------------------------------


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
    with pytest.raises(ConflictError, match="mode='twice' is claimed by"):
        Converter(mode="twice", prefer=["alpha-modes", "beta-modes"])


def test_replaces_settles_a_conflict(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    installed.add_mode("beta-modes", "twice", "twice")
    assert owner_of_mode(Converter(mode="twice")) == "beta-modes"


class Mine(Normalization):
    """The caller's own mode of a name that is taken."""

    name = "twice"

    def observer(self, site: Any) -> Observer:
        raise NotImplementedError


def test_the_callers_own_plugin_wins_over_one_that_replaces_it(installed: Installed) -> None:
    installed.add_mode("beta-modes", "twice", "twice")
    mine = plugin("ann2snn_normalizations", Mine)
    assert type(Converter(mode="twice", plugins=[mine]).normalization) is Mine


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
    class Plugin:
        @hookimpl
        def ann2snn_normalizations(self) -> list[type[Normalization]]:
            return [Mine]

    two_modes(installed)
    assert isinstance(Converter(mode="twice", plugins=[Plugin]).normalization, Mine)
    assert isinstance(Converter(mode="twice", plugins=[Plugin()]).normalization, Mine)
    with pytest.raises(ConflictError, match="mode='twice' is claimed by"):
        Converter(mode="twice")
