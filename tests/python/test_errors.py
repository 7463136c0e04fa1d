"""Errors: a user's own exception comes back as the same object, and tidemill's say what to do."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

import tidemill as tm
from tests.python.conftest import Numbers
from tidemill.testing import ScriptedSource


def test_every_error_is_a_tidemill_error() -> None:
    names = [name for name in tm.__all__ if name.endswith("Error")]
    assert len(names) == 10
    assert all(issubclass(getattr(tm, name), tm.TidemillError) for name in names)
    assert all(getattr(tm, name).__module__ == "tidemill" for name in names)


@pytest.mark.parametrize("where", ["map_batches", "foreach_batch", "score"])
def test_a_users_exception_comes_back_as_the_same_object(
    numbers: Numbers, drained: tm.StreamingContext, where: str
) -> None:
    mine = RuntimeError("mine")

    def fail(_: Any) -> Any:
        raise mine

    stream = numbers(1)
    if where == "map_batches":
        stream.map_batches(fail).foreach_batch(lambda batch: None)
    elif where == "score":
        stream.score(fail, ["x"]).foreach_batch(lambda batch: None)
    else:
        stream.foreach_batch(fail)
    with pytest.raises(RuntimeError) as caught:
        drained.run()
    assert caught.value is mine
    assert caught.value is drained.error
    frames = [frame.name for frame in traceback.extract_tb(mine.__traceback__)]
    assert "fail" in frames
    (note,) = mine.__notes__
    assert "batch 0" in note
    assert "test_errors.py:" in note
    assert where in note
    if where != "foreach_batch":
        assert "readings[0]" in note


def test_the_note_is_added_once_however_often_it_is_raised(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    numbers(1).foreach_batch(lambda batch: 1 / 0)
    for _ in range(2):
        drained.start()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as caught:
                drained.await_termination()
            assert len(caught.value.__notes__) == 1


def test_a_keyboard_interrupt_in_a_function_comes_back_too(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    def interrupt(batch: tm.Batch) -> None:
        raise KeyboardInterrupt

    numbers(1).foreach_batch(interrupt)
    with pytest.raises(KeyboardInterrupt):
        drained.run()


def test_a_failed_context_may_be_started_again(numbers: Numbers, drained: tm.StreamingContext) -> None:
    calls: list[int] = []

    def fail_once(batch: tm.Batch) -> None:
        calls.append(batch.num_rows)
        if len(calls) == 1:
            raise ValueError("once")

    numbers(1).foreach_batch(fail_once)
    with pytest.raises(ValueError, match="once"):
        drained.run()
    drained.run()
    assert drained.error is None
    assert calls == [1, 1]


def test_a_loop_raises_what_failed_elsewhere(numbers: Numbers) -> None:
    stream = numbers(1).map_batches(lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(stream)


def test_lost_records_are_a_data_loss_error(source: ScriptedSource, drained: tm.StreamingContext) -> None:
    source.push(0, [b"a", b"b"])
    source.trim(0, 1)
    drained.scripted(source, format=tm.Raw(), starting={0: 0, 1: 0}).pprint()
    with pytest.raises(tm.DataLossError, match=r"readings.*wanted offset 0.*1"):
        drained.run()


def test_an_unreachable_broker_is_a_source_error_with_its_address(drained: tm.StreamingContext) -> None:
    drained.kafka("readings", bootstrap_servers="127.0.0.1:1", format=tm.Raw()).pprint()
    with pytest.raises(tm.SourceError, match=r"127\.0\.0\.1:1"):
        drained.run()
