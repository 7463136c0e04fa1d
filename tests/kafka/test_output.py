"""What only a real broker shows of `to_kafka`: keys, headers, payloads, and the partition a key belongs to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

import tidemill as tm
from tests.kafka.clients import Clients, Record

MakeTopic = Callable[..., str]


def test_keys_go_where_the_java_clients_murmur2_puts_them(kafka: Clients, make_topic: MakeTopic) -> None:
    keys = [f"key-{n}" for n in range(300)] + ["", "ü", "日本", "a", "ab", "abc", "abcd", "abcde"]
    source, ours, theirs = make_topic(), make_topic(partitions=7), make_topic(partitions=7)
    kafka.produce(source, [json.dumps({"k": key}).encode() for key in keys])
    run(kafka, source, {"k": "string"}, lambda s: s.key_by("k").to_kafka(ours))
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"}
    producer = Producer(settings)
    for key in keys:
        producer.produce(theirs, b"", key.encode())
    assert producer.flush(30) == 0
    assert places(kafka, ours) == places(kafka, theirs)
    assert len(places(kafka, ours)) == len(keys)


def test_the_key_is_the_key_by_column_as_text_or_the_one_named_or_none(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    source = make_topic()
    kafka.produce(source, [b'{"a": "x", "n": 7}'])
    schema = {"a": "string", "n": "int64"}
    auto, several, named, none, unkeyed = (make_topic() for _ in range(5))

    def outputs(stream: tm.DStream) -> None:
        stream.key_by("n").to_kafka(auto)
        stream.key_by("a", "n").to_kafka(several)
        stream.key_by("n").to_kafka(named, key="a")
        stream.key_by("n").to_kafka(none, key=None)
        stream.to_kafka(unkeyed)

    run(kafka, source, schema, outputs)
    found = [kafka.consume(topic)[0] for topic in (auto, several, named, none, unkeyed)]
    assert [message.key() for message in found] == [b"7", b'["x",7]', b"x", None, None]
    assert all(json.loads(message.value() or b"") == {"a": "x", "n": 7} for message in found)


def test_headers_are_constant_or_passed_on(kafka: Clients, make_topic: MakeTopic) -> None:
    source, constant, passed = make_topic(), make_topic(), make_topic()
    headers = (("trace", b"\x00\xff"), ("trace", b"again"))
    kafka.produce(source, [Record(b"v", b"k", headers=headers)])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.kafka(
        source,
        bootstrap_servers=kafka.bootstrap_servers,
        format=tm.Raw(),
        metadata=["key", "headers"],
    )
    stream.select("value").to_kafka(constant, format=tm.Raw(), headers={"from": "tidemill"})
    stream.to_kafka(passed, key="kafka_key", value="value", format=tm.Raw(), headers="kafka_headers")
    ctx.run()
    (one,), (two,) = kafka.consume(constant), kafka.consume(passed)
    assert (one.value(), one.key(), one.headers()) == (b"v", None, [("from", b"tidemill")])
    assert (two.value(), two.key(), two.headers()) == (b"v", b"k", list(headers))


def test_json_written_is_iso_8601_and_null_for_what_json_has_not(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    source, out = make_topic(), make_topic()
    kafka.produce(source, [b'{"ts": 1750000000123, "x": null, "s": "\\u00fc\\n"}'])
    schema = {"ts": "timestamp[ms]", "x": "float64", "s": "string"}
    run(kafka, source, schema, lambda s: s.with_columns(nan=tm.lit(float("nan"))).to_kafka(out))
    (message,) = kafka.consume(out)
    written = json.loads(message.value() or b"")
    assert written == {"ts": "2025-06-15T15:06:40.123", "x": None, "s": "ü\n", "nan": None}


def test_records_carry_the_time_of_their_batch_or_that_of_sending(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    source, batch, sending = make_topic(), make_topic(), make_topic()
    kafka.produce(source, [b'{"n": 1}', b'{"n": 2}'])
    times: list[int] = []

    def outputs(stream: tm.DStream) -> None:
        stream.to_kafka(batch)
        stream.foreach_batch(lambda batch: times.append(round(batch.time.timestamp() * 1000)))
        stream.to_kafka(sending, timestamps="sending")

    began = time.time_ns() // 1_000_000
    run(kafka, source, {"n": "int64"}, outputs)
    ended = time.time_ns() // 1_000_000
    assert [message.timestamp()[1] for message in kafka.consume(batch)] == times * 2
    sent = [message.timestamp()[1] for message in kafka.consume(sending)]
    assert len(sent) == 2
    assert all(began <= at <= ended for at in sent)


def run(kafka: Clients, source: str, schema: dict[str, str], outputs: Callable[[tm.DStream], Any]) -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    outputs(ctx.kafka(source, bootstrap_servers=kafka.bootstrap_servers, format=tm.Json(schema)))
    ctx.run()


def places(kafka: Clients, topic: str) -> dict[bytes | None, int | None]:
    return {message.key(): message.partition() for message in kafka.consume(topic)}
