"""What is wrong with a topic itself: records too large, packed or damaged so that nobody reads them, rights gone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka.admin._acl import AclOperation

import tidemill as tm
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients, Record
from tests.kafka.secured import USERS, SecuredBroker
from tests.kafka.test_source import LIMIT_S, MakeTopic

MIB = 1 << 20


def raw(ctx: tm.StreamingContext, servers: str, topic: str, **source: object) -> tm.DStream:
    options: dict[str, object] = {"starting": "earliest", **source}
    return ctx.kafka(topic, bootstrap_servers=servers, format=tm.Raw(), **options)  # type: ignore[arg-type]


def test_a_message_larger_than_a_fetch_comes_whole(kafka: Clients, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=str(20 * MIB))
    kafka.produce(topic, [b"a" * 900_000, b"b", b"c" * 950_000])
    large = Clients(kafka.bootstrap_servers, message_max_bytes=20 * MIB)
    large.produce(topic, [b"d" * (12 * MIB), b"e"])
    ctx = tm.StreamingContext(trigger=tm.available_now(), max_memory="256MiB")
    stream = raw(ctx, kafka.bootstrap_servers, topic, config={"fetch.message.max.bytes": 1000})
    lengths = [len(value) for batch in stream for value in batch["value"].tolist()]
    assert lengths == [900_000, 1, 950_000, 12 * MIB, 1]


SAID = {"checksum": "failed CRC32C check", "codec": "codec 0x7"}


def test_a_batch_that_cannot_be_unpacked_is_named_with_its_offset(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topics = {damage: kafka.create_topic(name=damage) for damage in SAID}
    for topic in topics.values():
        for value in (b"good", b"damaged", b"good again"):
            kafka.produce(topic, [value])
    own_broker.stop()
    for damage, topic in topics.items():
        spoil(own_broker.segment(topic, 0), damage)
    own_broker.start()
    for damage, topic in topics.items():
        ctx = tm.StreamingContext(trigger=tm.available_now())
        raw(ctx, own_broker.bootstrap_servers, topic, name="plant").foreach_batch(lambda batch: None)
        with pytest.raises(tm.SourceError) as refused:
            ctx.run()
        text = str(refused.value)
        assert f"plant: topic {topic} partition 0: a batch of records that begins at offset 1" in text
        assert SAID[damage] in text
        assert "starting={partition: offset}" in text
        ctx = tm.StreamingContext(trigger=tm.available_now())
        behind = raw(ctx, own_broker.bootstrap_servers, topic, starting={0: 2})
        assert [value for batch in behind for value in batch["value"].tolist()] == [b"good again"]


def spoil(segment: Path, damage: str) -> None:
    """Flips a byte of the second batch, or has it name a codec that there is not."""
    data = bytearray(segment.read_bytes())
    begin = 12 + int.from_bytes(data[8:12], "big")  # where the first batch ends
    size = 12 + int.from_bytes(data[begin + 8 : begin + 12], "big")
    if damage == "checksum":
        data[begin + size - 3] ^= 0xFF
    else:
        data[begin + 22] |= 7  # the low bits of the attributes
        data[begin + 17 : begin + 21] = crc32c(bytes(data[begin + 21 : begin + size])).to_bytes(4, "big")
    segment.write_bytes(bytes(data))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("operations", [["READ"], ["READ", "DESCRIBE"]], ids=["read", "all"])
def test_a_right_that_is_taken_away_while_a_job_runs_ends_it_with_what_is_missing(
    secured: SecuredBroker, operations: list[str]
) -> None:
    kafka = Clients(secured.bootstrap_servers)
    topic = kafka.create_topic()
    for operation in (AclOperation.READ, AclOperation.DESCRIBE):
        secured.grant("bob", topic, operation)
    kafka.produce(topic, [Record(b"1")])
    ctx = tm.StreamingContext("50ms")
    login = tm.Sasl("SCRAM-SHA-256", username="bob", password=USERS["bob"], tls=tm.Tls(ca=secured.ca))
    seen = threading.Event()
    raw(ctx, secured.address("LOGIN"), topic, security=login).foreach_batch(lambda batch: seen.set())
    ctx.start()
    try:
        assert seen.wait(LIMIT_S)
        for taken in operations:
            secured.revoke("bob", topic, AclOperation[taken])
        time.sleep(0.5)
        kafka.produce(topic, [Record(b"2")])
        with pytest.raises(tm.SourceError, match=r'user "bob" granted the right to read .* and describe'):
            ctx.await_termination(LIMIT_S)
    finally:
        ctx.stop()
