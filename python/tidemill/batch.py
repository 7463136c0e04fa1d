"""The rows of one micro-batch, and where they come from.

A batch is a small, immutable Arrow table. It deliberately has no operators of its own: pyarrow, Polars, pandas and
NumPy have them, and each takes a batch without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import tidemill._native as _native

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_ROWS = 10


class OffsetRange(NamedTuple):
    """The records ``[from_offset, until_offset)`` of one partition.

    Compaction and transaction markers leave holes: a range may hold fewer records than it spans.

    >>> import tidemill as tm
    >>> tm.OffsetRange("readings", 0, 5, 8).until_offset
    8
    """

    topic: str
    """The topic's name."""
    partition: int
    """The partition's number."""
    from_offset: int
    """The first offset read."""
    until_offset: int
    """The first offset not read."""


class Batch:
    """The rows of one micro-batch, or of one partition of it.

    Functions given to `DStream.map_batches` and `DStream.foreach_batch` get one, and ``for batch in stream``
    yields them. Anything that knows the Arrow PyCapsule interface reads it without a copy:
    ``pyarrow.table(batch)``, ``polars.DataFrame(batch)``, ``duckdb``'s queries over it, and so on.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource(partitions=1)
    >>> source.push(0, [b'{"t": 1.5}', b'{"t": 2.5}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> for batch in ctx.scripted(source, format=tm.Json({"t": "float64"})):
    ...     print(batch.num_rows, batch["t"].sum())
    2 4.0
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.Batch) -> None:
        self._native = native

    @property
    def id(self) -> int:
        """The batch's number within its job, from 0, without gaps."""
        return self._native.id

    @property
    def time(self) -> datetime:
        """The batch's own time (UTC); strictly increasing from batch to batch."""
        return _EPOCH + timedelta(milliseconds=self._native.time_ms)

    @property
    def watermark(self) -> datetime | None:
        """The watermark before this batch (UTC): rows older than it are late. None without event time."""
        micros = self._native.watermark_us
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)

    @property
    def partition(self) -> int | None:
        """The source's partition, after `key_by` the shard; None where all rows of a batch come together."""
        return self._native.partition

    @property
    def offset_ranges(self) -> tuple[OffsetRange, ...]:
        """What the whole batch read of each partition."""
        return tuple(OffsetRange(*one) for one in self._native.offset_ranges)

    @property
    def schema(self) -> _native.Schema:
        """Names and types of the columns; takes part in the Arrow PyCapsule interface."""
        return self._native.schema

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return self.schema.names

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self._native.num_rows

    def __len__(self) -> int:
        return self._native.num_rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._native.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """One column as a NumPy array of shape ``(num_rows,)``; see `to_numpy`."""
        return self._native.column(name)

    def to_numpy(
        self, columns: str | Sequence[str] | None = None, dtype: npt.DTypeLike | None = None
    ) -> npt.NDArray[Any]:
        """Columns as NumPy: one name gives an array of shape ``(num_rows,)``, a list a C-contiguous matrix of shape
        ``(num_rows, len(columns))``, filled in parallel while other Python threads run.

        A single column of numbers without nulls, in its own type, is a read-only view and costs nothing. Nulls
        become NaN in floats and NaT in times; an integer or boolean column with nulls alone becomes float64 or
        objects. In a matrix a time counts its column's unit since the epoch, and a boolean is 0 or 1. Without `dtype`
        a matrix has the type that all its columns share, else float64.

        Args:
            columns: one name, several, or None for all.
            dtype: float32, float64 or an integer type, as NumPy or its name.

        Raises:
            SchemaError: a column is missing, is no number, or does not fit `dtype`; its name is in the message.
        """
        name = None if dtype is None else _dtype_name(dtype)
        if isinstance(columns, str):
            return self._native.column(columns, name)
        return self._native.matrix(list(self.columns if columns is None else columns), name)

    def to_pyarrow(self) -> pa.Table:
        """The rows as a ``pyarrow.Table``, without a copy."""
        return _need("pyarrow").table(self)

    def to_polars(self) -> pl.DataFrame:
        """The rows as a ``polars.DataFrame``, without a copy where Polars needs none."""
        frame: pl.DataFrame = _need("polars").DataFrame(self)
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a ``pandas.DataFrame``; by way of NumPy, so that pyarrow is not needed."""
        frame: pd.DataFrame = _need("pandas").DataFrame({name: self[name] for name in self.columns})
        return frame

    def __repr__(self) -> str:
        where = "" if self.partition is None else f", partition {self.partition}"
        return f"Batch {self.id}{where}: {self.num_rows} rows of {self.schema!r}"

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(
            f"<th>{escape(name)}<br><small>{escape(kind)}</small></th>" for name, kind in self._kinds()
        )
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in self._head()
        )
        return f"<p>{escape(repr(self).split(' of ')[0])}</p><table><tr>{head}</tr>{rows}</table>"

    def _kinds(self) -> list[tuple[str, str]]:
        return list(zip(self.schema.names, self.schema.types, strict=True))

    def _head(self) -> list[tuple[Any, ...]]:
        columns = [self[name][:_SHOWN_ROWS] for name in self.columns]
        return list(zip(*columns, strict=True))


def _dtype_name(dtype: npt.DTypeLike) -> str:
    import numpy as np

    return str(np.dtype(dtype).name)


def _need(module: str) -> Any:
    """A library that is imported on use, or how to get it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as missing:
        raise ImportError(f"this needs {module}, which is not installed; pip install {module}") from missing
