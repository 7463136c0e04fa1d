"""Rows as Arrow, and what other libraries make of them.

Rows deliberately have no operators of their own: pyarrow, Polars, pandas and NumPy have them, and each takes rows
without a copy where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import tidemill._native as _native

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_SHOWN_ROWS = 10
_TEXT = ("string", "large_string", "string_view")


class _Rows:
    """What a `Batch` and a `Table` have in common."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Batch) -> None:
        self._native = native

    @property
    def schema(self) -> _native.Schema:
        """Names and types of the columns; takes part in the Arrow PyCapsule interface.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5, 2.5]}).schema["t"]
        'float64'
        """
        return self._native.schema

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order.

        >>> import tidemill as tm
        >>> tm.testing.batch({"device": ["pump"], "t": [1.5]}).columns
        ['device', 't']
        """
        return self.schema.names

    @property
    def num_rows(self) -> int:
        """The number of rows.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5, 2.5]}).num_rows
        2
        """
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

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__.lower()} is columns, and has no rows to go through; to_pylist() gives each as a "
            "dict, and batch[name], to_polars(), to_pandas() and to_pyarrow() all at once, which is faster"
        )

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def to_numpy(
        self, columns: str | Sequence[str] | None = None, dtype: npt.DTypeLike | None = None
    ) -> npt.NDArray[Any]:
        """Columns as NumPy: one name gives an array of shape ``(num_rows,)``, a list a C-contiguous matrix of shape
        ``(num_rows, len(columns))``, filled in parallel while other Python threads run.

        A single column of numbers without nulls, in its own type, is a read-only view and costs nothing. Nulls
        become NaN in floats and NaT in times; an integer or boolean column with nulls alone becomes float64 or
        objects. Times of day, decimals, text and bytes are Python's own objects, None for null. In a matrix a time
        counts its column's unit since the epoch, and a boolean is 0 or 1. Without `dtype` a matrix has the type that
        all its columns share, else float64.

        Args:
            columns: one name, several, or None for all.
            dtype: float32, float64 or an integer type, as NumPy or its name.

        Raises:
            SchemaError: a column is missing, is no number, or does not fit `dtype`; its name is in the message.

        >>> import tidemill as tm
        >>> batch = tm.testing.batch({"t": [1.5, 2.5], "n": [1, None]})
        >>> batch.to_numpy(["t", "n"], dtype="float32")
        array([[1.5, 1. ],
               [2.5, nan]], dtype=float32)
        """
        name = None if dtype is None else _dtype_name(dtype)
        if isinstance(columns, str):
            return self._native.column(columns, name)
        return self._native.matrix(list(self.columns if columns is None else columns), name)

    def to_pyarrow(self) -> pa.Table:
        """The rows as a ``pyarrow.Table``, without a copy.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5, 2.5]}).to_pyarrow().to_pylist()
        [{'t': 1.5}, {'t': 2.5}]
        """
        return _need("pyarrow").table(self)

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows one by one, each a dict of Python's own values; needs pyarrow.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5, None]}).to_pylist()
        [{'t': 1.5}, {'t': None}]
        """
        rows: list[dict[str, Any]] = self.to_pyarrow().to_pylist()
        return rows

    def to_polars(self) -> pl.DataFrame:
        """The rows as a ``polars.DataFrame``, without a copy where Polars needs none.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5, 2.5]}).to_polars()["t"].sum()
        4.0
        """
        frame: pl.DataFrame = _need("polars").DataFrame(self)
        return frame

    def to_pandas(self, *, dtype_backend: Literal["numpy_nullable", "pyarrow"] | None = None) -> pd.DataFrame:
        """The rows as a ``pandas.DataFrame``, with the types that pandas' own readers give:

        * timestamps: ``datetime64`` of their unit, with their time zone where they have one
          (``timestamp[us, Europe/Rome]`` is ``datetime64[us, Europe/Rome]``); null is NaT
        * dates: ``datetime64[s]`` at midnight (``date64``: ``datetime64[ms]``)
        * durations: ``timedelta64`` of their unit
        * integers and booleans: their own type; with a null among them ``float64`` (exact up to 2**53) and
          ``object`` (True, False, None)
        * floats: their own type; null is NaN
        * text: what pandas has for text: ``str`` since pandas 3, before that ``object``
        * decimals, times of day, bytes, lists, structs: ``object`` (``decimal.Decimal``, ``datetime.time``, ``bytes``,
          ``list``, ``dict``), None for null

        Args:
            dtype_backend: as in ``pandas.read_parquet``: ``"numpy_nullable"`` for pandas' types with a null of their
                own, such as ``Int64``, or ``"pyarrow"`` for Arrow's own types. No value is changed then, and no type
                depends on what the rows are. Needs pyarrow.

        >>> import tidemill as tm
        >>> batch = tm.testing.batch({"n": [1, None]})
        >>> batch.to_pandas()["n"].tolist()
        [1.0, nan]
        >>> batch.to_pandas(dtype_backend="numpy_nullable")["n"].dtype
        Int64Dtype()
        """
        pandas = _need("pandas")
        if dtype_backend is not None:
            frame: pd.DataFrame = self.to_pyarrow().to_pandas(types_mapper=_mapper(pandas, dtype_backend))
        else:
            kinds = self._kinds()
            frame = pandas.DataFrame({name: _series(pandas, self[name], kind) for name, kind in kinds})
        return frame

    def _caption(self) -> str:
        return f"{self.num_rows} rows"

    def __repr__(self) -> str:
        return f"{self._caption()} of {self.schema!r}"

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(
            f"<th>{escape(name)}<br><small>{escape(kind)}</small></th>" for name, kind in self._kinds()
        )
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in self._head()
        )
        return f"<p>{escape(self._caption())}</p><table><tr>{head}</tr>{rows}</table>"

    def _kinds(self) -> list[tuple[str, str]]:
        return list(zip(self.schema.names, self.schema.types, strict=True))

    def _head(self) -> list[tuple[Any, ...]]:
        columns = [self[name][:_SHOWN_ROWS] for name in self.columns]
        return list(zip(*columns, strict=True))


class Table(_Rows):
    """The last rows of a stream, the oldest first: a snapshot, which later batches do not change.

    `DStream.to_table` keeps the rows, `StreamingContext.table` gives them. Anything that knows the Arrow PyCapsule
    interface reads a table without a copy: ``pyarrow.table(table)``, ``polars.DataFrame(table)``, and so on.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'{"t": 1.5}', b'{"t": 2.5}', b'{"t": 3.5}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> ctx.scripted(source, format=tm.Json({"t": "float64"})).to_table("readings", max_rows=2)
    >>> ctx.run()
    >>> readings = ctx.table("readings")
    >>> readings["t"].tolist(), readings.delivered_rows
    ([2.5, 3.5], 3)
    """

    __slots__ = ("_delivered",)

    def __init__(self, native: _native.Batch, delivered: int) -> None:
        super().__init__(native)
        self._delivered = delivered

    @property
    def delivered_rows(self) -> int:
        """How many rows have come since the start; more than `num_rows` where the oldest were pushed out.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b"a", b"b", b"c"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Raw()).to_table("last", max_rows=1)
        >>> ctx.run()
        >>> ctx.table("last").delivered_rows
        3
        """
        return self._delivered

    def _caption(self) -> str:
        of_all = f"the last {self.num_rows} of {self._delivered} rows"
        return f"Table: {super()._caption() if self.num_rows == self._delivered else of_all}"


def _series(pandas: Any, values: npt.NDArray[Any], kind: str) -> Any:
    """A column in the type that pandas has for it."""
    if kind in _TEXT:
        return pandas.Series(values, dtype=pandas.Series([""]).dtype)
    if kind.startswith("timestamp["):
        zone = kind.removesuffix("]").partition(", ")[2]
        if zone:
            return pandas.DatetimeIndex(values, tz="UTC").tz_convert(zone)
    return pandas.Series(values, dtype=values.dtype) if values.dtype == object else values


def _mapper(pandas: Any, backend: str) -> Any:
    """From Arrow's types to pandas' of this family."""
    if backend == "pyarrow":
        return pandas.ArrowDtype
    if backend != "numpy_nullable":
        raise _native.ConfigError(f'dtype_backend is "numpy_nullable" or "pyarrow", found {backend!r}')
    names = {"bool_": "boolean", "string": "string", "large_string": "string", "string_view": "string"}
    names |= {
        f"{sign}int{bits}": f"{sign.upper()}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
    }
    names |= {f"float{bits}": f"Float{bits}" for bits in (32, 64)}
    arrow = _need("pyarrow")
    return {getattr(arrow, name)(): pandas.api.types.pandas_dtype(own) for name, own in names.items()}.get


def _dtype_name(dtype: npt.DTypeLike) -> str:
    import numpy as np

    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        raise _native.ConfigError(
            f'a dtype is NumPy\'s, or its name such as "float32", found {dtype!r}'
        ) from None


def _need(module: str) -> Any:
    """A library that is imported on use, or how to get it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as missing:
        raise ImportError(f"this needs {module}, which is not installed; pip install {module}") from missing
