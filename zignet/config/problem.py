"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfigError", "Problem"]

_SHOWN = 20  # problems in the text of an error


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: `zignet.yaml:12: exits.tokyo.adress: unknown key; did you mean "address"?`."""

    file: str
    line: int  # from 1; 0 if it is the file as a whole
    key: str  # dotted path; "" where there is none
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration can't be used. Its text is one line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"… and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(lines))
