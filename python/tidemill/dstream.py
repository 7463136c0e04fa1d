"""A stream of micro-batches: operators that make new streams, and outputs.

Every method only adds to the plan and returns; nothing runs before the context starts. Operators on columns run in
Rust; Python functions get whole batches, never single rows.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from numbers import Real
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, SupportsIndex

import tidemill._native as _native
from tidemill.batch import Batch
from tidemill.expressions import Expr, sql_expr
from tidemill.formats import Format, SchemaLike, _schema, _written_as
from tidemill.grouping import GroupedStream, WindowedStream, _flat, _keys, _tell
from tidemill.hints import hinted, no_attribute
from tidemill.models import _name_of, _scorer
from tidemill.security import Sasl, Tls, _protection
from tidemill.sinks import AUTO, AutoType
from tidemill.sources import _servers

ConfigError = _native.ConfigError
SchemaError = _native.SchemaError

Duration = str | timedelta | float
"""``"500ms"``, ``"10s"``, ``"5m"``, ``"1h"``, a ``timedelta``, or seconds."""

Rows = Any
"""What a function over batches returns: anything with the Arrow PyCapsule interface (a pyarrow, pandas or Polars table,
a `Batch`), or a dict of columns (NumPy arrays, lists, Arrow arrays)."""


class _Context(Protocol):
    def _iterate(self, stream: _native.Stream) -> Iterator[Batch]: ...


@hinted
class DStream:
    """A stream of micro-batches with fixed columns.

    Streams are made by a context's sources and by the methods of other streams, never by their constructor. One
    stream may be read by several others; it is computed once a batch.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'{"device": "pump", "t": 20.5}', b'{"device": "press", "t": 99.0}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> readings = ctx.scripted(source, format=tm.Json({"device": "string", "t": "float64"}))
    >>> hot = readings.filter(tm.col("t") > 80).select("device", over=tm.col("t") - 80)
    >>> hot.to_table("hot")
    >>> ctx.run()
    >>> ctx.table("hot").to_pyarrow().to_pylist()
    [{'device': 'press', 'over': 19.0}]
    """

    def __init__(self, context: _Context, native: _native.Stream) -> None:
        self._context = context
        self._native = native

    # -- columns ------------------------------------------------------------------------------------------------

    def filter(self, predicate: Expr | str) -> DStream:
        """Keeps the rows for which `predicate` is true; null counts as false.

        Args:
            predicate: an expression, or SQL text.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64", "status": "string"}))
        >>> hot = s.filter(tm.col("t") > 80)
        >>> hot = s.filter("t > 80 AND status = 'ok'")
        """
        if callable(predicate):
            raise ConfigError(
                "filter() takes an expression or SQL text, found a Python function, which is not offered yet; "
                'write it as, say, col("t") > 80, or use map_batches()'
            )
        return self._next(self._native.filter(predicate))

    def select(self, *columns: str | Expr | Sequence[str | Expr], **named: Expr | str) -> DStream:
        """Exactly these columns: names, expressions (``.alias`` names them) and named expressions.

        Text is the name of a column, as in Polars: an expression in SQL is ``tm.sql_expr("t > 80")``, and text as it is
        ``tm.lit("ok")``.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"f": "float64"}))
        >>> s.select("f", c=(tm.col("f") - 32) / 1.8).columns
        ['f', 'c']
        """
        return self._next(self._native.select(_flat(columns), named))

    def with_columns(self, *columns: Expr | Sequence[Expr], **named: Expr | str) -> DStream:
        """The columns as they are, and these: in place where the name exists, else behind.

        Text is the name of a column, as in `select`.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"f": "float64"}))
        >>> s.with_columns(c=(tm.col("f") - 32) / 1.8).columns
        ['f', 'c']
        """
        return self._next(self._native.with_columns(_flat(columns), named))

    def drop(self, *names: str | Sequence[str]) -> DStream:
        """All columns but these.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Json({"a": "int64", "b": "int64"}))
        >>> s.drop("a").columns
        ['b']
        """
        flat = _flat(names)
        _tell(
            f'drop() takes the names of columns, found {name!r}; write, say, "{_bare(name)}"'
            for name in flat
            if not isinstance(name, str)
        )
        return self._next(self._native.drop(flat))

    def rename(self, names: Mapping[str, str]) -> DStream:
        """The columns under other names, as ``{old: new}``.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"a": "int64"}))
        >>> s.rename({"a": "b"}).columns
        ['b']
        """
        if not isinstance(names, Mapping):
            raise ConfigError(f'rename() takes {{"old": "new"}}, found {names!r}')
        return self._next(self._native.rename(list(names.items())))

    def explode(self, *columns: str | Sequence[str]) -> DStream:
        """One row for each element of a list, the other columns repeated; null or empty lists make one row with a null.

        Args:
            columns: columns of lists; several are taken apart side by side, and are of equal length in each row.

        Raises:
            ConfigError, SchemaError: at start: no such column, or one that is no list.
            DataError: lists of a row that are not of equal length.

        >>> import polars, tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b"hot and loud", b"cold"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> lines = ctx.scripted(source, format=tm.Text(), metadata=["offset"])
        >>> words = lines.map_batches(
        ...     lambda batch: batch.to_polars().select(word=polars.col("value").str.split(" ")),
        ...     adds={"word": "list<string>"},
        ... )
        >>> words.explode("word").select("kafka_offset", "word").to_table("words")
        >>> ctx.run()
        >>> ctx.table("words").to_polars().rows()
        [(0, 'hot'), (0, 'and'), (0, 'loud'), (1, 'cold')]
        """
        names = _flat(columns)
        _tell(
            f'explode() takes the names of columns, found {name!r}; write, say, "{_bare(name)}"'
            for name in names
            if not isinstance(name, str)
        )
        return self._next(self._native.explode(names))

    def sample(self, fraction: float, seed: SupportsIndex | None = None) -> DStream:
        """About this fraction of the rows, drawn without replacement: the same rows in every run.

        Whether a row is kept follows from the seed and from where the row comes from: its record's topic, partition and
        offset, and which element of it `explode` made the row of. Nothing else decides, neither threads and executors
        nor where batches are cut, nor what was filtered out before. So two samples of a stream with one seed have the
        same rows, and a sample of a sample draws anew. The rows that a `union` brings together are drawn independently.

        What `agg` makes comes from its key and window, so that either all updates of a row are kept or none; without a
        window, from its key and its batch. What ``map_batches(fn, schema=...)`` makes comes from the row in the same
        place, where as many rows came back as were given; else the rows of a call are told apart by their place, and
        batches that are cut elsewhere give other rows, about as many. To have the same ones, sample before it.

        Args:
            fraction: from 0 (none) to 1 (all). It is the chance of each row, and not an exact share.
            seed: a whole number of 64 bits, with sign. By default one of the stream's own, which `explain` shows: the
                same whenever the script runs, and another for each of its samples, in the order in which they are made.

        Raises:
            ConfigError: `fraction` is no number, or `seed` no whole number of 64 bits; at start: `fraction` is not from
                0 to 1.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [f'{{"n": {n}}}'.encode() for n in range(100)])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> numbers = ctx.scripted(source, format=tm.Json({"n": "int64"}))
        >>> numbers.sample(0.05, seed=1).to_table("some")
        >>> ctx.run()
        >>> ctx.table("some")["n"].tolist()
        [1, 19, 47, 48, 51, 60, 72, 74, 86, 98]
        """
        if isinstance(fraction, bool) or not isinstance(fraction, Real):
            raise ConfigError(
                f"sample() takes a fraction from 0 to 1, found {fraction!r}; write, say, sample(0.1, seed=7): rows are "
                "drawn without replacement, always"
            )
        return self._next(self._native.sample(float(fraction), _seed(seed)))

    def repartition(self, partitions: SupportsIndex | None = None) -> DStream:
        """The same rows, dealt evenly to shards, whatever partition they come from.

        It serves a topic of few partitions, or of uneven ones, before work that takes long: functions over batches are
        called once a batch and shard behind it, on as many threads as there are. Columns that are computed by
        expressions, aggregates and `key_by` need none. Where a row goes follows from where it comes from, as in
        `sample`, so that results are the same whatever the threads and executors. A stream is keyed no more behind it.

        Args:
            partitions: over how many shards; by default, and at most, over all that there are, which is 8.

        Raises:
            ConfigError: `partitions` is no whole number from 1.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [f'{{"n": {n}}}'.encode() for n in range(1_000)])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> calls = []
        >>> def doubled(batch):
        ...     calls.append(batch.num_rows)
        ...     return {"m": batch.to_numpy(["n"])[:, 0] * 2}
        >>> numbers = ctx.scripted(source, format=tm.Json({"n": "int64"})).repartition(4)
        >>> numbers.map_batches(doubled, adds={"m": "float64"}).to_table("doubled")
        >>> ctx.run()
        >>> len(calls), min(calls) > 200, len(ctx.table("doubled"))
        (4, True, 1000)
        """
        if partitions is not None:
            _expect_parts(partitions)
        return self._next(self._native.repartition(None if partitions is None else index(partitions)))

    def union(self, *others: DStream) -> DStream:
        """The rows of this stream and of the others, which must have the same columns.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}))
        >>> both = s.filter("t < 0").union(s.filter("t > 100"))
        """
        for other in others:
            if not isinstance(other, DStream):
                raise ConfigError(f"union() takes streams, found {other!r}")
        return self._next(self._native.union([other._native for other in others]))

    @property
    def dead_letters(self) -> DStream:
        """The records of this source that do not fit its format, where it has ``on_bad="dead_letter"``.

        A row each, like any others: to be filtered, aggregated, written. The columns are ``value`` (binary: the
        payload, byte for byte as it came), ``reason`` (what was expected and what was found), ``position`` (the byte of
        the payload where that is), and ``kafka_topic``, ``kafka_partition``, ``kafka_offset``, ``kafka_timestamp``,
        ``kafka_key`` and ``kafka_headers`` as `StreamingContext.kafka` has them, whatever its `metadata`; of them only
        those are fetched that somebody reads. A value that does not fit a column makes its record bad only where
        somebody reads that column.

        Raises:
            ConfigError: the stream is no source's, or its source has no ``on_bad="dead_letter"``; at start: the source
                has it, and no output takes its dead letters.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource("readings")
        >>> source.push(0, [b'{"t": 20.5}', b'{"t": "warm"}', b"oops"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> readings = ctx.scripted(source, format=tm.Json({"t": "float64"}), on_bad="dead_letter")
        >>> readings.to_table("readings")
        >>> readings.dead_letters.select("value", "kafka_offset", "position").to_table("bad")
        >>> ctx.run()
        >>> ctx.table("bad").to_polars().rows()
        [(b'{"t": "warm"}', 1, 6), (b'oops', 2, 0)]
        """
        return self._next(self._native.dead_letters())

    def with_event_time(
        self, expression: Expr | str, watermark: Duration = "0s", *, max_future: Duration = "1h"
    ) -> DStream:
        """The records of this source with the time when each happened, computed of them; windows go by it.

        For sources that have no column which is the time by itself: text in a format of its own, a date and a time of
        day, a time less the delay of a sensor. It is computed of all records as they are decoded, so that the watermark
        goes by the data alone, whatever is filtered later; it is said once, of what `kafka` returned.

        Args:
            expression: a timestamp; its ``.alias`` is the column's name (``"event_time"`` where it has none), in place
                where the name exists. SQL text may be given too. Null is a row without a time, so that ``strict=False``
                sends what cannot be converted to `WindowedStream.late`, where otherwise it ends the job.
            watermark: how far the watermark stays behind the largest event time.
            max_future: as in `StreamingContext.kafka`.

        Raises:
            ConfigError: at start: the stream is no source's, or the source has an event time already.
            SchemaError: at start: `expression` is no timestamp.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b'{"at": "21.11.2026 10:00:03", "t": 20.5}', b'{"at": "21.11.2026 10:00:14", "t": 21.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> readings = ctx.scripted(source, format=tm.Json({"at": "string", "t": "float64"}))
        >>> timed = readings.with_event_time(tm.col("at").str.to_datetime("%d.%m.%Y %H:%M:%S").alias("ts"), "5s")
        >>> hottest = timed.filter("t > 0").window("10s", on="ts").agg(t=tm.col("t").max())
        >>> [row["t"] for batch in hottest for row in batch.to_pyarrow().to_pylist()]
        [20.5, 21.0]
        """
        told = sql_expr(expression) if isinstance(expression, str) else expression
        if not isinstance(told, Expr):
            raise ConfigError(
                f'with_event_time() takes an expression, found {told!r}; write, say, col("ms").cast("timestamp[ms]")'
            )
        return self._next(self._native.with_event_time(told, watermark, max_future))

    # -- Python functions ---------------------------------------------------------------------------------------

    def map_batches(
        self,
        fn: Callable[[Batch], Rows],
        schema: SchemaLike | None = None,
        adds: SchemaLike | None = None,
    ) -> DStream:
        """The result of a Python function, called once for each partition of each batch.

        After `key_by` it is called once a shard. Two calls of one function never overlap. What it returns is cast to
        the declared columns; a value that would change is a `SchemaError` with its row. What it raises ends the job,
        and reaches the caller of `run` as the same object.

        Args:
            fn: gets a `Batch`, returns rows: a pyarrow, pandas or Polars table, anything with
                ``__arrow_c_stream__``, or a dict of NumPy arrays of shape ``(rows,)``.
            schema: the result's columns; by default those of the input. Others in the result are a `SchemaError`, but
                for the nameless index of a pandas frame.
            adds: instead, the columns that the result adds to the input's; `fn` then returns one row for each of the
                batch, and only the added columns are read: the input's may be there too.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b'{"x": 3.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> numbers = ctx.scripted(source, format=tm.Json({"x": "float64"}))
        >>> squares = numbers.map_batches(lambda batch: {"y": batch["x"] ** 2}, adds={"y": "float64"})
        >>> [batch.to_pyarrow().to_pylist() for batch in squares]
        [[{'x': 3.0, 'y': 9.0}]]
        """
        _of_one_batch(fn, "map_batches")
        if schema is not None and adds is not None:
            raise ConfigError("map_batches() takes schema= or adds=, found both")
        label = f"map_batches({_name_of(fn)})"
        return self._map(fn, label, schema=schema, adds=adds)

    def score(
        self,
        model: object,
        columns: Sequence[str],
        dtype: Literal["float32", "float64"] = "float32",
        into: str = "score",
        method: str | None = None,
    ) -> DStream:
        """Scores a model on one feature matrix for each partition of each batch, never a row at a time.

        Args:
            model: a scikit-learn estimator; an ONNX model, as the path of its file or an
                ``onnxruntime.InferenceSession``; a ``torch.nn.Module`` in evaluation mode; or any callable from a
                matrix of shape ``(rows, len(columns))`` to a vector of shape ``(rows,)``.
            columns: the features, in the order of the matrix: numbers, booleans (0 and 1) or times (counted in their
                unit since the epoch); null becomes NaN. An estimator that was fitted on a frame is given one, with the
                names that it knows.
            dtype: the matrix's type.
            into: the added column, float64.
            method: of an estimator; by default the first it has of ``score_samples`` and ``decision_function`` (both
                with their sign turned, so that higher is more anomalous) and ``predict``. Of a classifier by default
                ``predict_proba``, and of it and of ``decision_function`` the second of two classes. Of an ONNX model
                the name of its output; by default its only one, else ``probabilities`` or ``scores``; of a column for
                each of two classes the second counts. No sign of a classifier or an ONNX model
                is turned. `explain` shows which it is.

        Raises:
            ConfigError: the model is none, a class, was fitted on these columns in another order, or takes another
                number of features or another `dtype`; or `columns` or `dtype` is not one of those above.
            SchemaError: at start, where a column is missing or cannot be in a matrix.

        >>> import numpy as np
        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b'{"x": 3.0, "y": 4.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> points = ctx.scripted(source, format=tm.Json({"x": "float64", "y": "float64"}))
        >>> scored = points.score(lambda matrix: np.hypot(*matrix.T), columns=["x", "y"])
        >>> [batch["score"].tolist() for batch in scored]
        [[5.0]]
        """
        if isinstance(columns, str):
            raise ConfigError(f"score() takes a list of columns, found {columns!r}; pass [{columns!r}]")
        names = list(columns)
        if not names:
            raise ConfigError("score() needs at least one column, found none; name the model's features")
        if dtype not in ("float32", "float64"):
            raise ConfigError(f'score() takes dtype="float32" or "float64", found {dtype!r}')
        scorer = _scorer(model, method, names, dtype)

        def call(batch: Batch) -> Rows:
            return {into: scorer(batch.to_numpy(names, dtype))}

        return self._map(call, f"score({scorer.label})", adds={into: "float64"}, reads=names)

    # -- aggregates ---------------------------------------------------------------------------------------------

    def group_by(self, *keys: str | Expr | Sequence[str | Expr], **named: Expr) -> GroupedStream:
        """The rows of each batch by key; `GroupedStream.agg` makes one row of each group.

        Args:
            keys: columns, or expressions with a name, one by one or as a list; none makes one group of all rows.
            named: further keys, each computed by an expression.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b'{"bus": "12", "riders": 4}', b'{"bus": "12", "riders": 6}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> stops = ctx.scripted(source, format=tm.Json({"bus": "string", "riders": "int64"}))
        >>> totals = stops.group_by("bus").agg(riders=tm.col("riders").sum(), stops=tm.count())
        >>> [batch.to_pyarrow().to_pylist() for batch in totals]
        [[{'bus': '12', 'riders': 10, 'stops': 2}]]
        """
        return GroupedStream(self, _keys(keys), named)

    def window(
        self,
        length: Duration,
        slide: Duration | None = None,
        *,
        on: str | None = None,
        offset: Duration | None = None,
        emit: Literal["final", "updates"] = "final",
    ) -> WindowedStream:
        """The rows in windows of event time: half-open, ``[start, end)``, aligned to the epoch in UTC.

        A window's rows leave when the watermark passes its end, and a window that is complete leaves at once. Rows that
        come after that, and rows without a believable time, are in `WindowedStream.late`.

        Args:
            length: how long a window is.
            slide: from the start of one window to the next; by default the length, so that windows do not overlap. A
                row is kept once, however many windows it is in (100,000 at most), but each of them is a row of the
                result for each key.
            on: the source's event-time column, unchanged or renamed: `event_time` there, or `with_event_time`.
            offset: moves the starts of all windows.
            emit: ``"final"``: one row a key and window, once, when the window has ended. ``"updates"``: a row in each
                batch that changed it; it replaces the row before of the same key and window, nothing is ever taken
                back, and the last one is what ``"final"`` would give.

        Raises:
            ConfigError: at start, where `on` is not the source's event time.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=1)
        >>> source.push(0, [b'{"bus": "12", "ts": 1000, "riders": 4}', b'{"bus": "12", "ts": 12000, "riders": 6}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> format = tm.Json({"bus": "string", "ts": "timestamp[ms]", "riders": "int64"})
        >>> stops = ctx.scripted(source, format=format, event_time="ts", watermark="5s")
        >>> totals = stops.window("10s", on="ts").group_by("bus").agg(riders=tm.col("riders").sum())
        >>> [row["riders"] for batch in totals for row in batch.to_pyarrow().to_pylist()]
        [4, 6]
        """
        if on is None:
            raise ConfigError(
                'window() needs on=, the event-time column of the source, say window("10s", on="ts"); windows by batch '
                "time (without on=) are not offered yet"
            )
        if not isinstance(on, str):
            name = on.output_name if isinstance(on, Expr) else None
            raise ConfigError(
                f'window() takes a column\'s name as on=, found {on!r}; pass on="{name or "ts"}"'
            )
        if emit not in ("final", "updates"):
            raise ConfigError(f'emit is "final" or "updates", found {emit!r}')
        return WindowedStream(self, _native.Window(length, slide, on, offset, emit))

    # -- keys ---------------------------------------------------------------------------------------------------

    def key_by(self, *keys: str | Expr | Sequence[str | Expr], **named: Expr) -> DStream:
        """The same rows, all rows of a key in one shard and in order: what stateful operators need.

        Args:
            keys: columns, or expressions with a name, one by one or as a list; what is computed is added to the rows.
            named: further keys, each computed by an expression.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"device": "string"}))
        >>> keyed = s.key_by("device")
        >>> s.key_by(kind=tm.col("device").str.slice(0, 4)).columns
        ['device', 'kind']
        """
        return self._next(self._native.key_by(_keys(keys), named))

    def detect(
        self,
        columns: str | Sequence[str],
        detector: _native.Detector,
        threshold: float | None = None,
        prefix: str = "",
    ) -> DStream:
        """Finds anomalies, with a detector for each key of a keyed stream.

        Adds ``score`` (higher is more anomalous, null until the detector is warm), ``p_value`` (the probability of such
        a score where nothing is wrong) and ``is_anomaly`` (``p_value < threshold``, once an event).

        Args:
            columns: the column, or several where the detector takes several.
            detector: of `tidemill.ml`, say ``tm.ml.Ewma()``.
            threshold: the accepted probability of a false alarm; by default the detector's, 1e-3.
            prefix: put before the names of the added columns, for several detectors side by side.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(
        ...     tm.testing.ScriptedSource(), format=tm.Json({"device": "string", "t": "float64"}))
        >>> s.key_by("device").detect("t", tm.ml.Ewma()).columns
        ['device', 't', 'score', 'p_value', 'is_anomaly']
        """
        if not isinstance(detector, _native.Detector):
            name = getattr(detector, "__name__", "Ewma")
            raise ConfigError(f"detect() takes a detector such as tm.ml.{name}(), found {detector!r}")
        names = [columns] if isinstance(columns, str) else list(columns)
        return self._next(self._native.detect(names, detector, threshold, prefix))

    # -- outputs ------------------------------------------------------------------------------------------------

    def pprint(self, n: int = 10, *, name: str | None = None, empty: bool = False) -> None:
        """Prints the time of each batch that has rows, and its first `n` rows as a table under it.

        Where a context has several such outputs, each header says which it is: by `name`, else by the operator and
        its line.

        Args:
            n: how many rows of a batch are shown.
            name: put beside the time.
            empty: print the time of batches without rows too, one at each tick, as Spark does.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"t": 20.5}', b'{"t": 99.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Json({"t": "float64"})).filter("t > 90").pprint(name="hot")
        >>> ctx.run()
        -------------------------------------------
        Time: ... (hot)
        -------------------------------------------
        +------+
        | t    |
        +------+
        | 99.0 |
        +------+
        <BLANKLINE>
        """
        self._native.pprint(n, name, empty)

    def to_table(self, name: str, max_rows: int | None = 10_000) -> None:
        """Keeps the last rows in memory, for `StreamingContext.table` to give, while the job runs and after its end.

        Each start of the context empties the table.

        Args:
            name: the table's name, one of its own within the context.
            max_rows: how many rows are kept; the oldest are pushed out. None keeps all, whatever memory they take: for
                jobs that end.

        Raises:
            ConfigError: the context has a table of this name already.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"t": 20.5}', b'{"t": 99.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Json({"t": "float64"})).filter("t > 90").to_table("hot")
        >>> ctx.run()
        >>> ctx.table("hot").to_pyarrow().to_pylist()
        [{'t': 99.0}]
        """
        self._native.to_table(name, max_rows)

    def foreach_batch(self, fn: Callable[[Batch], object], empty: bool = False) -> None:
        """Calls `fn` with all rows of each batch, in order, on one thread.

        Delivery is at least once. What `fn` raises ends the job, and reaches the caller of `run` as the same object.

        Args:
            fn: gets a `Batch`; what it returns is not looked at.
            empty: call it for batches without rows too.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}))
        >>> s.foreach_batch(lambda batch: print(batch.id, batch.num_rows))
        """
        _of_one_batch(fn, "foreach_batch")
        self._native.foreach_batch(_wrapped(fn), empty, f"foreach_batch({_name_of(fn)})")

    def to_kafka(
        self,
        topic: str,
        *,
        key: str | AutoType | None = AUTO,
        value: str | None = None,
        format: Format | None = None,  # noqa: A002
        headers: str | Mapping[str, str | bytes] | None = None,
        partitioner: Literal["murmur2"] = "murmur2",
        timestamps: Literal["batch", "sending"] = "batch",
        bootstrap_servers: str | Sequence[str] | None = None,
        security: Tls | Sasl | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Writes the rows to a Kafka topic, at least once; with a checkpoint exactly once, a transaction a batch.

        Args:
            topic: the topic, which must exist.
            key: the column that is the record's key, as text; by default the column of `key_by` (several: a JSON
                array), none where the stream is not keyed; None for records without key.
            value: with `Raw` and `Text`, the column that is the payload.
            format: ``tm.Json()`` (the default), ``tm.Csv()``, ``tm.Text()`` or ``tm.Raw()``. A schema is for reading:
                JSON and CSV have all columns here, CSV in their order.
            headers: a column of headers, as ``metadata=["headers"]`` reads them, or a dict of constant ones.
            partitioner: ``"murmur2"``, as in the Java client, so that topics stay co-partitioned.
            timestamps: which time the records carry: that of their ``"batch"``, the same however often it is delivered,
                or that of ``"sending"``, as other producers' do; records without headers are then handed over many at
                a time, which is faster.
            bootstrap_servers: ``"host:port"`` or a list; by default those of the stream's source.
            security: `Tls`, or a login by `Sasl`; by default that of the stream's source where its brokers are
                written to, and none where others are: a password goes to nobody else.
            config: further librdkafka settings, by their own names; one that decides what is promised here is refused,
                with the argument to use instead.

        Raises:
            ConfigError: another format, or sources of several clusters and no `bootstrap_servers`.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.kafka("readings", bootstrap_servers="localhost:9092", format=tm.Json({"device": "string"}))
        >>> s.key_by("device").to_kafka("alerts")
        """
        if not (key is None or key is AUTO or isinstance(key, str)):
            raise ConfigError(
                f"to_kafka() takes the name of a column as key=, or None, found {key!r}; several columns: "
                "key_by() them, and leave key= out"
            )
        self._native.to_kafka(
            topic,
            key=key,
            value=value,
            format=_written_as(format),
            headers=headers,
            partitioner=partitioner,
            timestamps=timestamps,
            bootstrap_servers=None if bootstrap_servers is None else _servers(bootstrap_servers),
            security=_protection(security),
            config=_settings(config),
        )

    def to_files(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["parquet", "json", "csv"] = "parquet",  # noqa: A002
        partition_by: str | Sequence[str] = (),
        max_bytes: str | int = "128MiB",
    ) -> None:
        """Writes every batch as files of its own into a directory, at least once; with a checkpoint exactly once.

        A batch counts as written when all its rows are on the disk: each of its files is written under a hidden name,
        made durable and renamed, so that it appears whole or not at all. Its name says the batch's time and number and
        what the batch read, as in ``20231114T221320000Z-00000042-9f3a64d2c1b07e58-0000.parquet``: a batch that is
        written again replaces its files, and a later run never those of an earlier one. Files of one batch appear one
        after the other. No file is held open for the next batch: a longer interval makes fewer and larger files.

        Args:
            path: a directory on this machine, made where it is not there; no other stream may write to it meanwhile.
            format: ``"parquet"`` (compressed with Zstandard), ``"json"`` (one object a line, as `to_kafka` writes it)
                or ``"csv"`` (a line of names, then one a row, as `to_kafka` writes it: null and NaN are empty,
                empty text is ``""``, binary is base64; no lists and structs).
            partition_by: columns whose values become directories, as in ``day=2026-11-21/device=pump/``, and are not in
                the files; null and empty text are ``__HIVE_DEFAULT_PARTITION__``, other signs than letters, digits,
                ``-``, ``_`` and ``.`` are ``%`` and their code. Each value makes a file a batch.
            max_bytes: when a file has about so many bytes (they are looked at every 4,096 rows), the rest of the batch
                goes to the next one.

        Raises:
            ConfigError: another format, or a URL for `path`; at start: the path is a file, or another stream writes
                there.
            SchemaError: at start: no such column, or one that the format or a directory has no form for.
            SinkError: a directory that cannot be written (told at start), or a full disk.

        >>> import tempfile, polars, tidemill as tm
        >>> folder = tempfile.mkdtemp()
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"device": "pump", "t": 20.5}', b'{"device": "press", "t": 99.0}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> s = ctx.scripted(source, format=tm.Json({"device": "string", "t": "float64"}))
        >>> s.to_files(folder, partition_by="device")
        >>> ctx.run()
        >>> polars.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).sort("t").rows()
        [(20.5, 'pump'), (99.0, 'press')]
        """
        names = [partition_by] if isinstance(partition_by, str) else list(partition_by)
        self._native.to_files(_folder(path), format, names, max_bytes)

    def __iter__(self) -> Iterator[Batch]:
        """The stream's batches that have rows: starts the context, and stops it when the loop is left.

        Ctrl-C and SIGTERM end the loop after the batches that were begun; a second Ctrl-C raises KeyboardInterrupt.
        """
        return self._context._iterate(self._native)

    def __contains__(self, name: object) -> bool:
        return (
            name in self.columns
        )  # else Python would look for it in all batches, and start the job for that

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(f"a stream has no values before it runs, found [{key!r}]; {_picked(key)}")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        shown = key if isinstance(key, str) and key.isidentifier() else "x"
        text = (
            f"a stream is not changed, found [{key!r}] = ...; stream.with_columns({shown}=...) is a new one"
        )
        raise TypeError(text)

    # -- looking ------------------------------------------------------------------------------------------------

    @property
    def schema(self) -> _native.Schema:
        """Names and types of the columns.

        Raises:
            ConfigError, SchemaError: what is wrong with the plan up to here.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}))
        >>> s.with_columns(hot=tm.col("t") > 80).schema
        Schema({"t": "float64", "hot": "bool"})
        """
        return self._native.schema

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order.

        >>> import tidemill as tm
        >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}))
        >>> s.with_columns(hot=tm.col("t") > 80).columns
        ['t', 'hot']
        """
        return self.schema.names

    def explain(self) -> str:
        """The plan that leads to this stream, as text: its operators with their lines, and the columns that are read.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}), name="readings")
        >>> print(s.filter(tm.col("t") > 80).explain())
        #0  source readings  (...)
              columns: t: float64
        #1 <- #0  filter t > 80...  (...)
              columns: t: float64
        #2 <- #1  output 0 [at least once]
        <BLANKLINE>
        """
        return self._native.explain()

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}({self.schema!r})"
        except _native.TidemillError as wrong:
            return f"<{type(self).__name__} of a plan with a mistake: {wrong}>"

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and self._has_column(name):
                text = f"{type(self).__name__!r} object has no attribute {name!r}; {_picked(name)}"
                raise AttributeError(text, name=name)
            raise no_attribute(f"{type(self).__name__!r} object", name, dir(type(self)))

    def _has_column(self, name: str) -> bool:
        try:
            return name in self._native.schema
        except _native.TidemillError:
            return False

    def _next(self, native: _native.Stream) -> DStream:
        return DStream(self._context, native)

    def _windowed(self, native: _native.Stream, windowed: WindowedStream) -> AggregatedStream:
        return AggregatedStream(self._context, native, windowed)

    def _map(
        self,
        fn: Callable[[Batch], Rows],
        label: str,
        *,
        schema: SchemaLike | None = None,
        adds: SchemaLike | None = None,
        reads: list[str] | None = None,
    ) -> DStream:
        declared = None if schema is None else _schema(schema)
        added = None if adds is None else _schema(adds)
        return self._next(self._native.map_batches(_wrapped(fn), declared, added, reads, label))


class AggregatedStream(DStream):
    """The rows of windows, and beside them the rows that came to no window.

    >>> import tidemill as tm
    >>> format = tm.Json({"ts": "timestamp[ms]", "t": "float64"})
    >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
    >>> means = s.window("1m", on="ts").agg(mean=tm.col("t").mean())
    >>> means.columns, means.late.columns
    (['window_start', 'window_end', 'mean'], ['ts', 't', 'late_reason'])
    """

    def __init__(self, context: _Context, native: _native.Stream, windowed: WindowedStream) -> None:
        super().__init__(context, native)
        self._windows = windowed

    @property
    def late(self) -> DStream:
        """The rows that have no place in the windows, as `WindowedStream.late`.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"ts": 60000}', b'{"ts": 1000}', b'{"ts": null}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        >>> s = ctx.scripted(source, format=tm.Json({"ts": "timestamp[ms]"}), event_time="ts")
        >>> s.window("10s", on="ts").agg(n=tm.count()).late.to_table("late")
        >>> ctx.run()
        >>> ctx.table("late")["late_reason"].tolist()
        ['late', 'null']
        """
        return self._windows.late


def _expect_parts(partitions: object) -> None:
    if isinstance(partitions, bool) or not isinstance(partitions, SupportsIndex) or index(partitions) < 1:
        raise ConfigError(
            f"repartition() takes a whole number of shards from 1, found {partitions!r}; leave it out for all of them. "
            "Rows are brought together by their values with key_by()"
        )


def _seed(seed: object) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex) or not -(2**63) <= index(seed) < 2**63:
        raise ConfigError(
            f"sample() takes a whole number from -2**63 to 2**63 - 1 as seed=, found {seed!r}; any will do, "
            "say seed=7, and None chooses one"
        )
    return index(seed)


def _bare(name: object) -> str:
    """The name that is meant by a column's expression, or some name."""
    return (name.output_name if isinstance(name, Expr) else None) or "device"


def _picked(key: object) -> str:
    """How a stream's columns and rows are picked, in place of what other libraries' frames take in brackets."""
    match key:
        case str():
            return f'tm.col("{key}") stands for the column in expressions, select("{key}") is the stream of it alone'
        case Expr():
            return f"filter({key}) keeps the rows for which it is true"
        case [*names]:
            return f"select({', '.join(map(repr, names))}) is the stream of these columns"
        case _:
            return "foreach_batch(fn) gets its rows, a batch at a time"


def _wrapped(fn: Callable[[Batch], Any]) -> Callable[[_native.Batch], Any]:
    return lambda native: fn(Batch(native))


def _folder(path: str | os.PathLike[str]) -> str:
    """Where the path leads now: a later change of the working directory moves no files."""
    text = os.fspath(path)
    if "://" in text:
        raise ConfigError(
            f"to_files() writes to a directory on this machine, found the URL {text!r}; "
            "mount it, or upload finished files from there"
        )
    return str(Path(text).expanduser().absolute())


_NOT_CALLED_BUT_MADE: dict[str, Callable[[object], bool]] = {
    "coroutine function": inspect.iscoroutinefunction,
    "generator function": inspect.isgeneratorfunction,
    "asynchronous generator function": inspect.isasyncgenfunction,
}
"""What a call of such a function gives is nothing that was done yet, and nobody would do it."""


def _of_one_batch(fn: object, operator: str) -> None:
    """An error now where `fn` cannot be called with a batch alone, which it would tell in its first batch."""
    if not callable(fn):
        raise ConfigError(f"{operator}() takes a function of one Batch, found {fn!r}")
    for kind, is_kind in _NOT_CALLED_BUT_MADE.items():
        if is_kind(fn) or is_kind(type(fn).__call__):
            raise ConfigError(
                f"{operator}() takes a function that does its work when it is called, found the {kind} {_name_of(fn)}"
            )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # some that are not written in Python have none
    try:
        signature.bind(object())
    except TypeError as error:
        raise ConfigError(
            f"{operator}() takes a function of one Batch, found {_name_of(fn)}{signature}: {error}; "
            "the batch's number and time are batch.id and batch.time"
        ) from None


def _settings(config: Mapping[str, str | float | bool] | None) -> dict[str, str]:
    """As text, which is all that librdkafka takes. What was given is not shown: it may be a password."""
    for name, value in (config or {}).items():
        if not isinstance(value, str | int | float):
            raise ConfigError(
                f"config takes text, numbers and bools, found a value of type {type(value).__name__} for {name}; where "
                "it comes from the environment, is the variable set there?"
            )
    return {name: _setting(value) for name, value in (config or {}).items()}


def _setting(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
