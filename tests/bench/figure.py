"""One figure, how two sides are measured in turn, and the table of all.

It deliberately asserts nothing: machines differ, so a figure is a ratio within one run, for a reader to judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

ROUNDS = 5


@dataclass(frozen=True)
class Measured:
    """One run of one side, with what it took of the machine."""

    value: float
    cpu_s: float = float("nan")
    peak_mib: float = float("nan")

    @classmethod
    def of(cls, runs: list[Measured]) -> Measured:
        """The medians of several runs."""
        return cls(
            *(median(values) for values in zip(*((r.value, r.cpu_s, r.peak_mib) for r in runs), strict=True))
        )


@dataclass(frozen=True)
class Figure:
    """What was measured; `theirs` is None where there is nothing to compare with in the same run."""

    figure: str
    unit: str
    ours: Measured
    theirs: Measured | None = None
    against: str = ""
    reach: str = ""
    ratio: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, line: str) -> Figure | None:
        """A figure that a Rust bench printed as one line; None where the line is none.

        `figure`, `unit`, `ours`, `theirs`, `against`, `reach`, `ratio`, `cpu_s` and `peak_mib` have their places in
        the table; whatever else it says stands in the last column.
        """
        if not line.startswith("{"):
            return None
        said = json.loads(line)
        name = said.pop("figure", None) or " ".join(
            str(said.pop(key)) for key in ("bench", "case", "side") if key in said
        )
        theirs = said.pop("theirs", None)
        return cls(
            name,
            said.pop("unit", ""),
            Measured(*(float(said.pop(key, "nan")) for key in ("ours", "cpu_s", "peak_mib"))),
            None if theirs is None else Measured(float(theirs)),
            said.pop("against", ""),
            said.pop("reach", ""),
            said.pop("ratio", None),
            said,
        )

    def row(self) -> str:
        """The figure as a row of the table."""
        theirs = "" if self.theirs is None else f"{_number(self.theirs.value)} {self.against}".strip()
        cells = [self.figure, _number(self.ours.value), self.unit, theirs, _number(self._ratio()), self.reach]
        cells += [self._both("cpu_s"), self._both("peak_mib")]
        cells.append(", ".join(f"{name} {value}" for name, value in self.details.items()))
        return f"| {' | '.join(cells)} |"

    def _ratio(self) -> float | None:
        if self.ratio is not None or self.theirs is None:
            return self.ratio
        return self.ours.value / self.theirs.value

    def _both(self, name: str) -> str:
        sides = [getattr(side, name) for side in (self.ours, self.theirs) if side is not None]
        return " / ".join(filter(None, (_number(value) for value in sides)))


HEAD = """\
| figure | ours | unit | theirs | ours / theirs | to reach | CPU s | peak MiB | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def table(figures: Iterable[Figure]) -> str:
    """All figures as one table."""
    return "\n".join([HEAD, *(figure.row() for figure in figures)])


def in_turn(ours: Callable[[], Measured], theirs: Callable[[], Measured]) -> tuple[Measured, Measured]:
    """Both sides, A B A B …, so that a neighbour on the machine disturbs both alike."""
    rounds = [(ours(), theirs()) for _ in range(ROUNDS)]
    return Measured.of([a for a, _ in rounds]), Measured.of([b for _, b in rounds])


def _number(value: float | None) -> str:
    if value is None or value != value:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
