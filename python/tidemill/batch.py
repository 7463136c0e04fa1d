"""The rows of one micro-batch, and where they come from.

A batch is a small, immutable Arrow table. It deliberately has no operators of its own: pyarrow, Polars, pandas and
NumPy have them, and each takes a batch without a copy.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tidemill.offset import OffsetRange
from tidemill.table import _Rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Batch(_Rows):
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

    __slots__ = ()

    @property
    def id(self) -> int:
        """The batch's number within its job, from 0, without gaps.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5]}, id=3).id
        3
        """
        return self._native.id

    @property
    def time(self) -> datetime:
        """The batch's own time (UTC); strictly increasing from batch to batch.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5]}, time_ms=1_700_000_000_000).time.isoformat()
        '2023-11-14T22:13:20+00:00'
        """
        return _EPOCH + timedelta(milliseconds=self._native.time_ms)

    @property
    def watermark(self) -> datetime | None:
        """The watermark before this batch (UTC): rows older than it are late. None without event time.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"ts": 60000}', b'{"ts": 61000}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        >>> format = tm.Json({"ts": "timestamp[ms]"})
        >>> readings = ctx.scripted(source, format=format, event_time="ts", watermark="5s")
        >>> [str(batch.watermark) for batch in readings]
        ['None', '1970-01-01 00:00:55+00:00']
        """
        micros = self._native.watermark_us
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)

    @property
    def partition(self) -> int | None:
        """The source's partition, after `key_by` and `repartition` the shard; None where all rows of a batch come
        together.

        >>> import tidemill as tm
        >>> tm.testing.batch({"t": [1.5]}, partition=2).partition
        2
        """
        return self._native.partition

    @property
    def offset_ranges(self) -> tuple[OffsetRange, ...]:
        """What the whole batch read of each partition.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource("readings")
        >>> source.push(0, [b"a", b"b"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> [batch.offset_ranges for batch in ctx.scripted(source, format=tm.Raw())]
        [(OffsetRange(topic='readings', partition=0, from_offset=0, until_offset=2),)]
        """
        return self._native.offset_ranges

    def _caption(self) -> str:
        where = "" if self.partition is None else f", partition {self.partition}"
        return f"Batch {self.id}{where}: {super()._caption()}"
