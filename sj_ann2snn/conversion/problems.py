"""What prevents an exact conversion, and how messages list it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["Problem", "lines_of"]

_ALIKE = 4
"""Operations that are refused for one reason, from which they share a line."""


@dataclass(frozen=True)
class Problem:
    """An operation that prevents an exact conversion."""

    name: str
    operation: str
    source: str
    why: str
    help: str

    def __str__(self) -> str:
        return self.of([self.name])

    def of(self, names: Sequence[str]) -> str:
        """The message for operations that differ only in their names."""
        times = f", {len(names)} times" if len(names) > 1 else ""
        at = f" at {self.source}" if self.source else ""
        return f"{', '.join(names)} ({self.operation}{times}){at}: {self.why}. {self.help}".rstrip()


def lines_of(problems: Sequence[Problem]) -> list[str]:
    """A line for every problem, or for several that are alike, as the gates of a recurrent network are."""
    groups: dict[Problem, list[str]] = {}
    for problem in problems:
        groups.setdefault(replace(problem, name=""), []).append(problem.name)
    lines: list[str] = []
    for problem in problems:
        names = groups.get(replace(problem, name=""), [])
        if len(names) < _ALIKE:
            lines.append(str(problem))
        elif problem.name == names[0]:
            lines.append(problem.of(names))
    return lines
