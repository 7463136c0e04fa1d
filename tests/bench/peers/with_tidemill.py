"""The job in tidemill.

It deliberately hands the windows to Python as Arrow, batch by batch, and writes them at the end.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tidemill as tm
from tests.bench.peers.task import COLUMNS, Task, begin, tell
from tidemill import col


def main() -> None:
    task = begin()
    ctx = tm.StreamingContext(trigger=tm.available_now())
    run(ctx, task, means(ctx, task))


def means(ctx: tm.StreamingContext, task: Task, **source: Any) -> tm.DStream:
    """The job, without its output; `source` is what else the source is told."""
    columns = {"device": "string", "ts": "timestamp[ms]", "temp": "float64"}
    readings = ctx.kafka(
        task.topic, bootstrap_servers=task.broker, format=tm.Json(columns), event_time="ts",
        watermark=f"{task.late_ms}ms", **source,
    )  # fmt: skip
    windows = readings.filter(col("temp") >= 20).window("10s", on="ts").group_by("device")
    return windows.agg(mean=col("temp").mean(), n=tm.count())


def run(ctx: tm.StreamingContext, task: Task, means: tm.DStream) -> None:
    """To the end of the topic; tells of it, and leaves the windows."""
    closed: list[pa.Table] = []
    means.foreach_batch(lambda batch: closed.append(batch.to_pyarrow()))
    told = Told()
    ctx.listeners.append(told)
    ctx.run()
    tell("last", told.records)
    _write(task, pa.concat_tables(closed))


class Told:
    """Tells when the first batch is planned, which is when reading begins, and counts."""

    def __init__(self) -> None:
        self.records = 0
        self._began = False

    def on_event(self, event: tm.Event) -> None:
        if event.kind == "planned" and not self._began:
            self._began = True
            tell("first", 0)
        if event.progress is not None:
            self.records += event.progress.records


def _write(task: Task, windows: pa.Table) -> None:
    start = pc.cast(windows["window_start"], pa.timestamp("ms")).cast(pa.int64())
    named = windows.set_column(windows.schema.get_field_index("window_start"), "window_start", start)
    pq.write_table(named.select(COLUMNS), task.out.with_suffix(".parquet"))


if __name__ == "__main__":
    main()
