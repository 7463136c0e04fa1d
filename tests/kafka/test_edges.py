"""Faults of a real broker under a running job: paused, topics made again or with fewer partitions, rows too large."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from confluent_kafka import KafkaException

import tidemill as tm
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients, Record
from tests.kafka.test_source import LIMIT_S, MakeTopic, eventually, numbers, warnings_of


def remade(kafka: Clients, name: str, partitions: int) -> None:
    """Deletes a topic and makes it again; a broker takes its time to forget it."""
    kafka.delete_topic(name)
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            kafka.create_topic(partitions, name=name)
            return
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_job_outlives_a_broker_that_does_not_answer_for_a_while(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic, out = kafka.create_topic(), kafka.create_topic()
    kafka.produce(topic, [str(n).encode() for n in range(100)])
    ctx = tm.StreamingContext("50ms")
    numbers(ctx, kafka, topic, starting="earliest").to_kafka(out)
    ctx.start()
    try:
        eventually(lambda: len(kafka.consume(out)) == 100, ctx)
        own_broker.pause()
        time.sleep(5)
        assert ctx.is_running, ctx.error
        own_broker.resume()
        kafka.produce(topic, [str(n).encode() for n in range(100, 200)])
        eventually(lambda: len(kafka.consume(out)) == 200, ctx)
    finally:
        ctx.stop()
    assert ctx.error is None


@pytest.mark.parametrize("partitions", [3, 1])
def test_a_topic_that_is_made_again_ends_the_job_by_its_name(
    kafka: Clients, make_topic: MakeTopic, partitions: int
) -> None:
    """With as many partitions, and with fewer: the same offsets would be other records."""
    topic = make_topic(3)
    for partition in range(3):
        kafka.produce(
            topic, [Record(str(partition * 10 + n).encode(), partition=partition) for n in range(5)]
        )
    ctx = tm.StreamingContext("50ms")
    seen: list[int] = []
    numbers(ctx, kafka, topic, starting="earliest", name="plant").foreach_batch(
        lambda batch: seen.extend(batch["n"].tolist())
    )
    ctx.start()
    try:
        eventually(lambda: len(seen) == 15, ctx)
        remade(kafka, topic, partitions)
        with pytest.raises(tm.TidemillError) as error:  # of the source, or of the records that are lost
            ctx.await_termination(LIMIT_S)
    finally:
        ctx.stop()
    assert topic in str(error.value)
    assert re.search("deleted (and made again|while it was)", str(error.value))


def test_a_topic_that_comes_again_with_fewer_partitions_is_read_on_where_that_is_asked_for(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    topic = make_topic(3)
    for partition in range(3):
        kafka.produce(
            topic, [Record(str(partition * 10 + n).encode(), partition=partition) for n in range(5)]
        )
    ctx = tm.StreamingContext("50ms")
    warned = warnings_of(ctx)
    seen: list[int] = []
    numbers(ctx, kafka, topic, starting="earliest", on_data_loss="skip").foreach_batch(
        lambda batch: seen.extend(batch["n"].tolist())
    )
    ctx.start()
    try:
        eventually(lambda: len(seen) == 15, ctx)
        remade(kafka, topic, 1)
        kafka.produce(topic, [str(n).encode() for n in range(100, 103)])
        eventually(lambda: {100, 101, 102} <= set(seen), ctx)
        eventually(lambda: any("partition 2" in text for text in warned), ctx)
    finally:
        ctx.stop()
    assert [n for n in seen if n >= 100] == [100, 101, 102]


@pytest.mark.parametrize(
    "config", [{}, {"message.max.bytes": "5000"}], ids=["the topic's limit", "the user's limit"]
)
def test_a_row_that_its_topic_does_not_take_ends_the_job_with_both_sizes(
    kafka: Clients, make_topic: MakeTopic, config: dict[str, Any]
) -> None:
    topic, out = make_topic(), make_topic(max_message_bytes="10000")
    kafka.produce(topic, [b"small", b"x" * 30_000])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    raw = ctx.kafka(topic, bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), starting="earliest")
    raw.to_kafka(out, format=tm.Raw(), config=config)
    with pytest.raises(tm.SinkError) as error:
        ctx.run()
    text = str(error.value)
    assert f"a record of 30000 bytes for {out}[0] is larger than" in text
    assert "(message.max.bytes)" in text
    assert "(max.message.bytes)" in text
