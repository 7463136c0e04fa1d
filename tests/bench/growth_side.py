"""The job whose cost is measured as it grows: `python -m tests.bench.growth_side SERVERS TOPIC BATCH THREADS`.

One window takes all readings. It deliberately leaves the start out, of Python as of the job, with which a few large
messages would seem dear. It prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time

import tidemill as tm
from tidemill import col


def main() -> None:
    """Run the job; print the time from its first batch planned to its last completed, its records, its windows."""
    servers, topic, batch, threads = sys.argv[1:]
    trigger = tm.available_now(max_records=int(batch))
    ctx = tm.StreamingContext(trigger=trigger, threads=int(threads) if threads else None)
    closed: list[int] = []
    _means(ctx, servers, topic).foreach_batch(lambda batch: closed.append(batch.num_rows))
    heard = Heard()
    ctx.listeners.append(heard)
    ctx.run()
    print(json.dumps({"seconds": heard.seconds, "records": heard.records, "keys": sum(closed)}))


def _means(ctx: tm.StreamingContext, servers: str, topic: str) -> tm.DStream:
    columns = {"device": "string", "ts": "timestamp[ms]", "temp": "float64"}
    readings = ctx.kafka(topic, bootstrap_servers=servers, format=tm.Json(columns), event_time="ts")
    windows = readings.filter("temp >= 20").window("1h", on="ts").group_by("device")
    return windows.agg(mean=col("temp").mean(), n=tm.count())


class Heard:
    """Keeps when the first batch was planned and the last completed, and counts."""

    def __init__(self) -> None:
        self.records = 0
        self._moments: list[float] = []

    @property
    def seconds(self) -> float:
        """From the one to the other."""
        return self._moments[-1] - self._moments[0]

    def on_event(self, event: tm.Event) -> None:
        """Hears of what happens."""
        if event.kind in ("planned", "completed"):
            self._moments.append(time.perf_counter())
        if event.progress is not None:
            self.records += event.progress.records


if __name__ == "__main__":
    main()
