"""Rows as pandas: every type, with and without nulls, beside what pyarrow makes of the same rows."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource, batch

MOMENT = dt.datetime(2024, 7, 1, 12, 30, 15, 250_000)
COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    **{f"{sign}int{bits}": (getattr(pa, f"{sign}int{bits}")(), 7) for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": (pa.float32(), 1.5),
    "float64": (pa.float64(), 1.5),
    "bool": (pa.bool_(), True),
    "text": (pa.string(), "pump"),
    "long text": (pa.large_string(), "pump"),
    "bytes": (pa.binary(), b"\x00x"),
    **{f"naive {unit}": (pa.timestamp(unit), MOMENT.replace(microsecond=0)) for unit in ("s", "ms", "us", "ns")},
    "utc": (pa.timestamp("us", "UTC"), MOMENT.replace(tzinfo=dt.UTC)),
    "zone": (pa.timestamp("ms", "Europe/Rome"), MOMENT.replace(tzinfo=dt.UTC)),
    "offset": (pa.timestamp("ns", "+05:30"), MOMENT.replace(tzinfo=dt.UTC)),
    **{f"span {unit}": (pa.duration(unit), dt.timedelta(seconds=90)) for unit in ("s", "ms", "us", "ns")},
    "time of day": (pa.time64("us"), dt.time(12, 30, 15, 250_000)),
    "coarse time of day": (pa.time32("s"), dt.time(12, 30)),
    "decimal": (pa.decimal128(10, 2), Decimal("12.50")),
}  # fmt: skip


@pytest.mark.parametrize("nulls", ["no nulls", "a null", "nulls alone", "no rows"])
@pytest.mark.parametrize("name", COLUMNS)
def test_each_type_is_what_pyarrow_makes_of_it(name: str, nulls: str) -> None:
    kind, value = COLUMNS[name]
    values = {"no nulls": [value, value], "a null": [value, None], "nulls alone": [None], "no rows": []}[
        nulls
    ]
    table = pa.table({"c": pa.array(values, kind)})
    pd.testing.assert_frame_equal(batch(table).to_pandas(), table.to_pandas())


def test_dates_are_moments_that_pandas_can_reckon_with() -> None:
    for kind, unit in ((pa.date32(), "s"), (pa.date64(), "ms")):
        rows = batch(pa.table({"day": pa.array([dt.date(2024, 2, 29), None], kind)}))
        days = rows.to_pandas()["day"]
        assert days.dtype == f"datetime64[{unit}]"
        assert days[0] == pd.Timestamp(2024, 2, 29)
        assert days.dt.day_name()[0] == "Thursday"
        assert days[1] is pd.NaT


def test_lists_and_structs_are_pythons_own() -> None:
    rows = batch(pa.table({"l": pa.array([[1, 2], None]), "s": pa.array([{"a": 1}, None])}))
    frame = rows.to_pandas()
    assert frame["l"].tolist() == [[1, 2], None]
    assert frame["s"].tolist() == [{"a": 1}, None]


LARGE = 2**53 + 1


def test_a_null_costs_large_integers_their_last_bits_but_for_a_backend() -> None:
    rows = batch(pa.table({"n": pa.array([LARGE, None]), "b": pa.array([True, None])}))
    assert rows.to_pandas()["n"].tolist()[0] == float(2**53)
    for backend, kinds in (
        ("numpy_nullable", ["Int64", "boolean"]),
        ("pyarrow", ["int64[pyarrow]", "bool[pyarrow]"]),
    ):
        frame = rows.to_pandas(dtype_backend=backend)  # type: ignore[arg-type]
        assert frame.dtypes.astype(str).tolist() == kinds
        assert frame["n"][0] == LARGE
        assert frame["b"].isna().tolist() == [False, True]
    with pytest.raises(tm.ConfigError, match=r"\"numpy_nullable\" or \"pyarrow\", found 'numpy'"):
        rows.to_pandas(dtype_backend="numpy")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", [None, "numpy_nullable", "pyarrow"])
def test_a_frame_given_back_has_the_same_rows(source: ScriptedSource, backend: Any) -> None:
    """What a function over batches gets and returns unchanged keeps every type, dates included."""
    given = pa.table(
        {name: pa.array([value, None], kind) for name, (kind, value) in COLUMNS.items()}
        | {"day": pa.array([dt.date(2024, 2, 29), None])}
    )
    source.push(0, [b"one"])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(source, format=tm.Raw()).map_batches(lambda _: given, schema=given.schema)
    passed = stream.map_batches(lambda rows: rows.to_pandas(dtype_backend=backend))
    assert [one.to_pyarrow().to_pylist() for one in passed] == [given.to_pylist()]


def test_objects_in_numpy_are_decimals_and_times_of_day() -> None:
    rows = batch(
        pa.table(
            {
                name: pa.array([COLUMNS[name][1], None], COLUMNS[name][0])
                for name in ("decimal", "time of day")
            }
        )
    )
    assert rows["decimal"].tolist() == [Decimal("12.50"), None]
    assert rows["time of day"].tolist() == [dt.time(12, 30, 15, 250_000), None]
    assert rows["decimal"].dtype == np.dtype(object)


def test_a_moment_that_is_no_midnight_is_no_date(source: ScriptedSource) -> None:
    source.push(0, [b"one"])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    noon = np.array(["2024-02-29T12:00"], "datetime64[s]")
    ctx.scripted(source, format=tm.Raw()).map_batches(
        lambda _: {"day": noon}, schema={"day": "date"}
    ).to_table("d")
    with pytest.raises(
        tm.SchemaError, match=r"2024-02-29T12:00:00 .* in row 0 does not fit date32 without loss"
    ):
        ctx.run()
