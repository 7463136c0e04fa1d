"""Arrow data both ways across the border, with each library that speaks the PyCapsule interface."""

from __future__ import annotations

from typing import Any

import arro3.core
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill.testing import batch

TABLE = pa.table(
    {"x": pa.array([1.5, None, 3.5]), "s": pa.array(["a", "b", None]), "n": pa.array([1, 2, 3], "int32")}
)


@pytest.mark.parametrize(
    "rows",
    [
        TABLE,
        TABLE.to_batches()[0],
        pa.table(
            {
                name: pa.chunked_array([column.slice(0, 1), column.slice(1)])
                for name, column in ((name, TABLE[name].combine_chunks()) for name in TABLE.column_names)
            }
        ),
        pl.DataFrame(TABLE),
        arro3.core.Table.from_arrow(TABLE),
        arro3.core.RecordBatch.from_arrow(TABLE.to_batches()[0]),
        {name: TABLE[name].combine_chunks() for name in TABLE.column_names},
        {name: TABLE[name] for name in TABLE.column_names},
        batch(TABLE),
    ],
    ids=[
        "table",
        "record batch",
        "chunks",
        "polars",
        "arro3 table",
        "arro3 batch",
        "arrays",
        "chunked arrays",
        "batch",
    ],
)
def test_rows_come_in_from_every_library(rows: Any) -> None:
    assert batch(rows).to_pyarrow().to_pydict() == TABLE.to_pydict()


def test_a_pandas_frame_comes_in() -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5], "s": ["a", None]})
    assert batch(frame).to_pyarrow().to_pydict() == {"x": [1.5, 2.5], "s": ["a", None]}


def test_rows_go_out_to_every_library() -> None:
    one = batch(TABLE)
    assert pa.table(one).equals(TABLE)
    assert pl.DataFrame(one).rows() == pl.DataFrame(TABLE).rows()
    assert pa.table(arro3.core.Table.from_arrow(one)).equals(TABLE)
    assert pa.RecordBatchReader.from_stream(one).read_all().equals(TABLE)


def test_a_requested_schema_is_heeded() -> None:
    wanted = pa.schema([("x", pa.float32()), ("s", pa.large_string()), ("n", pa.int64())])
    assert pa.RecordBatchReader.from_stream(batch(TABLE), schema=wanted).schema == wanted


def test_a_schema_goes_both_ways() -> None:
    schema = tm.Schema({"device": "string", "ts": "timestamp[us, Europe/Rome]", "n": "int64"})
    assert pa.schema(schema).names == ["device", "ts", "n"]
    assert tm.Schema(pa.schema(schema)) == schema
    assert list(schema) == ["device", "ts", "n"]
    assert (schema["n"], "n" in schema, "m" in schema, len(schema)) == ("int64", True, False, 3)
    assert pa.schema(batch(TABLE).schema).names == TABLE.column_names
    with pytest.raises(KeyError, match="there are device, ts, n"):
        schema["m"]


def test_a_nested_dict_is_a_struct_and_a_wrong_type_names_its_column() -> None:
    assert pa.schema(tm.Schema({"at": {"lat": "float64"}})).field("at").type == pa.struct(
        [("lat", pa.float64())]
    )
    with pytest.raises(tm.TidemillError, match=r'did you mean "float64".*column "x"'):
        tm.Schema({"x": "flot64"})
    with pytest.raises(tm.SchemaError, match="a schema is expected, found int"):
        tm.Schema(3)


@pytest.mark.parametrize(
    "kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f8", ">i4"]
)
def test_numpy_numbers_come_in(kind: str) -> None:
    values = np.array([0, 1, 1], kind)
    assert batch({"x": values})["x"].tolist() == values.tolist()


def test_a_strided_array_comes_in_in_its_own_order() -> None:
    assert batch({"x": np.arange(10)[::-3]})["x"].tolist() == [9, 6, 3, 0]


def test_an_array_may_be_written_to_again_after_it_was_returned() -> None:
    values = np.array([1.0, 2.0])
    one = batch({"x": values})
    values[:] = 0
    assert one["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
def test_numpy_times_come_in_and_not_a_time_is_null(unit: str) -> None:
    times = np.array(["1970-01-02", "NaT"], f"M8[{unit}]")
    one = batch({"t": times})
    assert one["t"][0] == times[0]
    assert one.to_pyarrow()["t"].null_count == 1


def test_numpy_text_and_objects_come_in() -> None:
    columns = {
        "u": np.array(["a", "bc"]),
        "o": np.array(["a", None], object),
        "b": np.array([b"a", b"bc"]),
        "f": np.array([1, 2.5], object),
        "n": np.array([None, None], object),
        "list": ["x", "y"],
    }
    rows = batch(columns).to_pyarrow().to_pydict()
    assert rows["u"] == ["a", "bc"]
    assert rows["o"] == ["a", None]
    assert rows["b"] == [b"a", b"bc"]
    assert rows["f"] == [1.0, 2.5]
    assert rows["n"] == [None, None]
    assert rows["list"] == ["x", "y"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": [1, 2], "b": [1]}, 'found 2 rows in "a" and 1 in "b"'),
        ({"a": np.zeros((2, 2))}, 'column "a" must have one dimension'),
        ({"a": np.array([1j])}, 'column "a": complex128 has no Arrow type'),
        ({"a": np.array(["x", 3], object)}, r'column "a".*row 1'),
    ],
)
def test_what_makes_no_columns_is_refused_with_its_place(rows: Any, message: str) -> None:
    with pytest.raises(tm.SchemaError, match=message):
        batch(rows)


def test_what_is_no_rows_is_refused_with_what_is() -> None:
    with pytest.raises(TypeError, match=r"dict of NumPy arrays; found list"):
        batch([1, 2, 3])
