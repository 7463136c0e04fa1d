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
from tidemill.batch import Batch
from tidemill.context import StreamingContext, as_soon_as_possible, available_now, interval
from tidemill.dead_letters import DeadLetters
from tidemill.dstream import AggregatedStream, DStream
from tidemill.expressions import Expr, aggregate, col, count, functions, lit, sql_expr, when
from tidemill.formats import Csv, Json, Raw, Text
from tidemill.grouping import GroupedStream, GroupedWindows, WindowedStream
from tidemill.hints import no_attribute
from tidemill.listener import BatchInfo, Listener, OutputOperationInfo, ReceiverInfo, StreamingListener
from tidemill.offset import OffsetRange
from tidemill.outputs import read_output
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
    "BatchInfo",
    "CheckpointError",
    "ConfigError",
    "Csv",
    "DStream",
    "DataError",
    "DataLossError",
    "DeadLetters",
    "Event",
    "Expr",
    "FencedError",
    "GroupedStream",
    "GroupedWindows",
    "Json",
    "Listener",
    "MemoryLimitError",
    "OffsetRange",
    "OutputOperationInfo",
    "Progress",
    "Raw",
    "ReceiverInfo",
    "Sasl",
    "Schema",
    "SchemaError",
    "SinkError",
    "SourceError",
    "StreamingContext",
    "StreamingListener",
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
    "read_output",
    "sql_expr",
    "testing",
    "when",
]

_LAZY = frozenset({"ml", "testing"})
_AGGREGATES = ("collect", "first", "last", "max", "mean", "min", "n_unique", "stddev", "sum", "var")
"""Functions of a module in Polars and Spark."""


def __getattr__(name: str) -> object:
    """Submodules are imported on use, so that ``import tidemill`` stays quick."""
    if name in _LAZY:
        from importlib import import_module

        return import_module(f"tidemill.{name}")
    raise no_attribute("module 'tidemill'", name, _written())


def __dir__() -> list[str]:
    return sorted(__all__)


def _written() -> dict[str, str]:
    """All names, as they are written: those of the module, and those that other libraries have in theirs."""
    elsewhere = {one: f"functions.{one}(...)" for one in dir(functions)}
    elsewhere |= {one: f"stream.{one}" for one in dir(DStream)}
    elsewhere |= {
        one: f"StreamingContext(...).{one}" for one in ("kafka", "progress", "run", "start", "stop")
    }
    elsewhere |= {one: f'col("x").{one}()' for one in _AGGREGATES}
    return elsewhere | {one: one for one in __all__}
