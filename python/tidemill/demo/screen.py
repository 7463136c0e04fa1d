"""What a demonstration shows while it runs: a live table on a terminal, plain lines anywhere else.

It deliberately computes nothing but rates: figures come from the job's own progress.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidemill import Progress
from tidemill.demo.fleet import Fault
from tidemill.demo.score import Alarm

SHOWN_ALARMS = 10
LINE_EVERY_S = 5.0


@dataclass
class Figures:
    """What the job has done so far, and its last batch."""

    records: int = 0
    batches: int = 0
    alarms: int = 0
    last: Progress | None = None

    def add(self, progress: Progress) -> None:
        """Take in a batch."""
        self.records += progress.records
        self.batches += 1
        self.last = progress


class Screen(Protocol):
    """Where a demonstration is shown."""

    def figures(self, figures: Figures) -> None:
        """Show the newest figures."""

    def alarm(self, alarm: Alarm, fault: Fault | None) -> None:
        """Show an alarm, and the fault that it found, if any."""


@contextmanager
def open_screen(title: str, console: Console | None = None) -> Iterator[Screen]:
    """The screen that suits the output: live on a terminal, lines in a file or pipe."""
    console = console or Console(highlight=False)
    console.print(title, soft_wrap=True)
    if not console.is_terminal:
        yield LineScreen(console)
        return
    screen = LiveScreen()
    with Live(screen.render(), console=console, refresh_per_second=8, get_renderable=screen.render):
        yield screen


class LineScreen:
    """A line an alarm, and one with the figures every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rate = _Rate()
        self._due = time.monotonic() + LINE_EVERY_S

    def figures(self, figures: Figures) -> None:
        """Print a line when one is due."""
        if time.monotonic() < self._due:
            return
        self._due += LINE_EVERY_S
        cells = _cells(figures, self._rate.of(figures.records))
        self._console.print(", ".join(f"{name} {value}" for name, value in cells), soft_wrap=True)

    def alarm(self, alarm: Alarm, fault: Fault | None) -> None:
        """Print it."""
        self._console.print(_sentence(alarm, fault), soft_wrap=True)


class LiveScreen:
    """A table that stays in place, with the newest alarms under it."""

    def __init__(self) -> None:
        self._figures = Figures()
        self._rate = _Rate()
        # Written by the job's thread, read by rich's: appending to a bounded deque is atomic.
        self._alarms: deque[Text] = deque(maxlen=SHOWN_ALARMS)

    def figures(self, figures: Figures) -> None:
        """Keep them for the next refresh."""
        self._figures = figures

    def alarm(self, alarm: Alarm, fault: Fault | None) -> None:
        """Keep it for the next refresh."""
        self._alarms.append(Text(_sentence(alarm, fault), style="dim" if fault is None else "red"))

    def render(self) -> Group:
        """The table and the alarms as they are now."""
        table = Table(box=None, padding=(0, 2))
        cells = _cells(self._figures, self._rate.of(self._figures.records))
        for name, _ in cells:
            table.add_column(name, justify="right")
        table.add_row(*(value for _, value in cells))
        return Group(table, Text(), *list(self._alarms))


class _Rate:
    """Records a second over the last two seconds or so."""

    def __init__(self) -> None:
        self._seen = deque([(time.monotonic(), 0)], maxlen=16)

    def of(self, records: int) -> float:
        now = time.monotonic()
        then, before = self._seen[0]
        if now - self._seen[-1][0] > 0.125:
            self._seen.append((now, records))
        return (records - before) / (now - then) if now > then else 0.0


def _cells(figures: Figures, rate: float) -> list[tuple[str, str]]:
    last = figures.last
    if last is None:
        return [("records", "0"), ("alarms", "0")]
    return [
        ("records", f"{figures.records:,}"),
        ("a second", f"{rate:,.0f}"),
        ("delay", f"{last.total_delay * 1000:.0f} ms"),
        ("lag", f"{last.total_lag:,}"),
        ("watermark", _clock(last.watermark)),
        ("machines", f"{last.state_entries:,}"),
        ("state", f"{last.state_bytes / 1024:,.0f} KiB"),
        ("alarms", str(figures.alarms)),
    ]


def _clock(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%H:%M:%S}"


def _sentence(alarm: Alarm, fault: Fault | None) -> str:
    said = (
        "no fault: a false alarm" if fault is None else f"{fault.kind.value}, {_age(alarm.seq - fault.start)}"
    )
    heard = datetime.fromtimestamp(alarm.heard_ms / 1000, UTC)
    return f"{heard:%H:%M:%S} machine-{alarm.machine:04d} {alarm.temperature:6.1f} °C  {said}"


def _age(points: int) -> str:
    return "at once" if points == 0 else f"{points} reading{'' if points == 1 else 's'} after it began"
