"""A cluster of three loses one broker after the other, and its leaders, while a job reads and writes there.

`TIDEMILL_FAULTS_RECORDS` says how many records pass meanwhile, 20,000 by default; 5000000 is the run on demand.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

import tidemill as tm
from tests.kafka.clients import Clients
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import broker_or_skip
from tests.kafka.secured import USERS

RECORDS = int(os.environ.get("TIDEMILL_FAULTS_RECORDS", "20000"))
LIMIT_S = 300.0
PACE_S = 40.0  # most records are spread over so long; the others come drop by drop until the faults are over
MOST = 0.8


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with broker_or_skip(Cluster) as three:
        yield three


def test_no_record_is_lost_while_leaders_move_a_topic_grows_and_each_broker_is_killed_in_turn(
    cluster: Cluster,
) -> None:
    kafka = Clients(cluster.address(), replicas=3)
    topic, out = (kafka.create_topic(4, name=name, min_insync_replicas="2") for name in ("in", "out"))
    ctx = tm.StreamingContext("100ms")
    login = tm.Sasl("SCRAM-SHA-512", username="alice", password=USERS["alice"], tls=tm.Tls(ca=cluster.ca))
    servers = cluster.address("LOGIN")
    readings = ctx.kafka(
        topic, bootstrap_servers=servers, security=login, format=tm.Raw(), starting="earliest"
    )
    readings.to_kafka(out, format=tm.Raw())
    ctx.start()
    feed = Feed(cluster.address(), topic)
    try:
        feed.start()
        break_all(cluster, kafka, topic)
        feed.finish()
        found = eventually_all(cluster.address(), out, ctx)
    finally:
        feed.stop()
        ctx.stop()
    duplicates = int(found.sum()) - RECORDS
    print(f"\n{RECORDS:,} records: 0 missing, {duplicates:,} twice, {feed.seconds:.0f} s")
    assert ctx.error is None
    assert found.min() >= 1


def break_all(cluster: Cluster, kafka: Clients, topic: str) -> None:
    """What befalls the cluster: always one thing at a time, so that two of three replicas are there."""
    first = cluster.members[0]
    first.stop()  # in order: its leaders move to the others at once
    first.start()
    cluster.await_all()
    cluster.move_leaders_home()
    kafka.grow(topic, 8)
    for member in cluster.members:
        member.kill()
        cluster.await_missed()
        member.start()
        cluster.await_all()


class Feed(threading.Thread):
    """Writes the numbers from 0 to a topic, spread over a while, each surely and once."""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._topic = topic
        self._settings = {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
        self._over = threading.Event()
        self._stopped = False
        self._failed: list[object] = []
        self.seconds = 0.0

    def run(self) -> None:
        """Until all are written, or it is stopped."""
        try:
            self._write()
        except Exception as error:
            self._failed.append(error)

    def _write(self) -> None:
        producer, begin, partitions = Producer(self._settings), time.monotonic(), 4
        step = max(RECORDS // 1000, 1)
        for start in range(0, RECORDS, step):
            if start < MOST * RECORDS:
                self._over.wait(max(begin + PACE_S * start / RECORDS / MOST - time.monotonic(), 0))
            else:
                self._over.wait(0.5)
            if self._stopped:
                return
            if partitions == 4 and start > RECORDS // 2:
                partitions = self._partitions(producer) or partitions
            for number in range(start, min(start + step, RECORDS)):
                self._send(producer, number, number % partitions)
            producer.poll(0)
        unsent = producer.flush(LIMIT_S)
        self.seconds = time.monotonic() - begin
        if unsent:
            self._failed.append(f"{unsent} were not answered")

    def _partitions(self, producer: Producer) -> int | None:
        """How many the topic has, which the producer knows from then on; none while no broker answers."""
        try:
            return len(producer.list_topics(self._topic, timeout=5).topics[self._topic].partitions)
        except KafkaException:
            return None

    def finish(self) -> None:
        """Write the rest at once, and wait until all are written."""
        self._over.set()
        self.join(LIMIT_S)
        assert not self.is_alive()
        assert not self._failed, self._failed[:3]

    def stop(self) -> None:
        """Write no more."""
        self._stopped = True
        self._over.set()

    def _send(self, producer: Producer, number: int, partition: int) -> None:
        def answered(error: object, _message: object) -> None:
            if error is not None:
                self._failed.append(error)

        while True:
            try:
                producer.produce(self._topic, b"%d" % number, partition=partition, on_delivery=answered)
                return
            except BufferError:
                producer.poll(0.1)


def eventually_all(servers: str, topic: str, ctx: tm.StreamingContext) -> np.ndarray:
    """How many times each number has come to the output, once each has come."""
    found = np.zeros(RECORDS, dtype=np.int64)
    settings = {"bootstrap.servers": servers, "group.id": "count", "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.message.max.bytes": 4 << 20})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    deadline = time.monotonic() + LIMIT_S
    try:
        quiet = False
        while found.min() == 0 or not quiet:
            messages = consumer.consume(50_000, timeout=1.0)
            quiet = not messages
            values = [int(message.value() or b"") for message in messages if message.error() is None]
            np.add.at(found, values, 1)
            missing = int((found == 0).sum())
            assert ctx.is_running, ctx.error
            assert time.monotonic() < deadline, f"{missing} are missing: {np.flatnonzero(found == 0)[:10]}"
    finally:
        consumer.close()
    return found
