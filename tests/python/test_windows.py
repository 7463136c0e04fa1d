"""Aggregates and windows of event time, over a scripted source and against a plain model."""

from __future__ import annotations

import json
import math
import queue
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from tests.python.watermark_model import watermarks
from tests.python.window_model import Answer, Plan, Row, Shape, answer
from tidemill import col
from tidemill.testing import ManualClock, ScriptedSource

FORMAT = tm.Json({"k": "string", "ts": "timestamp[ms]", "v": "int64"})
YEAR = 365 * 86_400_000
FAR = 300 * YEAR


def filled(rows: Sequence[Sequence[Row]]) -> ScriptedSource:
    """A source of these rows of each partition."""
    source = ScriptedSource(partitions=len(rows))
    for partition, own in enumerate(rows):
        source.push(partition, [json.dumps({"k": k, "ts": ts, "v": v}).encode() for k, ts, v in own])
    return source


def windowed(stream: tm.DStream, shape: Shape, emit: Any = "final") -> tm.AggregatedStream:
    """The aggregates of the model's results."""
    windows = stream.window(
        shape.length / 1000, shape.slide / 1000, on="ts", offset=shape.offset / 1000, emit=emit
    )
    v = col("v")
    return windows.group_by("k").agg(
        n=tm.count(),
        sum=v.sum(),
        mean=v.mean(),
        low=v.min(),
        high=v.max(),
        positive=tm.count().filter(v > 0),
        won=v.sum().filter("v > 0"),
        mixed=tm.aggregate("bit_xor", v).filter(v > 0),
    )


def millis(moment: datetime) -> int:
    """Rounded: a time in seconds has no exact milliseconds."""
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def hour_ahead(progress: tm.Progress) -> int:
    """The latest event time that is believed."""
    return millis(progress.batch_time) + 3_600_000


class Job:
    """A job that runs to its end, with the plans that it made and what each batch emitted."""

    def __init__(
        self, rows: Sequence[Sequence[Row]], shape: Shape, *, delay: int = 0, **options: Any
    ) -> None:
        max_records = options.pop("max_records", 100)
        self._times, self._delay = [[ts for _, ts, _ in own] for own in rows], delay
        self.ctx = tm.StreamingContext(trigger=tm.available_now(max_records=max_records), **options)
        stream = self.ctx.scripted(filled(rows), format=FORMAT, event_time="ts", watermark=delay / 1000)
        self.emitted: dict[str, dict[int, list[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(list))
        final, updates = windowed(stream, shape), windowed(stream, shape, "updates")
        for name, output in (("final", final), ("updates", updates), ("late", final.late)):
            output.foreach_batch(self._into(name))
        self.progress: list[tm.Progress] = []
        self.ctx.listeners.append(self._hear)

    def _into(self, name: str) -> Any:
        def take(batch: tm.Batch) -> None:
            for row in batch.to_pyarrow().to_pylist():
                values = (millis(value) if isinstance(value, datetime) else value for value in row.values())
                self.emitted[name][batch.id].append(tuple(values))

        return take

    def _hear(self, event: tm.Event) -> None:
        if event.progress is not None:
            self.progress.append(event.progress)

    def run(self) -> list[Plan]:
        """Runs; the plans of the batches, of which the last closes all windows."""
        self.ctx.run()
        batches = [(hour_ahead(one), self._ranges(one)) for one in self.progress]
        found = [one.watermark and millis(one.watermark) for one in self.progress]
        assert found == watermarks(self._times, batches, self._delay)
        return [self._plan(one, one is self.progress[-1]) for one in self.progress]

    def _ranges(self, progress: tm.Progress) -> dict[int, tuple[int, int]]:
        return {partition: (start, until) for _, partition, start, until in progress.offset_ranges}

    def _plan(self, progress: tm.Progress, closes: bool) -> Plan:
        watermark = -math.inf if progress.watermark is None else millis(progress.watermark)
        return Plan(millis(progress.batch_time), self._ranges(progress), math.inf if closes else watermark)

    def found(self, name: str) -> list[list[tuple[Any, ...]]]:
        return [self.emitted[name][batch] for batch in range(len(self.progress))]


def same(found: list[list[tuple[Any, ...]]], expected: Sequence[Sequence[tuple[Any, ...]]]) -> None:
    assert [sorted(batch, key=repr) for batch in found] == [sorted(batch, key=repr) for batch in expected]


def check(job: Job, rows: Sequence[Sequence[Row]], shape: Shape) -> Answer:
    expected = answer(rows, job.run(), shape)
    same(job.found("final"), expected.final)
    same(job.found("updates"), expected.updates)
    same(job.found("late"), expected.late)
    return expected


ROW = st.tuples(
    st.sampled_from(["a", "b", "", None]),
    st.one_of(st.integers(-50, 200), st.integers(-50, 200), st.none(), st.just(80 * YEAR)),
    st.one_of(st.integers(-5, 5), st.none()),
)
ROWS = st.lists(st.lists(ROW, max_size=40), min_size=1, max_size=3)
SHAPES = st.sampled_from([Shape(10, 10), Shape(10, 5), Shape(30, 20, 7), Shape(100, 1), Shape(7, 3, 2)])


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, shape=SHAPES, delay=st.sampled_from([0, 5, 60]), max_records=st.integers(1, 50))
def test_windows_are_those_of_the_model(
    rows: list[list[Row]], shape: Shape, delay: int, max_records: int
) -> None:
    check(Job(rows, shape, delay=delay, max_records=max_records), rows, shape)


@settings(deadline=None, max_examples=15)
@given(rows=ROWS, shape=SHAPES, max_records=st.integers(1, 50))
def test_executors_and_threads_do_not_show(rows: list[list[Row]], shape: Shape, max_records: int) -> None:
    jobs = [
        Job(rows, shape, delay=5, max_records=max_records, executors=executors, threads=threads)
        for executors, threads in ((1, 1), (1, 8), (3, 2))
    ]
    for job in jobs:
        job.run()
    assert all(job.emitted == jobs[0].emitted for job in jobs)


def test_a_window_leaves_when_the_watermark_passes_its_end() -> None:
    rows: list[list[Row]] = [[("a", 1, 1), ("a", 9, 2), ("a", 14, 3), ("a", 15, 4), ("a", 31, 5)]]
    job = Job(rows, Shape(10, 10), delay=5, max_records=1)
    expected = check(job, rows, Shape(10, 10))
    assert [[row[:3] for row in batch] for batch in expected.final] == [
        [], [], [], [(0, 10, "a")], [(10, 20, "a"), (30, 40, "a")],
    ]  # fmt: skip


def test_late_rows_are_counted_and_kept_with_their_reason() -> None:
    rows: list[list[Row]] = [[("a", 100, 1), ("b", 1, 2), (None, None, 3), ("c", 80 * YEAR, 4)]]
    job = Job(rows, Shape(10, 10), max_records=1)
    check(job, rows, Shape(10, 10))
    assert [row for batch in job.found("late") for row in batch] == [
        ("b", 1, 2, "late"), (None, None, 3, "null"), ("c", 80 * YEAR, 4, "future"),
    ]  # fmt: skip
    # Two aggregations met the late row; the others are counted where they are decoded.
    assert sum(one.late for one in job.progress) == 2
    assert sum(one.without_time for one in job.progress) == 1
    assert sum(one.future for one in job.progress) == 1


def test_groups_of_a_batch_are_aggregated_by_several_keys_and_by_none() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(filled([[("a", 1, 1), ("a", 1, None)], [("a", 2, 3), (None, 1, 4)]]), format=FORMAT)
    by_two, of_all = [], []
    grouped = stream.group_by("k", "ts").agg(n=tm.count(), sum=col("v").sum())
    grouped.foreach_batch(lambda batch: by_two.extend(batch.to_pyarrow().to_pylist()))
    total = stream.group_by().agg((col("v").sum() / tm.count()).alias("share"), known=tm.count("v"))
    total.foreach_batch(lambda batch: of_all.extend(batch.to_pyarrow().to_pylist()))
    ctx.run()
    assert sorted((row["k"] or "", row["ts"].microsecond, row["n"], row["sum"]) for row in by_two) == [
        ("", 1000, 1, 4), ("a", 1000, 2, 1), ("a", 2000, 1, 3),
    ]  # fmt: skip
    assert of_all == [{"share": 2.0, "known": 3}]


def test_keys_may_be_expressions() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(filled([[("a", 1, 1), ("b", 1, 3), ("c", 1, 4)]]), format=FORMAT)
    odd = stream.group_by((col("v") % 2).alias("odd"), big=col("v") > 3).agg(n=tm.count())
    rows = [row for batch in odd for row in batch.to_pyarrow().to_pylist()]
    assert sorted((row["odd"], row["big"], row["n"]) for row in rows) == [(0, True, 1), (1, False, 2)]


def test_first_and_last_of_a_window_go_by_event_time() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    rows: list[list[Row]] = [[("a", 5, 1), ("a", 2, 2)], [("a", 9, 3), ("a", 1, 4), ("a", 9, 5)]]
    stream = ctx.scripted(filled(rows), format=FORMAT, event_time="ts")
    ends = stream.window("10ms", on="ts").agg(first=col("v").first(), last=col("v").last())
    assert [batch.to_pyarrow().select(["first", "last"]).to_pylist() for batch in ends] == [
        [{"first": 4, "last": 5}]
    ]


class TestFilter:
    """An aggregate with a condition of its own; that windows agree is held by the model."""

    def rows(self, **aggregates: tm.Expr) -> list[dict[str, Any]]:
        ctx = tm.StreamingContext(trigger=tm.available_now())
        values: list[list[Row]] = [[("a", 1, 5), ("a", 2, None), ("b", 3, 0)], [("a", 4, -2), (None, 5, 8)]]
        grouped = ctx.scripted(filled(values), format=FORMAT).group_by("k").agg(**aggregates)
        found = [row for batch in grouped for row in batch.to_pyarrow().to_pylist()]
        return sorted(found, key=lambda row: row["k"] or "")

    def test_null_counts_as_false_and_a_group_without_rows_stays(self) -> None:
        v = col("v")
        found = self.rows(n=tm.count().filter(v > 0), sum=v.sum().filter(v > 0), all=tm.count())
        assert found == [
            {"k": None, "n": 1, "sum": 8, "all": 1},
            {"k": "a", "n": 1, "sum": 5, "all": 3},
            {"k": "b", "n": 0, "sum": None, "all": 1},
        ]

    def test_a_condition_of_null_keeps_nothing(self) -> None:
        assert [row["n"] for row in self.rows(n=tm.count().filter(tm.lit(None)))] == [0, 0, 0]

    def test_aggregates_with_and_without_conditions_make_one_column(self) -> None:
        share = tm.count().filter(col("v") > 0) / tm.count()
        assert [row["share"] for row in self.rows(share=share)] == [1.0, 1 / 3, 0.0]

    def test_sql_text_says_the_same(self) -> None:
        python = self.rows(x=col("v").collect().filter(col("v") < 6), y=col("v").n_unique().filter("v < 6"))
        text = self.rows(
            x=tm.sql_expr("array_agg(v) FILTER (WHERE v < 6)"),
            y=tm.sql_expr("count(DISTINCT v) FILTER (WHERE v < 6)"),
        )
        assert text == python
        assert [row["x"] for row in python] == [None, [5, -2], [0]]

    def test_a_second_condition_narrows_the_first(self) -> None:
        assert str(col("v").sum().filter("v > 0").filter("k = 'a'")) == (
            "sum(v) FILTER (WHERE v > 0 AND k = 'a')"
        )
        assert [row["s"] for row in self.rows(s=col("v").sum().filter("v < 6").filter("v > 0"))] == [
            None, 5, None,
        ]  # fmt: skip

    def test_an_argument_is_computed_for_the_rows_that_pass_alone(self) -> None:
        found = self.rows(s=(40 // col("v")).sum().filter(col("v") != 0))
        assert [row["s"] for row in found] == [5, 8 - 20, None]

    def test_first_and_last_keep_the_order_of_event_time(self) -> None:
        ctx = tm.StreamingContext(trigger=tm.available_now())
        rows: list[list[Row]] = [[("a", 5, 1), ("a", 2, 2)], [("b", 9, 3), ("a", 1, 4), ("a", 7, 5)]]
        stream = ctx.scripted(filled(rows), format=FORMAT, event_time="ts")
        of_a = col("k") == "a"
        ends = stream.window("10ms", on="ts").agg(
            first=col("v").first().filter(of_a), last=col("v").last().filter(of_a)
        )
        assert [batch.to_pyarrow().select(["first", "last"]).to_pylist() for batch in ends] == [
            [{"first": 4, "last": 5}]
        ]

    @pytest.mark.parametrize(
        ("aggregate", "texts"),
        [
            (col("v").filter(col("v") > 0), ["found v", 'aggregate first, as in col("v").sum().filter(...)']),
            (col("v").filter(col("v") > 0).sum(), ['as in col("v").sum().filter(...)']),
            ((col("v") + 1).filter("v > 0"), ["found v + 1", "as in (v + 1).sum().filter(...)"]),
            (
                (col("v").sum() / tm.count()).filter("v > 0"),
                ["found sum(v) / count(*)", "a filter of its own"],
            ),
            (col("v").sum().filter(col("v")), ["condition (bool)", "int64", "sum(v) FILTER (WHERE v)"]),
            (col("v").sum().filter("w > 0"), ['no column "w"', "k, ts, v"]),
            (col("v").sum().filter(col("v") > col("v").mean()), ["sees one row", "aggregate in two steps"]),
            (tm.sql_expr("abs(v) FILTER (WHERE v > 0)"), ["only an aggregate has FILTER", "CASE WHEN"]),
            (tm.aggregate("summ", col("v")).filter("v > 0"), ["no aggregate summ", "did you mean sum?"]),
        ],
    )
    def test_a_mistake_is_told_with_its_mend(self, aggregate: tm.Expr, texts: list[str]) -> None:
        with pytest.raises(tm.TidemillError) as caught:
            self.rows(x=aggregate)
        assert all(text in str(caught.value) for text in texts), str(caught.value)
        assert "mistakes" not in str(caught.value)


def test_a_keyed_stream_of_windows_goes_on_to_a_detector_without_another_exchange() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(filled([[("a", 1, 1)]]), format=FORMAT, event_time="ts")
    means = stream.window("10ms", on="ts").group_by("k").agg(mean=col("v").mean())
    scored = means.key_by("k").detect("mean", tm.ml.Ewma())
    assert scored.explain().count("exchange by key group") == 2
    assert [batch.num_rows for batch in scored] == [1]


def test_a_quiet_device_has_its_last_window_closed_by_the_others() -> None:
    source, clock = ScriptedSource(partitions=2), ManualClock("2000s")
    ctx = tm.StreamingContext("1s", clock=clock)
    stream = ctx.scripted(
        source, format=FORMAT, event_time="ts", watermark="0s", idle_timeout="5s", starting="earliest"
    )
    closed: list[tm.Batch] = []
    windowed(stream, Shape(10_000, 10_000)).foreach_batch(closed.append)
    done: queue.Queue[tm.Progress] = queue.Queue()
    ctx.listeners.append(lambda event: done.put(event.progress) if event.progress else None)
    source.push(1, [b'{"k": "quiet", "ts": 2000, "v": 2}'])
    with ctx:
        ctx.start()
        for second in range(30):
            source.push(0, [json.dumps({"k": "loud", "ts": 3000 + second * 1000, "v": 1}).encode()])
            clock.advance("1s")
            progress = done.get(timeout=30)
            if closed:
                break
    # The quiet partition is at its end in the plans from the second on, and holds nobody after five seconds of them.
    assert second == 7
    assert progress.watermark == datetime.fromtimestamp(10, UTC)
    assert {row["k"] for row in closed[0].to_pyarrow().to_pylist()} == {"loud", "quiet"}


def test_windows_that_stay_open_at_the_end_are_counted_whatever_their_keys() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False))
    stream = ctx.scripted(filled([[("a", 1, 1), ("b", 1, 1)]]), format=FORMAT, event_time="ts")
    assert list(windowed(stream, Shape(10, 10))) == []
    assert ctx.progress is not None
    assert (ctx.progress.open_windows, ctx.progress.state_entries) == (1, 2)


@pytest.mark.parametrize(
    ("size", "granted"),
    [("20kB", 20_000), ("20 KiB", 20_480), ("0.02MB", 20_000), ("20000B", 20_000), (20_000, 20_000)],
)
def test_state_that_grows_without_end_is_a_named_error(size: str | int, granted: int) -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False), max_state_bytes=size)
    rows: list[list[Row]] = [[(f"device-{n}", 1, n) for n in range(1000)]]
    stream = ctx.scripted(filled(rows), format=FORMAT, event_time="ts")
    windowed(stream, Shape(10, 10)).foreach_batch(print)
    with pytest.raises(
        tm.MemoryLimitError,
        match=rf"max_state_bytes allows: [0-9.]+ KiB \({granted:,} bytes\); .*in agg, .*test_windows\.py:",
    ):
        ctx.run()


class TestComputedEventTime:
    """An event time that an expression computes is the same as one that is a column."""

    ROWS: Sequence[Sequence[Row]] = (
        [("a", 1_000, 1), ("b", 4_000, 2), ("a", 12_000, 3)],
        [("a", 30_000, 4), ("b", 2_000, 5), ("a", None, 6), ("b", FAR, 7), ("b", 61_000, 8)],
    )
    TEXT = tm.Json({"k": "string", "ts": "int64", "v": "int64"})

    def told(self, computed: bool, keep: str = "true") -> list[Any]:
        """Of each batch: the watermark, the counts, and the rows of the windows and of `.late`."""
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=2))
        if computed:
            stream = ctx.scripted(filled(self.ROWS), format=self.TEXT)
            stream = stream.with_event_time(col("ts").cast("timestamp[ms]").alias("ts"), "5s")
        else:
            stream = ctx.scripted(filled(self.ROWS), format=FORMAT, event_time="ts", watermark="5s")
        windows = stream.filter(keep).window("10s", "5s", on="ts").group_by("k").agg(v=col("v").sum())
        told: list[Any] = []
        windows.foreach_batch(lambda batch: told.append(batch.to_pyarrow().to_pylist()))
        windows.late.foreach_batch(lambda batch: told.append(batch.to_pyarrow().to_pylist()))
        ctx.listeners.append(lambda event: told.append(figures(event.progress)) if event.progress else None)
        ctx.run()
        return sorted(told, key=str)

    def test_windows_late_rows_and_watermarks_are_those_of_a_column(self) -> None:
        for keep in ("true", "v < 4"):
            assert self.told(computed=True, keep=keep) == self.told(computed=False, keep=keep)

    def test_the_watermark_goes_by_all_records_whatever_is_filtered(self) -> None:
        everything, some = (
            [told for told in self.told(True, keep) if isinstance(told, tuple)] for keep in ("true", "v = 1")
        )
        assert [told[0] for told in everything] == [told[0] for told in some]

    def test_without_a_name_it_is_event_time_and_what_cannot_be_converted_has_none(self) -> None:
        source = ScriptedSource(partitions=1)
        source.push(0, [b'{"at": "2026-11-21 10:00:03"}', b'{"at": "yesterday"}'])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        stream = ctx.scripted(source, format=tm.Json({"at": "string"}))
        stream = stream.with_event_time(col("at").str.to_datetime(strict=False))
        assert stream.columns == ["at", "event_time"]
        windows = stream.window("10s", on="event_time").agg(n=tm.count())
        windows.to_table("windows")
        windows.late.to_table("late")
        ctx.run()
        assert ctx.table("windows")["n"].tolist() == [1]
        assert ctx.table("late").to_polars().rows() == [("yesterday", None, "null")]

    def test_what_is_read_of_the_source_itself_has_no_such_column(self) -> None:
        source = ScriptedSource(partitions=1)
        source.push(0, [b'{"s": 7}'])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        stream = ctx.scripted(source, format=tm.Json({"s": "int64"}))
        stream.to_table("plain")
        timed = stream.with_event_time("to_timestamp_seconds(s) AS at", watermark="1s")
        timed.select("at").to_table("timed")
        assert "with_event_time at = to_timestamp_seconds(s) AS at, watermark 1s behind" in ctx.explain()
        ctx.run()
        assert ctx.table("plain").to_polars().columns == ["s"]
        assert ctx.table("timed").to_polars().rows() == [(datetime(1970, 1, 1, 0, 0, 7),)]
        assert reached(ctx) == 6_000

    def test_two_sources_wait_for_each_other_by_it(self) -> None:
        ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False))
        streams = []
        for name, last in (("fast", 100), ("slow", 20)):
            source = ScriptedSource(name, partitions=1)
            source.push(0, [b'{"s": 1}', b'{"s": %d}' % last])
            stream = ctx.scripted(source, format=tm.Json({"s": "int64"}))
            streams.append(stream.with_event_time("to_timestamp_seconds(s) AS ts"))
        both = streams[0].union(streams[1]).window("10s", on="ts").agg(n=tm.count())
        both.to_table("both")
        ctx.run()
        assert reached(ctx) == 20_000
        assert ctx.table("both")["n"].tolist() == [2]

    def test_a_time_that_cannot_be_computed_says_where(self) -> None:
        source = ScriptedSource("readings", partitions=1)
        source.push(0, [b'{"at": "yesterday"}'])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        stream = ctx.scripted(source, format=tm.Json({"at": "string"}))
        stream.with_event_time(col("at").str.to_datetime()).pprint()
        with pytest.raises(
            tm.DataError, match=r"strict=False.*\n?.*in with_event_time, .*test_windows.py"
        ) as found:
            ctx.run()
        assert "partition readings[0], offsets 0 to 0, batch 0" in str(found.value)

    def test_mistakes_are_told_before_start_with_all_others(self) -> None:
        ctx = tm.StreamingContext()
        stream = ctx.scripted(ScriptedSource(), format=self.TEXT)
        for wrong, text in [
            (stream.with_event_time(col("ts")), "ts is int64; convert it"),
            (stream.with_event_time(col("tss").cast("timestamp[ms]")), 'no column "tss"'),
            (
                stream.filter("v > 1").with_event_time(col("ts").cast("timestamp[ms]").alias("ts")),
                "made by filter; call it on what",
            ),
            (
                ctx.scripted(ScriptedSource(), format=FORMAT, event_time="ts").with_event_time(col("ts")),
                'has event_time="ts" already',
            ),
        ]:
            with pytest.raises(tm.TidemillError) as found:
                _ = wrong.filter("vv > 1").window("1s", on="ts").agg(n=tm.count()).columns
            assert str(found.value).startswith("2 mistakes")
            assert text in str(found.value)
            assert '"vv"' in str(found.value)
        ctx = tm.StreamingContext()
        stream = ctx.scripted(ScriptedSource(), format=self.TEXT)
        stream.with_event_time(col("ts").cast("timestamp[ms]")).pprint()
        other = stream.with_event_time(col("ts").cast("timestamp[s]"))
        assert other.columns[-1] == "event_time"
        other.pprint()
        with pytest.raises(tm.ConfigError, match="has an event time by with_event_time already"):
            ctx.explain()
        with pytest.raises(tm.ConfigError, match="takes an expression, found 3"):
            stream.with_event_time(3)  # type: ignore[arg-type]


def reached(ctx: tm.StreamingContext) -> int:
    """The watermark behind the last batch."""
    assert ctx.progress is not None
    assert ctx.progress.watermark is not None
    return millis(ctx.progress.watermark)


def figures(progress: tm.Progress) -> tuple[Any, ...]:
    counts = (progress.records, progress.late, progress.future, progress.without_time, progress.open_windows)
    return (progress.batch_id, str(progress.watermark), str(progress.watermark_holder), *counts)


class TestMistakes:
    """What is wrong with a window is told before anything runs."""

    def stream(self, **options: Any) -> tm.DStream:
        return tm.StreamingContext().scripted(ScriptedSource(), format=FORMAT, **options)

    def test_windows_need_the_event_time_of_the_source(self) -> None:
        with pytest.raises(tm.ConfigError, match="this stream has none; name it at the source"):
            _ = self.stream().window("10s", on="ts").agg(n=tm.count()).columns
        with pytest.raises(tm.ConfigError, match='which is "ts" here; pass on="ts"'):
            _ = self.stream(event_time="ts").window("10s", on="v").agg(n=tm.count()).columns
        with pytest.raises(tm.TidemillError, match='no column "time"'):
            _ = self.stream(event_time="ts").window("10s", on="time").agg(n=tm.count()).columns
        with pytest.raises(tm.ConfigError, match="needs on="):
            self.stream(event_time="ts").window("10s")

    def test_a_renamed_event_time_is_known_and_a_computed_one_is_not(self) -> None:
        stream = self.stream(event_time="ts")
        assert stream.rename({"ts": "t"}).window("1s", on="t").agg(n=tm.count()).columns[-1] == "n"
        assert stream.select(t="ts").window("1s", on="t").agg(n=tm.count()).columns[-1] == "n"
        changed = stream.with_columns(ts=tm.sql_expr("ts + interval '1 hour'"))
        with pytest.raises(tm.ConfigError, match="leave the column as it is"):
            _ = changed.window("1s", on="ts").agg(n=tm.count()).columns

    def test_windows_over_a_union_need_one_max_future(self) -> None:
        ctx = tm.StreamingContext()
        believing = {
            name: ctx.scripted(ScriptedSource(name), format=FORMAT, event_time="ts", max_future=name)
            for name in ("1h", "60m", "1d")
        }
        same, other = believing["1h"].union(believing["60m"]), believing["1h"].union(believing["1d"])
        assert same.window("1s", on="ts").agg(n=tm.count()).columns[-1] == "n"
        assert other.columns == ["k", "ts", "v"]
        with pytest.raises(tm.ConfigError, match=r"needs one max_future.*3600s and 86400s"):
            _ = other.window("1s", on="ts").agg(n=tm.count()).columns

    def test_lengths_are_checked(self) -> None:
        stream = self.stream(event_time="ts")
        for length, slide, text in [
            ("1s", "2s", "at most its length"),
            ("0s", None, "longer than zero"),
            ("1us", None, "whole number of ticks"),
            ("1h", "1ms", "at most 100,000 windows.* it would be in 3,600,000.*slide by 36ms or more"),
        ]:
            with pytest.raises(tm.ConfigError, match=text):
                _ = stream.window(length, slide, on="ts").agg(n=tm.count()).columns
        with pytest.raises(tm.ConfigError, match='emit is "final" or "updates"'):
            stream.window("1s", on="ts", emit="sometimes")  # type: ignore[arg-type]

    def test_what_agg_must_end_says_so(self) -> None:
        stream = self.stream(event_time="ts")
        windows = stream.window("1s", on="ts")
        for unended in (stream.group_by("k"), windows, windows.group_by("k")):
            for name in ("pprint", "filter", "columns"):
                with pytest.raises(AttributeError, match=rf"{name} is a stream's.*end it with \.agg\("):
                    getattr(unended, name)
            with pytest.raises(AttributeError, match="has no attribute 'pritn'"):
                unended.pritn  # type: ignore[union-attr]  # noqa: B018
            assert not hasattr(unended, "_native")

    def test_what_is_no_aggregate_is_answered_with_one(self) -> None:
        stream = self.stream(event_time="ts")
        for grouped in (stream.group_by("k"), stream.window("1s", on="ts").group_by("k")):
            with pytest.raises(tm.ConfigError, match=r"found \{'v': 'max'\}.*v=col\(\"v\"\)\.max\(\)"):
                grouped.agg({"v": "max"})  # type: ignore[arg-type]
            with pytest.raises(tm.ConfigError, match=r"found \{'n': 'total'\}.*n=col\(\"n\"\)\.sum\(\)"):
                grouped.agg({"n": "total"})  # type: ignore[arg-type]
            with pytest.raises(tm.ConfigError, match=r"found 5; .*n=col\(\"n\"\)\.sum\(\)"):
                grouped.agg(five=5)  # type: ignore[arg-type]

    def test_aggregates_and_columns_are_told_apart(self) -> None:
        grouped = self.stream().group_by("k")
        with pytest.raises(tm.ConfigError, match="at least one aggregate"):
            _ = grouped.agg().columns
        with pytest.raises(tm.TidemillError, match='"v"'):
            _ = grouped.agg(x=col("v") + col("v").sum()).columns
        with pytest.raises(tm.TidemillError, match=r"agg"):
            _ = self.stream().filter(col("v").sum() > 1).columns
        with pytest.raises(tm.TidemillError, match='did you mean "k"'):
            _ = self.stream().group_by("K").agg(n=tm.count()).columns
        with pytest.raises(tm.TidemillError, match="string"):
            _ = grouped.agg(x=col("k").sum()).columns

    def test_all_mistakes_of_one_aggregation_come_at_once(self) -> None:
        with pytest.raises(tm.TidemillError) as caught:
            _ = self.stream().group_by("kk").agg(a=col("k").sum(), b=col("w").mean()).columns
        text = str(caught.value)
        assert "3 mistakes" in text
        assert all(name in text for name in ('"kk"', "sum", '"w"'))


CHUNK = 16_384
"""So many rows are decoded and aggregated together."""


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7]),
    offset=st.sampled_from([0.0, 1e9, -1e9]),
    slide=st.sampled_from([1_000, 500]),
    max_records=st.sampled_from([5_000, 100_000]),
)
def test_floats_far_from_zero_are_aggregated_as_well_over_the_borders_of_chunks(
    seed: int, count: int, offset: float, slide: int, max_records: int
) -> None:
    """Sums within the bound that `Expr.sum` tells, and a variance that the offset does not swallow."""
    random = np.random.default_rng(seed)
    ts = np.sort(random.integers(0, 4_000, count))
    v = offset + random.standard_normal(count)
    source = ScriptedSource()
    source.push(
        0, [f'{{"ts": {t}, "v": {x!r}}}'.encode() for t, x in zip(ts.tolist(), v.tolist(), strict=True)]
    )
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=max_records))
    stream = ctx.scripted(source, format=tm.Json({"ts": "timestamp[ms]", "v": "float64"}), event_time="ts")
    windows = stream.with_columns(k=tm.lit(1)).window("1s", slide / 1000, on="ts").group_by("k")
    results = windows.agg(
        n=tm.count(),
        sum=col("v").sum(),
        mean=col("v").mean(),
        var=col("v").var(),
        low=col("v").min(),
        high=col("v").max(),
    )
    found = [row for batch in results for row in batch.to_pyarrow().to_pylist()]
    starts = [
        start for start in range(-1_000 + slide, 4_000, slide) if ((ts >= start) & (ts < start + 1_000)).any()
    ]
    assert sorted(millis(row["window_start"]) for row in found) == starts
    for row in found:
        start = millis(row["window_start"])
        own = v[(ts >= start) & (ts < start + 1_000)]
        exact = math.fsum(own)
        bound = len(own) * 2.0**-53 * math.fsum(np.abs(own))
        assert (row["n"], row["low"], row["high"]) == (len(own), own.min(), own.max())
        assert abs(row["sum"] - exact) <= bound
        assert abs(row["mean"] - exact / len(own)) <= bound / len(own) + abs(row["mean"]) * 2.0**-52
        assert row["var"] == pytest.approx(own.var(ddof=1), rel=1e-6)
