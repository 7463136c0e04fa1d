"""What a micro-batch of 50 rows costs, whatever is in it: stateless, and with a detector by key.

The source is a script, so that no broker's time is in the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.figure import Figure, Measured
from tests.bench.readings import FORMAT, records
from tests.bench.settings import Settings

if TYPE_CHECKING:
    import tidemill as tm

ROWS, BATCHES, RUNS = 50, 400, 5


def figures(_settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    yield Figure("a batch of 50 rows, stateless", "ms", _cost(lambda s: s), reach="≤ 5")
    yield Figure("a batch of 50 rows, detect by key", "ms", _cost(_detected), reach="≤ 10")


def _detected(readings: tm.DStream) -> tm.DStream:
    import tidemill as tm

    return readings.key_by("device").detect("temp", tm.ml.Ewma())


def _cost(transform: Callable[[tm.DStream], tm.DStream]) -> Measured:
    """From planned to delivered, so that the fixed cost between the steps counts: the median of five runs' medians."""
    return Measured(median(_delay(transform) for _ in range(RUNS)))


def _delay(transform: Callable[[tm.DStream], tm.DStream]) -> float:
    """One run's median over its batches in milliseconds, the first tenth left out."""
    import tidemill as tm

    source = tm.testing.ScriptedSource(partitions=4)
    for number, record in enumerate(records(ROWS * BATCHES)):
        source.push(number % 4, [record.value])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=ROWS))
    readings = ctx.scripted(source, format=tm.Json(FORMAT), event_time="ts").filter("temp >= 0")
    transform(readings).foreach_batch(lambda _batch: None)
    took: list[float] = []
    ctx.listeners.append(lambda e: took.append(e.progress.total_delay * 1000) if e.progress else None)
    ctx.run()
    return median(took[len(took) // 10 :])
