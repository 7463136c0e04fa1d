"""Tables: the last rows of a stream in memory, while the job runs and after it."""

from __future__ import annotations

import threading

import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tests.python.conftest import Numbers
from tidemill.testing import ManualClock, ScriptedSource


def test_a_table_has_the_rows_of_all_batches_in_every_form(source: ScriptedSource) -> None:
    source.push(0, [b'{"x": 1}', b'{"x": 2}', b'{"x": null}'])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
    ctx.scripted(source, format=tm.Json({"x": "float64"})).to_table("all")
    ctx.run()
    table = ctx.table("all")
    assert (len(table), table.num_rows, table.delivered_rows, table.columns) == (3, 3, 3, ["x"])
    assert table.to_pyarrow()["x"].to_pylist() == [1.0, 2.0, None]
    assert table.to_pandas()["x"].tolist()[:2] == [1.0, 2.0]
    assert table.to_polars()["x"].to_list() == [1.0, 2.0, None]
    assert pl.DataFrame(table).shape == pa.table(table).shape == (3, 1)
    assert table["x"][0] == 1.0
    assert "3 rows" in repr(table)
    assert "<td>2.0</td>" in table._repr_html_()


def test_the_oldest_rows_are_pushed_out_and_the_table_says_so(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    numbers(*range(100)).to_table("last", max_rows=3)
    drained.run()
    table = drained.table("last")
    assert (len(table), table.delivered_rows) == (3, 100)
    assert table["x"].tolist() == [95.0, 97.0, 99.0]
    assert repr(table).startswith("Table: the last 3 of 100 rows of ")


def test_without_a_bound_all_rows_are_kept(numbers: Numbers, drained: tm.StreamingContext) -> None:
    stream = numbers(*range(20_000))
    stream.to_table("all", max_rows=None)
    stream.to_table("some")
    drained.run()
    assert sorted(drained.table("all")["x"]) == list(range(20_000))
    assert len(drained.table("some")) == 10_000


def test_a_table_may_be_asked_for_before_during_and_after_a_run(
    source: ScriptedSource, clock: ManualClock
) -> None:
    ctx = tm.StreamingContext("1s", clock=clock)
    stream = ctx.scripted(source, format=tm.Json({"x": "float64"}))
    completed = threading.Semaphore(0)
    ctx.listeners.append(lambda event: completed.release() if event.kind == "completed" else None)
    stream.to_table("numbers")
    before = ctx.table("numbers")
    assert (before.columns, len(before)) == (["x"], 0)
    with ctx:
        ctx.start()
        for value in (1, 2):
            source.push(0, [b'{"x": %d}' % value])
            clock.advance("1s")
            assert completed.acquire(timeout=30)
            assert ctx.table("numbers")["x"].tolist() == [1.0, 2.0][:value]
    assert len(before) == 0
    assert len(ctx.table("numbers")) == 2


def test_each_start_empties_the_table(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1, 2).to_table("numbers")
    for _ in range(2):
        drained.run()
        assert sorted(drained.table("numbers")["x"]) == [1.0, 2.0]


def test_a_name_that_is_not_there_is_answered_with_those_that_are(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    with pytest.raises(tm.ConfigError, match=r'no table "hot", nor any other.*to_table\("hot"\)'):
        drained.table("hot")
    stream = numbers(1)
    stream.to_table("alerts")
    stream.to_table("means")
    with pytest.raises(tm.ConfigError, match=r'the tables are alerts, means.*did you mean "alerts"'):
        drained.table("alert")


def test_what_is_wrong_with_a_table_is_said_at_once(numbers: Numbers, drained: tm.StreamingContext) -> None:
    stream = numbers(1)
    stream.to_table("x")
    with pytest.raises(tm.ConfigError, match='has a table "x" already'):
        stream.filter("x > 1").to_table("x")
    for rows in (0, -1):
        with pytest.raises(tm.ConfigError, match=f"max_rows=1 or more, found {rows}.*None keeps all"):
            stream.to_table("y", max_rows=rows)
    with pytest.raises(tm.ConfigError, match='no table "y"'):
        drained.table("y")


def test_a_table_that_came_too_late_is_none(source: ScriptedSource) -> None:
    ctx = tm.StreamingContext()
    stream = ctx.scripted(source, format=tm.Raw())
    stream.to_table("first")
    with ctx:
        ctx.start()
        with pytest.raises(tm.ConfigError, match="is running"):
            stream.to_table("late")
        with pytest.raises(tm.ConfigError, match='no table "late"; the tables are first'):
            ctx.table("late")


def test_a_table_of_a_wrong_plan_says_what_is_wrong(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1).filter("y > 1").to_table("wrong")
    with pytest.raises(tm.SchemaError, match='"y"'):
        drained.table("wrong")
