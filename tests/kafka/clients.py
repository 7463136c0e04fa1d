"""Produce to and consume from a broker by confluent-kafka: the clients that tests compare tidemill's with.

It deliberately uses nothing of tidemill, so that a mistake there is never hidden by the same mistake here.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

ANSWER_LIMIT_S = 30.0


@dataclass(frozen=True)
class Record:
    """What a test sends; `partition` is chosen by the key where it is None."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Clients:
    """The helpers bound to one broker."""

    bootstrap_servers: str
    replicas: int = 1
    """How many brokers have each record of the topics made here."""
    message_max_bytes: int = 1_000_000

    def create_topic(self, partitions: int = 1, *, name: str | None = None, **config: str) -> str:
        """Make a topic and give its name; settings are Kafka's, with `_` for `.`."""
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=self.replicas, config=settings)
        admin = self._admin()  # a client that is collected takes its open requests with it
        for done in admin.create_topics([topic]).values():
            done.result(ANSWER_LIMIT_S)
        self._await_leaders(name, partitions)
        return name

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic so many partitions in all; returns once all have leaders."""
        admin = self._admin()
        for done in admin.create_partitions([NewPartitions(name, partitions)]).values():
            done.result(ANSWER_LIMIT_S)
        self._await_leaders(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Remove a topic; one that is gone already is fine."""
        admin = self._admin()
        for done in admin.delete_topics([name]).values():
            try:
                done.result(ANSWER_LIMIT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise

    def produce(self, topic: str, records: Iterable[Record | bytes]) -> int:
        """Send all, wait until every one is acknowledged, and give their number; bare bytes are values."""
        # A topic that is not there is told after a second, not after librdkafka's thirty.
        settings = {"linger.ms": 5, "enable.idempotence": True, "topic.metadata.propagation.max.ms": 1000}
        settings["message.max.bytes"] = self.message_max_bytes
        producer = Producer({**self._common(), **settings})
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        count = 0
        for record in records:
            _send(producer, topic, record if isinstance(record, Record) else Record(record), delivered)
            count += 1
        unsent = producer.flush(ANSWER_LIMIT_S)
        if failed or unsent:
            raise RuntimeError(
                f"of {count} records {len(failed)} failed and {unsent} were not answered: {failed[:3]}"
            )
        return count

    def fill(self, topic: str, values: Iterable[tuple[int, bytes]]) -> int:
        """Send many (partition, value) quickly to a new topic, and give their number once it has them all."""
        settings = {"linger.ms": 50, "compression.type": "lz4", "queue.buffering.max.messages": 500_000}
        producer = Producer({**self._common(), **settings, "enable.idempotence": True})
        count = 0
        for partition, value in values:
            count += 1
            while True:
                try:
                    producer.produce(topic, value, partition=partition)
                    break
                except BufferError:
                    producer.poll(0.1)
        unsent = producer.flush(ANSWER_LIMIT_S)
        there = sum(self.ends(topic).values())
        if there != count:
            raise RuntimeError(f"of {count} records {there} are in {topic}, {unsent} were not answered")
        return count

    def consume(self, topic: str, *, committed_only: bool = True) -> list[Message]:
        """All records of the topic up to the ends of its partitions as they are now; partition by partition."""
        isolation = "read_committed" if committed_only else "read_uncommitted"
        consumer = Consumer(
            {
                **self._common(),
                "group.id": f"test-{uuid.uuid4().hex}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            return _read_to_ends(consumer, topic)
        finally:
            consumer.close()

    def ends(self, topic: str, *, committed_only: bool = True) -> dict[int, int]:
        """Of each partition, the offset that the next record will get; or the first that may still be aborted."""
        isolation = "read_committed" if committed_only else "read_uncommitted"
        consumer = Consumer({**self._common(), "group.id": "test-ends", "isolation.level": isolation})
        try:
            partitions = consumer.list_topics(topic, timeout=ANSWER_LIMIT_S).topics[topic].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(topic, p))[1] for p in partitions}
        finally:
            consumer.close()

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """The offset that a group has committed for a partition, if it has."""
        settings = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False}
        consumer = Consumer({**self._common(), **settings})
        try:
            (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=ANSWER_LIMIT_S)
            return found.offset if found.offset >= 0 else None
        finally:
            consumer.close()

    def _common(self) -> dict[str, str | int | float | bool]:
        return {"bootstrap.servers": self.bootstrap_servers, "reconnect.backoff.max.ms": 200, "log_level": 3}

    def _admin(self) -> AdminClient:
        return AdminClient(self._common())

    def _await_leaders(self, topic: str, partitions: int) -> None:
        """A topic just made is answered for before its partitions have leaders."""
        admin = self._admin()
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while time.monotonic() < deadline:
            found = admin.list_topics(topic, timeout=ANSWER_LIMIT_S).topics[topic].partitions.values()
            if len(found) == partitions and all(p.leader >= 0 for p in found):
                return
            time.sleep(0.01)
        raise RuntimeError(f"topic {topic} has no leaders after {ANSWER_LIMIT_S:.0f} s")


def _send(producer: Producer, topic: str, record: Record, delivered: Callable[..., None]) -> None:
    # What is not given is left out: the client takes no None for it.
    options: dict[str, Any] = {"partition": record.partition, "timestamp": record.timestamp_ms}
    given = {name: value for name, value in options.items() if value is not None}
    if record.headers:
        given["headers"] = list(record.headers)
    while True:
        try:
            producer.produce(topic, record.value, record.key, on_delivery=delivered, **given)
            return
        except BufferError:  # the local queue is full: let some be answered first
            producer.poll(0.1)


def _read_to_ends(consumer: Consumer, topic: str) -> list[Message]:
    partitions = consumer.list_topics(topic, timeout=ANSWER_LIMIT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    open_partitions = set(partitions)
    read: list[Message] = []
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while open_partitions:
        if time.monotonic() > deadline:
            raise RuntimeError(f"partitions {sorted(open_partitions)} of {topic} did not end")
        for message in consumer.consume(1000, timeout=0.2):
            error = message.error()
            if error is None:
                read.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise KafkaException(error)
    return sorted(read, key=lambda m: (m.partition(), m.offset()))
