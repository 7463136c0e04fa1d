"""What users get for their own tests, and the broker of the demonstration."""

from __future__ import annotations

import doctest
import importlib

import pytest

import tidemill as tm
from tidemill.testing import ManualClock, ScriptedSource, batch


def test_a_manual_clock_moves_by_hand_only() -> None:
    clock = ManualClock(start=10.0)
    clock.advance("1.5s")
    assert clock.now == 11.5
    assert repr(clock) == "ManualClock(11.5)"


def test_a_scripted_source_has_holes_tombstones_and_retention(drained: tm.StreamingContext) -> None:
    source = ScriptedSource("readings", 1)
    source.push(0, [b"a"])
    source.hole(0, 2)
    source.push(0, [None, b"b"], key=b"k", timestamp=5)
    stream = drained.scripted(source, format=tm.Raw(), metadata=["offset", "key", "timestamp"])
    rows = [row for one in stream for row in one.to_pyarrow().to_pylist()]
    assert [(row["value"], row["kafka_offset"], row["kafka_key"]) for row in rows] == [
        (b"a", 0, None),
        (b"b", 4, b"k"),
    ]
    assert source.acknowledged == [("readings", 0, 5)]


def test_a_batch_by_hand_tests_a_function() -> None:
    assert batch({"x": [1.0, 2.0]}, partition=1).to_numpy("x").sum() == 3.0


MODULES = ["batch", "context", "dstream", "formats", "listener", "sinks", "sources", "testing", ""]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_documentation_run(name: str) -> None:
    module = importlib.import_module(f"tidemill.{name}".rstrip("."))
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_every_public_name_says_what_it_is() -> None:
    bare = [
        name
        for name in tm.__all__
        if not name.startswith("_") and not (getattr(tm, name).__doc__ or "").strip()
    ]
    assert bare == []
    for cls in (tm.StreamingContext, tm.DStream, tm.Batch, tm.Progress, tm.Event, tm.Schema):
        members = [name for name in vars(cls) if not name.startswith("_")]
        assert [name for name in members if not (getattr(cls, name).__doc__ or "").strip()] == []


def test_a_job_runs_from_kafka_to_kafka_over_the_mock_broker() -> None:
    from tidemill._native import DemoProducer, MockBroker

    broker = MockBroker()
    producer = DemoProducer(broker.bootstrap_servers)
    for topic in ("in", "out"):
        broker.create_topic(topic, 2)
    producer.send("in", [(b"k%d" % (i % 5), b'{"k": "k%d", "x": %d}' % (i % 5, i)) for i in range(1_000)])
    assert producer.flush(10.0) == 0

    ctx = tm.StreamingContext(trigger=tm.available_now())
    numbers = ctx.kafka(
        "in", bootstrap_servers=broker.bootstrap_servers, format=tm.Json({"k": "string", "x": "int64"})
    )
    numbers.filter("x >= 990").key_by("k").to_kafka("out")
    ctx.run()

    again = tm.StreamingContext(trigger=tm.available_now())
    results = again.kafka(
        "out", bootstrap_servers=broker.bootstrap_servers, format=tm.Raw(), metadata=["key"]
    )
    rows = [row for one in results for row in one.to_pyarrow().to_pylist()]
    assert sorted(row["value"] for row in rows) == sorted(
        b'{"k":"k%d","x":%d}' % (x % 5, x) for x in range(990, 1_000)
    )
    assert {row["kafka_key"] for row in rows} == {b"k0", b"k1", b"k2", b"k3", b"k4"}
    producer.close()
    broker.close()
