"""What a job has published as files: exactly what its manifests name.

It deliberately reads no row itself: pyarrow does, with the columns' own types.
"""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

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
        ``to_table()`` reads it, ``polars.scan_pyarrow_dataset`` and DuckDB take it as it is. Parquet files are read
        when it is; JSON and CSV files are read here and held in memory.

    Raises:
        ConfigError: there are no manifests, or a column has changed its type for another kind of type.
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
    if len(parts) == 1:
        return parts[0]
    try:
        schema = pyarrow.unify_schemas([part.schema for part in parts], promote_options="permissive")
    except pyarrow.ArrowTypeError as differ:
        raise _native.ConfigError(
            f"the batches in {os.fspath(path)} do not fit together: {differ}"
        ) from differ
    return dataset.UnionDataset(schema, [part.replace_schema(schema) for part in parts])


def _dataset(kind: str, stream: bytes, by: list[str], files: list[tuple[Path, Path]]) -> ds.Dataset:
    """Files that are alike. Each is told what its directory means, since not all stand in theirs yet."""
    pyarrow, dataset, fs = _need("pyarrow"), _need("pyarrow.dataset"), _need("pyarrow.fs")
    schema = pyarrow.ipc.open_stream(stream).schema
    directories = dataset.partitioning(pyarrow.schema([schema.field(name) for name in by]), flavor="hive")
    meanings = [directories.parse(f"/{directory}/") for _, directory in files]
    if kind == "parquet":
        reader, local = dataset.ParquetFileFormat(), fs.LocalFileSystem()
        pairs = zip(files, meanings, strict=True)
        fragments = [reader.make_fragment(str(file), local, meaning) for (file, _), meaning in pairs]
        return dataset.FileSystemDataset(fragments, schema, reader, local)
    columns = pyarrow.schema([field for field in schema if field.name not in by])
    tables = [schema.empty_table()]
    for (file, _), meaning in zip(files, meanings, strict=True):
        table = _typed(_read_text(kind, file, columns), columns)
        for name, value in dataset.get_partition_keys(meaning).items():
            field = schema.field(name)
            table = table.append_column(field, pyarrow.array([value] * table.num_rows, field.type))
        tables.append(table.select(schema.names))
    return dataset.dataset(pyarrow.concat_tables(tables))


def _read_text(kind: str, file: Path, columns: pa.Schema) -> pa.Table:
    """A text file with the types that pyarrow reads there, and text for the others.

    File by file and on this thread: pyarrow's own scan of several JSON files may wait for itself for ever where there
    are few cores.
    """
    pyarrow, module = _need("pyarrow"), _need(f"pyarrow.{kind}")
    columns = pyarrow.schema([_as_text(field) for field in columns])
    if kind == "json":
        parse = module.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore")
        return module.read_json(file, module.ReadOptions(use_threads=False), parse)
    types = {field.name: field.type for field in columns}
    convert = module.ConvertOptions(
        column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    read, parse = module.ReadOptions(use_threads=False), module.ParseOptions(newlines_in_values=True)
    return module.read_csv(file, read, parse, convert)


def _typed(table: pa.Table, columns: pa.Schema) -> pa.Table:
    """The columns' own types, bytes from base64."""
    pyarrow, types = _need("pyarrow"), _need("pyarrow.types")
    for place, field in enumerate(columns):
        if types.is_binary(field.type):
            texts = table[field.name].to_pylist()
            values = [None if text is None else b64decode(text) for text in texts]
            table = table.set_column(place, field, pyarrow.array(values, field.type))
    return table.select(columns.names).cast(columns)


def _as_text(field: pa.Field) -> pa.Field:
    """What pyarrow makes nothing of where it stands as text."""
    types = _need("pyarrow.types")
    is_text = types.is_binary(field.type) or types.is_date(field.type) or types.is_time(field.type)
    return field.with_type(_need("pyarrow").string()) if is_text else field
