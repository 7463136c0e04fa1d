"""Names of types: those of other libraries are answered with ours, and what cannot be read is refused at once."""

from __future__ import annotations

import datetime as dt
from typing import Any

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
    ("kind", "ours"), [(float, "float64"), (int, "int64"), (str, "string"), (dt.datetime, "timestamp[us]")]
)
def test_a_class_of_python_is_answered_with_the_name_of_its_type(kind: type, ours: str) -> None:
    with pytest.raises(tm.SchemaError, match=f'pass an Arrow name such as "{re_escaped(ours)}"'):
        tm.Json({"a": kind})


def re_escaped(text: str) -> str:
    return text.replace("[", r"\[").replace("]", r"\]")


def test_names_that_are_understood_beside_arrows_own_still_are() -> None:
    assert tm.Schema({"a": "boolean", "b": "bytes", "c": "utf8"}).types == ["bool", "binary", "string"]


def test_json_shows_the_types_that_it_reads_and_no_others() -> None:
    with pytest.raises(tm.SchemaError) as found:
        tm.Json({"a": "quux"})
    assert "there are bool, int8 to int64" in str(found.value)
    assert "struct" not in str(found.value)
    assert "month_interval" not in str(found.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"a": "struct<x: int64>"},
        {"a": {"x": "int64"}},
        {"a": "month_interval"},
        pa.schema({"a": pa.list_(pa.int8())}),
    ],
)
def test_what_json_is_not_read_into_is_refused_at_once(columns: Any) -> None:
    with pytest.raises(tm.ConfigError, match='column "a": expected a type that JSON can be read into'):
        tm.Json(columns)


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
        tm.Json({"a": "struct<x: int64>", "b": "int64", "c": "map<string, string>"})
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
