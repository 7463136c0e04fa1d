"""The job in Pathway on two threads, which reads what is there, and takes back a mean that more readings change.

Nothing of it runs in Python, so that its first record is taken to come when its graph starts. It deliberately asks for
no closing of windows: its time is the latest of all partitions, which are not read in step, and would drop readings.
"""

from __future__ import annotations

import os

import pathway as pw

from tests.bench.peers.task import LEAST, WINDOW_MS, begin, tell


class Reading(pw.Schema):
    device: str
    ts: int
    temp: float


def main() -> None:
    task = begin()
    os.environ["PATHWAY_THREADS"] = "2"  # as its own command `spawn` does
    settings = {
        "bootstrap.servers": task.broker,
        "group.id": "bench-pathway",
        "auto.offset.reset": "earliest",
    }
    readings = pw.io.kafka.read(settings, task.topic, schema=Reading, format="json", mode="static")
    kept = readings.filter(pw.this.temp >= LEAST)
    windows = kept.windowby(kept.ts, window=pw.temporal.tumbling(duration=WINDOW_MS), instance=kept.device)
    means = windows.reduce(
        window_start=pw.this._pw_window_start, device=pw.this._pw_instance,
        mean=pw.reducers.avg(pw.this.temp), n=pw.reducers.count(),
    )  # fmt: skip
    pw.io.csv.write(means, task.out.with_suffix(".csv"))
    tell("first", 0)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    tell("last", task.records)


if __name__ == "__main__":
    main()
