"""What users get for their own tests, and the broker of the demonstration."""

from __future__ import annotations

import doctest
import importlib
import threading
from typing import Any, Literal

import pytest

import tidemill as tm
from tidemill.testing import Broker, ManualClock, ScriptedSource, batch


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


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ({"t": 1}, r"takes a list of payloads, found \{'t': 1\}"),
        ("text", "takes a list of payloads, found 'text'"),
        (b"bytes", "takes a list of payloads, found b'bytes'"),
        (5, "takes a list of payloads, found 5"),
        ([b"{}", {"t": 1}], r"a payload is bytes or None, found \{'t': 1\}; encode it: json\.dumps"),
        (["text"], r"a payload is bytes or None, found 'text'; .*\.encode\(\)"),
    ],
)
def test_what_is_no_list_of_payloads_is_refused_whole(
    drained: tm.StreamingContext, payloads: Any, message: str
) -> None:
    source = ScriptedSource("readings", 1)
    with pytest.raises(tm.ConfigError, match=message):
        source.push(0, payloads)
    assert list(drained.scripted(source, format=tm.Raw())) == []


def test_a_stalled_source_gives_nothing_until_it_is_released(source: ScriptedSource) -> None:
    rows: list[int] = []
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda one: rows.append(one.num_rows))
    source.push(0, [b"a", b"b"])
    assert not source.await_fetch(timeout=0)
    source.stall()
    ctx.start()
    assert source.await_fetch()
    assert (rows, ctx.is_running) == ([], True)
    source.release()
    assert ctx.await_termination()
    assert rows == [2]


@pytest.mark.parametrize("call", ["fetch", "heads"])
def test_a_failure_that_was_asked_for_ends_the_job_once_as_the_exception_that_was_given(
    source: ScriptedSource, call: Literal["fetch", "heads"]
) -> None:
    rows: list[int] = []
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda one: rows.append(one.num_rows))
    source.push(0, [b"a", b"b"])
    mine = OSError("mine")
    source.fail_next(call, mine, after=1)
    with pytest.raises(OSError, match="mine") as caught:
        ctx.run()
    assert caught.value is mine
    ctx.run()
    assert rows == [2]


def test_a_passing_failure_is_a_warning_and_the_job_goes_on(source: ScriptedSource) -> None:
    heard: list[str] = []
    warned = threading.Event()
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())

    def hear(event: tm.Event) -> None:
        if event.kind == "warning":
            heard.append(str(event.error))
            warned.set()

    ctx.listeners.append(hear)
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda one: ctx.stop())
    ctx.start()
    source.fail_next("heads", OSError("mine"), passing=True)
    source.push(0, [b"a"])  # wakes the job, which asks where the partitions end
    assert warned.wait(30)
    source.push(0, [b"b"])
    assert ctx.await_termination()
    assert "mine" in heard[0]


def test_a_failure_to_acknowledge_is_a_warning_and_ends_nothing(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    warnings: list[str] = []
    drained.listeners.append(lambda event: warnings.append(str(event.error)) if event.error else None)
    source.push(0, [b"a"])
    source.fail_next("acknowledge", OSError("mine"))
    drained.scripted(source, format=tm.Raw()).foreach_batch(lambda one: None)
    drained.run()
    assert len(warnings) == 1
    assert "mine" in warnings[0]
    assert drained.error is None


def test_a_failure_of_a_call_that_does_not_exist_is_refused(source: ScriptedSource) -> None:
    with pytest.raises(tm.ConfigError, match='"fetch", "heads" or "acknowledge", found "seek"'):
        source.fail_next("seek", OSError())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        source.fail_next("heads", "mine")  # type: ignore[arg-type]


def test_a_batch_by_hand_tests_a_function() -> None:
    assert batch({"x": [1.0, 2.0]}, partition=1).to_numpy("x").sum() == 3.0


def letters_of(broker: Broker, topic: str) -> list[tuple[str, int]]:
    """Payloads and partitions of a topic, in the order of each partition."""
    ctx = tm.StreamingContext(trigger=tm.available_now())
    servers = broker.bootstrap_servers
    stream = ctx.kafka(topic, bootstrap_servers=servers, format=tm.Text(), metadata=["partition"])
    return [tuple(row.values()) for one in stream for row in one.to_pylist()]


def test_what_was_sent_to_a_broker_has_arrived_each_key_in_one_partition_and_in_order() -> None:
    with Broker({"letters": 2}) as broker:
        for text in ("a", "b"):
            broker.send("letters", [(f"k{number}", f"{number}{text}".encode()) for number in range(10)])
        read = letters_of(broker, "letters")
    for number in range(10):
        own = [(text, partition) for text, partition in read if text.startswith(str(number))]
        assert [text for text, _ in own] == [f"{number}a", f"{number}b"]
        assert len({partition for _, partition in own}) == 1
    assert {partition for _, partition in read} == {0, 1}


def test_a_topic_that_a_broker_was_not_told_of_is_made_by_the_first_record() -> None:
    with Broker() as broker:
        broker.send("letters", [(f"k{number}", str(number)) for number in range(100)])
        assert {partition for _, partition in letters_of(broker, "letters")} == {0, 1, 2, 3}


def test_a_broker_that_has_been_closed_says_so_and_may_be_closed_again() -> None:
    broker = Broker({"letters": 1})
    broker.close()
    broker.close()
    with pytest.raises(tm.SourceError, match="the broker has been closed"):
        broker.send("letters", [("k", "a")])


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ("readings", r"takes topics as \{\"readings\": 2\}, .* found 'readings'"),
        ({"readings": 0}, r"1 partition or more, found \{'readings': 0\}"),
        ({"readings": "2"}, r"1 partition or more, found \{'readings': '2'\}"),
        ({"": 2}, r"a topic has a name, .* found \{'': 2\}"),
    ],
)
def test_what_are_no_topics_is_refused(topics: Any, message: str) -> None:
    with pytest.raises(tm.ConfigError, match=message):
        Broker(topics)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (("pump", {"t": 1}), r"a payload is text or bytes, found \{'t': 1\}; encode it: json\.dumps"),
        ('{"t": 1}', "a pair of a key and a payload, each text or bytes, found"),
        ((None, "a"), r"a pair of a key and a payload, each text or bytes, found \(None, 'a'\)"),
    ],
)
def test_what_is_no_record_is_refused_and_nothing_is_sent(record: Any, message: str) -> None:
    with Broker({"letters": 1}) as broker:
        with pytest.raises(tm.ConfigError, match=message):
            broker.send("letters", [("k", "a"), record])
        assert letters_of(broker, "letters") == []


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
