"""How records become columns, and columns records.

A format deliberately knows nothing of sources: the same one reads Kafka and a test's script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import tidemill._native as _native
from tidemill._native import ConfigError


class ArrowSchema(Protocol):
    """Anything with the Arrow schema capsule: ``pyarrow.Schema``, ``arro3.core.Schema``, `Schema`, ..."""

    def __arrow_c_schema__(self) -> object: ...


SchemaLike = Mapping[str, Any] | ArrowSchema
"""A dict of names and types such as ``{"device": "string", "ts": "timestamp[ms]"}``, or an Arrow schema of any
library.

Types are Arrow's names: ``bool``, ``int8`` ... ``uint64``, ``float32``, ``float64``, ``string``, ``binary``,
``date32``, ``decimal(10, 2)``, ``timestamp[s|ms|us|ns]`` and with a zone ``timestamp[us, Europe/Rome]``; ``list<T>``,
``map<string, T>`` and, for a struct, a dict of its members. Python's ``bool``, ``int``, ``float``, ``str``, ``bytes``,
``date``, ``datetime`` (``timestamp[us]``), ``list[T]`` (or ``[T]``) and ``dict[str, T]`` are taken too, and the types
of pyarrow and Polars.
"""


class Json:
    """One JSON object a record.

    Reading, the schema says which keys become columns, and as what. A missing key or JSON's null is null, other keys
    are ignored, of a key that comes twice the last one counts. A timestamp is ISO 8601 text, UTC where it has no
    zone, or a number in the column's unit or in `date_unit`; what is finer than the column's unit is rounded down.
    Binary is base64, and a decimal takes numbers that fit without rounding. Arrays are lists, objects are structs,
    whose members follow the same rules, or maps, with any keys. A value that does not fit makes its record a bad one,
    which is told with its path: ``readings.3.value``.

    Without a schema, reading tells the columns from the last 1,000 records of each partition, once, when the stream is
    made, and prints them to be pasted: another start might find others. Numbers of the event time become timestamps in
    the unit that fits this century, or, with fractions, in a finer one with the `date_unit`. What is null in all
    records, or of several types, is left out, and said to be.

    Writing, no schema is needed: each row becomes an object of all columns, timestamps as ISO 8601 text, NaN and null
    as null.

    Args:
        schema: the columns to read; None where the format is for writing, or the columns are to be told from records.
        date_unit: what numbers in timestamp columns count, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``; by default each
            column's own unit, microseconds for ``datetime``. Records with ``time.time()``, seconds with a fraction,
            are read exactly as ``tm.Json({"t": "timestamp[us]"}, date_unit="s")``.

    Raises:
        SchemaError: a type's name is unknown; the message shows the nearest.
        ConfigError: a type that JSON is not read into, no column at all, no records to tell the columns from, or
            `date_unit` without a schema.

    >>> import tidemill as tm
    >>> tm.Json({"device": "string", "temperature": "float64"})
    Json({"device": "string", "temperature": "float64"})
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'{"tags": ["a", "b"], "at": {"lat": 45.5, "lon": 12.3}, "limits": {"t": 80}}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> schema = {"tags": list[str], "at": {"lat": float, "lon": float}, "limits": dict[str, float]}
    >>> places = ctx.scripted(source, format=tm.Json(schema))
    >>> lat, limit = tm.col("at")["lat"], tm.col("limits")["t"]
    >>> rows = places.select(lat.alias("lat"), limit.alias("limit"), last=tm.col("tags")[-1])
    >>> [batch.to_pyarrow().to_pylist() for batch in rows]
    [[{'lat': 45.5, 'limit': 80.0, 'last': 'b'}]]
    """

    def __init__(
        self,
        schema: SchemaLike | None = None,
        *,
        date_unit: Literal["s", "ms", "us", "ns"] | None = None,
    ) -> None:
        if schema is None and date_unit is not None:
            raise ConfigError(
                "date_unit says how numbers are read, and needs a schema: timestamps are written as text"
            )
        self.schema = None if schema is None else _native.json_schema(schema)
        self._date_unit = date_unit
        if self.schema is not None and date_unit is not None:
            self.schema = _native.json_dates(self.schema, date_unit)

    def __repr__(self) -> str:
        if self.schema is None:
            return "Json()"
        columns = repr(self.schema).removeprefix("Schema(").removesuffix(")")
        unit = f', date_unit="{self._date_unit}"' if self._date_unit else ""
        return f"Json({columns}{unit})"


class Csv:
    """One record of CSV (RFC 4180) a message.

    Reading, the fields are the schema's columns in their order, as many as there are. Values are written as in `Json`,
    text without quotes of its own: ``true``, ``21.5``, ``2024-02-29T12:00:00Z``. A quoted field may hold delimiters,
    line breaks and, doubled, quotes; one that is not quoted holds none. One line break may end the record. Writing, no
    schema is needed: each row becomes a record of all columns, which reading gives back, but for NaN, which is null.

    Args:
        schema: the columns to read, of flat types; None where the format is for writing.
        delimiter: what stands between two fields; one mark, such as ``";"`` or ``"\\t"``.
        quote: what stands around a field that is quoted.
        header: each message is a line of names and then the record. Fields are told by name: a column that is not there
            is null, and other names are ignored.
        null: the field that stands for null, where it is not quoted.

    Raises:
        SchemaError: a type's name is unknown; the message shows the nearest.
        ConfigError: a type that CSV is not read into, no column at all, or marks that cannot be told apart.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'a-1;"21.5"', b"a;2;;", b"b-7;-4"])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> format = tm.Csv({"device": "string", "temperature": "float64"}, delimiter=";")
    >>> readings = ctx.scripted(source, format=format, on_bad="drop")
    >>> [(batch["device"].tolist(), batch["temperature"].tolist()) for batch in readings]
    [(['a-1', 'b-7'], [21.5, -4.0])]
    """

    def __init__(
        self,
        schema: SchemaLike | None = None,
        *,
        delimiter: str = ",",
        quote: str = '"',
        header: bool = False,
        null: str = "",
    ) -> None:
        self._dialect = _native.CsvDialect(delimiter, quote, header, null)
        self._differing = [
            f"{name}={given!r}"
            for name, given, usual in (
                ("delimiter", delimiter, ","),
                ("quote", quote, '"'),
                ("header", header, False),
                ("null", null, ""),
            )
            if given != usual
        ]
        self.schema = None if schema is None else _native.csv_schema(schema)

    def __repr__(self) -> str:
        columns = [] if self.schema is None else [repr(self.schema).removeprefix("Schema(").removesuffix(")")]
        return f"Csv({', '.join([*columns, *self._differing])})"


class Text:
    """The payload as text: one string column called ``value``. What is no valid UTF-8 is a bad record.

    Writing, the stream must have exactly one column of text, or ``value=`` names it; null is a tombstone.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b"GET /", b"\\xff", b"POST /orders"])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> [batch["value"].tolist() for batch in ctx.scripted(source, format=tm.Text(), on_bad="drop")]
    [['GET /', 'POST /orders']]
    """

    schema = None

    def __repr__(self) -> str:
        return "Text()"


class Raw:
    """The payload as it is: one binary column called ``value``.

    Writing, the stream must have exactly one column, of text or bytes.

    >>> import tidemill as tm
    >>> tm.Raw()
    Raw()
    """

    schema = None

    def __repr__(self) -> str:
        return "Raw()"


Format = Json | Csv | Text | Raw
"""How the records of a source are read."""


def _arguments(given: object) -> tuple[str, _native.Schema | None, _native.CsvDialect | None]:
    """What the core is told of a format that a source is read with."""
    match given:
        case Json():
            return "json", given.schema, None
        case Csv(schema=None):
            raise ConfigError(
                'reading CSV needs a schema; pass, say, tm.Csv({"device": "string", "t": "float64"})'
            )
        case Csv():
            return "csv", given.schema, given._dialect
        case Text():
            return "text", None, None
        case Raw():
            return "raw", None, None
    raise ConfigError(f"format is tm.Json(schema), tm.Csv(schema), tm.Text() or tm.Raw(), found {given!r}")


def _written_as(given: object) -> tuple[str, None, _native.CsvDialect | None]:
    """What the core is told of a format that rows are written in; the default is JSON."""
    if isinstance(given, Json | Csv) and given.schema is not None:
        name = type(given).__name__
        raise ConfigError(
            f"to_kafka() writes all columns of the stream, found a schema in {given!r}; pass tm.{name}(), and select() "
            "the columns before"
        )
    match given:
        case None | Json():
            return "json", None, None
        case Csv():
            return "csv", None, given._dialect
        case Text():
            return "text", None, None
        case Raw():
            return "raw", None, None
    raise ConfigError(f"to_kafka() takes format=tm.Json(), tm.Csv(), tm.Text() or tm.Raw(), found {given!r}")


def _schema(schema: SchemaLike) -> _native.Schema:
    return schema if isinstance(schema, _native.Schema) else _native.Schema(schema)
