"""The job in Quix Streams: windows of a partition close with the partition's event time.

It deliberately keeps no changelog topic, as tidemill keeps no checkpoint in this job: state is in RocksDB alone. The
records' keys must be the devices: another key would send every record through Kafka once more.
"""

from __future__ import annotations

import tempfile
import uuid
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Count, Mean

from tests.bench.peers.task import LEAST, WINDOW_MS, Row, Steps, Task, begin, tell, write


def main() -> None:
    task = begin()
    closed: list[Row] = []
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            task.broker, consumer_group=f"bench-{uuid.uuid4().hex}", auto_offset_reset="earliest",
            state_dir=state, use_changelog_topics=False, loglevel="WARNING",
        )  # fmt: skip
        _define(app, task, closed)
        app.run()
        tell("last", task.records)
    write(task, closed)


def _define(app: Application, task: Task, closed: list[Row]) -> None:
    steps = Steps(task.records)

    def keep(reading: Any) -> bool:
        if steps.passed():
            app.stop()  # once this record is processed
        return bool(reading["temp"] >= LEAST)

    def collect(window: Any, key: Any, _timestamp: int, _headers: Any) -> None:
        closed.append((window["start"], key, window["mean"], window["n"]))

    topic = app.topic(
        task.topic, key_deserializer="str", value_deserializer="json",
        timestamp_extractor=lambda value, _headers, _timestamp, _type: value["ts"],
    )  # fmt: skip
    kept = app.dataframe(topic).filter(keep)
    windows = kept.tumbling_window(timedelta(milliseconds=WINDOW_MS), timedelta(milliseconds=task.late_ms))
    means = windows.agg(mean=Mean("temp"), n=Count()).final(closing_strategy="partition")
    means.update(collect, metadata=True)


if __name__ == "__main__":
    main()
