"""The job whose cost is measured as it grows: `python -m tests.bench.growth_side SERVERS TOPIC BATCH THREADS`.

One window takes all readings. It deliberately leaves the start of Python out, and prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time

import tidemill as tm
from tidemill import col


def main() -> None:
    """Run the job and print how long it took, its records, and its windows."""
    servers, topic, batch, threads = sys.argv[1:]
    trigger = tm.available_now(max_records=int(batch))
    ctx = tm.StreamingContext(trigger=trigger, threads=int(threads) if threads else None)
    columns = {"device": "string", "ts": "timestamp[ms]", "temp": "float64"}
    readings = ctx.kafka(topic, bootstrap_servers=servers, format=tm.Json(columns), event_time="ts")
    windows = readings.filter("temp >= 20").window("1h", on="ts").group_by("device")
    closed: list[int] = []
    windows.agg(mean=col("temp").mean(), n=tm.count()).foreach_batch(
        lambda batch: closed.append(batch.num_rows)
    )
    read: list[int] = []
    ctx.listeners.append(lambda event: read.append(event.progress.records) if event.progress else None)
    begin = time.perf_counter()
    ctx.run()
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "records": sum(read), "keys": sum(closed)}))


if __name__ == "__main__":
    main()
