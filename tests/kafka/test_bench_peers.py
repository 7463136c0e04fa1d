"""The comparison with peers: its answer against a few lines of plain Python, a side's run, and what runs go through."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.bench import readings
from tests.bench.peers import answer, restart
from tests.bench.peers.sides import SIDES
from tests.bench.settings import Settings
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients

COUNT = 20_000
OF_A_WINDOW = 125_000
"""So many that the first window closes, though readings are waited for."""
LATE_MS = 2_000


def test_the_expected_answer_is_that_of_a_plain_model(kafka: Clients, make_topic: Callable[..., str]) -> None:
    topic = make_topic(readings.PARTITIONS, retention_ms="-1")
    kafka.produce(topic, readings.records(COUNT))
    expected = answer.expected(kafka.bootstrap_servers, topic)
    model: dict[tuple[int, str], list[float]] = defaultdict(list)
    for record in readings.records(COUNT):
        reading = json.loads(record.value or b"")
        if reading["temp"] >= 20:
            model[reading["ts"] // 10_000 * 10_000, reading["device"]].append(reading["temp"])
    found = {(row["window_start"], row["device"]): row for row in expected.windows.to_pylist()}
    assert expected.records == COUNT
    assert {place: row["n"] for place, row in found.items()} == {p: len(t) for p, t in model.items()}
    assert all(abs(found[p]["mean"] - sum(t) / len(t)) < 1e-9 for p, t in model.items())


def test_a_side_is_run_and_measured(kafka: Clients, make_topic: Callable[..., str]) -> None:
    topic = make_topic(readings.PARTITIONS, retention_ms="-1")
    kafka.produce(topic, readings.records(COUNT))
    (floor,) = (side for side in SIDES if side.name == "librdkafka")
    settings = Settings(kafka.bootstrap_servers, topic)
    run = floor.run(settings, answer.expected(kafka.bootstrap_servers, topic))
    assert run.seconds > 0
    assert run.cpu_s > 0


def test_sides_wait_for_late_readings(kafka: Clients, make_topic: Callable[..., str]) -> None:
    topic = make_topic(readings.PARTITIONS, retention_ms="-1")
    kafka.produce(topic, readings.late(readings.records(OF_A_WINDOW), LATE_MS))
    expected = answer.expected(kafka.bootstrap_servers, topic)
    settings = Settings(kafka.bootstrap_servers, topic, late_ms=LATE_MS)
    # Of the sides that the suite does not install, Kafka Streams brings least that the broker has not brought.
    for side in (side for side in SIDES if side.name in ("tidemill", "kafka_streams")):
        side.origin.prepare()
        assert side.run(settings, expected).windows > 0


def test_the_answer_is_right_with_the_broker_gone_in_the_middle(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A broker that was killed takes its time to come back; what a job does then is tested elsewhere.
    monkeypatch.setattr(own_broker, "kill", own_broker.pause)
    monkeypatch.setattr(own_broker, "start", own_broker.resume)
    kafka = Clients(own_broker.bootstrap_servers)
    topic = kafka.create_topic(readings.PARTITIONS, retention_ms="-1")
    kafka.produce(topic, readings.records(COUNT))
    expected = answer.expected(own_broker.bootstrap_servers, topic)
    settings = Settings(own_broker.bootstrap_servers, topic, restarts=own_broker)
    survived = restart.run(settings, expected, own_broker)
    assert COUNT / 2 <= survived.records < COUNT
    assert survived.windows == expected.windows.num_rows
