"""What a job has published is read back as it was: by manifests, with all columns and their types."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tidemill._native import publish_files

SCHEMA = pa.schema(
    {
        "n": pa.int64(),
        "x": pa.float64(),
        "text": pa.string(),
        "day": pa.date32(),
        "utc": pa.timestamp("ms", "UTC"),
        "price": pa.decimal128(10, 2),
        "ok": pa.bool_(),
        "raw": pa.binary(),
    }
)


def rows(first: int, count: int) -> pa.Table:
    """Rows of all types, some of them null."""
    made = [
        {
            "n": n,
            "x": n / 2,
            "text": None if n % 3 == 0 else f'a,"b"\n{n}',
            "day": date(2026, 11, 1 + n % 2),
            "utc": datetime(2026, 11, 21, 22, 30, n % 60, tzinfo=UTC) if n % 5 else None,
            "price": Decimal(n) / 4,
            "ok": None if n % 7 == 0 else n % 2 == 0,
            "raw": None if n % 4 == 0 else bytes([n, 255]),
        }
        for n in range(first, first + count)
    ]
    return pa.Table.from_pylist(made, SCHEMA)


def read(path: Path) -> pa.Table:
    table = tm.read_output(path).to_table()
    return table.select(SCHEMA.names).sort_by("n")


@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
@pytest.mark.parametrize("by", [[], ["day"], ["day", "ok"]])
def test_what_is_published_is_read_with_its_types(tmp_path: Path, kind: str, by: list[str]) -> None:
    for epoch, first in enumerate((0, 10, 20), start=1):
        publish_files(str(tmp_path), rows(first, 10), epoch, kind, by)
    assert read(tmp_path).to_pylist() == rows(0, 30).to_pylist()
    assert read(tmp_path).schema.types == SCHEMA.types


def test_a_batch_counts_before_its_files_have_their_names(tmp_path: Path) -> None:
    publish_files(str(tmp_path), rows(0, 10), 1, "parquet", ["day"])
    manifest = (tmp_path / "_tidemill/manifests" / f"{0:020}").read_text()
    for line in manifest.splitlines():
        if line.startswith("file "):
            *_, draft, path = line.split(" ")
            shutil.move(tmp_path / path, tmp_path / "_tidemill/drafts" / draft)
    assert read(tmp_path).to_pylist() == rows(0, 10).to_pylist()


def test_what_no_manifest_names_is_not_read(tmp_path: Path) -> None:
    publish_files(str(tmp_path), rows(0, 10), 1)
    (file,) = tmp_path.glob("*.parquet")
    shutil.copy(file, tmp_path / "left-behind.parquet")
    assert len(pl.read_parquet(tmp_path / "*.parquet")) == 20
    assert read(tmp_path).num_rows == 10


def test_a_job_that_has_changed_its_output_is_read_as_a_whole(tmp_path: Path) -> None:
    publish_files(str(tmp_path), rows(0, 10), 1, "parquet")
    publish_files(str(tmp_path), rows(10, 10), 2, "csv", ["day"])
    extra = rows(20, 10).append_column("extra", pa.array(range(10), pa.int64()))
    publish_files(str(tmp_path), extra, 3, "json", ["day"])
    assert read(tmp_path).to_pylist() == rows(0, 30).to_pylist()
    assert tm.read_output(tmp_path).to_table()["extra"].null_count == 20
    publish_files(str(tmp_path), pa.table({"n": ["text"]}), 4)
    with pytest.raises(tm.ConfigError, match="do not fit together"):
        tm.read_output(tmp_path)


def test_an_empty_batch_says_what_the_columns_are(tmp_path: Path) -> None:
    publish_files(str(tmp_path), rows(0, 0), 1)
    assert read(tmp_path).num_rows == 0
    assert tm.read_output(tmp_path).schema.names == SCHEMA.names


def test_a_file_that_is_gone_or_cut_is_an_error(tmp_path: Path) -> None:
    publish_files(str(tmp_path), rows(0, 10), 1, "csv")
    (file,) = tmp_path.glob("*.csv")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(tm.SinkError, match=rf"should have {len(whole)} bytes, found {len(whole) - 1}"):
        tm.read_output(tmp_path)
    file.unlink()
    with pytest.raises(tm.SinkError, match="which is not there; was it removed"):
        tm.read_output(tmp_path)
