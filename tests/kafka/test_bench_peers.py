"""The expected answer of the comparison with peers, against a few lines of plain Python on the same topic."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

from tests.bench import readings
from tests.bench.peers import answer
from tests.bench.peers.sides import SIDES
from tests.bench.settings import Settings
from tests.kafka.clients import Clients

COUNT = 20_000


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
