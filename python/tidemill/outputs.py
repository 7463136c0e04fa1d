"""What a job has published as files: exactly what its manifests name.

It deliberately reads no row itself: pyarrow does, with the columns' own types.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tidemill._native as _native
from tidemill.table import _need

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


def read_output(path: str | os.PathLike[str]) -> ds.Dataset:
    """The rows that a job has published with `DStream.to_files`, as a ``pyarrow.dataset.Dataset``.

    A job with a checkpoint that delivers exactly once publishes a batch by a manifest. What is read here are the files
    that manifests name: whole batches, each once, also while the job writes, and whatever it has left in a crash.

    Args:
        path: the directory that `to_files` was given.

    Returns:
        A dataset with all columns: those of `partition_by` too. It is of the batches that are published now;
        ``to_table()`` reads it, ``polars.scan_pyarrow_dataset`` and DuckDB take it as it is. In JSON and CSV files
        binary columns are text, in base64.

    Raises:
        ConfigError: there are no manifests.
        SinkError: a manifest is damaged, or names a file that is not there, or not whole.
        ImportError: pyarrow is not installed.

    >>> import tempfile, tidemill as tm
    >>> tm.read_output(tempfile.mkdtemp())
    Traceback (most recent call last):
        ...
    tidemill.ConfigError: there are no manifests in ...
    """
    pyarrow, dataset = _need("pyarrow"), _need("pyarrow.dataset")
    parts = [_dataset(*files) for files in _native.published_files(Path(path).expanduser())]
    if not parts:
        raise _native.ConfigError(f"nothing is published in {os.fspath(path)} yet; read it again later")
    schema = pyarrow.unify_schemas([part.schema for part in parts], promote_options="permissive")
    if len(parts) == 1:
        return parts[0]
    return dataset.UnionDataset(schema, [part.replace_schema(schema) for part in parts])


def _dataset(kind: str, stream: bytes, by: list[str], files: list[tuple[Path, Path]]) -> ds.Dataset:
    """Files that are alike. Each is told what its directory means, since not all stand in theirs yet."""
    pyarrow, dataset, fs = _need("pyarrow"), _need("pyarrow.dataset"), _need("pyarrow.fs")
    schema = pyarrow.ipc.open_stream(stream).schema
    if kind != "parquet":
        schema = pyarrow.schema([_as_text(field) for field in schema])
    directories = dataset.partitioning(pyarrow.schema([schema.field(name) for name in by]), flavor="hive")
    reader, local = _reader(kind, schema, by), fs.LocalFileSystem()
    fragments = [
        reader.make_fragment(str(file), local, directories.parse(f"/{directory}/"))
        for file, directory in files
    ]
    return dataset.FileSystemDataset(fragments, schema, reader, local)


def _as_text(field: pa.Field) -> pa.Field:
    """Bytes in a text file are text."""
    pyarrow = _need("pyarrow")
    return field.with_type(pyarrow.string()) if field.type == pyarrow.binary() else field


def _reader(kind: str, schema: pa.Schema, by: list[str]) -> Any:
    dataset = _need("pyarrow.dataset")
    if kind == "parquet":
        return dataset.ParquetFileFormat()
    if kind == "json":
        return dataset.JsonFileFormat()
    types = {field.name: field.type for field in schema if field.name not in by}
    convert = _need("pyarrow.csv").ConvertOptions(
        column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parse = _need("pyarrow.csv").ParseOptions(newlines_in_values=True)
    scan = dataset.CsvFragmentScanOptions(convert_options=convert)
    return dataset.CsvFileFormat(parse_options=parse, default_fragment_scan_options=scan)
