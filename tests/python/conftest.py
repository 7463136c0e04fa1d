"""What the tests of the Python face share: a source, a context that ends by itself, and a watch over hanging."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tidemill as tm
from tidemill.testing import ManualClock, ScriptedSource

HANGING = 60.0
"""Seconds after which a test that waits for ever shows where, and ends the run."""


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANGING, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def source() -> ScriptedSource:
    """A source of two partitions without records."""
    return ScriptedSource("readings", 2)


@pytest.fixture
def drained() -> tm.StreamingContext:
    """A context that reads what is there and ends."""
    return tm.StreamingContext(trigger=tm.available_now(), name="test")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=1_000.0)


Numbers = Callable[..., tm.DStream]


@pytest.fixture
def numbers(drained: tm.StreamingContext, source: ScriptedSource) -> Numbers:
    """A stream of one column x, float64, of the records that are given; odd ones are in partition 1."""

    def make(*values: float | None, **options: Any) -> tm.DStream:
        for place, value in enumerate(values):
            source.push(place % 2, [f'{{"x": {"null" if value is None else value}}}'.encode()])
        return drained.scripted(source, format=tm.Json({"x": "float64"}), **options)

    return make


def collect(stream: tm.DStream, column: str = "x") -> list[Any]:
    """All values of a column, sorted; runs the stream to its end."""
    return sorted(value for batch in stream for value in batch[column].tolist())
