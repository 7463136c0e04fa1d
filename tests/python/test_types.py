"""Names of types: those of other libraries are answered with ours, and what cannot be read is refused at once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill import col


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("float", "float64"),
        ("double", "float64"),
        ("int", "int64"),
        ("Integer", "int64"),
        ("long", "int64"),
        ("str", "string"),
        ("text", "string"),
        ("datetime", "timestamp[us]"),
        ("datetime64[ns]", "timestamp[us]"),
    ],
)
def test_the_usual_names_of_other_libraries_are_answered_with_ours(theirs: str, ours: str) -> None:
    with pytest.raises(tm.SchemaError) as of_schema:
        tm.Json({"a": theirs})
    with pytest.raises(tm.SchemaError) as of_cast:
        col("a").cast(theirs)
    for found in (of_schema, of_cast):
        assert f'use "{ours}"' in str(found.value)
        assert "did you mean" not in str(found.value)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (bool, "bool"),
        (int, "int64"),
        (float, "float64"),
        (str, "string"),
        (bytes, "binary"),
        (dt.date, "date32"),
        (dt.datetime, "timestamp[us]"),
        (list[str], "list<string>"),
        ([int], "list<int64>"),
        ([["float32"]], "list<list<float32>>"),
        (dict[str, float], "map<string, float64>"),
        (dict[str, list[int]], "map<string, list<int64>>"),
        ([{"a": int}], "list<struct<a: int64>>"),
        (pa.list_(pa.float32()), "list<float32>"),
        (pa.struct([("a", pa.int8())]), "struct<a: int8>"),
        (pl.List(pl.String), "list<string>"),
        (pl.Float32, "float32"),
        (pl.Datetime("ms"), "timestamp[ms]"),
        (pl.Struct({"a": pl.List(pl.Int8)}), "struct<a: list<int8>>"),
    ],
    ids=str,
)
def test_classes_of_python_and_types_of_other_libraries_are_types(kind: Any, ours: str) -> None:
    assert tm.Json({"a": kind}).schema == tm.Schema({"a": ours})


def test_a_schema_of_polars_has_plain_columns() -> None:
    theirs = pl.DataFrame(schema={"a": pl.String, "b": pl.List(pl.Binary)}).schema
    assert tm.Json(theirs).schema == tm.Schema({"a": "string", "b": "list<binary>"})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (dt.timedelta, r'pass an Arrow name such as "duration\[us\]"'),
        (np.float32, 'pass an Arrow name such as "float32"'),
        (list, "a type is expected, found <class 'list'>"),
        ([], r"a type is expected, found \[\].*list\[str\]"),
        (tuple[int, str], r"a type is expected, found tuple\[int, str\].*list\[str\]"),
        ({"b": {"c": "flot64"}}, r'did you mean "float64".*column "c", column "b", column "a"'),
    ],
)
def test_what_is_no_type_is_told_with_its_column(kind: Any, message: str) -> None:
    with pytest.raises(tm.SchemaError, match=message) as told:
        tm.Json({"a": kind})
    assert 'column "a"' in str(told.value)


def test_names_that_are_understood_beside_arrows_own_still_are() -> None:
    assert tm.Schema({"a": "boolean", "b": "bytes", "c": "utf8"}).types == ["bool", "binary", "string"]


def test_json_shows_the_types_that_it_reads_and_no_others() -> None:
    with pytest.raises(tm.SchemaError) as found:
        tm.Json({"a": "quux"})
    assert "there are bool, int8 to int64" in str(found.value)
    assert "list<T>" in str(found.value)
    assert "month_interval" not in str(found.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"a": "month_interval"},
        {"a": "map<int64, string>"},
        pa.schema({"a": pa.list_(pa.int8(), 3)}),
        pa.schema({"a": pa.struct([("x", pa.int8()), ("x", pa.int8())])}),
    ],
)
def test_what_json_is_not_read_into_is_refused_at_once(columns: Any) -> None:
    with pytest.raises(tm.ConfigError, match='column "a": expected a type that JSON can be read into'):
        tm.Json(columns)


def test_a_type_deep_in_a_schema_that_json_is_not_read_into_is_named_by_its_path() -> None:
    with pytest.raises(
        tm.ConfigError, match=r'column "a\.\[\]\.b": expected a type that JSON can be read into, found time32'
    ):
        tm.Json({"a": [{"b": "time32[s]"}]})


@pytest.mark.parametrize("kind", ["list<int64>", {"x": "int64"}, dict[str, int]])
def test_csv_has_no_nested_columns(kind: Any) -> None:
    with pytest.raises(tm.ConfigError, match='column "a": expected a type that CSV can be read into'):
        tm.Csv({"a": kind})


def test_json_without_columns_is_refused_at_once() -> None:
    with pytest.raises(tm.ConfigError, match="at least one column"):
        tm.Json({})


def test_all_that_is_wrong_with_a_schema_is_told_at_once() -> None:
    schema: dict[Any, Any] = {"a": "float", "b": 3, 4: "int64", "c": {"d": "int"}, "e": "int64"}
    with pytest.raises(tm.SchemaError, match="4 mistakes") as found:
        tm.Json(schema)
    for part in ('"float64"', 'column "b"', "a column's name is text, found 4", '"int64"'):
        assert part in str(found.value)
    with pytest.raises(tm.ConfigError, match="2 mistakes"):
        tm.Json({"a": "month_interval", "b": "int64", "c": "map<int64, string>"})
    with pytest.raises(tm.SchemaError, match="2 mistakes"):
        tm.Schema({"a": "float", "b": "int"})


def test_a_failed_cast_names_what_there_is_in_python() -> None:
    source = tm.testing.ScriptedSource()
    source.push(0, [b'{"a": "x"}'])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Json({"a": "string"})).with_columns(b=col("a").cast("int64")).to_table("t")
    with pytest.raises(tm.DataError, match=r"cast\(…, strict=False\)"):
        ctx.run()


def test_what_is_no_schema_is_told_and_what_its_own_code_raises_is_raised() -> None:
    with pytest.raises(tm.SchemaError, match="a schema is expected, found int"):
        tm.Json(3)  # type: ignore[arg-type]

    class Broken:
        def __arrow_c_schema__(self) -> object:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        tm.Json(Broken())
