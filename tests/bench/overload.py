"""What becomes of a job that could read ten times as fast as its function works, and of its delay once that is faster.

Each batch is printed as it is done. The figures are of the second half of each part, which is well behind its start:
how many records pass, beside what the function can work off; how long a batch takes from its tick to its end, beside
the interval; and the memory, beside that of the part's middle. It deliberately takes minutes: it goes by the clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from tests.bench.figure import Figure, Measured
from tests.bench.overload_side import INTERVAL_S
from tests.bench.settings import Settings
from tests.places import ROOT

SLOW, TIMES, SECONDS = 10_000, 10, 30.0
"""Records a second; how many times as many after so many seconds, and for as long."""


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    done = list(_batches(settings))
    slow = [one for one in done if SECONDS / 2 < one["at"] < SECONDS]
    # The batch that was under way when the function became faster is neither's.
    fast = [one for one in done if one["at"] > 1.5 * SECONDS]
    if min(len(slow), len(fast)) < 3:
        raise RuntimeError(
            f"{len(slow)} and {len(fast)} batches are too few to tell: the topic has too few records"
        )
    for name, part, rate in [("slow", slow, SLOW), (f"{TIMES} times as fast", fast, SLOW * TIMES)]:
        yield Figure(
            f"records a second, the function {name}", "records/s", Measured(_rate(part)), Measured(rate),
            against="the function can work off", reach="≥ 0.9",
        )  # fmt: skip
        yield Figure(
            f"a batch from its tick to its end, the function {name}", "s",
            Measured(median(one["delay"] for one in part)), Measured(INTERVAL_S),
            against="interval", reach="≤ 2", details={"longest": round(max(one["delay"] for one in part), 2)},
        )  # fmt: skip
    yield Figure(
        "memory while a job cannot keep up", "MiB",
        Measured(slow[-1]["mib"]), Measured(slow[0]["mib"]), against="in the middle", reach="≤ 1.1",
    )  # fmt: skip


def _rate(part: list[dict[str, Any]]) -> float:
    """From the end of its first batch to that of its last."""
    first, *others = part
    records: int = sum(one["records"] for one in others)
    seconds: float = others[-1]["at"] - first["at"]
    return records / seconds


def _batches(settings: Settings) -> Iterator[dict[str, Any]]:
    """What was told of each batch, printed as it comes."""
    sizes = [str(number) for number in (SLOW, SLOW * TIMES, SECONDS)]
    side = ["-m", "tests.bench.overload_side", settings.bootstrap_servers, settings.topic, *sizes]
    with subprocess.Popen([sys.executable, *side], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            one = json.loads(line)
            print(
                f"{one['at']:5.1f} s: {one['records']:,} records, limit {one['rate_limit'] or '-'}, "
                f"{one['delay']:.2f} s from the tick, {one['lag']:,} behind, {one['mib']:.0f} MiB",
                flush=True,
            )
            yield one
    if process.returncode:
        raise RuntimeError(f"the job ended with {process.returncode}")
