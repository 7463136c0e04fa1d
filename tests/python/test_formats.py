"""Formats as a user meets them: CSV and text read and written, and what is refused before anything runs."""

from __future__ import annotations

import json
import socket
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tidemill as tm
from tidemill._native import MockBroker

Rows = list[dict[str, Any]]
MakeTopic = Callable[[], tuple[str, str]]


def rows(given: tm.Csv | tm.Json | tm.Text, *payloads: str | bytes | None, **reading: Any) -> Rows:
    source = tm.testing.ScriptedSource()
    source.push(0, [text.encode() if isinstance(text, str) else text for text in payloads])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(source, format=given, **reading)
    return [row for batch in stream for row in batch.to_pyarrow().to_pylist()]


def test_csv_is_read_by_place() -> None:
    given = tm.Csv({"device": "string", "t": "float64", "ok": "bool"})
    assert rows(given, "a,21.5,true", '"b ""2""",1e3,false\r\n', ",,", '"",0,true') == [
        {"device": "a", "t": 21.5, "ok": True},
        {"device": 'b "2"', "t": 1000.0, "ok": False},
        {"device": None, "t": None, "ok": None},
        {"device": "", "t": 0.0, "ok": True},
    ]


def test_csv_is_read_by_names_in_any_order() -> None:
    given = tm.Csv({"device": "string", "t": "float64"}, header=True)
    assert rows(given, "t,device\n1,a", "device,other\nb,x\n") == [
        {"device": "a", "t": 1.0},
        {"device": "b", "t": None},
    ]


def test_a_null_of_ones_own_is_told_from_its_text() -> None:
    given = tm.Csv({"a": "string", "b": "int64"}, null="NA", delimiter="\t")
    assert rows(given, "NA\tNA", '"NA"\t1', "\t2") == [
        {"a": None, "b": None},
        {"a": "NA", "b": 1},
        {"a": "", "b": 2},
    ]


def test_a_bad_record_of_csv_fails_the_batch_with_its_place() -> None:
    with pytest.raises(
        tm.DataError, match=r"a whole number within int64 in column \"n\".*byte 2 of 6.*offset 1"
    ):
        rows(tm.Csv({"device": "string", "n": "int64"}), "a,1", "b,warm")


def test_text_and_its_tombstones_and_bad_records() -> None:
    assert rows(tm.Text(), "one", None, "", b"\xff", "日本", on_bad="drop", metadata=["offset"]) == [
        {"value": "one", "kafka_offset": 0},
        {"value": "", "kafka_offset": 2},
        {"value": "日本", "kafka_offset": 4},
    ]
    with pytest.raises(tm.DataError, match=r"expected valid UTF-8, found `\\xff`.*byte 1 of 2"):
        rows(tm.Text(), b"a\xff")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"delimiter": ",,"}, "delimiter is one mark"),
        ({"delimiter": "e"}, "delimiter is one mark"),
        ({"quote": ""}, "quote is one mark"),
        ({"quote": ","}, "that differ"),
        ({"null": "a,b"}, "null is text without"),
    ],
)
def test_a_spelling_that_cannot_be_read_is_refused_at_once(settings: dict[str, str], told: str) -> None:
    with pytest.raises(tm.ConfigError, match=told):
        tm.Csv({"a": "int64"}, **settings)  # type: ignore[arg-type]


def test_a_column_that_csv_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(tm.ConfigError, match='column "a": expected a type that CSV can be read into'):
        tm.Csv({"a": "list<int64>"})
    with pytest.raises(tm.ConfigError, match="Csv needs at least one column"):
        tm.Csv({})


def test_pythons_types_are_read_from_csv_as_from_json() -> None:
    schema = {"d": date, "ts": datetime, "n": int, "t": float, "s": str, "ok": bool, "raw": bytes}
    assert tm.Csv(schema).schema == tm.Json(schema).schema
    line = "2026-11-21,2026-11-21T10:00:00Z,7,1.5,pump,true,eA=="
    record = dict(zip(schema, line.split(","), strict=True))
    written = json.dumps({**record, "n": 7, "t": 1.5, "ok": True})
    expected = [(date(2026, 11, 21), datetime(2026, 11, 21, 10), 7, 1.5, "pump", True, b"x")]
    assert [tuple(row.values()) for row in rows(tm.Csv(schema), line)] == expected
    assert [tuple(row.values()) for row in rows(tm.Json(schema), written)] == expected


@pytest.mark.parametrize("given", [tm.Json({"price": "decimal(5, 2)"}), tm.Csv({"price": "decimal(5, 2)"})])
def test_a_decimal_is_never_rounded(given: tm.Csv | tm.Json) -> None:
    texts = ["999.99", "1e2", "-0.5", "1.500", "1.005", "1000", "1e3"]
    payloads = [f'{{"price": {text}}}' if isinstance(given, tm.Json) else text for text in texts]
    found = [row["price"] for row in rows(given, *payloads, on_bad="drop")]
    assert found == [Decimal("999.99"), Decimal(100), Decimal("-0.5"), Decimal("1.5")]


def test_formats_are_shown_as_they_are_made() -> None:
    assert repr(tm.Csv({"a": "int64"})) == 'Csv({"a": "int64"})'
    assert repr(tm.Csv({"a": "int64"}, delimiter=";", null="-", header=True)) == (
        "Csv({\"a\": \"int64\"}, delimiter=';', header=True, null='-')"
    )
    assert repr(tm.Text()) == "Text()"


def test_what_is_no_format_is_refused() -> None:
    ctx = tm.StreamingContext()
    with pytest.raises(
        tm.ConfigError, match=r"format is tm\.Json\(schema\), tm\.Csv\(schema\), tm\.Text\(\)"
    ):
        ctx.scripted(tm.testing.ScriptedSource(), format="csv")  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["NA", "", "null"])
VALUES = st.fixed_dictionaries(
    {
        "text": st.none() | TEXT,
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "float": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.none() | st.booleans(),
        "ts": st.none() | st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)),
        "day": st.none() | st.dates(),
        "price": st.none() | st.decimals(-(10**9), 10**9, places=3),
        "blob": st.none() | st.binary(max_size=20),
    }
)
TYPES = {
    "text": "string",
    "whole": "int64",
    "float": "float64",
    "flag": "bool",
    "ts": "timestamp[us]",
    "day": "date32",
    "price": "decimal(18, 3)",
    "blob": "binary",
}
SPELLINGS: list[dict[str, Any]] = [{}, {"delimiter": ";", "quote": "'", "null": "NA"}, {"header": True}]


@pytest.fixture(scope="module")
def broker() -> Iterator[MakeTopic]:
    """Makes topics of one partition: where, and by what name."""
    broker = MockBroker()
    numbers = count()

    def topic() -> tuple[str, str]:
        name = f"topic-{next(numbers)}"
        broker.create_topic(name, 1)
        return broker.bootstrap_servers, name

    yield topic
    broker.close()


def plain(value: Any) -> Any:
    """What JSON has instead of a value of another type."""
    if isinstance(value, Decimal):
        return float(value)
    return b64encode(value).decode() if isinstance(value, bytes) else value.isoformat()


def write(broker: MakeTopic, values: Rows, **output: Any) -> tuple[str, str]:
    source = tm.testing.ScriptedSource()
    source.push(0, [json.dumps(value, default=plain).encode() for value in values])
    servers, topic = broker()
    ctx = tm.StreamingContext(trigger=tm.available_now())
    ctx.scripted(source, format=tm.Json(TYPES)).to_kafka(topic, bootstrap_servers=servers, **output)
    ctx.run()
    return servers, topic


def read(servers: str, topic: str, given: tm.Csv | tm.Json | tm.Text | tm.Raw) -> Rows:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.kafka(topic, bootstrap_servers=servers, format=given)
    return [row for batch in stream for row in batch.to_pyarrow().to_pylist()]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, min_size=1, max_size=20), st.sampled_from(SPELLINGS))
def test_what_was_written_is_read_back_as_it_was(
    broker: MakeTopic, values: Rows, spelling: dict[str, Any]
) -> None:
    written = write(broker, values, format=tm.Csv(**spelling))
    assert read(*written, tm.Csv(TYPES, **spelling)) == values
    assert read(*write(broker, values), tm.Json(TYPES)) == values


def test_text_and_bytes_are_written_as_they_are(broker: MakeTopic) -> None:
    values = [{"text": text} for text in ["one", None, "", "日本"]]
    written = write(broker, values, format=tm.Text(), value="text")
    assert read(*written, tm.Text()) == [{"value": text} for text in ["one", "", "日本"]]
    assert read(*written, tm.Raw()) == [{"value": text.encode()} for text in ["one", "", "日本"]]


def test_what_cannot_be_written_is_refused_before_anything_runs(broker: MakeTopic) -> None:
    with pytest.raises(tm.SchemaError, match="format Text writes one column, found 8"):
        write(broker, [], format=tm.Text())
    with pytest.raises(tm.SchemaError, match='format Text writes a string column, found "whole" of int64'):
        write(broker, [], format=tm.Text(), value="whole")
    with pytest.raises(tm.ConfigError, match=r"other formats have all columns"):
        write(broker, [], format=tm.Csv(), value="whole")
    with pytest.raises(tm.ConfigError, match=r"found a schema in Csv.*pass tm\.Csv\(\)"):
        write(broker, [], format=tm.Csv({"a": "int64"}))


def test_reading_csv_needs_a_schema() -> None:
    with pytest.raises(tm.ConfigError, match="reading CSV needs a schema"):
        rows(tm.Csv(), "a")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_topics_of_every_codec_are_read(broker: MakeTopic, codec: str) -> None:
    servers, topic = broker()
    producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 50})
    lines = [f"line {number} of one batch that compresses well" for number in range(500)]
    for line in lines:
        producer.produce(topic, line.encode())
    assert producer.flush(30) == 0
    assert [row["value"] for row in read(servers, topic, tm.Text())] == lines


def crc32c(content: bytes) -> int:
    rest = 0xFFFFFFFF
    for byte in content:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


def produce(servers: str, topic: str, codec: int, records: bytes, damage: int) -> None:
    """Writes one batch of one record with a request of its own, since no client writes a batch that it cannot read."""
    base, length, epoch, magic = 0, 49 + len(records), -1, 2
    content = struct.pack(">hiqqqhii", codec, 0, 0, 0, -1, -1, -1, 1) + records
    batch = struct.pack(">qiibI", base, length, epoch, magic, crc32c(content) ^ damage) + content
    name = topic.encode()
    body = struct.pack(">hhii", -1, 1, 10_000, 1) + struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    request = struct.pack(">hhih", 0, 7, 1, -1) + body
    host, port = servers.split(",")[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", line.recv(4, socket.MSG_WAITALL))
        answer = line.recv(size, socket.MSG_WAITALL)
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0


@pytest.mark.parametrize(
    ("codec", "records", "damage", "reason"),
    [
        (5, b"whatever", 0, "codec 0x5"),
        (1, b"no gzip", 0, "codec 0x1"),
        (3, b"no lz4 at all", 0, "codec 0x3"),
        (0, b"\x0e\0\0\0\1\2a\0", 1, "CRC32C"),
    ],
    ids=["an unknown codec", "no gzip", "no lz4", "another checksum"],
)
def test_a_batch_that_cannot_be_taken_apart_is_an_error_that_names_it(
    broker: MakeTopic, codec: int, records: bytes, damage: int, reason: str
) -> None:
    servers, topic = broker()
    produce(servers, topic, codec, records, damage)
    with pytest.raises(
        tm.SourceError, match="a batch of records that begins at offset 0 cannot be unpacked"
    ) as told:
        read(servers, topic, tm.Raw())
    for part in (
        reason,
        f"{topic}",
        "offset 0",
        "gzip, snappy, lz4 and zstd",
        "starting={partition: offset}",
    ):
        assert part in str(told.value)


def test_the_columns_of_a_topic_are_told_from_its_records(
    broker: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    servers, topic = broker()
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    records = [
        {"device": f"a-{number}", "t": number / 2, "tags": ["x"] * (number % 3)} for number in range(1_500)
    ]
    for record in records:
        producer.produce(topic, json.dumps(record).encode())
    assert producer.flush(30) == 0
    assert read(servers, topic, tm.Json()) == records
    assert (
        "told from 1000 records; paste them to keep them:\n"
        '    format=tm.Json({"device": "string", "t": "float64", "tags": "list<string>"})\n'
    ) in capsys.readouterr().err
