"""`--only peers`: the job of the field, tidemill beside its peers, in turn on one topic, each with the same answer.

It writes a table of its own besides, for the README, and all runs as JSON. It deliberately goes on when a side fails:
its row says why, and the command fails at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from tests.bench import machine
from tests.bench.figure import Figure, Measured
from tests.bench.peers import answer, restart
from tests.bench.peers.answer import MEANS_WITHIN, Expected
from tests.bench.peers.package import NOT_INSTALLABLE
from tests.bench.peers.restart import Survived
from tests.bench.peers.sides import SIDES, Run, Side
from tests.bench.readings import LATE_SHARE
from tests.bench.settings import Settings
from tests.kafka.broker import Broker

RECORDS = 1_000_000
OURS = "tidemill"
RESTARTED = "tidemill, the broker killed"
HEAD = """\
| | records/s, process start to end | records/s without its start | CPU s a million | peak MiB \
| tidemill, start to end | tidemill, without start | same windows |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"""


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    settings = replace(settings, asked_records=settings.asked_records or RECORDS)
    load = os.getloadavg()[0]
    expected = answer.expected(settings.bootstrap_servers, settings.topic)
    sides = [side for side in SIDES if side.name in {OURS, *(settings.peers or (s.name for s in SIDES))}]
    results = [Result(side, expected.records, side.origin.why_not() or "") for side in sides]
    for number in range(1, settings.rounds + 1):
        for result in results:
            result.run(settings, expected, number)
    restarted = [Restarted.of(settings, expected, settings.restarts)] if settings.restarts else []
    _write(settings, _above(settings, expected, load) + _connectors(results), results, restarted)
    yield from _figures(results)
    for each in restarted:
        yield from each.figures()
    wrong = [f"{r.side.title} {r.problem}" for r in results if r.problem and not r.left_out]
    if wrong := [*wrong, *(f"{RESTARTED} {each.problem}" for each in restarted if each.problem)]:
        raise RuntimeError("; ".join(wrong))


@dataclass
class Result:
    """What came of a side; `problem` says why it is not, or no longer, run."""

    side: Side
    records: int
    problem: str
    runs: list[Run] = field(default_factory=list)

    @property
    def left_out(self) -> bool:
        """Whether it cannot run on this Python at all, which is nobody's fault."""
        return self.problem.startswith(NOT_INSTALLABLE)

    @property
    def whole(self) -> float:
        """Records a second from process start to end."""
        return self.records / median(run.seconds for run in self.runs)

    @property
    def steady(self) -> float:
        """Records a second without the start."""
        return median(run.steady for run in self.runs)

    def measured(self, value: float) -> Measured:
        """A figure of this side, with what its runs took."""
        return Measured(value, median(r.cpu_s for r in self.runs), median(r.peak_mib for r in self.runs))

    def run(self, settings: Settings, expected: Expected, number: int) -> None:
        """Once more, unless something is wrong already."""
        if self.problem:
            return
        try:
            self.side.origin.prepare()
            self.runs.append(self.side.run(settings, expected))
        except RuntimeError as error:
            self.problem = _line(error)
        print(f"round {number}, {self.side.name}: {self.problem or self.runs[-1]}", flush=True)

    def row(self, ours: Result) -> str:
        """A row of the table."""
        if self.problem:
            return f"| {self.side.label()} | {self.problem} |" + " |" * 6
        cells = [self.side.label(), f"{self.whole:,.0f}", f"{self.steady:,.0f}"]
        took = self.measured(0.0)
        cells += [f"{took.cpu_s / self.records * 1e6:.3g}", f"{took.peak_mib:,.0f}"]
        cells += [_times(ours, self, "whole", self.side.reach_whole)]
        cells += [_times(ours, self, "steady", self.side.reach_steady)]
        cells.append(f"yes, {self.runs[-1].windows:,}" if self.side.answers else "computes none")
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Restarted:
    """What came of the run that outlives its broker, or why nothing did."""

    survived: Survived | None = None
    problem: str = ""

    @classmethod
    def of(cls, settings: Settings, expected: Expected, broker: Broker) -> Restarted:
        """Run it."""
        try:
            return cls(restart.run(settings, expected, broker))
        except RuntimeError as error:
            return cls(problem=_line(error))

    def row(self) -> str:
        """A row of the table, whose speeds are not of this run."""
        if self.survived is None:
            return f"| {RESTARTED} | {self.problem} |" + " |" * 6
        how = f"{self.survived.records:,} records, back after {self.survived.gone_s:.1f} s"
        return f"| {RESTARTED} after {how} |" + " |" * 6 + f" yes, {self.survived.windows:,} |"

    def figures(self) -> Iterator[Figure]:
        """How many windows were right, which is all."""
        if self.survived is not None:
            details = {"after records": f"{self.survived.records:,}", "gone s": f"{self.survived.gone_s:.1f}"}
            yield Figure(RESTARTED, "right windows", Measured(self.survived.windows), details=details)


def _line(error: RuntimeError) -> str:
    """A row of the table is one line."""
    return " ".join(str(error).split())


def _times(ours: Result, theirs: Result, name: str, reach: str) -> str:
    """How many times as fast ours is, and what is to be reached."""
    if ours is theirs or ours.problem:
        return ""
    return f"{getattr(ours, name) / getattr(theirs, name):.3g}x" + (f" (to reach {reach})" if reach else "")


def _figures(results: list[Result]) -> Iterator[Figure]:
    ours, *peers = results
    if ours.problem:
        return
    for peer in (peer for peer in peers if not peer.problem):
        for name, title in (("steady", "without start"), ("whole", "process start to end")):
            ours_is, theirs_is = (side.measured(getattr(side, name)) for side in (ours, peer))
            yield Figure(
                f"windowed means, {title}", "records/s", ours_is, theirs_is,
                against=peer.side.label(), reach=getattr(peer.side, f"reach_{name}"),
                details={"records": f"{ours.records:,}"},
            )  # fmt: skip


def _above(settings: Settings, expected: Expected, load: float) -> str:
    """What a table is of."""
    records = f"{expected.records:,} records{_lateness(settings)}"
    return (
        f"{machine.describe()}\n* load of the machine before the first run: {load:.1f}\n"
        f"* {records}, {expected.windows.num_rows:,} windows of 10 s by device; medians of "
        f"{settings.rounds} runs in turn; every side's windows compared with those of a pass of NumPy: "
        f"counts equal, means within {MEANS_WITHIN}"
    )


def _lateness(settings: Settings) -> str:
    """How many come late is known of what is filled here."""
    if not settings.late_ms:
        return ""
    how_many = "some" if settings.asked_topic else f"{LATE_SHARE:.0%} of them"
    return f", {how_many} up to {settings.late_ms:,} ms late"


def _connectors(results: list[Result]) -> str:
    """With what sides read Kafka, which is no part of them."""
    read_by = {result.side.title: result.side.origin.reads_by() for result in results if result.runs}
    return "".join(f"\n* {title} reads by {', '.join(jars)}" for title, jars in read_by.items() if jars)


def _write(settings: Settings, above: str, results: list[Result], restarted: list[Restarted]) -> None:
    """The table and all runs, beside the file of all figures."""
    rows = [result.row(results[0]) for result in results] + [each.row() for each in restarted]
    table = "\n".join([HEAD, *rows])
    text = f"{above}\n\n{table}\n"
    print(f"\n{text}", flush=True)
    settings.beside("peers.md").write_text(text)
    sides = [asdict(result) | {"side": result.side.label()} for result in results]
    said = {"about": above.splitlines(), "sides": sides, "restarted": [asdict(each) for each in restarted]}
    settings.beside("peers.json").write_text(json.dumps(said, indent=1))
