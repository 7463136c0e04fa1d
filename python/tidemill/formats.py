"""How records become columns, and columns records.

A format deliberately knows nothing of sources: the same one reads Kafka and a test's script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import tidemill._native as _native


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
    zone, or a number in the column's unit. Writing, no schema is needed: each row becomes an object of all columns,
    timestamps as ISO 8601 text, NaN and null as null.

    Args:
        schema: the columns to read; None where the format is for writing.

    Raises:
        SchemaError: a type's name is unknown; the message shows the nearest.
        ConfigError: a type that JSON is not read into, or no column at all.

    >>> import tidemill as tm
    >>> tm.Json({"device": "string", "temperature": "float64"})
    Json({"device": "string", "temperature": "float64"})
    """

    def __init__(self, schema: SchemaLike | None = None) -> None:
        self.schema = None if schema is None else _native.json_schema(schema)

    def __repr__(self) -> str:
        return "Json()" if self.schema is None else f"Json({repr(self.schema).removeprefix('Schema(')}"


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
