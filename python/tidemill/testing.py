"""What it takes to test a streaming job without a broker and without waiting.

A `ScriptedSource` yields what the test pushes, a `ManualClock` stands still until the test moves it. They are the same
that tidemill's own suite uses.

A job that ends by itself needs no clock:

>>> import tidemill as tm
>>> source = tm.testing.ScriptedSource(topic="readings", partitions=1)
>>> source.push(0, [b'{"t": 20.5}', b'{"t": 99.0}'])
>>> ctx = tm.StreamingContext(trigger=tm.available_now())
>>> hot = ctx.scripted(source, format=tm.Json({"t": "float64"})).filter("t > 90")
>>> [batch["t"].tolist() for batch in hot]
[[99.0]]

How a job takes a failure is tested by a script too. This one happens after two records, and ends the job with the
very exception that was given:

>>> ctx = tm.StreamingContext(trigger=tm.available_now())
>>> ctx.scripted(source, format=tm.Raw()).foreach_batch(print)
>>> source.fail_next("fetch", OSError("the disk is gone"), after=1)
>>> ctx.run()
Traceback (most recent call last):
    ...
OSError: the disk is gone
tidemill: ...

So is what a job does while its source says nothing:

>>> ctx = tm.StreamingContext(trigger=tm.available_now(), name="patient")
>>> ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: print(batch.num_rows, "rows"))
>>> source.stall()
>>> ctx.start()
>>> source.await_fetch()
True
>>> ctx.is_running, ctx.progress
(True, None)
>>> source.release()
>>> ctx.await_termination()
2 rows
True
"""

from __future__ import annotations

from typing import Any

import tidemill._native as _native
from tidemill.batch import Batch

ScriptedSource = _native.ScriptedSource
ManualClock = _native.ManualClock

__all__ = ["ManualClock", "ScriptedSource", "batch"]


def batch(rows: Any, *, id: int = 0, time_ms: int = 0, partition: int | None = None) -> Batch:  # noqa: A002
    """A `Batch` made by hand, for tests of functions over batches.

    Args:
        rows: anything with the Arrow PyCapsule interface, or a dict of columns.
        id: the batch's number.
        time_ms: the batch's time, in milliseconds since the epoch.
        partition: the partition that the rows come from.

    Raises:
        SchemaError: columns of different lengths, or of a type without an Arrow type.

    >>> import numpy as np
    >>> import tidemill as tm
    >>> tm.testing.batch({"t": np.array([1.0, 2.0])})["t"].mean()
    np.float64(1.5)
    """
    return Batch(_native.Batch(rows, id, time_ms, partition))
