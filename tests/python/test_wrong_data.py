"""Nothing is silent about data that is not what the job says: one warning, before anybody misses a result."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from threading import Event as Signal
from typing import Any

import pytest

import tidemill as tm
from tests.python.test_logging import hearing
from tidemill import col
from tidemill.testing import ScriptedSource

LIMIT_S = 30
NOW_S = 1_732_233_600


def lines(records: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


@pytest.fixture
def warnings() -> Iterator[Callable[[str], str]]:
    """Waits for the one warning that contains a text, and gives it."""
    with hearing("tidemill", logging.WARNING) as heard:

        def wait(text: str) -> str:
            heard.wait_for(lambda record: text in record.getMessage())
            found = [r.getMessage() for r in heard.records if text in r.getMessage()]
            assert len(found) == 1, found
            return found[0]

        yield wait


def test_a_misspelt_column_is_a_warning_that_names_the_key_that_was_meant(
    source: ScriptedSource, drained: tm.StreamingContext, warnings: Callable[[str], str]
) -> None:
    kinds = []
    drained.listeners.append(lambda event: kinds.append(event.kind))
    for partition in range(2):
        source.push(partition, lines([{"device": "a", "temperature": n} for n in range(5)]))
    stream = drained.scripted(
        source, format=tm.Json({"device": "string", "temprature": "float64"}), name="plant"
    )
    stream.foreach_batch(lambda batch: None)
    drained.run()
    text = warnings("temprature")
    assert 'no record so far (10 looked at) has the column "temprature"' in text
    assert text.endswith('did you mean "temperature"? (source plant)')
    assert kinds.count("warning") == 1


def test_a_column_that_nobody_reads_is_no_matter(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    source.push(0, lines([{"device": "a", "temperature": 1}] * 2_000))
    stream = drained.scripted(source, format=tm.Json({"device": "string", "temprature": "float64"}))
    stream.select("device").foreach_batch(lambda batch: None)
    with hearing("tidemill", logging.WARNING) as heard:
        drained.run()
    assert heard.records == []


def test_seconds_declared_as_milliseconds_are_a_warning_with_the_unit_that_fits(
    source: ScriptedSource, drained: tm.StreamingContext, warnings: Callable[[str], str]
) -> None:
    source.push(0, lines([{"ts": int(time.time())}]))
    stream = drained.scripted(source, format=tm.Json({"ts": "timestamp[ms]"}), event_time="ts")
    stream.foreach_batch(lambda batch: None)
    drained.run()
    text = warnings("1970")
    assert 'it looks like seconds: declare "ts" as "timestamp[s]"' in text


def test_milliseconds_declared_as_seconds_are_a_warning_beside_the_count(
    source: ScriptedSource, drained: tm.StreamingContext, warnings: Callable[[str], str]
) -> None:
    source.push(0, lines([{"ts": int(time.time() * 1000)}]))
    stream = drained.scripted(source, format=tm.Json({"ts": "timestamp[s]"}), event_time="ts")
    stream.foreach_batch(lambda batch: None)
    drained.run()
    assert 'declare "ts" as "timestamp[ms]"' in warnings("max_future")
    assert drained.progress is not None
    assert drained.progress.totals.future == 1


class TestSecondsWithAFraction:
    """What ``time.time()`` writes."""

    def test_date_unit_makes_exact_microseconds_of_them(
        self, source: ScriptedSource, drained: tm.StreamingContext
    ) -> None:
        source.push(
            0,
            [b'{"t": 1732233600.123456}', b'{"t": 1732233600}', b'{"t": -0.0000005}', b'{"t": "2024-11-22"}'],
        )
        stream = drained.scripted(
            source, format=tm.Json({"t": "timestamp[us]"}, date_unit="s"), event_time="t"
        )
        (batch,) = stream
        ticks = batch.to_pyarrow().column("t").cast("int64").to_pylist()
        assert ticks == [NOW_S * 1_000_000 + 123_456, NOW_S * 1_000_000, -1, NOW_S * 1_000_000]

    def test_they_can_be_the_time_of_windows(
        self, source: ScriptedSource, drained: tm.StreamingContext
    ) -> None:
        now = float(NOW_S)
        source.push(0, lines([{"t": now + 0.25}, {"t": now + 0.75}, {"t": now + 1.5}]))
        stream = drained.scripted(
            source, format=tm.Json({"t": "timestamp[us]"}, date_unit="s"), event_time="t"
        )
        windows = stream.with_columns(k=tm.lit(1)).window("1s", on="t").group_by("k").agg(n=tm.count())
        rows = [row for batch in windows for row in batch.to_pyarrow().to_pylist()]
        assert sorted((row["window_start"], row["n"]) for row in rows) == [
            (datetime(2024, 11, 22), 2),
            (datetime(2024, 11, 22, 0, 0, 1), 1),
        ]

    def test_a_column_of_whole_seconds_refuses_them_and_says_what_to_declare(
        self, source: ScriptedSource, drained: tm.StreamingContext
    ) -> None:
        source.push(0, [b'{"t": 1732233600.5}'])
        drained.scripted(source, format=tm.Json({"t": "timestamp[s]"})).foreach_batch(lambda batch: None)
        with pytest.raises(tm.DataError, match=r'declare timestamp\[us\] and pass date_unit="s" to tm.Json'):
            drained.run()

    def test_a_fraction_of_a_finer_unit_is_rounded_down(
        self, source: ScriptedSource, drained: tm.StreamingContext
    ) -> None:
        source.push(0, [b'{"t": 1732233600123.9}', b'{"t": -0.5}'])
        (batch,) = drained.scripted(source, format=tm.Json({"t": "timestamp[ms]"}))
        assert batch.to_pyarrow().column("t").cast("int64").to_pylist() == [NOW_S * 1_000 + 123, -1]

    def test_what_date_unit_takes_is_told(self) -> None:
        with pytest.raises(tm.ConfigError, match='date_unit is "s", "ms", "us" or "ns", found "sec"'):
            tm.Json({"t": "timestamp[us]"}, date_unit="sec")  # type: ignore[arg-type]
        with pytest.raises(tm.ConfigError, match="needs a schema"):
            tm.Json(date_unit="s")
        assert (
            repr(tm.Json({"t": "timestamp[us]"}, date_unit="s"))
            == 'Json({"t": "timestamp[us]"}, date_unit="s")'
        )


def test_a_clock_that_is_behind_alone_on_its_partition_is_a_warning(warnings: Callable[[str], str]) -> None:
    source = ScriptedSource("fleet", 2)
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    format = tm.Json({"ts": "timestamp[ms]"})  # noqa: A001
    stream = ctx.scripted(source, format=format, event_time="ts", watermark="1s", idle_timeout=None)
    delivered = Signal()
    stream.foreach_batch(lambda batch: delivered.set())
    with ctx:
        ctx.start()
        for partition, second in [(0, 7_200), (1, 0), (1, 1), (1, 2)]:
            delivered.clear()
            source.push(partition, lines([{"ts": (NOW_S + second) * 1_000}]))
            assert delivered.wait(LIMIT_S)
        text = warnings("the watermark waits for")
    assert 'topic "fleet", partition 1, whose records keep coming with old times' in text
    assert "119 min later" in text


def test_values_that_are_no_numbers_are_a_warning_of_the_detector(
    source: ScriptedSource, drained: tm.StreamingContext, warnings: Callable[[str], str]
) -> None:
    source.push(0, lines([{"k": "a", "x": n} for n in range(5)]))
    stream = drained.scripted(source, format=tm.Json({"k": "string", "x": "float64"}))
    stream = stream.with_columns(log=col("x").ln()).key_by("k").detect("log", tm.ml.Ewma())
    stream.foreach_batch(lambda batch: None)
    drained.run()
    text = warnings("NaN")
    assert "of 5 values of log 1 are NaN or infinite" in text
    assert "detect" in text


class TestNull:
    """A comparison with null is true for no row, whatever was meant."""

    def test_equals_none_in_python_asks_whether_it_is_null(self) -> None:
        assert str(col("x") == None) == "x IS NULL"  # noqa: E711
        assert str(col("x") != None) == "x IS NOT NULL"  # noqa: E711

    @pytest.mark.parametrize(
        "condition",
        [
            col("x") == tm.lit(None),
            col("x") > None,
            col("x").is_in([1.0, None]),
            ~col("x").is_in([None]),
            col("x").between(None, 2),
            tm.sql_expr("x = NULL"),
            tm.sql_expr("x <> NULL"),
            tm.sql_expr("x NOT IN (1, NULL)"),
        ],
        ids=str,
    )
    def test_any_other_comparison_is_refused_with_the_way_out(
        self, source: ScriptedSource, drained: tm.StreamingContext, condition: tm.Expr
    ) -> None:
        stream = drained.scripted(source, format=tm.Json({"x": "float64"})).filter(condition)
        stream.foreach_batch(lambda batch: None)
        with pytest.raises(tm.SchemaError, match=r"nothing equals null.*\.is_null\(\)"):
            drained.run()
