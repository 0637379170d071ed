"""The contract of every plugin class, whatever its hook."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from ..hooks.discovery import ALLOW_VARIABLE, DENY_VARIABLE
from ..hooks.kinds import KINDS
from ..hooks.options import declared_options
from ..hooks.registry import CALLER, Registry
from ..hooks.specs import hookimpl
from .fixtures import registered

__all__ = ["PluginTests"]


# Small random networks may hold a layer that hardly fires; that is no fault of a plugin.
@pytest.mark.filterwarnings("ignore::sj_ann2snn.QuietLayerWarning")
class PluginTests:
    """Base of the kit's classes.

    Attributes:
        hook: The hook of the class under test.
        plugin_class: The class under test.
        options: Options with which the tests construct it.
        plugin: The module or object that implements the hooks; if it is given, it must contribute the class.
    """

    hook: ClassVar[str]
    plugin_class: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}
    plugin: ClassVar[Any] = None

    @pytest.fixture(autouse=True)
    def builtins_only(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Disable all other plugins, and fix the random seed."""
        monkeypatch.setenv(ALLOW_VARIABLE, "")
        monkeypatch.delenv(DENY_VARIABLE, raising=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield

    def make(self, **options: Any) -> Any:
        """The class under test, constructed with its own `options` and the given ones."""
        return self.plugin_class(**{**self.options, **options})

    def as_plugin(self) -> Any:
        """An object whose only hook returns the class under test."""
        return SimpleNamespace(**{self.hook: hookimpl(lambda: [self.plugin_class])})

    def require(self, flag: str) -> None:
        """Skip the test if the plugin's author declares that `flag` does not hold."""
        if not getattr(self, flag):
            pytest.skip(f"{type(self).__qualname__} says {flag} = False")

    def test_is_what_its_hook_returns(self) -> None:
        """A concrete subclass of the hook's base class, with a name and a tuple `replaces`."""
        cls: Any = KINDS[self.hook].check(self.plugin_class)
        assert isinstance(cls.replaces, tuple), "replaces is a tuple of names"

    def test_name_can_be_written(self) -> None:
        """Users type the name; case is ignored."""
        name = self.plugin_class.name
        assert name == name.strip(), f"the name {name!r} has blanks around it"
        assert name.isprintable(), f"the name {name!r} cannot be typed"

    def test_says_what_it_is(self) -> None:
        """`sj-ann2snn modes` and error messages show the first line of the docstring."""
        assert (self.plugin_class.__doc__ or "").strip(), f"{self.plugin_class.__qualname__} has no docstring"

    def test_options_are_declared(self) -> None:
        """Options are keyword-only parameters with defaults; a misspelt option is an error that lists them."""
        for name, parameter in inspect.signature(self.plugin_class).parameters.items():
            assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), (
                f"{self.plugin_class.__qualname__}() takes *args or **kwargs, which swallow a misspelt option"
            )
            self.check_parameter(name, parameter)
        assert set(self.options) <= set(declared_options(self.plugin_class)), "these options are not declared"

    def check_parameter(self, name: str, parameter: inspect.Parameter) -> None:
        """Check that a parameter of the constructor keeps the hook's contract."""
        assert parameter.kind is parameter.KEYWORD_ONLY, f"the option {name} is not keyword-only"
        assert parameter.default is not parameter.empty, f"the option {name} has no default"

    def test_unknown_options_are_refused(self) -> None:
        """The constructor itself rejects unknown options."""
        with pytest.raises(TypeError):
            self.make(no_such_option_of_any_plugin=1)

    def test_tunable_values_are_allowed(self) -> None:
        """`tune` constructs the class with each of the values that it declares, and parses the modes."""
        declared = {*declared_options(self.plugin_class), *({"mode"} if hasattr(self.plugin_class, "parse") else ())}
        for name, values in getattr(self.plugin_class, "tunable", {}).items():
            for value in values if name in declared else ():  # a subclass may have other options than its base
                if name == "mode" and hasattr(self.plugin_class, "parse"):
                    found = self.plugin_class.parse(value)
                    assert isinstance(found, self.plugin_class), f"tunable says {value!r}, which parse() does not know"
                else:
                    self.make(**{name: value})

    def test_the_plugin_contributes_it(self) -> None:
        """The plugin's hooks return the class, and the core accepts the plugin."""
        if self.plugin is None:
            pytest.skip("the attribute `plugin` names no module or object with hooks")
        registry: Registry = registered(self.plugin)
        found = [one.cls for one in registry.classes[self.hook] if one.owner == CALLER]
        assert self.plugin_class in found, f"{self.hook}() returns {found}"
