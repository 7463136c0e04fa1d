"""Spark Streaming's model without the JVM: micro-batches from Kafka as Arrow tables, scored in Rust and Python.

>>> import tidemill as tm
>>> ctx = tm.StreamingContext("500ms")
>>> readings = ctx.kafka(
...     "readings", bootstrap_servers="localhost:9092",
...     format=tm.Json({"device": "string", "ts": "timestamp[ms]", "temperature": "float64"}),
...     event_time="ts", watermark="5s",
... )
>>> readings.filter(tm.col("temperature") > 80).pprint()

``ctx.run()`` then runs it. `StreamingContext` and `DStream` are where to read on; `testing` runs a job
without a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill._native import (
    BackPressure,
    CheckpointError,
    ConfigError,
    DataError,
    DataLossError,
    Event,
    FencedError,
    MemoryLimitError,
    Progress,
    Schema,
    SchemaError,
    SinkError,
    SourceError,
    TidemillError,
    Totals,
    __version__,
)
from tidemill.batch import Batch, OffsetRange
from tidemill.context import StreamingContext, as_soon_as_possible, available_now, interval
from tidemill.dstream import AggregatedStream, DStream
from tidemill.expressions import Expr, aggregate, col, count, functions, lit, sql_expr, when
from tidemill.formats import Csv, Json, Raw, Text
from tidemill.grouping import GroupedStream, GroupedWindows, WindowedStream
from tidemill.hints import no_attribute
from tidemill.listener import Listener
from tidemill.security import Sasl, Tls, Token
from tidemill.sinks import AUTO
from tidemill.table import Table

if TYPE_CHECKING:
    from tidemill import ml, testing

__all__ = [
    "AUTO",
    "AggregatedStream",
    "BackPressure",
    "Batch",
    "CheckpointError",
    "ConfigError",
    "Csv",
    "DStream",
    "DataError",
    "DataLossError",
    "Event",
    "Expr",
    "FencedError",
    "GroupedStream",
    "GroupedWindows",
    "Json",
    "Listener",
    "MemoryLimitError",
    "OffsetRange",
    "Progress",
    "Raw",
    "Sasl",
    "Schema",
    "SchemaError",
    "SinkError",
    "SourceError",
    "StreamingContext",
    "Table",
    "Text",
    "TidemillError",
    "Tls",
    "Token",
    "Totals",
    "WindowedStream",
    "__version__",
    "aggregate",
    "as_soon_as_possible",
    "available_now",
    "col",
    "count",
    "functions",
    "interval",
    "lit",
    "ml",
    "sql_expr",
    "testing",
    "when",
]

_LAZY = frozenset({"ml", "testing"})


def __getattr__(name: str) -> object:
    """Submodules are imported on use, so that ``import tidemill`` stays quick."""
    if name in _LAZY:
        from importlib import import_module

        return import_module(f"tidemill.{name}")
    raise no_attribute("module 'tidemill'", name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
