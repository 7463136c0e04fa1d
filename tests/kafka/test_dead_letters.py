"""What only a real broker shows of dead letters: their bytes, keys, headers and timestamps, there and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from confluent_kafka import Message

import tidemill as tm
from tests.kafka.clients import Clients, Record

MakeTopic = Callable[..., str]

SCHEMA = {"t": "float64"}


def test_dead_letters_reach_their_topic_as_they_were_and_say_where_from(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    source, bad = make_topic(), make_topic()
    own = (("trace", b"\x00\xff"), ("empty", b""))
    records = [
        Record(b'{"t": 1}', b"good"),
        Record(b'{"t": "warm"}', b"k\xff", headers=own),
        Record(b"\xfe\x00oops", None),
        Record(None),
        Record(b"", b""),
    ]
    kafka.produce(source, records)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    readings = ctx.kafka(
        source,
        bootstrap_servers=kafka.bootstrap_servers,
        format=tm.Json(SCHEMA),
        on_bad=tm.DeadLetters(topic=bad),
    )
    readings.to_table("good")
    ctx.run()
    assert ctx.table("good")["t"].tolist() == [1.0]
    found = {message.value(): message for message in kafka.consume(bad)}
    assert set(found) == {b'{"t": "warm"}', b"\xfe\x00oops", b""}
    assert {value: message.key() for value, message in found.items()} == {
        b'{"t": "warm"}': b"k\xff",
        b"\xfe\x00oops": None,
        b"": b"",
    }
    headers = found[b'{"t": "warm"}'].headers() or []
    assert headers == [
        *own,
        ("tidemill.reason", b'expected a number within float64 in column "t", found `"warm"}`'),
        ("tidemill.topic", source.encode()),
        ("tidemill.partition", b"0"),
        ("tidemill.offset", b"1"),
        ("tidemill.timestamp", written_at(found[b'{"t": "warm"}'])),
        ("tidemill.position", b"6"),
    ]
    assert dict(found[b""].headers() or [])["tidemill.offset"] == b"4"


def written_at(message: Message) -> bytes:
    """The header with the time of the record, which is before that of its dead letter."""
    said = dict(message.headers() or [])["tidemill.timestamp"]
    assert isinstance(said, bytes)
    moment = datetime.fromisoformat(said.decode())
    _, letter = message.timestamp()
    assert moment.timestamp() * 1_000 <= letter < moment.timestamp() * 1_000 + 60_000
    return said


def test_a_dead_letter_may_be_as_large_as_its_topic_takes(kafka: Clients, make_topic: MakeTopic) -> None:
    large = 3 << 20
    source, bad = (make_topic(max_message_bytes=str(large)) for _ in range(2))
    values = [b"x" * 999_900, b"y" * (large // 2), b'{"t": 1}']
    Clients(kafka.bootstrap_servers, message_max_bytes=large).produce(source, values)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    servers, letters = kafka.bootstrap_servers, tm.DeadLetters(topic=bad)
    ctx.kafka(source, bootstrap_servers=servers, format=tm.Json(SCHEMA), on_bad=letters).to_table("good")
    ctx.run()
    assert ctx.table("good")["t"].tolist() == [1.0]
    assert [message.value() for message in kafka.consume(bad)] == values[:2]


def test_the_stream_has_the_keys_headers_and_timestamps_of_the_records(
    kafka: Clients, make_topic: MakeTopic
) -> None:
    source = make_topic()
    kafka.produce(source, [Record(b"oops", b"k", headers=(("trace", b"1"),)), Record(b'{"t": 1}', b"good")])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    servers = kafka.bootstrap_servers
    readings = ctx.kafka(source, bootstrap_servers=servers, format=tm.Json(SCHEMA), on_bad="dead_letter")
    readings.dead_letters.to_table("bad")
    ctx.run()
    (letter,) = ctx.table("bad").to_pyarrow().to_pylist()
    assert letter.pop("kafka_timestamp") is not None
    assert letter == {
        "value": b"oops",
        "reason": "expected a JSON object, found `oops`",
        "position": 0,
        "kafka_topic": source,
        "kafka_partition": 0,
        "kafka_offset": 0,
        "kafka_key": b"k",
        "kafka_headers": [{"key": "trace", "value": b"1"}],
    }
