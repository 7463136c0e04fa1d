"""Whether memory stays flat while all records of the topic pass through the job, and how much a key takes.

The first ratio is of the last tenth of the run to its middle fifth, which is well behind the start: a job that leaks a
byte a record shows it. The others are of the state, as it is counted, to what a user would call the data: a key and
three values of 8 bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import psutil

from tests.bench.figure import Figure, Measured
from tests.bench.settings import Settings
from tests.places import ROOT

EVERY_S = 0.05
KEYS = (10_000, 1_000_000)
KEY_AND_VALUES = 4 * 8
"""Bytes: of an int64 key, a count, a sum and a maximum."""


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    sizes = _sizes(settings)
    early, late = median(sizes[2 * len(sizes) // 5 : 3 * len(sizes) // 5]), median(sizes[-len(sizes) // 10 :])
    yield Figure(
        f"memory while {settings.records:,} records pass", "MiB", Measured(late), Measured(early),
        against="in the middle of the run", reach="≤ 1.1", details={"peak MiB": round(max(sizes))},
    )  # fmt: skip
    for keys in KEYS:
        yield _of_keys(keys)


def _of_keys(keys: int) -> Figure:
    """The state of so many keys, and by how much the process has grown for them."""
    command = [sys.executable, "-m", "tests.bench.memory_side", str(keys)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    return Figure(
        f"memory per key, count + sum + max, {keys:,} int64 keys", "B",
        Measured(said["state"] / keys), Measured(KEY_AND_VALUES), against="key and values", reach="≤ 4",
        details={"B by which the process grows for a key": round(said["grown"] / keys)},
    )  # fmt: skip


def _sizes(settings: Settings) -> list[float]:
    """The resident size of the job, again and again, in MiB."""
    side = ["job", settings.topic, settings.bootstrap_servers]
    command = [sys.executable, "-m", "tests.bench.sides", *side]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    watched, sizes = psutil.Process(process.pid), list[float]()
    while process.poll() is None:
        sizes.append(watched.memory_info().rss / 2**20)
        time.sleep(EVERY_S)
    if process.returncode != 0:
        raise RuntimeError(f"the job ended with {process.returncode}")
    return sizes
