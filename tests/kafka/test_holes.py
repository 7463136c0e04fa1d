"""Logs with holes: offsets that compaction or the end of a transaction took, and that no record will ever have.

A job reads what is there, exactly, and ends where the log does; it deliberately never counts records to find an end.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer

import tidemill as tm
from tests.kafka.clients import Clients, Record

LIMIT_S = 60.0
FIRST_MS = 1_750_000_000_000

MakeTopic = Callable[..., str]
Row = tuple[int, int, str]
"""Partition, offset and value."""


def test_a_compacted_topic_is_read_exactly(kafka: Clients, make_topic: MakeTopic) -> None:
    settings = {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01"}
    topic = make_topic(partitions=2, **{name.replace(".", "_"): value for name, value in settings.items()})
    for turn in range(20):
        kafka.produce(
            topic, [of_partition(p, f"k{key}", f"{turn}", turn) for p in range(2) for key in range(5)]
        )
    # A record of a much later time begins a segment of its own: the ones before it may be compacted.
    kafka.produce(topic, [of_partition(p, "last", "20", 3_600) for p in range(2)])
    there = compacted(kafka, topic, fewer_than=2 * (20 * 5 + 1))
    assert sum(kafka.ends(topic).values()) == 2 * (20 * 5 + 1)
    assert read(kafka, topic) == there
    # Also where a batch begins, and ends, among the records that are gone.
    assert read(kafka, topic, starting={0: 7, 1: 50}, ending={0: 50, 1: 101}) == [
        (partition, offset, value)
        for partition, offset, value in there
        if (7 if partition == 0 else 50) <= offset < (50 if partition == 0 else 101)
    ]


def test_a_topic_of_transactions_is_read_without_those_that_were_aborted(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=2)
    for number in range(12):
        transaction(kafka, topic, [f"{number}-{i}" for i in range(3)], commits=number % 3 == 0)
    kafka.produce(topic, [Record(b"plain", partition=0)])
    transaction(kafka, topic, ["the end is a hole"], commits=False)
    there = consumed(kafka, topic)
    assert [value for _, _, value in there if value != "plain"] == [
        f"{number}-{i}" for _ in range(2) for number in (0, 3, 6, 9) for i in range(3)
    ]
    assert read(kafka, topic) == there


def test_a_range_in_which_nothing_is_left_is_a_batch_of_no_rows_and_the_job_ends(
    kafka: Clients, topic: str
) -> None:
    transaction(kafka, topic, ["never to be seen"] * 5, commits=False, partitions=1)
    assert sum(kafka.ends(topic).values()) > 5
    assert read(kafka, topic) == []


def of_partition(partition: int, key: str, value: str, second: int) -> Record:
    return Record(value.encode(), key.encode(), partition, FIRST_MS + 1000 * second)


def consumed(kafka: Clients, topic: str) -> list[Row]:
    """The records as another client reads them, committed ones alone."""
    return [(m.partition() or 0, m.offset() or 0, (m.value() or b"").decode()) for m in kafka.consume(topic)]


def compacted(kafka: Clients, topic: str, fewer_than: int) -> list[Row]:
    """The records that are left, as another client reads them, once the broker has taken some and takes no more."""
    deadline, before = time.monotonic() + LIMIT_S, 0
    while time.monotonic() < deadline:
        there = consumed(kafka, topic)
        if len(there) < fewer_than and len(there) == before:
            return there
        before = len(there)
        time.sleep(0.5)  # the broker's cleaner says to nobody that it is done
    raise AssertionError(f"after {LIMIT_S:.0f} s the broker has compacted nothing of {topic}")


def transaction(
    kafka: Clients, topic: str, values: Sequence[str], *, commits: bool, partitions: int = 2
) -> None:
    """Writes all values to each partition in one transaction, which commits or is aborted."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": uuid.uuid4().hex, "linger.ms": 0}
    )
    producer.init_transactions(LIMIT_S)
    producer.begin_transaction()
    for partition in range(partitions):
        for value in values:
            producer.produce(topic, value.encode(), partition=partition)
    assert producer.flush(LIMIT_S) == 0
    if commits:
        producer.commit_transaction(LIMIT_S)
    else:
        producer.abort_transaction(LIMIT_S)


def read(
    kafka: Clients,
    topic: str,
    starting: Any = "earliest",
    ending: Any = None,
) -> list[Row]:
    """What a job reads, in batches of few offsets, so that many of them begin and end in holes."""
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=7))
    stream = ctx.kafka(
        topic,
        bootstrap_servers=kafka.bootstrap_servers,
        format=tm.Text(),
        metadata=["partition", "offset"],
        starting=starting,
        ending=ending,
    )
    rows: list[Row] = []
    for batch in stream:
        rows += zip(
            *(batch[name].tolist() for name in ("kafka_partition", "kafka_offset", "value")), strict=True
        )
        for _, partition, begin, until in batch.offset_ranges:
            offsets = [offset for at, offset, _ in rows[-batch.num_rows :] if at == partition]
            assert all(begin <= offset < until for offset in offsets)
    return sorted(rows)
