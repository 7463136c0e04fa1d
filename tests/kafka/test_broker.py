"""The harness itself: a broker that is killed keeps its data, one that is paused answers later, none outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka import jars
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients, Record

ROOT = Path(__file__).parents[2]


def test_what_is_produced_is_consumed_with_key_partition_and_headers(
    kafka: Clients, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    kafka.produce(
        topic,
        [Record(b"v", b"k", partition=1, timestamp_ms=7, headers=(("h", b"x"),)), Record(None, b"k2", 0)],
    )
    tombstone, full = kafka.consume(topic)
    assert (tombstone.value(), tombstone.key(), tombstone.partition()) == (None, b"k2", 0)
    assert (full.value(), full.key(), full.partition(), full.timestamp()[1]) == (b"v", b"k", 1, 7)
    assert full.headers() == [("h", b"x")]
    assert kafka.ends(topic) == {0: 1, 1: 1}


def test_each_test_has_a_topic_of_its_own(kafka: Clients, topic: str) -> None:
    assert kafka.consume(topic) == []


def test_an_unknown_topic_is_not_made_by_asking(kafka: Clients) -> None:
    with pytest.raises(RuntimeError, match=r"1 failed|1 were not answered"):
        kafka.produce("nobody-made-this", [b"v"])


def test_a_killed_broker_comes_back_on_the_same_address_with_its_data(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic = kafka.create_topic()
    kafka.produce(topic, [b"before"])
    own_broker.kill()
    assert own_broker.pid is None
    own_broker.start()
    kafka.produce(topic, [b"after"])
    assert [m.value() for m in kafka.consume(topic)] == [b"before", b"after"]


def test_a_paused_broker_does_not_answer_until_it_is_resumed(own_broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap_servers, "log_level": 0})
    own_broker.pause()
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=0.5)
    own_broker.resume()
    assert admin.list_topics(timeout=30).brokers


def test_a_stopped_broker_leaves_nothing_behind_when_closed() -> None:
    broker = Broker().start()
    home = broker.log.parent
    broker.pause()
    broker.stop()
    broker.close()
    assert not home.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_broker_never_outlives_the_process_that_started_it(how: signal.Signals) -> None:
    script = """
from tests.kafka.broker import Broker
broker = Broker().start()
print(broker.pid, broker.log.parent, flush=True)
input()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert owner.stdout is not None
    pid, home = owner.stdout.readline().split()
    owner.send_signal(how)
    owner.wait()
    assert _eventually(lambda: not _alive(int(pid)) and not Path(home.decode()).exists())
    owner.communicate()


def test_without_java_or_maven_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(jars.BrokerUnavailable, match=r"java.*apt install"):
        jars.resolve()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
