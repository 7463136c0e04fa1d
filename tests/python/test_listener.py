"""`StreamingListener`: Spark's nine events, in order, with what is known of batches, outputs and sources."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import tidemill as tm


class Recorder(tm.StreamingListener):
    """Keeps every call, by its method."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda argument: self.calls.append((name, argument))

    def of(self, method: str) -> list[Any]:
        return [argument for name, argument in self.calls if name == method]


def stream(ctx: tm.StreamingContext, records: int) -> tm.DStream:
    source = tm.testing.ScriptedSource("readings")
    source.push(0, [b"%d" % value for value in range(records)])
    return ctx.scripted(source, format=tm.Raw())


@pytest.fixture
def drained() -> tm.StreamingContext:
    return tm.StreamingContext(trigger=tm.available_now(max_records=3))


def test_the_nine_events_come_in_order(drained: tm.StreamingContext) -> None:
    heard = Recorder()
    stream(drained, 3).to_table("records")
    drained.listeners.append(heard)
    drained.run()
    assert [name for name, _ in heard.calls] == [
        "on_streaming_started",
        "on_receiver_started",
        "on_batch_submitted",
        "on_batch_started",
        "on_output_operation_started",
        "on_output_operation_completed",
        "on_batch_completed",
        "on_receiver_stopped",
    ]


def test_a_batch_is_told_with_more_each_time(drained: tm.StreamingContext) -> None:
    heard = Recorder()
    readings = stream(drained, 5)
    readings.to_table("first")
    readings.to_table("second")
    drained.listeners.append(heard)
    drained.run()
    submitted, started, completed = (
        heard.of(f"on_batch_{name}") for name in ("submitted", "started", "completed")
    )
    assert [info.batch_id for info in completed] == [0, 1]
    for early, later, late in zip(submitted, started, completed, strict=True):
        assert early.offset_ranges == later.offset_ranges == late.offset_ranges
        assert early.batch_time == late.batch_time == late.progress.batch_time
        assert early.processing_start_time is None
        assert early.scheduling_delay is early.total_delay is None
        assert later.processing_start_time >= later.submission_time == early.submission_time
        assert later.processing_end_time is None
        assert late.total_delay == pytest.approx(late.scheduling_delay + late.processing_delay)
        assert [late.output_operations[n].name for n in (0, 1)] == ["to_table(first)", "to_table(second)"]
        assert all(operation.duration >= 0 for operation in late.output_operations.values())
    assert [info.num_records for info in submitted] == [info.num_records for info in completed] == [3, 2]
    assert [info.output_operations[0].rows for info in completed] == [3, 2]


def test_an_output_that_fails_says_why_and_the_batch_is_not_completed(drained: tm.StreamingContext) -> None:
    heard = Recorder()

    def refuse(batch: tm.Batch) -> None:
        raise ValueError("the pager is full")

    stream(drained, 1).foreach_batch(refuse)
    drained.listeners.append(heard)
    with pytest.raises(ValueError, match="the pager is full"):
        drained.run()
    (operation,) = heard.of("on_output_operation_completed")
    assert isinstance(operation.error, ValueError)
    assert operation.duration is not None
    assert not heard.of("on_batch_completed")
    assert [receiver.active for receiver in heard.of("on_receiver_stopped")] == [False]


def test_a_source_that_fails_is_named(drained: tm.StreamingContext) -> None:
    heard = Recorder()
    source = tm.testing.ScriptedSource("readings")
    source.push(0, [b"a", b"b"])
    drained.scripted(source, format=tm.Raw(), starting={0: 9}).to_table("records")
    drained.listeners.append(heard)
    with pytest.raises(tm.TidemillError):
        drained.run()
    (failed,) = heard.of("on_receiver_error")
    assert failed.name == "readings"
    assert isinstance(failed.error, tm.TidemillError)


def test_a_slow_listener_holds_no_batch(drained: tm.StreamingContext) -> None:
    run = threading.Event()

    class Slow(tm.StreamingListener):
        def on_batch_submitted(self, batch: tm.BatchInfo, /) -> None:
            run.wait(60)

    table = stream(drained, 30)
    table.to_table("records")
    drained.listeners.append(Slow())
    drained.start()
    try:
        while len(drained.table("records")) < 30:
            pass
    finally:
        run.set()
        drained.await_termination()


def test_sparks_names_are_refused_with_ours(drained: tm.StreamingContext) -> None:
    class Old(tm.StreamingListener):
        def onBatchCompleted(self, info: object) -> None:  # noqa: N802 - Spark's name
            raise AssertionError

    stream(drained, 1).to_table("records")
    drained.listeners.append(Old())
    with pytest.raises(tm.ConfigError, match="onBatchCompleted is on_batch_completed here"):
        drained.run()


def test_a_class_that_nobody_made_an_object_of_is_refused(drained: tm.StreamingContext) -> None:
    stream(drained, 1).to_table("records")
    drained.listeners.append(Recorder)  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match=r"listeners\[0\]"):
        drained.run()
