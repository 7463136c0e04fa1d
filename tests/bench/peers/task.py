"""What each side of the comparison is told, tells while it runs, and leaves behind.

`python -m tests.bench.peers.with_NAME BROKER TOPIC RECORDS LATE_MS OUT`; lines of JSON say when it started, had its
first records, and its last. It deliberately imports nothing but the standard library: a side's start is part of its
figure.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

COLUMNS = ("window_start", "device", "mean", "n")
WINDOW_MS = 10_000
LATENESS_MS = 2_000
"""For a side whose time is the latest of all partitions, which are not read in step."""
LEAST = 20.0
"""The temperature from which on readings are kept."""

HALFWAY = "halfway"
"""A file beside `out`, which says how many records were read when it was half of them."""

Moment = Literal["start", "first", "last"]
Row = tuple[int, str, float, int]


@dataclass(frozen=True)
class Task:
    """The command line of a side. `out` is a file, or a folder of files, of Parquet or CSV."""

    broker: str
    topic: str
    records: int
    late_ms: int
    """How late readings may come within a partition: a window that could still get one is not closed."""
    out: Path


def begin() -> Task:
    """The task, from the command line; tells that the script has started."""
    tell("start", 0)
    broker, topic, records, late_ms, out = sys.argv[1:]
    return Task(broker, topic, int(records), int(late_ms), Path(out))


def tell(moment: Moment, records: int, at: float | None = None) -> None:
    """Say when a moment came, by default now, and how many records were behind it by then."""
    print(json.dumps({"moment": moment, "at": at or time.time(), "records": records}), flush=True)


def write(task: Task, rows: Iterable[Row]) -> None:
    """Leave the closed windows as CSV; `window_start` in milliseconds since the epoch."""
    with task.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


class Steps:
    """Tells of the first record and knows the last, for a side that sees each."""

    def __init__(self, records: int) -> None:
        self._records = records
        self._seen = 0

    def passed(self, count: int = 1) -> bool:
        """Count records, and say whether these were the last."""
        if not self._seen:
            tell("first", count)
        self._seen += count
        return self._seen >= self._records
