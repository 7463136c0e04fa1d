"""Windows that overlap a great deal, against a plain model: floats, lists, many panes and rows, and what they cost."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from tests.python.window_model import Shape
from tidemill import col
from tidemill.testing import ScriptedSource

FORMAT = tm.Json({"k": "string", "ts": "timestamp[ms]", "v": "float64"})

Row = tuple[str, int, float | None]
Found = dict[tuple[int, int, str], dict[str, Any]]
"""The results of each window and key."""


def millis(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def stream_of(ctx: tm.StreamingContext, rows: Sequence[Sequence[Row]], delay: int = 0) -> tm.DStream:
    source = ScriptedSource(partitions=len(rows))
    for partition, own in enumerate(rows):
        source.push(partition, [json.dumps({"k": k, "ts": ts, "v": v}).encode() for k, ts, v in own])
    return ctx.scripted(source, format=FORMAT, event_time="ts", watermark=delay / 1000)


def windows(stream: tm.DStream, shape: Shape, emit: Any = "final") -> tm.GroupedWindows:
    return stream.window(
        shape.length / 1000, shape.slide / 1000, on="ts", offset=shape.offset / 1000, emit=emit
    ).group_by("k")


def aggregates(*, keep_values: bool) -> dict[str, tm.Expr]:
    """Those of floats; those that keep all values are put together pane by pane, and so are the others beside them."""
    v = col("v")
    kept = {"all": v.collect(), "median": tm.aggregate("median", v)} if keep_values else {}
    return kept | {
        "n": tm.count(),
        "sum": v.sum(),
        "mean": v.mean(),
        "var": v.var(),
        "sd": v.stddev(),
        "first": v.first(),
        "last": v.last(),
        "top": v.top_k(2),
    }


def expected(rows: Iterable[Row], shape: Shape) -> Found:
    """The same in Python, of rows of which none is late."""
    groups: dict[tuple[int, int, str], list[tuple[int, float | None]]] = defaultdict(list)
    for key, ts, value in rows:
        for window in shape.covering(ts):
            groups[(*window, key)].append((ts, value))
    return {group: _of(values) for group, values in groups.items()}


def _of(values: list[tuple[int, float | None]]) -> dict[str, Any]:
    plain = [value for _, value in values if value is not None]
    some = bool(plain)
    mean = math.fsum(plain) / len(plain) if some else 0.0
    var = math.fsum((value - mean) ** 2 for value in plain) / (len(plain) - 1) if len(plain) > 1 else None
    return {
        "all": [value for _, value in values],
        "median": statistics.median(plain) if some else None,
        "n": len(values),
        "sum": math.fsum(plain) if some else None,
        "mean": mean if some else None,
        "var": var,
        "sd": None if var is None else math.sqrt(var),
        "first": min(values, key=lambda pair: pair[0])[1],
        "last": max(reversed(values), key=lambda pair: pair[0])[1],
        "top": sorted(plain, reverse=True)[:2],
    }


class Job:
    """A job over these rows; its final results, and the last update of each window and key."""

    def __init__(
        self, rows: Sequence[Sequence[Row]], shape: Shape, columns: dict[str, tm.Expr], **options: Any
    ) -> None:
        delay = options.pop("delay", 0)
        trigger = tm.available_now(max_records=options.pop("max_records", 1_000_000))
        ctx = tm.StreamingContext(trigger=trigger, **options)
        stream = stream_of(ctx, rows, delay)
        self.final: Found = {}
        self.updated: Found = {}
        windows(stream, shape).agg(**columns).foreach_batch(lambda batch: self._take(batch, self.final))
        updates = windows(stream, shape, "updates").agg(**columns)
        updates.foreach_batch(lambda batch: self._take(batch, self.updated))
        self.progress: list[tm.Progress] = []
        ctx.listeners.append(lambda event: self.progress.append(event.progress) if event.progress else None)
        ctx.run()

    def _take(self, batch: tm.Batch, into: Found) -> None:
        for row in batch.to_pyarrow().to_pylist():
            window = (millis(row.pop("window_start")), millis(row.pop("window_end")), row.pop("k"))
            assert into is self.updated or window not in into, "a window leaves once"
            into[window] = row


def same(found: Found, wanted: Found) -> None:
    assert found.keys() == wanted.keys()
    for window, row in found.items():
        for name, value in row.items():
            assert alike(value, wanted[window][name]), (window, name, value, wanted[window][name])


def alike(value: Any, wanted: Any) -> bool:
    if isinstance(value, list):
        return sorted(value, key=repr) == sorted(wanted or [], key=repr)
    if isinstance(value, float):
        return wanted is not None and math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return bool(value == wanted) or (value is None and wanted == [])


ROWS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 400),
            st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.1, 0.2, None])),
        ),
        max_size=40,
    ),
    min_size=1,
    max_size=3,
)
SHAPES = st.sampled_from([Shape(10, 10), Shape(12, 5, 3), Shape(100, 1), Shape(140, 2, 1), Shape(65, 1)])


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, shape=SHAPES, cuts=st.tuples(st.integers(1, 60), st.integers(1, 60)), lists=st.booleans())
def test_floats_are_those_of_the_model_wherever_batches_are_cut(
    rows: list[list[Row]], shape: Shape, cuts: tuple[int, int], lists: bool
) -> None:
    # The watermark lags behind all rows, so that none is late and every cut must give the same windows.
    wanted = expected([row for own in rows for row in own], shape)
    jobs = [Job(rows, shape, aggregates(keep_values=lists), max_records=cut, delay=1_000) for cut in cuts]
    for job in jobs:
        ordered = {name for name in ("first", "last") if len(rows) > 1}  # ties go by batch, then partition
        for found in (job.final, job.updated):
            same(*(_without(side, ordered) for side in (found, wanted)))
    same(_without(jobs[0].final, {"first", "last"}), _without(jobs[1].final, {"first", "last"}))


def _without(found: Found, names: set[str]) -> Found:
    return {
        window: {name: value for name, value in row.items() if name not in names}
        for window, row in found.items()
    }


@settings(deadline=None, max_examples=20)
@given(rows=ROWS, max_records=st.integers(1, 30), delay=st.sampled_from([0, 40]))
def test_the_last_update_of_a_window_is_its_final_row_also_of_rows_older_than_the_watermark(
    rows: list[list[Row]], max_records: int, delay: int
) -> None:
    job = Job(rows, Shape(100, 1), aggregates(keep_values=False), max_records=max_records, delay=delay)
    assert job.updated.keys() == job.final.keys()
    for window, row in job.final.items():
        assert repr(row) == repr(job.updated[window])  # the same bits


def test_more_rows_than_a_chunk_in_one_partition_and_more_panes_than_few() -> None:
    pick = random.Random(5)
    rows: list[list[Row]] = [
        [(pick.choice("abc"), n // 40, pick.random()) for n in range(count)] for count in (20_000, 17_000, 3)
    ]
    shape = Shape(130, 2)
    job = Job(rows, shape, aggregates(keep_values=False), delay=1_000)
    wanted = expected([row for own in rows for row in own], shape)
    same(_without(job.final, {"first", "last"}), _without(wanted, {"first", "last"}))
    same(job.updated, job.final)


class TestCost:
    """What windows of many panes hold, and how it is told."""

    def last(self, rows: Sequence[Row], shape: Shape, emit: Any = "final") -> tm.Progress:
        ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False))
        windows(stream_of(ctx, [rows]), shape, emit).agg(n=tm.count()).foreach_batch(lambda batch: None)
        ctx.run()
        assert ctx.progress is not None
        return ctx.progress

    @pytest.mark.parametrize("emit", ["final", "updates"])
    def test_open_windows_are_counted_each_once_and_states_each_by_pane_and_key(self, emit: Any) -> None:
        one = self.last([("a", 0, 1.0)], Shape(10, 1), emit)
        assert (one.open_windows, one.state_entries) == (10, 1)
        many = self.last([(f"device-{n}", 0, 1.0) for n in range(100)], Shape(10, 1), emit)
        assert (many.open_windows, many.state_entries) == (10, 100)
        gap = self.last([("a", 0, 1.0), ("b", 1, 1.0), ("a", 5, 1.0)], Shape(10, 1), emit)
        assert (gap.open_windows, gap.state_entries) == (15 - 5, 3)  # W is 5 ms

    def test_keys_that_come_rarely_cost_what_they_have_and_not_a_state_in_every_pane(self) -> None:
        keys, length = 2_000, 1_000
        rows = [(f"device-{n}", n * length // keys, 1.0) for n in range(int(keys * 1.3))]
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=100, close_windows=False))
        windows(stream_of(ctx, [rows]), Shape(length, 1)).agg(n=tm.count()).foreach_batch(lambda batch: None)
        sizes: list[tuple[int, int]] = []
        ctx.listeners.append(
            lambda event: (
                sizes.append((event.progress.state_bytes, event.progress.state_entries))
                if event.progress
                else None
            )
        )
        ctx.run()
        unclosed = max(size for size, entries in sizes if entries < keys)
        assert max(size for size, _ in sizes) < 4 * unclosed

    def test_results_are_asked_for_in_pieces_and_a_filter_behind_lets_them_go(self) -> None:
        rows: list[Row] = [(f"device-{n}", n % 100, 1.0) for n in range(2_000)]
        for kept, fits in ((0, False), (5, True)):
            ctx = tm.StreamingContext(trigger=tm.available_now(), max_memory="16MB")
            counts = windows(stream_of(ctx, [rows]), Shape(500, 1)).agg(n=tm.count())
            counts.filter(col("n") > kept).foreach_batch(lambda batch: None)
            if fits:
                ctx.run()
                continue
            with pytest.raises(
                tm.MemoryLimitError, match=r"the results of windows.*a filter or a projection.*in agg"
            ):
                ctx.run()


def test_a_time_before_all_windows_is_late_and_in_none() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    least = -(2**63)
    stream = stream_of(ctx, [[("a", least, 1.0), ("a", least + 9, 1.0), ("a", 5, 1.0)]])
    counted = windows(stream, Shape(10, 5)).agg(n=tm.count())
    found, late = [], []
    counted.foreach_batch(lambda batch: found.extend(batch.to_pyarrow()["n"].to_pylist()))
    counted.late.foreach_batch(lambda batch: late.extend(batch.to_pyarrow()["late_reason"].to_pylist()))
    ctx.run()
    assert (found, late) == ([1, 1], ["late", "late"])
