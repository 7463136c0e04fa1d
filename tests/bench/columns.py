"""What a column costs on its way to NumPy: `Batch.to_numpy` beside pyarrow's `to_numpy` over the same buffers.

A view is the question of a call's own price, so the figure is calls a second. Only a copy, which nulls and several
chunks need, is about memory: there the figure is values a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.figure import Figure, Measured, in_turn
from tests.bench.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000_000
FOR_S = 0.2


def figures(_settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    import pyarrow as pa

    values = np.random.default_rng(0).normal(size=ROWS)
    whole, missing = pa.array(values), pa.array(values, mask=values > 1)
    yield _figure("to_numpy, a view", "calls/s", 1, whole)
    yield _figure("to_numpy, nulls become NaN", "values/s", ROWS, missing)


def _figure(name: str, unit: str, a_call: int, column: pa.Array[Any]) -> Figure:
    """The same buffers on both sides: a batch made of a pyarrow table shares them."""
    import pyarrow as pa

    import tidemill as tm

    batch = tm.testing.batch(pa.table({"x": column}))
    np.testing.assert_array_equal(batch.to_numpy("x"), column.to_numpy(zero_copy_only=False))
    ours = partial(_rate, lambda: batch.to_numpy("x"), a_call)
    theirs = partial(_rate, lambda: column.to_numpy(zero_copy_only=False), a_call)
    return Figure(
        f"{name}, {ROWS:,} float64", unit, *in_turn(ours, theirs), against="pyarrow's to_numpy", reach="≥ 1.0"
    )


def _rate(call: Callable[[], object], a_call: int) -> Measured:
    """What passes in a second; the clock is read once a hundred calls of a view, whose price it would double."""
    calls, at_once, begin = 0, max(1, 100 // a_call), time.perf_counter()
    while (taken := time.perf_counter() - begin) < FOR_S:
        for _ in range(at_once):
            call()
        calls += at_once
    return Measured(calls * a_call / taken)
