"""What only a real broker shows of reading: bounds, group offsets, retention, topics, a broker that goes away."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

import tidemill as tm
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients, Record

LIMIT_S = 60.0
FIRST_MS = 1_750_000_000_000

MakeTopic = Callable[..., str]


@pytest.fixture
def numbered(kafka: Clients, make_topic: MakeTopic) -> str:
    """A topic of two partitions with ten records each, a second apart: 0 to 9 and 100 to 109."""
    topic = make_topic(partitions=2)
    kafka.produce(
        topic,
        [
            Record(str(100 * p + i).encode(), partition=p, timestamp_ms=FIRST_MS + 1000 * i)
            for p in range(2)
            for i in range(10)
        ],
    )
    return topic


def test_reading_starts_at_the_earliest_record_and_ends_at_the_latest(kafka: Clients, numbered: str) -> None:
    assert read(kafka, numbered) == [*range(10), *range(100, 110)]
    assert read(kafka, numbered, starting="latest") == []


def test_reading_starts_and_ends_at_offsets(kafka: Clients, numbered: str) -> None:
    found = read(kafka, numbered, starting={0: 3, 1: 10}, ending={0: 5, 1: 10})
    assert found == [3, 4]


def test_reading_starts_and_ends_at_moments(kafka: Clients, numbered: str) -> None:
    first = datetime.fromtimestamp(FIRST_MS / 1000, UTC)
    starting, ending = first + timedelta(seconds=2.5), first + timedelta(seconds=5)
    assert read(kafka, numbered, starting=starting, ending=ending) == [3, 4, 103, 104]
    assert read(kafka, numbered, starting=first + timedelta(days=1)) == []


def test_an_ending_ends_a_job_whose_trigger_would_go_on(kafka: Clients, numbered: str) -> None:
    ctx = tm.StreamingContext("50ms")
    assert values(ctx, kafka, numbered, ending="latest") == [*range(10), *range(100, 110)]


def test_only_the_partitions_named_are_read(kafka: Clients, numbered: str) -> None:
    assert read(kafka, None, partitions={numbered: [1]}) == list(range(100, 110))
    assert read(kafka, None, partitions=[(numbered, 0)]) == list(range(10))


def test_a_partition_that_is_not_there_is_named(kafka: Clients, numbered: str) -> None:
    with pytest.raises(tm.SourceError, match=rf"{numbered}\[7\] does not exist.*2 partitions"):
        read(kafka, None, partitions={numbered: [7]})


def test_two_topics_are_one_stream(kafka: Clients, make_topic: MakeTopic) -> None:
    one, two = make_topic(), make_topic()
    kafka.produce(one, [b"1"])
    kafka.produce(two, [b"2", b"3"])
    assert read(kafka, [one, two]) == [1, 2, 3]
    assert read(kafka, [one, two], starting={(one, 0): 1, (two, 0): 1}) == [3]


def test_metadata_columns_tell_where_a_record_came_from(kafka: Clients, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    headers = (("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b""))
    kafka.produce(topic, [Record(b"v", b"k", 1, FIRST_MS, headers), Record(b"w", None, 1, FIRST_MS + 1)])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    names: Any = ("key", "topic", "partition", "offset", "timestamp", "headers")
    stream = ctx.kafka(topic, bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), metadata=names)
    (batch,) = stream
    first, second = batch.to_pyarrow().to_pylist()
    assert first == {
        "value": b"v",
        "kafka_key": b"k",
        "kafka_topic": topic,
        "kafka_partition": 1,
        "kafka_offset": 0,
        "kafka_timestamp": datetime.fromtimestamp(FIRST_MS / 1000, UTC),
        "kafka_headers": [{"key": name, "value": value} for name, value in headers],
    }
    assert (second["kafka_key"], second["kafka_offset"], second["kafka_headers"]) == (None, 1, [])


def test_group_offsets_are_committed_after_each_batch(kafka: Clients, topic: str) -> None:
    ctx = tm.StreamingContext("50ms")
    group = f"{topic}-group"
    numbers(ctx, kafka, topic, starting="earliest", group_id=group).foreach_batch(lambda batch: None)

    def is_committed(end: int) -> bool:
        return committed(kafka, group, topic) == {0: end}

    ctx.start()
    try:
        for end in (1, 3):
            kafka.produce(topic, [b"1"] * (end - kafka.ends(topic)[0]))
            eventually(partial(is_committed, end), ctx)
    finally:
        ctx.stop()


def test_no_commit_is_lost_when_the_stop_comes_at_once(kafka: Clients, topic: str) -> None:
    kafka.produce(topic, [str(n).encode() for n in range(1000)])
    for attempt in range(5):
        group = f"{topic}-{attempt}"
        ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
        seen = threading.Event()
        delivered: list[int] = []

        def deliver(batch: tm.Batch, seen: Any = seen, delivered: Any = delivered) -> None:
            delivered.append(batch.num_rows)
            seen.set()

        numbers(ctx, kafka, topic, starting="earliest", group_id=group).foreach_batch(deliver)
        ctx.start()
        assert seen.wait(LIMIT_S), ctx.error
        ctx.stop()
        assert committed(kafka, group, topic) == {0: sum(delivered)}


def test_a_job_goes_on_where_its_group_has_committed(kafka: Clients, numbered: str) -> None:
    group = f"{numbered}-group"
    assert len(read(kafka, numbered, group_id=group, ending={0: 4, 1: 10})) == 14
    assert committed(kafka, group, numbered) == {0: 4, 1: 10}
    again = read(kafka, numbered, starting="committed", group_id=group)
    assert again == [4, 5, 6, 7, 8, 9]


def test_a_group_that_has_committed_nothing_starts_where_the_fallback_says(
    kafka: Clients, numbered: str
) -> None:
    read_all = {"starting": "committed", "starting_fallback": "earliest", "group_id": f"{numbered}-new"}
    assert len(read(kafka, numbered, **read_all)) == 20
    assert read(kafka, numbered, starting="committed", group_id=f"{numbered}-other") == []


def test_a_job_that_has_read_nothing_goes_on_where_it_began(kafka: Clients, numbered: str) -> None:
    group = f"{numbered}-group"
    ctx = tm.StreamingContext("50ms")
    numbers(ctx, kafka, numbered, starting="latest", group_id=group).foreach_batch(lambda _: None)
    ctx.start()
    ctx.stop()
    assert committed(kafka, group, numbered) == {0: 10, 1: 10}
    kafka.produce(numbered, [Record(b"10", partition=0)])
    assert read(kafka, numbered, starting="committed", group_id=group) == [10]


def test_a_partition_added_while_no_job_ran_is_read_from_its_beginning(kafka: Clients, numbered: str) -> None:
    group = f"{numbered}-group"
    assert len(read(kafka, numbered, group_id=group)) == 20
    kafka.grow(numbered, 3)
    kafka.produce(numbered, [Record(b"200", partition=2)])
    assert read(kafka, numbered, starting="committed", group_id=group) == [200]


def test_committed_needs_a_group(kafka: Clients, numbered: str) -> None:
    with pytest.raises(tm.ConfigError, match="group_id"):
        read(kafka, numbered, starting="committed")


def test_records_that_retention_took_are_a_data_loss_with_numbers(kafka: Clients, numbered: str) -> None:
    trim(kafka, numbered, 0, 6)
    with pytest.raises(
        tm.DataLossError,
        match=rf"{numbered} partition 0: wanted offset 2, .* available is 6: 4 offsets are lost",
    ):
        read(kafka, numbered, starting={0: 2, 1: 0})
    assert read(kafka, numbered) == [6, 7, 8, 9, *range(100, 110)]


def test_records_that_retention_took_are_skipped_and_counted_where_that_is_asked_for(
    kafka: Clients, numbered: str
) -> None:
    trim(kafka, numbered, 0, 6)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    warned = warnings_of(ctx)
    found = values(ctx, kafka, numbered, starting={0: 2, 1: 0}, on_data_loss="skip")
    assert found == [6, 7, 8, 9, *range(100, 110)]
    assert lost(ctx) == 4
    (text,) = warned
    assert f"topic {numbered} partition 0: 4 offsets are lost, from 2 until 6: retention removed them" in text


def test_records_that_go_while_their_batch_waits_for_them_are_skipped_too(kafka: Clients, topic: str) -> None:
    """The plan names them, and retention takes them before they are fetched."""
    kafka.produce(topic, [str(n).encode() for n in range(100)])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=50))
    warned = warnings_of(ctx)
    seen: list[int] = []

    def deliver(batch: tm.Batch) -> None:
        seen.extend(batch["n"].tolist())

    def trim_once(event: tm.Event) -> None:
        if event.kind == "started":
            trim(kafka, topic, 0, 70)

    ctx.listeners.append(trim_once)
    numbers(ctx, kafka, topic, on_data_loss="skip").foreach_batch(deliver)
    ctx.run()
    assert seen[-30:] == list(range(70, 100))
    assert len(seen) + lost(ctx) == 100
    assert warned or lost(ctx) == 0


def test_a_topic_that_is_deleted_is_let_go_and_read_from_its_beginning_when_it_comes_again(
    kafka: Clients, make_named: MakeTopic, topic: str
) -> None:
    name = make_named(f"again-{uuid.uuid4().hex[:8]}")
    kafka.produce(name, [str(n).encode() for n in range(10)])
    kafka.produce(topic, [b"1000"])
    ctx = tm.StreamingContext("50ms")
    warned = warnings_of(ctx)
    seen: list[int] = []
    numbers(ctx, kafka, [name, topic], starting="earliest", on_data_loss="skip").foreach_batch(
        lambda batch: seen.extend(batch["n"].tolist())
    )
    ctx.start()
    try:
        eventually(lambda: len(seen) == 11, ctx)
        kafka.delete_topic(name)
        eventually(lambda: len(warned) > 0, ctx)
        kafka.produce(topic, [b"1001"])
        eventually(lambda: seen[-1] == 1001, ctx)
        make_again(kafka, name)
        kafka.produce(name, [b"2000", b"2001"])
        eventually(lambda: len(seen) == 14, ctx)
        # Once more, so soon that nobody has seen it gone, and with more records than the one before.
        kafka.delete_topic(name)
        make_again(kafka, name)
        kafka.produce(name, [str(n).encode() for n in range(3000, 3010)])
        eventually(lambda: len([n for n in seen if n >= 3000]) >= 10, ctx)
    finally:
        ctx.stop()
    assert seen[12:14] == [2000, 2001]
    assert sorted({n for n in seen if n >= 3000}) == list(range(3000, 3010))
    assert f"topic {name} partition 0: 0 offsets are lost, from 10 until 10: the topic is gone" in warned[0]


def test_topics_by_pattern_are_one_stream_that_new_ones_join_from_their_beginning(
    kafka: Clients, make_named: MakeTopic
) -> None:
    stem = f"pattern-{uuid.uuid4().hex[:8]}"
    kafka.produce(make_named(f"{stem}-a"), [b"1"])
    kafka.produce(make_named(f"not-{stem}-a"), [b"100"])
    ctx = tm.StreamingContext("50ms")
    seen: list[tuple[str, int]] = []

    def deliver(batch: tm.Batch) -> None:
        seen.extend(zip(batch["kafka_topic"].tolist(), batch["n"].tolist(), strict=True))

    raw = ctx.kafka(
        pattern=f"{stem}-.*", bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), metadata=["topic"],
        starting="latest",
    )  # fmt: skip
    raw.select("kafka_topic", n=tm.col("value").cast("string").cast("int64")).foreach_batch(deliver)
    ctx.start()
    try:
        kafka.produce(f"{stem}-a", [b"2"])
        eventually(lambda: seen == [(f"{stem}-a", 2)], ctx)
        kafka.produce(make_named(f"{stem}-b"), [b"3", b"4"])
        kafka.produce(make_named(f"{stem}-b-longer"), [b"5"])
        eventually(lambda: len(seen) == 4, ctx)
    finally:
        ctx.stop()
    assert sorted(seen[1:]) == [(f"{stem}-b", 3), (f"{stem}-b", 4), (f"{stem}-b-longer", 5)]


def test_a_job_that_ends_by_itself_reads_the_topics_that_match_at_its_start(
    kafka: Clients, make_named: MakeTopic
) -> None:
    stem = f"pattern-{uuid.uuid4().hex[:8]}"
    for number in (1, 2):
        kafka.produce(make_named(f"{stem}-{number}"), [b"7", b"8"])
    assert read(kafka, None, pattern=f"{stem}-[0-9]") == [7, 7, 8, 8]
    starting = {(f"{stem}-1", 0): 1, (f"{stem}-2", 0): 2}
    assert read(kafka, None, pattern=f"{stem}-.*", starting=starting) == [8]
    with pytest.raises(tm.ConfigError, match=rf"offsets are given, but none for {stem}-2\[0\]"):
        read(kafka, None, pattern=f"{stem}-.*", starting={(f"{stem}-1", 0): 1})


def test_a_pattern_that_matches_nothing_names_the_nearest_topics(kafka: Clients, topic: str) -> None:
    with pytest.raises(
        tm.SourceError, match=rf'no topic at .* matches pattern="{topic}x\+"; there are, .*: {topic}'
    ):
        read(kafka, None, pattern=f"{topic}x+")


def test_a_topic_that_grows_while_it_is_read_loses_nothing(kafka: Clients, make_topic: MakeTopic) -> None:
    topic = make_topic(4)
    kafka.produce(topic, [Record(str(p).encode(), partition=p) for p in range(4)])
    ctx = tm.StreamingContext("50ms")
    seen: list[int] = []
    numbers(ctx, kafka, topic, starting="latest").foreach_batch(
        lambda batch: seen.extend(batch["n"].tolist())
    )
    ctx.start()
    try:
        kafka.grow(topic, 8)
        # At once, and so before the job can have seen the new partitions.
        kafka.produce(topic, [Record(str(10 + i).encode(), partition=i % 8) for i in range(800)])
        eventually(lambda: len(seen) >= 800, ctx)
    finally:
        ctx.stop()
    assert sorted(seen) == list(range(10, 810))


def test_a_topic_that_is_not_there_is_named_with_those_that_are(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    there = make_topic()
    wrong = there[:-1]
    with pytest.raises(tm.SourceError, match=rf"(?s){wrong}.*does not exist.*{there}"):
        read(kafka, wrong)


def test_an_output_topic_that_is_not_there_is_named_before_anything_is_read(
    kafka: Clients, numbered: str
) -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    group = f"{numbered}-group"
    numbers(ctx, kafka, numbered, group_id=group).to_kafka(f"{numbered}-alert")
    with pytest.raises(
        tm.SinkError, match=rf"{numbered}-alert.*does not exist.*{numbered}.*test_source\.py:"
    ):
        ctx.run()
    assert committed(kafka, group, numbered) == {}


def test_a_topic_that_is_deleted_while_it_is_read_is_named_soon(kafka: Clients, numbered: str) -> None:
    ctx = tm.StreamingContext("50ms")
    read = threading.Event()
    numbers(ctx, kafka, numbered, starting="earliest", name="plant").foreach_batch(lambda batch: read.set())
    ctx.start()
    assert read.wait(LIMIT_S)
    kafka.delete_topic(numbered)
    with pytest.raises(
        tm.SourceError, match=rf'plant: topic "{numbered}" is gone: it was deleted while it was read'
    ):
        ctx.await_termination(LIMIT_S)


def test_so_it_is_where_a_batch_waits_for_its_records(kafka: Clients, topic: str) -> None:
    for _ in range(6):
        kafka.produce(topic, [b"1" * 1_000])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    planned = threading.Event()
    ctx.listeners.append(lambda event: planned.set() if event.kind == "planned" else None)
    # The broker gives a record every two seconds: it waits for more than there is, and then for no more than one.
    config = {"fetch.min.bytes": "10000000", "fetch.wait.max.ms": "2000", "fetch.message.max.bytes": "1000"}
    stream = ctx.kafka(topic, bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), config=config)
    stream.foreach_batch(lambda batch: None)
    ctx.start()
    assert planned.wait(LIMIT_S)
    kafka.delete_topic(topic)
    with pytest.raises(tm.SourceError, match="is gone: it was deleted while it was read"):
        assert ctx.await_termination(LIMIT_S)


def test_each_client_is_given_the_settings_of_its_kind(
    kafka: Clients, numbered: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a setting that is the other kind's librdkafka has a line in the log, once a client."""
    ctx = tm.StreamingContext(trigger=tm.available_now())
    config = {"linger.ms": "1", "fetch.wait.max.ms": "50", "socket.keepalive.enable": "true"}
    stream = ctx.kafka(numbered, bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), config=config)
    stream.to_kafka(topic, format=tm.Raw())
    with caplog.at_level(logging.INFO, "tidemill.kafka"):
        ctx.run()
    assert [line for line in caplog.messages if "CONFWARN" in line] == []


def test_a_job_outlives_its_broker(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic, out = kafka.create_topic(), kafka.create_topic()
    ctx = tm.StreamingContext("100ms")
    numbers(ctx, kafka, topic, starting="earliest").to_kafka(out)
    ctx.start()
    try:
        kafka.produce(topic, [b"1"])
        eventually(lambda: len(kafka.consume(out)) == 1, ctx)
        own_broker.kill()
        time.sleep(2)  # batches come due while nobody answers
        assert ctx.is_running, ctx.error
        own_broker.start()
        kafka.produce(topic, [b"2"])
        eventually(lambda: len(kafka.consume(out)) == 2, ctx)
    finally:
        ctx.stop()
    assert ctx.error is None


def numbers(ctx: tm.StreamingContext, kafka: Clients, topics: Any, **source: Any) -> tm.DStream:
    """The records of topics as one column, n."""
    raw = ctx.kafka(topics, bootstrap_servers=kafka.bootstrap_servers, format=tm.Raw(), **source)
    return raw.select(n=tm.col("value").cast("string").cast("int64"))


def values(ctx: tm.StreamingContext, kafka: Clients, topics: Any, **source: Any) -> list[int]:
    return sorted(n for batch in numbers(ctx, kafka, topics, **source) for n in batch["n"].tolist())


def read(kafka: Clients, topics: str | Sequence[str] | None, **source: Any) -> list[int]:
    """All numbers that a job which ends by itself gets."""
    return values(tm.StreamingContext(trigger=tm.available_now()), kafka, topics, **source)


def committed(kafka: Clients, group: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        asked = [TopicPartition(topic, partition) for partition in kafka.ends(topic)]
        answers = consumer.committed(asked, timeout=LIMIT_S)
        return {at.partition: at.offset for at in answers if at.offset >= 0}
    finally:
        consumer.close()


def make_again(kafka: Clients, name: str) -> None:
    """A broker takes its time to forget a topic."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            kafka.create_topic(1, name=name)
            return
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def lost(ctx: tm.StreamingContext) -> int:
    assert ctx.progress is not None
    return ctx.progress.totals.lost


def warnings_of(ctx: tm.StreamingContext) -> list[str]:
    """What the job warns of, as it does."""
    told: list[str] = []
    ctx.listeners.append(lambda event: told.append(str(event.error)) if event.kind == "warning" else None)
    return told


def trim(kafka: Clients, topic: str, partition: int, before: int) -> None:
    """Takes the records before an offset away, as retention does."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.delete_records([TopicPartition(topic, partition, before)]).values():
        done.result(LIMIT_S)


def eventually(condition: Callable[[], bool], ctx: tm.StreamingContext) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert ctx.is_running, ctx.error
        assert time.monotonic() < deadline, ctx.progress
        time.sleep(0.02)
