"""The figures of a job: those of the last batch, and the totals since the start."""

from __future__ import annotations

import inspect
import json
import queue

import pytest

import tidemill as tm
from tidemill.testing import ManualClock, ScriptedSource

COUNTS = ("records", "bytes", "bad", "tombstones", "without_time", "future", "late", "output_rows")


def test_the_totals_are_the_sums_over_all_batches(source: ScriptedSource) -> None:
    moments = [60_000, 200_000, None, 61_000, 10**13, 62_000]
    records = [None if at == 62_000 else json.dumps({"ts": at}).encode() for at in moments]
    source.push(0, [*records, b"no JSON"])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1), clock=ManualClock(start=1_000.0))
    stream = ctx.scripted(
        source, format=tm.Json({"ts": "timestamp[ms]"}), event_time="ts", on_bad="drop", max_future="1d"
    )
    stream.window("10s", on="ts").agg(n=tm.count()).to_table("windows")
    seen: queue.SimpleQueue[tm.Event] = queue.SimpleQueue()
    ctx.listeners.append(seen.put)
    ctx.run()
    batches: list[tm.Progress] = []
    while (event := seen.get(timeout=30)).kind != "stopped":
        if event.progress is not None:
            batches.append(event.progress)
    assert ctx.progress is not None
    totals = ctx.progress.totals
    assert totals == batches[-1].totals
    assert [one.totals.batches for one in batches] == list(range(1, totals.batches + 1))
    for name in COUNTS:
        assert getattr(totals, name) == sum(getattr(one, name) for one in batches), name
    assert (totals.late, totals.future, totals.without_time, totals.bad, totals.tombstones) == (1, 1, 1, 1, 1)
    assert totals.records >= 6
    assert totals.output_rows == ctx.table("windows").num_rows > 0


def test_totals_begin_anew_at_each_start(source: ScriptedSource) -> None:
    source.push(0, [b"a", b"b"])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
    for _ in range(2):
        ctx.run()
        assert ctx.progress is not None
        assert (ctx.progress.totals.batches, ctx.progress.totals.records) == (2, 2)


def test_rates_are_of_what_arrived_and_of_what_was_worked_off(
    source: ScriptedSource, clock: ManualClock
) -> None:
    ctx = tm.StreamingContext("2s", clock=clock)
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
    completed: queue.SimpleQueue[tm.Progress] = queue.SimpleQueue()
    ctx.listeners.append(lambda event: completed.put(event.progress) if event.progress else None)
    with ctx:
        ctx.start()
        rates = []
        for records in (100, 50):
            source.push(0, [b"a"] * records)
            clock.advance("2s")
            progress = completed.get(timeout=30)
            rates.append(progress.input_rows_per_second)
            # The clock stands still while a batch is worked off: no time has passed, and no rate is told.
            assert progress.processed_rows_per_second == 0.0
    assert rates == pytest.approx([50.0, 25.0])


@pytest.mark.parametrize("kind", [tm.Progress, tm.Totals])
def test_the_documentation_lists_every_field(kind: type) -> None:
    doc = inspect.getdoc(kind) or ""
    fields = [name for name in dir(kind) if not name.startswith("_")]
    assert len(fields) > 8
    assert [name for name in fields if f"`{name}`" not in doc] == []


def test_totals_are_values(source: ScriptedSource) -> None:
    source.push(0, [b"a"])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
    ctx.run()
    assert ctx.progress is not None
    assert ctx.progress.totals == ctx.progress.totals
    assert repr(ctx.progress.totals) == "Totals(1 batches, 1 records, 1 output rows)"
