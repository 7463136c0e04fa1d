"""Stopping is prompt, whoever does not answer, and what was not delivered comes again.

Every wait has a limit that is far above what a stop takes and well below the time-out that it would wait out instead:
two minutes for a delivery, ten seconds for a commit or a question.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tidemill as tm
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients
from tests.kafka.test_source import committed, numbers

LIMIT_S = 60.0
STOPS_WITHIN_S = 8.0
MakeTopic = Callable[..., str]


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_stop_at_once_gives_up_a_delivery_to_a_broker_that_is_gone_and_its_rows_come_again(
    kafka: Clients, topic: str, own_broker: Broker, how: str
) -> None:
    target = Clients(own_broker.bootstrap_servers)
    out, group = target.create_topic(), f"{topic}-group"
    events = Events()
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    ctx.listeners.append(events)
    begun = to_other_cluster(ctx, kafka, topic, target, out, group_id=group, starting="earliest")
    ctx.start()
    kafka.produce(topic, [b"1", b"2"])
    events.wait_for("completed")
    begun.clear()
    go, come_back = (
        (own_broker.kill, own_broker.start) if how == "killed" else (own_broker.pause, own_broker.resume)
    )
    go()
    kafka.produce(topic, [b"3", b"4"])
    assert begun.wait(LIMIT_S), ctx.error
    time.sleep(0.3)  # nothing tells that the records have been handed over
    stop(ctx, graceful=False)
    assert ctx.error is None
    assert "Kafka had acknowledged 0 of 2 rows" in str(events.of("warning")[-1].error)
    assert committed(kafka, group, topic) == {0: 2}
    come_back()
    again = tm.StreamingContext(trigger=tm.available_now())
    to_other_cluster(again, kafka, topic, target, out, group_id=group, starting="committed")
    again.run()
    written = [message.value() for message in target.consume(out)]
    assert {b'{"n":%d}' % n for n in (1, 2, 3, 4)} == set(written)
    assert committed(kafka, group, topic) == {0: 4}


def test_ctrl_c_twice_ends_a_script_that_delivers_to_a_broker_that_is_gone(
    tmp_path: Path, kafka: Clients, topic: str, own_broker: Broker
) -> None:
    out = Clients(own_broker.bootstrap_servers).create_topic()
    script = tmp_path / "job.py"
    script.write_text(
        f"""
import tidemill as tm
with tm.StreamingContext(trigger=tm.as_soon_as_possible()) as ctx:
    raw = ctx.kafka("{topic}", bootstrap_servers="{kafka.bootstrap_servers}", starting="earliest", format=tm.Raw())
    raw.foreach_batch(lambda batch: print("delivering", flush=True))
    raw.to_kafka("{out}", bootstrap_servers="{own_broker.bootstrap_servers}", format=tm.Raw())
    ctx.start()
    print("started", flush=True)
    ctx.await_termination()
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    own_broker.kill()
    kafka.produce(topic, [b"1"])
    assert process.stdout.readline() == "delivering\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    # What was begun is finished, if it can be; who waits for that is told so.
    assert process.stderr is not None
    assert any("Ctrl-C again gives them up" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=STOPS_WITHIN_S)
    assert said.rstrip().endswith("KeyboardInterrupt"), said


def test_a_stop_at_once_gives_up_a_commit_that_nobody_answers(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic, events = kafka.create_topic(), Events()
    kafka.produce(topic, [b"1"])
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    ctx.listeners.append(events)
    raw = numbers(ctx, kafka, topic, starting="earliest", group_id=f"{topic}-group")
    raw.foreach_batch(lambda batch: own_broker.pause())
    ctx.start()
    events.wait_for("completed")  # and so its offsets are being committed
    stop(ctx, graceful=False)
    own_broker.resume()
    assert ctx.error is None
    assert committed(kafka, f"{topic}-group", topic) in ({}, {0: 1})  # the answer was not waited for


def test_a_graceful_stop_does_not_wait_for_a_broker_that_is_asked_what_there_is(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic, events = kafka.create_topic(), Events()
    kafka.produce(topic, [b"1"])
    ctx = tm.StreamingContext("50ms")
    ctx.listeners.append(events)
    numbers(ctx, kafka, topic, starting="earliest").foreach_batch(lambda batch: None)
    ctx.start()
    events.wait_for("completed")
    own_broker.pause()
    time.sleep(0.5)  # it is asked every 100 ms
    stop(ctx, graceful=True)
    own_broker.resume()
    assert ctx.error is None


class Events:
    """What a context has told, for a test that waits for it."""

    def __init__(self) -> None:
        self._heard: list[tm.Event] = []
        self._changed = threading.Condition()

    def on_event(self, event: tm.Event) -> None:
        with self._changed:
            self._heard.append(event)
            self._changed.notify_all()

    def of(self, kind: str) -> list[tm.Event]:
        return [event for event in self._heard if event.kind == kind]

    def wait_for(self, kind: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(kind), LIMIT_S), self._heard


def to_other_cluster(
    ctx: tm.StreamingContext, kafka: Clients, topic: str, target: Clients, out: str, **source: Any
) -> threading.Event:
    """Writes numbers to another cluster than they come from; what is given back is set when a delivery begins."""
    begun = threading.Event()
    stream = numbers(ctx, kafka, topic, **source)
    stream.foreach_batch(lambda batch: begun.set())
    stream.to_kafka(out, bootstrap_servers=target.bootstrap_servers)
    return begun


def stop(ctx: tm.StreamingContext, *, graceful: bool) -> None:
    """Stops, in a thread of its own so that a stop that hangs is a failure and not a hang."""
    thread = threading.Thread(target=ctx.stop, args=(graceful,), daemon=True)
    thread.start()
    thread.join(STOPS_WITHIN_S)
    assert not thread.is_alive(), "the stop waits"
