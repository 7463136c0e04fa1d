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
``date32``, ``timestamp[s|ms|us|ns]`` and with a zone ``timestamp[us, Europe/Rome]``.
"""


class Json:
    """One JSON object a record.

    Reading, the schema says which keys become columns, and as what. A missing key or JSON's null is null, other keys
    are ignored, of a key that comes twice the last one counts. A timestamp is ISO 8601 text, UTC where it has no
    zone, or a number in the column's unit or in `date_unit`; what is finer than the column's unit is rounded down.
    Writing, no schema is needed: each row becomes an object of all columns,
    timestamps as ISO 8601 text, NaN and null as null.

    Args:
        schema: the columns to read; None where the format is for writing.
        date_unit: what numbers in timestamp columns count, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``; by default each
            column's own unit. Records with ``time.time()``, seconds with a fraction, are read exactly as
            ``tm.Json({"t": "timestamp[us]"}, date_unit="s")``.

    Raises:
        SchemaError: a type's name is unknown; the message shows the nearest.
        ConfigError: a type that JSON is not read into, no column at all, or `date_unit` without a schema.

    >>> import tidemill as tm
    >>> tm.Json({"device": "string", "temperature": "float64"})
    Json({"device": "string", "temperature": "float64"})
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


def _schema(schema: SchemaLike) -> _native.Schema:
    return schema if isinstance(schema, _native.Schema) else _native.Schema(schema)
