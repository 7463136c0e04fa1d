"""What a batch shows of its rows, and how they become NumPy, pandas, Polars and pyarrow."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill.testing import batch


def chunked(*parts: list[float | None]) -> tm.Batch:
    return batch(pa.table({"x": pa.chunked_array([pa.array(part, "float64") for part in parts])}))


def test_a_batch_tells_what_it_is() -> None:
    one = batch({"x": [1.0, 2.0]}, id=7, time_ms=1_500, partition=3)
    assert (one.id, one.num_rows, len(one), one.partition) == (7, 2, 2, 3)
    assert one.time == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert one.watermark is None
    assert one.offset_ranges == ()
    assert one.columns == ["x"]
    assert repr(one) == 'Batch 7, partition 3: 2 rows of Schema({"x": "float64"})'


def test_a_batch_is_a_table_in_a_notebook_and_its_text_is_escaped() -> None:
    html = batch({"x": ["<script>"]})._repr_html_()
    assert "<table>" in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_numbers_without_nulls_are_a_read_only_view() -> None:
    one = batch(pa.table({"x": pa.array([1.0, 2.0, 3.0])}))
    first, second = one["x"], one.to_numpy("x")
    assert np.shares_memory(first, second)
    assert not first.flags.writeable
    assert np.shares_memory(one.to_numpy(["x"]), first)
    assert one.to_numpy(["x"]).shape == (3, 1)


def test_a_view_respects_the_offset_of_a_slice_and_outlives_its_batch() -> None:
    view = batch(pa.table({"x": pa.array(range(10))}).slice(3, 4))["x"]
    assert view.tolist() == [3, 4, 5, 6]


def test_a_matrix_is_contiguous_and_in_the_columns_order() -> None:
    one = batch({"a": np.arange(10_000, dtype="float32"), "b": np.arange(10_000, dtype="int64")})
    matrix = one.to_numpy(["b", "a"], "float32")
    assert matrix.flags.c_contiguous
    assert matrix.dtype == np.float32
    assert matrix.shape == (10_000, 2)
    assert (matrix == np.arange(10_000)[:, None]).all()
    assert matrix.flags.writeable


@pytest.mark.parametrize("rows", [0, 1, 4_095, 4_096, 4_097, 20_000])
def test_a_matrix_of_any_height_equals_numpys_own(rows: int) -> None:
    random = np.random.default_rng(rows)
    columns = {name: random.normal(size=rows) for name in "abc"}
    expected = np.column_stack(list(columns.values()))
    assert np.array_equal(batch(columns).to_numpy(), expected)


def test_the_default_type_of_a_matrix_is_the_columns_own_or_float64() -> None:
    ints = {"a": np.array([1], "int32"), "b": np.array([2], "int32")}
    assert batch(ints).to_numpy().dtype == np.int32
    assert batch({**ints, "c": np.array([1.5])}).to_numpy().dtype == np.float64
    assert batch({"a": [1, None], "b": [1, 2]}).to_numpy().dtype == np.float64


def test_nulls_become_nan_in_floats_and_are_refused_in_integers() -> None:
    one = batch({"a": [1, None], "b": [1.0, 2.0]})
    assert np.isnan(one.to_numpy(["a", "b"])[1, 0])
    with pytest.raises(tm.SchemaError, match=r'column "a" has nulls.*float64'):
        one.to_numpy(["a", "b"], "int64")


def test_a_value_that_does_not_fit_the_type_is_refused() -> None:
    with pytest.raises(tm.TidemillError):
        batch({"a": [300], "b": [1]}).to_numpy(["a", "b"], "int8")


def test_text_makes_no_matrix_and_an_unknown_column_names_the_nearest() -> None:
    one = batch({"temperature": [1.0], "device": ["a"]})
    with pytest.raises(tm.SchemaError, match='column "device"'):
        one.to_numpy(["temperature", "device"])
    with pytest.raises(tm.SchemaError, match='did you mean "temperature"'):
        one["temprature"]


def test_columns_of_every_kind_become_numpy() -> None:
    table = pa.table(
        {
            "text": ["a", None],
            "bytes": [b"a", None],
            "flag": [True, False],
            "maybe": [True, None],
            "gap": pa.array([1, None], "int32"),
            "gap32": pa.array([1.0, None], "float32"),
            "ts": pa.array([0, None], pa.timestamp("ms", "UTC")),
            "day": pa.array([1, None], pa.date32()),
            "took": pa.array([5, None], pa.duration("us")),
            "list": [[1], None],
        }
    )
    one = batch(table)
    assert one["text"].tolist() == ["a", None]
    assert one["bytes"].tolist() == [b"a", None]
    assert one["flag"].dtype == np.bool_
    assert one["maybe"].tolist() == [True, None]
    assert one["gap"].dtype == np.float64
    assert one["gap32"].dtype == np.float32
    assert one["ts"].dtype == np.dtype("M8[ms]")
    assert np.isnat(one["ts"][1])
    assert one["day"].tolist()[0].isoformat() == "1970-01-02"
    assert one["took"].dtype == np.dtype("m8[us]")
    assert one["list"].tolist() == [[1], None]


def test_an_empty_batch_becomes_empty_arrays() -> None:
    one = batch(pa.table({"x": pa.array([], "float64"), "s": pa.array([], "string")}))
    assert one["x"].shape == (0,)
    assert one["s"].shape == (0,)
    assert one.to_numpy(["x", "x"]).shape == (0, 2)


def test_several_chunks_are_one_array() -> None:
    one = chunked([1.0, None], [3.0])
    assert one.num_rows == 3
    assert one.to_numpy(["x"])[2, 0] == 3.0


def test_a_batch_becomes_pyarrow_polars_and_pandas() -> None:
    one = batch({"x": [1.5, 2.5], "s": ["a", "b"]})
    assert one.to_pyarrow().to_pydict() == {"x": [1.5, 2.5], "s": ["a", "b"]}
    assert one.to_polars().equals(pl.DataFrame({"x": [1.5, 2.5], "s": ["a", "b"]}))
    assert one.to_pandas()["x"].tolist() == [1.5, 2.5]
    assert isinstance(one.to_pandas(), pd.DataFrame)


def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        batch({"x": [1]}).to_polars()
