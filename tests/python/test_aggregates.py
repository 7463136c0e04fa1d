"""What aggregates compute to the last bit, and how much memory a key takes."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from fractions import Fraction
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from tidemill import col
from tidemill.testing import ScriptedSource

INT64 = st.integers(-(2**63), 2**63 - 1)


def over(kind: str, values: list[Any], *, cast: str | None = None, **results: tm.Expr) -> dict[str, Any]:
    """The results over a column x with these values, in batches of two rows from two partitions."""
    source = ScriptedSource(partitions=2)
    for place, value in enumerate(values):
        source.push(place % 2, [json.dumps({"x": value, "ts": place}).encode()])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=2))
    stream = ctx.scripted(source, format=tm.Json({"x": kind, "ts": "timestamp[ms]"}), event_time="ts")
    stream = stream.with_columns(x=col("x").cast(cast or kind))
    (batch,) = stream.window("1h", on="ts").agg(**results)
    (row,) = batch.to_pyarrow().to_pylist()
    return {name: row[name] for name in results}


@given(st.lists(INT64, min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_the_mean_of_integers_is_the_nearest_float_to_the_exact_one(values: list[int]) -> None:
    assert over("int64", values, mean=col("x").mean())["mean"] == float(Fraction(sum(values), len(values)))


def test_large_integers_that_cancel_each_other_leave_the_mean_of_the_rest() -> None:
    assert over("int64", [2**62, -(2**62), 1], mean=col("x").mean()) == {"mean": 1 / 3}


@given(st.lists(st.decimals(-(10**8), 10**8, places=2), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_decimals_have_an_exact_median_and_the_nearest_mean(values: list[Decimal]) -> None:
    exact = [Fraction(value) for value in values]
    results = {"mean": col("x").mean(), "median": tm.aggregate("median", col("x"))}
    found = over("string", [str(value) for value in values], cast="decimal(12, 2)", **results)
    assert found["mean"] == float(sum(exact, Fraction()) / len(exact))
    assert Fraction(found["median"]) == median(exact)
    assert found["median"].as_tuple().exponent == -3


def test_the_mean_of_times_is_a_time() -> None:
    found = over("timestamp[ms]", [0, 2_000, None], mean=col("x").mean())
    assert found["mean"] == dt.datetime(1970, 1, 1, 0, 0, 1)


def test_a_mean_or_median_that_would_not_be_exact_is_refused_before_the_start() -> None:
    with pytest.raises(
        tm.SchemaError, match=r"mean takes .*at most 38 digits.*found mean\(decimal\(50, 2\)\)"
    ):
        over("string", [], cast="decimal(50, 2)", mean=col("x").mean())
    with pytest.raises(
        tm.SchemaError, match=r"at most 75 digits.*found median\(decimal\(76, 0\)\).*fewer digits"
    ):
        over("string", [], cast="decimal(76, 0)", median=tm.aggregate("median", col("x")))
    with pytest.raises(tm.SchemaError, match=r'found mean\(date32\).*cast\("timestamp'):
        over("date32", [], mean=col("x").mean())


def test_sums_of_floats_are_off_by_no_more_than_their_documentation_says() -> None:
    values = [10.0**place * sign for place in range(17) for sign in (1, -1)] + [0.1]
    found = over("float64", values, sum=col("x").sum(), mean=col("x").mean())
    bound = len(values) * 2.0**-53 * math.fsum(map(abs, values))
    assert abs(found["sum"] - math.fsum(values)) <= bound
    assert abs(found["mean"] - math.fsum(values) / len(values)) <= bound / len(values)


@pytest.mark.parametrize("keys", [1_000, 9_000, 20_000])
def test_a_key_takes_no_more_bytes_than_the_documentation_says(keys: int) -> None:
    source = ScriptedSource()
    source.push(0, [b'{"k":%d,"ts":1,"v":%d}' % (key, key) for key in range(keys)])
    ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False, max_records=1_000))
    columns = tm.Json({"k": "int64", "ts": "timestamp[ms]", "v": "int64"})
    stream = ctx.scripted(source, format=columns, event_time="ts")
    windows = stream.window("1h", on="ts").group_by("k")
    windows.agg(n=tm.count(), sum=col("v").sum(), high=col("v").max()).foreach_batch(lambda batch: None)
    ctx.run()
    assert ctx.progress is not None
    assert ctx.progress.state_entries == keys
    a_key = ctx.progress.state_bytes / keys
    assert 4 * 8 < a_key <= 128
