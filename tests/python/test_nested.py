"""Lists, structs and maps: read from JSON as Python reads it, written as Python writes it, and looked into."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill as tm
from tidemill import col
from tidemill.testing import ScriptedSource

Rows = list[dict[str, Any]]

SCHEMA = pa.schema(
    [
        ("tags", pa.list_(pa.string())),
        ("grid", pa.list_(pa.list_(pa.int64()))),
        ("at", pa.struct([("lat", pa.float64()), ("names", pa.list_(pa.string()))])),
        ("readings", pa.list_(pa.struct([("t", pa.float64()), ("ok", pa.bool_()), ("on", pa.date32())]))),
        ("limits", pa.map_(pa.string(), pa.struct([("low", pa.int64()), ("high", pa.float64())]))),
    ]
)


def read(schema: Any, payloads: list[bytes], **options: Any) -> pa.Table:
    """What a stream makes of payloads, as one table."""
    source = ScriptedSource()
    source.push(0, payloads)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(source, format=tm.Json(schema), **options)
    batches = [batch.to_pyarrow() for batch in stream]
    return pa.concat_tables(batches) if batches else pa.schema(tm.Json(schema).schema).empty_table()


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
floats = st.floats(allow_nan=False, allow_infinity=False)
longs = st.integers(-(2**63), 2**63 - 1)
reading = st.fixed_dictionaries(
    {}, optional={"t": optional(floats), "ok": optional(st.booleans()), "on": optional(st.dates().map(str))}
)
limit = st.fixed_dictionaries({}, optional={"low": optional(longs), "high": optional(floats), "other": text})
record = st.fixed_dictionaries(
    {},
    optional={
        "tags": optional(st.lists(optional(text))),
        "grid": optional(st.lists(optional(st.lists(optional(longs))))),
        "at": optional(
            st.fixed_dictionaries({}, optional={"lat": floats, "names": optional(st.lists(text))})
        ),
        "readings": optional(st.lists(optional(reading))),
        "limits": optional(st.dictionaries(text, optional(limit), max_size=30)),
        "unknown": st.recursive(text | longs, lambda inner: st.lists(inner) | st.dictionaries(text, inner)),
    },
)


def expected(value: Any, kind: pa.DataType) -> Any:
    """What Python's own reading of a value is, as pyarrow has it."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return [(key, expected(item, kind.item_type)) for key, item in value.items()]
    if pa.types.is_list(kind):
        return [expected(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: expected(value.get(field.name), field.type) for field in kind}
    return datetime.fromisoformat(value).date() if pa.types.is_date(kind) else value


@given(st.lists(record, min_size=1, max_size=20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_records_read_as_python_reads_them(records: Rows, ascii_only: bool) -> None:
    payloads = [json.dumps(record, ensure_ascii=ascii_only).encode() for record in records]
    table = read(SCHEMA, payloads)
    table.validate(full=True)
    rows = [
        {field.name: expected(record.get(field.name), field.type) for field in SCHEMA}
        for record in map(json.loads, payloads)
    ]
    assert table.equals(pa.Table.from_pylist(rows, SCHEMA))


@given(st.lists(record, min_size=1, max_size=10))
@settings(max_examples=20, deadline=None)
def test_what_is_written_reads_back_as_it_was(records: Rows) -> None:
    """By way of the file of JSON lines, which to_kafka's encoder writes too."""
    payloads = [json.dumps(record).encode() for record in records]
    table = read(SCHEMA, payloads)
    lines = written(table)
    assert read(SCHEMA, [line.encode() for line in lines]).equals(table)


def written(table: pa.Table) -> list[str]:
    """The rows as lines of JSON."""
    import tempfile
    from pathlib import Path

    source = ScriptedSource()
    source.push(0, [b"{}"])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(source, format=tm.Raw()).map_batches(lambda batch: table, schema=table.schema)
    with tempfile.TemporaryDirectory() as folder:
        stream.to_files(folder, format="json")
        ctx.run()
        return [line for file in Path(folder).iterdir() for line in file.read_text().split("\n") if line]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            b'{"readings":[{"t":1},{},null,{"t":"warm"}]}',
            r'a number within float64 in column "readings\.3\.t"',
        ),
        (b'{"at":{"lat":1,"names":["a",5]}}', r'expected a string in column "at\.names\.1", found `5\]}}`'),
        (b'{"limits":{"t":{"low":1.5}}}', r'a whole number within int64 in column "limits\.t\.low"'),
        (b'{"tags":"a"}', r'expected an array in column "tags"'),
        (b'{"at":[1]}', r'expected an object in column "at"'),
        (b'{"grid":[[1,2],[3,]]}', r"expected a value, found `\]\]}`"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_path(payload: bytes, message: str) -> None:
    with pytest.raises(tm.DataError, match=message):
        read(SCHEMA, [payload])


def test_records_with_a_value_that_does_not_fit_are_dropped_whole() -> None:
    good, bad = b'{"tags":["a"],"readings":[{"t":1}]}', b'{"tags":["x","y"],"readings":[{"t":2},{"t":true}]}'
    table = read(SCHEMA, [good, bad, good, bad], on_bad="drop")
    assert table["tags"].to_pylist() == [["a"], ["a"]]
    assert [len(rows) for rows in table["readings"].to_pylist()] == [1, 1]


def test_a_member_that_may_not_be_null_is_asked_for() -> None:
    schema = pa.schema([("at", pa.struct([pa.field("lat", pa.float64(), nullable=False)]))])
    assert read(schema, [b'{"at":null}', b'{"at":{"lat":1}}'])["at"].to_pylist() == [None, {"lat": 1.0}]
    for payload in (b'{"at":{}}', b'{"at":{"lat":null}}'):
        with pytest.raises(tm.DataError, match=r'not null, in column "at\.lat"'):
            read(schema, [payload])


def test_date_unit_holds_at_every_depth(source: ScriptedSource, drained: tm.StreamingContext) -> None:
    source.push(0, [b'{"t": 1763712000.25, "r": [{"t": 1763712000.5}], "m": {"a": 1763712001}}'])
    kind = "timestamp[ms]"
    given = tm.Json({"t": kind, "r": [{"t": kind}], "m": {"a": kind}}, date_unit="s")
    (found,) = [batch.to_pyarrow() for batch in drained.scripted(source, format=given)]
    at = datetime(2025, 11, 21, 8)
    assert found.to_pylist() == [
        {
            "t": at + timedelta(milliseconds=250),
            "r": [{"t": at + timedelta(milliseconds=500)}],
            "m": {"a": at + timedelta(seconds=1)},
        }
    ]


@pytest.fixture
def rows(source: ScriptedSource, drained: tm.StreamingContext) -> Callable[..., Rows]:
    """Expressions over two records, one of them without anything."""

    def select(**columns: tm.Expr) -> Rows:
        records: Rows = [
            {
                "tags": ["a", "b", "c"],
                "at": {"lat": 1.5, "names": ["x"]},
                "limits": {"t": {"low": 3}},
                "n": 1,
            },
            {"n": -4},
        ]
        source.push(0, [json.dumps(record).encode() for record in records])
        schema = {
            "tags": list[str],
            "at": {"lat": float, "names": list[str]},
            "limits": "map<string, struct<low: int64>>",
            "n": int,
        }
        stream = drained.scripted(source, format=tm.Json(schema)).select(**columns)
        return [row for batch in stream for row in batch.to_pyarrow().to_pylist()]

    return select


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        (col("at")["lat"], [1.5, None]),
        (col("at").struct.field("lat") * 2, [3.0, None]),
        (col("at")["names"][0], ["x", None]),
        (col("limits")["t"]["low"], [3, None]),
        (col("limits")["u"], [None, None]),
        (col("tags")[0], ["a", None]),
        (col("tags")[-1], ["c", None]),
        (col("tags").list.last(), ["c", None]),
        (col("tags").list.first(), ["a", None]),
        (col("tags")[3], [None, None]),
        (col("tags")[-4], [None, None]),
        (col("tags").list.get(col("n")), ["b", None]),
        (col("tags").list.len(), [3, None]),
        (col("limits").list.len(), [1, None]),
        (tm.sql_expr("item_count(tags) > 2 AND member(at, 'lat') = 1.5"), [True, None]),
    ],
    ids=str,
)
def test_expressions_look_into_lists_structs_and_maps(
    rows: Callable[..., Rows], expression: tm.Expr, values: list[Any]
) -> None:
    assert [row["found"] for row in rows(found=expression)] == values


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (col("at")["lon"], 'there is no member "lon"; there are lat, names'),
        (col("at")["latt"], 'did you mean "lat"'),
        (col("n")["lat"], "only structs and maps have members, found int64"),
        (col("at")[0], "only lists have items, found struct<lat: float64, names: list<string>>"),
        (col("tags").list.get(tm.lit("a")), "the place of an item is a whole number, found string"),
        (col("n").list.len(), "only lists and maps have items, found int64"),
    ],
    ids=str,
)
def test_what_cannot_be_looked_into_is_told_before_the_start(
    rows: Callable[..., Rows], expression: tm.Expr, message: str
) -> None:
    with pytest.raises(tm.SchemaError, match=message):
        rows(found=expression)


def test_a_member_of_a_null_struct_is_null_whatever_lies_beneath(
    drained: tm.StreamingContext, source: ScriptedSource
) -> None:
    source.push(0, [b"{}"])
    inner = pa.array([1, 2], pa.int64())
    hidden = pa.StructArray.from_arrays([inner], ["a"], mask=pa.array([False, True]))
    table = pa.table({"s": hidden})
    stream = drained.scripted(source, format=tm.Raw()).map_batches(lambda batch: table, schema=table.schema)
    batches = [batch.to_pyarrow() for batch in stream.select(a=col("s")["a"])]
    assert [batch["a"].to_pylist() for batch in batches] == [[1, None]]


def test_an_expression_is_no_list_of_its_items() -> None:
    with pytest.raises(TypeError):
        iter(col("a"))
    for key in (1.5, True, None, slice(1)):
        with pytest.raises(TypeError, match="a member's name or an item's place is expected"):
            col("a")[key]  # type: ignore[index]


def inferred(payloads: list[bytes], **options: Any) -> tm.DStream:
    source = ScriptedSource(partitions=2)
    for place, payload in enumerate(payloads):
        source.push(place % 2, [payload])
    return tm.StreamingContext(trigger=tm.available_now()).scripted(source, format=tm.Json(), **options)


def test_without_a_schema_the_columns_are_told_from_the_records_and_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records: Rows = [
        {"device": "a", "ts": 1_763_712_000_000, "t": 20, "at": {"lat": 1.5}, "r": [{"n": 1}], "odd": 1},
        {"device": None, "ts": 1_763_712_000_500, "t": 20.5, "at": None, "r": [], "odd": "x", "none": None},
    ]
    stream = inferred([json.dumps(record).encode() for record in records], event_time="ts")
    shown = capsys.readouterr().err
    line = next(line for line in shown.splitlines() if "format=" in line)
    pasted = eval(line.strip().removeprefix("format="), {"tm": tm})
    assert (
        pasted.schema
        == stream.schema
        == tm.Schema(
            {"device": str, "ts": "timestamp[ms]", "t": float, "at": {"lat": float}, "r": [{"n": int}]}
        )
    )
    assert 'the columns of "scripted", told from 2 records' in shown
    assert '# left out: "odd": a number in some records, text in others' in shown
    assert '# left out: "none": null in all of them' in shown
    assert sum(batch.num_rows for batch in stream) == 2


def test_event_times_with_fractions_are_told_and_keep_them(capsys: pytest.CaptureFixture[str]) -> None:
    stream = inferred([b'{"ts": 1763712000.000001}', b'{"ts": 1763712001}'], event_time="ts")
    assert 'format=tm.Json({"ts": "timestamp[us]"}, date_unit="s")' in capsys.readouterr().err
    micros = [value for batch in stream for value in batch["ts"].astype("int64").tolist()]
    assert micros == [1_763_712_000_000_001, 1_763_712_001_000_000]


def test_numbers_that_are_no_times_are_refused_as_the_event_time_with_what_to_declare() -> None:
    with pytest.raises(
        tm.SchemaError, match=r'is float64; declare it, .*"timestamp\[ms\]", and pass date_unit="s"'
    ):
        _ = inferred([b'{"ts": 0.5}'], event_time="ts").schema


def test_only_the_last_thousand_records_of_a_partition_are_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = ScriptedSource()
    source.push(0, [b'{"a": "text"}'] + [b'{"a": 1}'] * 1_000)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    assert ctx.scripted(source, format=tm.Json(), on_bad="drop").schema == tm.Schema({"a": int})
    assert "told from 1000 records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("payloads", "found"),
    [
        ([], "no record is there yet"),
        ([b"7", b"x"], "none of 2 records is a JSON object"),
        ([b"{}"], "no value in 1"),
    ],
)
def test_without_records_the_columns_are_asked_for(payloads: list[bytes], found: str) -> None:
    with pytest.raises(tm.ConfigError, match=found) as told:
        inferred(payloads)
    assert 'tm.Json({"device": "string"' in str(told.value)


def test_nested_columns_are_polars_own(source: ScriptedSource, drained: tm.StreamingContext) -> None:
    source.push(0, [b'{"r": [{"v": 1.5}, {"v": null}], "m": {"a": 1}}'])
    stream = drained.scripted(source, format=tm.Json({"r": [{"v": float}], "m": dict[str, int]}))
    (frame,) = [batch.to_polars() for batch in stream]
    assert frame["r"].to_list() == [[{"v": 1.5}, {"v": None}]]
    assert frame.schema["r"] == pl.List(pl.Struct({"v": pl.Float64}))
