"""Files: what other libraries read back is what was written, and what cannot be written says so."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import tidemill as tm
from tests.python.conftest import Numbers
from tidemill.testing import ScriptedSource

ROWS = pa.table(
    {
        "n": pa.array([1, None, -(2**63)], pa.int64()),
        "x": pa.array([0.1, math.inf, None], pa.float64()),
        "text": pa.array(['a,"b"\nc', "", None], pa.string()),
        "day": pa.array([datetime(2026, 11, 21), None, datetime(1970, 1, 1)], pa.date32()),
        "utc": pa.array([datetime(2026, 11, 21, 22, 30, tzinfo=UTC), None, None], pa.timestamp("ms", "UTC")),
        "rome": pa.array([datetime(2026, 7, 1, tzinfo=UTC), None, None], pa.timestamp("us", "Europe/Rome")),
        "price": pa.array([Decimal("12.30"), None, Decimal("-0.01")], pa.decimal128(10, 2)),
        "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
        "ok": pa.array([True, False, None], pa.bool_()),
    }
)
NESTED = pa.table(
    {
        "list": pa.array([[1, None], [], None], pa.list_(pa.int64())),
        "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
    }
)

Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path, numbers: Numbers, drained: tm.StreamingContext) -> Written:
    """Writes a table as one batch, and gives the directory."""

    def write(table: pa.Table, **options: Any) -> Path:
        stream = numbers(1).map_batches(lambda batch: table, schema=table.schema)
        stream.to_files(tmp_path / "out", **options)
        drained.run()
        return tmp_path / "out"

    return write


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_parquet_reads_back_as_it_was(written: Written) -> None:
    table = ROWS
    for name in NESTED.column_names:
        table = table.append_column(NESTED.schema.field(name), NESTED[name])
    folder = written(table)
    assert ds.dataset(folder, format="parquet").to_table().equals(table)
    assert pl.read_parquet(folder).equals(pl.DataFrame(table))


def test_nan_is_nan_in_parquet_and_null_in_csv_and_json(
    numbers: Numbers, drained: tm.StreamingContext, tmp_path: Path
) -> None:
    stream = numbers(1).map_batches(lambda batch: {"x": [math.nan]})
    for format in ("parquet", "csv", "json"):  # noqa: A001
        stream.to_files(tmp_path / format, format=format)
    drained.run()
    assert math.isnan(pl.read_parquet(tmp_path / "parquet")["x"][0])
    assert files(tmp_path / "csv")[0].read_text() == 'x\n""\n'
    assert files(tmp_path / "json")[0].read_text() == '{"x":null}\n'


def test_csv_reads_back_with_every_reader(written: Written) -> None:
    (file,) = files(written(ROWS, format="csv"))
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["text"] for row in rows] == ['a,"b"\nc', "", ""]
    assert rows[0] | {"text": ""} == {
        "n": "1",
        "x": "0.1",
        "text": "",
        "day": "2026-11-21",
        "utc": "2026-11-21T22:30:00Z",
        "rome": "2026-07-01T02:00:00+02:00",
        "price": "12.30",
        "raw": "AP8=",
        "ok": "true",
    }
    polars = pl.read_csv(file, try_parse_dates=True)
    assert polars["n"].to_list() == [1, None, -(2**63)]
    assert polars["ok"].to_list() == [True, False, None]


def test_json_is_what_to_kafka_writes(written: Written) -> None:
    (file,) = files(written(NESTED, format="json"))
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"list": [1, None], "struct": {"a": 1, "b": ["x"]}},
        {"list": [], "struct": None},
        {"list": None, "struct": {"a": None, "b": None}},
    ]
    assert pl.read_ndjson(file)["list"].to_list() == [[1, None], [], None]


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_partitions_read_back_as_columns(written: Written, format: str) -> None:  # noqa: A002
    table = pa.table(
        {"n": [1, 2, 3, 4], "device": ["a/b", "pümp 1", None, "a/b"], "year": [2025, 2026, 2026, 2025]}
    )
    folder = written(table, format=format, partition_by=["year", "device"])
    read = ds.dataset(
        folder,
        format=format,
        partitioning=ds.partitioning(pa.schema({"year": pa.int64(), "device": pa.string()}), flavor="hive"),
    )
    assert read.to_table().select(table.column_names).sort_by("n").equals(table)
    if format == "parquet":
        found = pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)
        assert found.select(table.column_names).sort("n").rows() == pl.DataFrame(table).rows()
    names = {path.relative_to(folder).parent.as_posix() for path in files(folder)}
    assert names == {
        "year=2025/device=a%2Fb",
        "year=2026/device=p%C3%BCmp%201",
        "year=2026/device=__HIVE_DEFAULT_PARTITION__",
    }


def test_a_batch_is_a_file_and_another_run_adds_its_own(tmp_path: Path) -> None:
    for first in (0, 10):
        source = ScriptedSource()
        source.push(0, [b'{"x": %d}' % (first + row) for row in range(3)])
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        ctx.scripted(source, format=tm.Json({"x": "int64"})).to_files(tmp_path, format="csv")
        ctx.run()
    assert len(files(tmp_path)) == 6
    assert pl.read_csv(tmp_path / "*.csv")["x"].to_list() == [0, 1, 2, 10, 11, 12]


def test_mistakes_are_told_before_the_start(
    numbers: Numbers, drained: tm.StreamingContext, tmp_path: Path
) -> None:
    stream = numbers(1)
    with pytest.raises(tm.ConfigError, match=r'found "parket"; did you mean "parquet"\?'):
        stream.to_files(tmp_path, format="parket")  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match="found the URL 's3://bucket/x'"):
        stream.to_files("s3://bucket/x")
    with pytest.raises(tm.ConfigError, match="found a percentage"):
        stream.to_files(tmp_path, max_bytes="10%")
    stream.to_files(tmp_path / "out", partition_by=["dya", "x"])
    with pytest.raises(tm.SchemaError) as told:
        drained.run()
    for part in ('there is no column "dya"', 'found "x" of Float64', "to_files("):
        assert part in str(told.value)
    assert not (tmp_path / "out").exists()


def test_explain_shows_where_files_go(numbers: Numbers, drained: tm.StreamingContext, tmp_path: Path) -> None:
    stream = numbers(1).with_columns(day=tm.lit("mon"))
    stream.to_files(tmp_path, partition_by="day")
    assert f"to_files({tmp_path}), parquet by day" in drained.explain()


@pytest.mark.parametrize("path", ["/sys/tidemill", "/dev/null", "/dev/null/below"])
def test_a_directory_that_cannot_be_written_fails_the_start(
    numbers: Numbers, drained: tm.StreamingContext, path: str
) -> None:
    numbers(1).to_files(path)
    with pytest.raises((tm.SinkError, tm.ConfigError), match="directory") as told:
        drained.run()
    assert path.removesuffix("/below") in str(told.value)


def test_two_outputs_of_one_directory_are_refused(
    numbers: Numbers, drained: tm.StreamingContext, tmp_path: Path
) -> None:
    stream = numbers(1)
    stream.to_files(tmp_path)
    stream.filter("x > 1").to_files(tmp_path)
    with pytest.raises(tm.ConfigError, match="no other stream writes to"):
        drained.run()


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_a_disk_without_room_fails_the_batch_and_leaves_no_file(tmp_path: Path, format: str) -> None:  # noqa: A002
    """The limit on a file's size stands in for a full disk: a write ends in the middle of a file."""
    job = textwrap.dedent(f"""
        import os, resource, tidemill as tm
        source = tm.testing.ScriptedSource()
        source.push(0, [b'{{"x": "%s"}}' % os.urandom(500).hex().encode() for _ in range(1_000)])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Json({{"x": "string"}})).to_files({str(tmp_path)!r}, format={format!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            ctx.run()
        except tm.SinkError as error:
            print(error)
    """)
    ended = subprocess.run(
        [sys.executable, "-c", job], capture_output=True, text=True, timeout=60, env=os.environ, check=True
    )
    for part in ("could not write ", "ulimit -f", "to_files(", "batch 0"):
        assert part in ended.stdout, ended.stdout + ended.stderr
    assert files(tmp_path) == []


@pytest.mark.parametrize("format", ["parquet", "csv", "json"])
def test_a_crash_in_the_middle_of_a_file_leaves_none_and_the_next_start_sweeps_up(
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    """The signal of a file that is too large ends the process while it writes."""
    job = textwrap.dedent(f"""
        import os, resource, signal, tidemill as tm
        source = tm.testing.ScriptedSource()
        source.push(0, [b'{{"x": "%s"}}' % os.urandom(500).hex().encode() for _ in range(1_000)])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Json({{"x": "string"}})).to_files({str(tmp_path)!r}, format={format!r})
        if os.environ.get("CRASH"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        ctx.run()
    """)

    def run(**environment: str) -> int:
        environ = {**os.environ, **environment}
        return subprocess.run([sys.executable, "-c", job], timeout=60, env=environ, check=False).returncode

    assert run(CRASH="1") == -signal.SIGXFSZ
    left = files(tmp_path)
    assert left
    assert all(path.name.startswith(".tidemill-") for path in left)
    assert run() == 0
    (file,) = files(tmp_path)
    assert file.suffix == f".{format}"
    assert ds.dataset(file, format=format).count_rows() == 1_000


def test_a_full_disk_fails_the_batch_and_a_start_with_room_writes_it(tmp_path: Path) -> None:
    said = _on_a_small_disk(
        tmp_path,
        """
        source = tm.testing.ScriptedSource()
        source.push(0, [b'{"x": "%s"}' % os.urandom(500).hex().encode() for _ in range(500)])

        def start(format):
            ctx = tm.StreamingContext(trigger=tm.available_now())
            stream = ctx.scripted(source, format=tm.Json({"x": "string"}))
            stream.to_files(here / format, format=format)
            ctx.run()

        def files(format):
            return list((here / format).iterdir())

        for format in ("parquet", "csv", "json"):
            filling = here / "filling"
            filling.write_bytes(bytes(900_000))
            try:
                start(format)
            except tm.SinkError as error:
                print(f"{format}: {error}; left: {files(format)}")
            filling.unlink()
            start(format)
            (file,) = files(format)
            print(f"{format}: {len(read(file))} rows")
            shutil.rmtree(here / format)
        """,
    )
    for format_, (failed, written) in zip(
        ("parquet", "csv", "json"), zip(said[::2], said[1::2], strict=True), strict=True
    ):
        for part in (
            f"{format_}: could not ",
            "No space left on device",
            "make room and start again",
            "batch 0",
        ):
            assert part in failed
        assert failed.endswith("; left: []")
        assert written == f"{format_}: 500 rows"


def test_a_disk_that_cannot_be_written_fails_the_start(tmp_path: Path) -> None:
    said = _on_a_small_disk(
        tmp_path,
        """
        source = tm.testing.ScriptedSource()
        source.push(0, [b"{}"])
        (here / "there").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", here], check=True)
        for path in (here, here / "there", here / "new" / "below"):
            ctx = tm.StreamingContext(trigger=tm.available_now())
            ctx.scripted(source, format=tm.Json({"x": "string"})).to_files(path)
            try:
                ctx.run()
            except tm.SinkError as error:
                print(error)
        print(ctx.progress)
        """,
    )
    *told, progress = said
    assert progress == "None", "no batch was begun"
    assert len(told) == 3
    for line, where in zip(told, ("write to ", "write to ", "create the directory "), strict=True):
        assert f"could not {where}{tmp_path}" in line
        for part in ("Read-only file system", "choose another directory", "to_files(", "<string>:"):
            assert part in line


def _on_a_small_disk(here: Path, job: str) -> list[str]:
    """What a job prints, whose directory `here` is a disk of 1 MiB; skips where none may be mounted."""
    alone = ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(here))}"
    try:
        subprocess.run([*alone, "sh", "-c", mount], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small disk needs unshare, of util-linux")
    except subprocess.CalledProcessError as refused:
        pytest.skip(f"no small disk may be mounted here: {refused.stderr.strip()}")
    head = f"""
        import os, shutil, subprocess
        from pathlib import Path
        import polars as pl
        import tidemill as tm
        here = Path({str(here)!r})
        read = lambda path: getattr(pl, {{".json": "read_ndjson"}}.get(path.suffix, "read_" + path.suffix[1:]))(path)
    """
    script = textwrap.dedent(head) + textwrap.dedent(job)
    command = f"{mount} && exec {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    ended = subprocess.run(
        [*alone, "sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()
