"""What is said of whatever is written wrongly: what was expected, what was found, and what to do, before anything runs.

Pinned are the parts that somebody needs who has made the mistake, in tables: a line for each mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill import col
from tidemill.testing import ScriptedSource, batch

SCHEMA = {"device": "string", "ts": "timestamp[ms]", "t": "float64", "n": "int64"}
ROW = b'{"device": "a", "ts": 1000, "t": 1.5, "n": 2}'


NUMPY: Any = np
"""For what its types know to be wrong."""


def context(**settings: Any) -> tm.StreamingContext:
    return tm.StreamingContext(**settings)


def readings(**options: Any) -> Any:
    source = ScriptedSource("readings")
    source.push(0, [ROW])
    ctx = context(trigger=tm.available_now())
    return ctx.scripted(source, format=tm.Json(SCHEMA), event_time="ts", **options)


def kafka(ctx: tm.StreamingContext | None = None, **options: Any) -> tm.DStream:
    needed: dict[str, Any] = {"bootstrap_servers": "localhost:9092", "format": tm.Raw()}
    return (ctx or context()).kafka("readings", **(needed | options))


def ran(make: Callable[[tm.DStream], tm.DStream]) -> list[tm.Batch]:
    """The rows of a job over one reading."""
    return list(make(readings()))


def told(call: Callable[[], object]) -> str:
    with pytest.raises((tm.TidemillError, TypeError, AttributeError)) as found:
        call()
    return str(found.value)


# -- names of other libraries -----------------------------------------------------------------------------------


OWNERS: dict[str, Callable[[], object]] = {
    "ctx": context,
    "s": readings,
    "tm": lambda: tm,
    "tm.ml": lambda: tm.ml,
    "when": lambda: tm.when(col("t") > 3),
}


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        ("ctx", "readStream", "did you mean kafka?"),
        ("ctx", "awaitTermination", "did you mean await_termination?"),
        ("ctx", "awaitTerminationOrTimeout", "did you mean await_termination?"),
        ("ctx", "createDirectStream", "did you mean kafka?"),
        ("ctx", "addStreamingListener", "did you mean listeners?"),
        ("ctx", "close", "did you mean stop?"),
        ("ctx", "join", "did you mean await_termination?"),
        ("ctx", "socketTextStream", "Kafka is the only source so far"),
        (
            "ctx",
            "checkpoint",
            'a checkpoint is said when the context is made: StreamingContext(checkpoint="./checkpoint")',
        ),
        ("ctx", "sql", "whole SQL queries are not offered yet: filter() takes a condition in SQL"),
        ("ctx", "strat", "did you mean start?"),
        ("s", "subscribe", "did you mean foreach_batch?"),
        ("s", "join", "joins are not offered yet: union()"),
        ("s", "session_window", 'session windows are not offered yet: window("10s", on="ts")'),
        ("s", "sessionWindow", "session windows are not offered yet"),
        ("s", "mapWithState", "your own state by key is not offered yet"),
        ("s", "reduceByKey", "did you mean group_by?"),
        ("s", "flat_map", "functions of single rows are not offered yet"),
        ("s", "drop_duplicates", "finding duplicates is not offered yet"),
        ("s", "cache", "there is nothing to keep"),
        ("s", "t", 'tm.col("t") stands for the column in expressions'),
        ("tm", "SparkSession", "did you mean StreamingContext?"),
        ("tm", "read_stream", "did you mean StreamingContext(...).kafka?"),
        ("tm", "kafka", "did you mean StreamingContext(...).kafka?"),
        ("tm", "window", "did you mean stream.window?"),
        ("tm", "Trigger", "did you mean interval or as_soon_as_possible or available_now?"),
        ("tm", "avg", 'did you mean col("x").mean()?'),
        ("tm", "sum", 'did you mean col("x").sum()?'),
        ("tm", "upper", "did you mean functions.upper(...)?"),
        ("tm", "udf", "functions of single rows are not offered yet"),
        ("tm", "Avro", "this format is not offered yet: read the payload as it is, format=tm.Raw()"),
        ("tm.ml", "HalfSpaceTrees", "this detector is not offered yet: Ewma() is there"),
        ("when", "otherwise", "otherwise comes after a value: when(t > 3).then(value).otherwise(...)"),
    ],
)
def test_a_name_of_another_library_is_answered_with_ours(owner: str, name: str, said: str) -> None:
    assert said in told(lambda: getattr(OWNERS[owner](), name))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: kafka(startingOffsets="x"),
            "kafka() takes no argument 'startingOffsets'; did you mean starting?",
        ),
        (lambda: kafka(bootstrap_server="x"), "did you mean bootstrap_servers?"),
        (lambda: kafka(brokers="x"), "did you mean bootstrap_servers?"),
        (lambda: kafka(auto_offset_reset="x"), "did you mean starting?"),
        (lambda: kafka(groupId="x"), "did you mean group_id?"),
        (lambda: kafka(subscribe="x"), "did you mean topics?"),
        (lambda: kafka(failOnDataLoss=False), "did you mean on_data_loss?"),
        (lambda: kafka(valueFormat="json"), "did you mean format?"),
        (lambda: kafka(brokers="x", groupId="y"), "bootstrap_servers?; kafka() takes no argument 'groupId'"),
        (
            lambda: context(batchDuration="1s"),
            "StreamingContext() takes no argument 'batchDuration'; did you mean batch_interval",
        ),
        (lambda: context(appName="x"), "did you mean name?"),
        (lambda: context(checkpointLocation="x"), 'StreamingContext(checkpoint="./checkpoint")'),
        (lambda: context(num_workers=3), "several machines are not offered yet"),
        (
            lambda: context(frobnicate=3),
            "takes no argument 'frobnicate'; it takes batch_interval, trigger, name",
        ),
        (
            lambda: readings().window("1s", timeColumn="ts"),
            "window() takes no argument 'timeColumn'; did you mean on?",
        ),
        (lambda: readings().map_batches(func=print), "did you mean fn?"),
    ],
)
def test_so_is_the_name_of_an_argument(call: Callable[[], object], said: str) -> None:
    assert said in told(call)


def test_methods_show_their_own_arguments() -> None:
    import inspect

    assert "bootstrap_servers" in inspect.signature(tm.StreamingContext.kafka).parameters
    assert "batch_interval" in inspect.signature(tm.StreamingContext).parameters


# -- contexts and sources -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: context(batch_interval="1s", trigger=tm.available_now()),
            "either batch_interval or trigger is expected, found '1s'",
        ),
        (
            lambda: context(trigger=tm.available_now(), backpressure=tm.BackPressure()),
            "counts with an interval",
        ),
        (
            lambda: context(trigger=tm.as_soon_as_possible(), backpressure=tm.BackPressure()),
            "as_soon_as_possible()",
        ),
        (
            lambda: context(guarantee="exactly_once"),
            'needs a checkpoint, found none: pass checkpoint="./checkpoint"',
        ),
        (
            lambda: context(guarantee="foo"),
            'guarantee is "exactly_once" or "at_least_once", found \'foo\'',
        ),
        (lambda: context(executors="2"), "executors is a whole number from 1 to 1,024, found '2'"),
        (lambda: context(executors=1.5), "found 1.5"),
        (lambda: context(executors=True), "found True"),
        (lambda: context(executors=1025), "found 1025"),
        (lambda: context(threads=10**30), "threads is a whole number from 1 to 1,024, found 1000"),
        (
            lambda: context(batch_interval="1000000d"),
            'a duration of at most 300 years is expected, found "1000000d"',
        ),
        (lambda: context(batch_interval=1e20), "at most 300 years is expected, found 1e+20; check the unit"),
        (
            lambda: context(batch_interval=timedelta(days=-1)),
            "a duration is expected, found datetime.timedelta(days=-1)",
        ),
        (lambda: kafka(metadata="offset"), 'metadata is a list of names, found "offset"; pass ["offset"]'),
        (lambda: kafka(starting={0: -1}), "an offset is a whole number from 0 on, found -1 for 0"),
        (lambda: kafka(starting={0: "5"}), "an offset is a whole number from 0 on, found '5'"),
        (lambda: kafka(starting={-1: 5}), "a partition's number or (topic, number) is expected, found -1"),
        (
            lambda: kafka(bootstrap_servers="http://h:9092"),
            'one that begins with http:// in "http://h:9092"; brokers speak',
        ),
        (
            lambda: kafka(bootstrap_servers="h:99999"),
            'found the port "99999" in "h:99999"; a port is a number from 1 to 65535',
        ),
        (lambda: kafka(config={"security.protocol": "SASL_SSL"}), "no sasl.mechanism says how to log in"),
        (lambda: tm.Json({"ts": "timestamp"}), 'write it as, say, "timestamp[ms]" (column "ts")'),
        (lambda: col("x").cast("decimal"), 'write it as, say, "decimal(10, 2)"'),
        (lambda: context(name="fresh").await_termination(), "context 'fresh' has never been started"),
    ],
)
def test_a_wrong_setting_says_what_is_expected(call: Callable[[], object], said: str) -> None:
    assert said in told(call)


def test_what_is_right_is_let_through() -> None:
    context(batch_interval="1s", backpressure=tm.BackPressure())
    context(trigger=tm.interval("2s"), backpressure=tm.BackPressure(), executors=1024, threads=np.int64(2))
    kafka(starting={0: 0}, metadata=None, bootstrap_servers=["[::1]:9092", "SSL://h:9093"])


def test_a_second_start_says_what_to_do_first() -> None:
    ctx = context(name="twice")
    ctx.scripted(ScriptedSource(), format=tm.Raw()).to_table("rows")
    with ctx:
        ctx.start()
        said = told(ctx.start)
    assert 'the context "twice" is running; it was started before' in said
    assert "stop it first" in said


def test_a_topic_that_is_read_is_not_written_to_by_the_same_rows() -> None:
    ctx = context()
    stream = kafka(ctx, bootstrap_servers="a:1,b:2")
    stream.to_kafka("readings", format=tm.Raw(), bootstrap_servers="b:2")
    said = told(ctx.explain)
    assert 'to_kafka("readings") writes into the topic that its rows are read from' in said
    assert "test_texts.py" in said


def test_another_topic_or_cluster_is() -> None:
    ctx = context()
    stream = kafka(ctx)
    stream.to_kafka("copies", format=tm.Raw())
    stream.to_kafka("readings", format=tm.Raw(), bootstrap_servers="elsewhere:9092")
    ctx.scripted(ScriptedSource(), format=tm.Raw()).to_kafka(
        "readings", format=tm.Raw(), bootstrap_servers="localhost:9092"
    )
    assert "to_kafka(readings)" in ctx.explain()


# -- expressions ----------------------------------------------------------------------------------------------------


T = col("t")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (np.log(T), "ln(t)"),
        (np.log10(T), "log10(t)"),
        (np.absolute(T), "abs(t)"),
        (np.float64(3) * T, "3.0 * t"),
        (np.float64(3) > T, "3.0 > t"),
        (round(T), "round(t, 0)"),
        (round(T, 2), "round(t, 2)"),
        (math.floor(T), "floor(t)"),
        (math.ceil(T), "ceil(t)"),
        (math.trunc(T), "trunc(t)"),
        (T.cast(int), "CAST(t AS int64)"),
        (T.cast(float), "CAST(t AS float64)"),
        (T.cast(str), "CAST(t AS string)"),
        (T.cast(bool, strict=False), "TRY_CAST(t AS bool)"),
        (T.cast(date), "CAST(t AS date32)"),
        (T.cast(pa.timestamp("us", "UTC")), "CAST(t AS timestamp[us, UTC])"),
        (tm.lit(3, float), "CAST(3 AS float64)"),
        (tm.when("t > 3").then(1), "CASE WHEN t > 3 THEN 1 END"),
    ],
)
def test_what_python_and_numpy_write_is_an_expression(expression: tm.Expr, text: str) -> None:
    assert str(expression) == text


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: NUMPY.maximum(T, 3), "np.maximum takes numbers, found the expression t"),
        (lambda: math.sqrt(T), 'col("x").sqrt(), or in tm.functions'),
        (lambda: float(T), "cast(float) converts"),
        (lambda: int(T), "cast(int) converts"),
        (lambda: list(T), "has no rows to go through"),
        (lambda: T[0:2], "has no rows"),  # type: ignore[index]
        (lambda: T.cast(list), "cast() takes a type by its Arrow name, such as"),
        (lambda: T.cast(np.float32), "found <class 'numpy.float32'>"),
        (
            lambda: tm.when(T > 3, 5),
            "when() takes one condition, found 2 arguments; write when(t > 3).then(5)",
        ),
        (lambda: readings().select(x=tm.when(T > 3)), "<when(t > 3), which waits for .then(value)>"),
        (lambda: readings().select("t > 3").columns, 'tm.sql_expr("t > 3")'),
        (lambda: readings().with_columns(x="so hot").columns, 'text as it is tm.lit("so hot")'),
        (lambda: readings().drop(T), 'drop() takes the names of columns, found <Expr t>; write, say, "t"'),
        (lambda: readings().rename("t"), 'rename() takes {"old": "new"}, found \'t\''),
        (lambda: readings()["t"], 'tm.col("t") stands for the column'),
        (lambda: readings()[T > 3], "filter(t > 3) keeps the rows"),
        (lambda: readings()[["t", "n"]], "select('t', 'n') is the stream of these columns"),
        (lambda: readings().__setitem__("x", T), "stream.with_columns(x=...) is a new one"),
        (lambda: readings().filter("t > 3 & n > 4").columns, "two comparisons in a row, t > 3 & n > 4"),
        (lambda: readings().filter("1 < t < 3").columns, "x BETWEEN low AND high for low <= x <= high"),
        (lambda: readings().filter("(t > 3) & (n > 4)").columns, "conditions are joined by AND, found"),
        (lambda: readings().filter("(t > 3) | (n > 4)").columns, "write OR between them"),
        (lambda: readings().filter("(t > 3) || (n > 4)").columns, "write OR between them"),
        (lambda: readings().filter("t > 3 && n > 4").columns, "found &&; write AND"),
        (lambda: readings().filter("~(t > 3)").columns, "found ~; write NOT"),
        (
            lambda: readings().filter(col("device").str.matches("(")).columns,
            'expected a regular expression, found "("',
        ),
        (lambda: readings().filter("device ~ '['").columns, "unclosed character class"),
        (
            lambda: readings().select(x=tm.functions.regexp_replace(col("device"), "*", "")).columns,
            "Rust's regex",
        ),
    ],
)
def test_a_wrong_expression_says_how_it_is_written(call: Callable[[], object], said: str) -> None:
    assert said in told(call)


def test_bits_are_still_joined_by_signs() -> None:
    assert readings().filter("n & 1 = 0 AND (n | 2) > 1").columns == list(SCHEMA)


def test_lists_of_columns_are_taken_as_elsewhere() -> None:
    s = readings()
    assert s.select(["t", "n"]).columns == ["t", "n"]
    assert s.with_columns([(T * 2).alias("u")]).columns[-1] == "u"
    assert s.drop(["t", "n"]).columns == ["device", "ts"]
    assert s.group_by("device").agg([T.sum().alias("u")]).columns == ["device", "u"]


def test_a_column_is_looked_for_without_starting_the_job() -> None:
    s = readings()
    assert "t" in s
    assert "u" not in s


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda s: s.group_by("device").agg(a={"n": "sum"}, b=tm.count, c=3),
            ["found {'n': 'sum'}", "the function count", "found 3"],
        ),
        (lambda s: s.group_by("device", 3, 4), ["found 3", "found 4"]),
        (
            lambda s: s.group_by("device").agg(T.sum(), T.mean() + 1),
            ["sum(t) has no name", "mean(t) + 1 has no name"],
        ),
        (
            lambda s: (
                s.group_by("devise")
                .agg(a=col("n"), b=col("device").mean(), c=col("x").sum(), d=col("x").sum())
                .columns
            ),
            ['"devise"', 'column "n" in n is neither a key', "mean", '"x"'],
        ),
        (lambda s: s.group_by().agg(a=T.sum() + "x", b=T.max() & True).columns, ["sum(t)", "max(t)"]),
    ],
)
def test_all_mistakes_of_an_aggregation_are_told_at_once(
    call: Callable[[tm.DStream], object], parts: list[str]
) -> None:
    said = told(lambda: call(readings()))
    assert said.startswith(f"{len(parts)} mistakes"), said
    for part in parts:
        assert part in said


# -- rows -------------------------------------------------------------------------------------------------------------


ROWS = batch({"s": ["a"], "n": [2**40], "x": [None]})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: ROWS.to_numpy(["s"]),
            "a matrix holds numbers, found string; leave the column out; batch[name] gives",
        ),
        (
            lambda: ROWS.to_numpy(["n"], "int32"),
            "a value does not fit int32 (cannot cast value 1099511627776 to type int32)",
        ),
        (
            lambda: batch({"n": [1, None]}).to_numpy(["n"], "int32"),
            'column "n" has nulls, which int32 cannot hold',
        ),
        (
            lambda: ROWS.to_numpy(["n"], "foo"),
            "a dtype is NumPy's, or its name such as \"float32\", found 'foo'",
        ),
        (
            lambda: ran(lambda s: s.select(x=col("device").cast("int64"))),
            "cast string 'a' to value of int64 type",
        ),
        (
            lambda: ran(lambda s: s.map_batches(lambda b: pd.Series([1.0]))),
            "found pandas.Series, which is one column: give it its name",
        ),
        (lambda: ran(lambda s: s.map_batches(lambda b: pl.Series([1.0]))), "Series, which is one column"),
        (lambda: ran(lambda s: s.map_batches(lambda b: pa.array([1.0]))), "Array, which is one column"),
        (lambda: ran(lambda s: s.map_batches(lambda b: b["t"])), "numpy.ndarray, which is one column"),
        (lambda: ran(lambda s: s.map_batches(lambda b: None)), "does the function end without a return?"),
        (lambda: ran(lambda s: s.map_batches(lambda b: [1])), "a table made of the rows"),
    ],
)
def test_rows_that_do_not_fit_are_told_in_our_words(call: Callable[[], object], said: str) -> None:
    assert said in told(call)


def test_an_output_as_it_is_names_types_as_users_write_them() -> None:
    ctx = context()
    s = ctx.kafka("in", bootstrap_servers="localhost:1", format=tm.Json(SCHEMA))
    s.select("t").to_kafka("out", format=tm.Raw())
    assert 'found "t" of float64' in told(ctx.explain)
