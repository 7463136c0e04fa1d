"""Windows of streams that fall silent, or whose clocks are wrong: they close by themselves, whatever the outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

LIMIT_S = 30
READING = {"k": "string", "ts": "timestamp[ms]"}
START_MS = 1_000_000_000_000


def reading(key: str, ts: int | None) -> bytes:
    return json.dumps({"k": key, "ts": ts}).encode()


def first_window(source: ScriptedSource, **trigger: Any) -> list[dict[str, Any]]:
    """The rows of the first batch of windows that close; the stream runs by the real clock."""
    ctx = tm.StreamingContext(**trigger)
    readings = ctx.scripted(
        source, format=tm.Json(READING), event_time="ts", watermark="0s", idle_timeout="300ms"
    )
    rows: list[dict[str, Any]] = []
    closed = Event()

    def keep(batch: tm.Batch) -> None:
        rows.extend(batch.to_pyarrow().to_pylist())
        closed.set()

    readings.window("1s", on="ts").group_by("k").agg(n=tm.count()).foreach_batch(keep)
    with ctx:
        ctx.start()
        assert closed.wait(LIMIT_S), ctx.progress
        ctx.stop()
    assert ctx.progress is not None
    assert ctx.progress.open_windows == 0
    return rows


def counts(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted((row["k"], row["n"]) for row in rows)


TRIGGERS: list[Callable[[], dict[str, Any]]] = [
    lambda: {"batch_interval": "100ms"},
    lambda: {"trigger": tm.as_soon_as_possible()},
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=["interval", "as soon as possible"])
def test_the_last_window_closes_by_itself_where_no_output_asks_for_empty_batches(
    trigger: Callable[[], dict[str, Any]],
) -> None:
    source = ScriptedSource(partitions=2)
    source.push(0, [reading("a", START_MS)])
    source.push(1, [reading("b", START_MS + 100)])
    assert counts(first_window(source, **trigger())) == [("a", 1), ("b", 1)]


def test_so_it_does_where_another_partition_never_had_a_record() -> None:
    source = ScriptedSource(partitions=2)
    source.push(0, [reading("a", START_MS)])
    assert counts(first_window(source, batch_interval="100ms")) == [("a", 1)]


@pytest.mark.parametrize("time", [None, 9_000_000_000_000], ids=["without time", "a clock far ahead"])
def test_so_it_does_where_another_partition_tells_no_time_that_can_be_believed(time: int | None) -> None:
    source = ScriptedSource(partitions=2)
    source.push(0, [reading("a", START_MS)])
    source.push(1, [reading("b", time)])
    assert counts(first_window(source, batch_interval="100ms")) == [("a", 1)]
