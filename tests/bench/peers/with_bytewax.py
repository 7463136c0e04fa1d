"""The job in Bytewax on two workers: orjson decodes, a batch a call, and event time alone closes windows.

It deliberately gives the clock no system time: in a replay that runs ahead of events, and would drop readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from bytewax.testing import TestingSink

from tests.bench.peers.task import LEAST, WINDOW_MS, Row, Steps, Task, begin, tell, write

BATCH = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Reading = tuple[float, int]
Sum = tuple[float, int]


def main() -> None:
    task = begin()
    closed: list[Any] = []
    cli_main(_flow(task, closed), workers_per_process=2)
    tell("last", task.records)
    write(task, map(_row, closed))


def _flow(task: Task, closed: list[Any]) -> Dataflow:
    flow = Dataflow("job")
    source = KafkaSource([task.broker], [task.topic], tail=False, batch_size=BATCH)
    messages = op.input("in", flow, source)
    steps = Steps(task.records)

    def decode(batch: list[Any]) -> Iterator[tuple[str, Reading]]:
        steps.passed(len(batch))
        for message in batch:
            reading = orjson.loads(message.value)
            if reading["temp"] >= LEAST:
                yield reading["device"], (reading["temp"], reading["ts"])

    kept = op.flat_map_batch("decode", messages, decode)
    windows = win.fold_window(
        "mean", kept, _clock(task), win.TumblingWindower(length=timedelta(milliseconds=WINDOW_MS), align_to=EPOCH),
        lambda: (0.0, 0), _fold, _merge, ordered=False,
    )  # fmt: skip
    op.output("out", windows.down, TestingSink(closed))
    return flow


def _clock(task: Task) -> win.EventClock[Reading]:
    now = datetime.now(UTC)
    return win.EventClock(
        lambda reading: datetime.fromtimestamp(reading[1] / 1000, UTC), timedelta(milliseconds=task.late_ms),
        now_getter=lambda: now, to_system_utc=lambda _time: None,
    )  # fmt: skip


def _fold(so_far: Sum, reading: Reading) -> Sum:
    return so_far[0] + reading[0], so_far[1] + 1


def _merge(a: Sum, b: Sum) -> Sum:
    return a[0] + b[0], a[1] + b[1]


def _row(closed: tuple[str, tuple[int, Sum]]) -> Row:
    """A window's number is its distance from the alignment, here the epoch, in windows."""
    device, (window, (total, count)) = closed
    return window * WINDOW_MS, device, total / count, count


if __name__ == "__main__":
    main()
