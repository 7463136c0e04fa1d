"""What aggregates compute to the last bit, and how much memory a key takes."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from fractions import Fraction
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
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
    assert 4 * 8 < a_key <= 144


PAIRS = (
    "corr",
    "covar",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
)


def _pairs(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[float]:
    """What they are, of values brought near zero first."""
    dx, dy = x - x.mean(), y - y.mean()
    xx, yy, xy = dx @ dx, dy @ dy, dx @ dy
    # The regr functions take y first, which here is the column x.
    slope = xy / yy
    return [
        xy / math.sqrt(xx * yy), xy / (len(x) - 1), xy / len(x),
        slope, x.mean() - slope * y.mean(), xy * xy / (xx * yy), yy, xy, xx,
    ]  # fmt: skip


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9])
@pytest.mark.parametrize(("partitions", "most"), [(1, 5_000), (3, 100)])
def test_functions_of_two_columns_see_how_values_far_from_zero_vary(
    offset: float, partitions: int, most: int
) -> None:
    random = np.random.default_rng(5)
    x = np.round(random.normal(size=2_000), 6) + offset
    y = np.round(random.normal(size=2_000), 6) + (x - offset) / 4 + offset
    source = ScriptedSource(partitions=partitions)
    for partition in range(partitions):
        rows = zip(x[partition::partitions], y[partition::partitions], strict=True)
        source.push(partition, [b'{"ts":0,"x":%r,"y":%r}' % (float(a), float(b)) for a, b in rows])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=most))
    format = tm.Json({"ts": "timestamp[ms]", "x": "float64", "y": "float64"})  # noqa: A001
    stream = ctx.scripted(source, format=format, event_time="ts")
    found = {name: tm.aggregate(name, col("x"), col("y")) for name in PAIRS}
    stream.window("1s", on="ts").agg(**found).to_table("found")
    ctx.run()
    (row,) = ctx.table("found").to_pyarrow().to_pylist()
    expected = _pairs(x, y)
    # An intercept is a difference of what is as far from zero as the values are.
    slack = [1e-9 if name != "regr_intercept" else 1e-6 for name in PAIRS]
    for name, value, within in zip(PAIRS, expected, slack, strict=True):
        assert row[name] == pytest.approx(value, rel=within, abs=1e-9 * max(offset, 1.0) * 1e-3), name


def test_pairs_that_tell_nothing_give_null() -> None:
    source = ScriptedSource()
    source.push(
        0, [b'{"k":1,"x":1,"y":2}', b'{"k":1,"x":null,"y":2}', b'{"k":2,"x":1,"y":2}', b'{"k":2,"x":1,"y":3}']
    )
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(source, format=tm.Json(dict.fromkeys("kxy", "int64")))
    names = ("regr_count", "corr", "covar", "covar_pop", "regr_slope", "regr_avgx", "regr_sxx")
    stream.group_by("k").agg(**{name: tm.aggregate(name, col("y"), col("x")) for name in names}).to_table(
        "found"
    )
    ctx.run()
    rows = sorted(ctx.table("found").to_pyarrow().to_pylist(), key=lambda row: row["k"])
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1, None, None, 0.0, None, 1.0, 0.0),
        (2, None, 0.0, 0.0, None, 1.0, 0.0),
    ]


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_a_sum_that_fits_is_given_whatever_it_was_on_the_way(partitions: int) -> None:
    source = ScriptedSource(partitions=partitions)
    for number, value in enumerate((2**63 - 1, 1, -1)):
        source.push(number % partitions, [b'{"v":%d}' % value])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Json({"v": "int64"})).group_by().agg(s=tm.col("v").sum()).to_table("found")
    ctx.run()
    assert ctx.table("found").to_pyarrow().to_pylist() == [{"s": 2**63 - 1}]
