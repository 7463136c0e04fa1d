"""The README's job over many records: every alert right, on one executor and on three, also when the broker dies.

`TIDEMILL_JOB_RECORDS` says how many records go through each test, 200,000 by default; the more
there are, the less may be held of each.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest

import tidemill as tm
from tests.kafka import ewma_model
from tests.kafka.broker import Broker
from tests.kafka.clients import Clients
from tidemill import col

RECORDS = int(os.environ.get("TIDEMILL_JOB_RECORDS", "200000"))
DEVICES = 1000
PARTITIONS = 4
BEGIN_MS = 1_750_000_000_000
STEP_MS = 1000
MIB = 1 << 20
# What a job may take more at its end than when a tenth of it was done. The allocators' slack is a few MiB however many
# the records are; whoever held on to the records, which have 65 bytes each as they are read, would take more than this.
SLACK_MIB = min(200.0, RECORDS * 60 / MIB)


@dataclass(frozen=True)
class Fleet:
    """Readings of devices, a row a round and a column a device, and the alarms that they must raise."""

    readings: ewma_model.Matrix
    alerts: set[tuple[str, int]]

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Round by round, with the partition; a device reports to one partition, so its order is defined."""
        for at, row in enumerate(self.readings.tolist()):
            ts = BEGIN_MS + at * STEP_MS
            for device, value in enumerate(row):
                text = "null" if value != value else value  # NaN alone is not itself
                record = f'{{"device":"d{device}","ts":{ts},"temperature":{text}}}'
                yield device % PARTITIONS, record.encode()


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Noise round a level of each device's own; faults of many sizes, and readings that are missing."""
    random = np.random.default_rng(7)
    shape = (RECORDS // DEVICES, DEVICES)
    readings = random.normal(size=shape) + random.uniform(-50, 90, size=DEVICES)
    faults = random.random(shape) < 0.002
    readings += np.where(faults, random.normal(scale=8, size=shape), 0.0)
    readings = np.where(random.random(shape) < 0.01, np.nan, readings.round(3))
    expected = {(f"d{device}", BEGIN_MS + at * STEP_MS) for device, at in ewma_model.alerts(readings)}
    assert len(expected) > RECORDS / 5000
    return Fleet(readings, expected)


@pytest.fixture(scope="module")
def filled(bootstrap_servers: str, fleet: Fleet) -> str:
    """The shared broker's topic with the whole fleet's readings, which no test changes."""
    return _fill(Clients(bootstrap_servers), fleet)


@pytest.mark.parametrize("executors", [1, 3])
@pytest.mark.parametrize("how", ["available now", "interval"])
def test_every_alert_is_right_and_comes_once(
    kafka: Clients, make_topic: Callable[..., str], fleet: Fleet, filled: str, executors: int, how: str
) -> None:
    settings: dict[str, Any] = {"trigger": tm.available_now(max_records=max(RECORDS // 20, 10_000))}
    source: dict[str, Any] = {}
    if how == "interval":
        settings, source = {"batch_interval": "100ms"}, {"starting": "earliest", "ending": "latest"}
    out = make_topic(partitions=3)
    ctx, _ = _job(kafka, filled, out, executors, settings, source)
    memory = Memory(ctx)
    ctx.run()
    print(memory)
    assert Counter(_written(kafka, out)) == Counter(dict.fromkeys(fleet.alerts, 1))
    assert memory.grown_mib < SLACK_MIB, memory


@pytest.mark.parametrize("executors", [1, 3])
def test_no_alert_is_lost_when_the_broker_is_killed_in_the_middle(
    own_broker: Broker, fleet: Fleet, executors: int
) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    topic, out = _fill(kafka, fleet), kafka.create_topic(3)
    trigger = tm.available_now(max_records=max(RECORDS // 20, 10_000))
    ctx, alerts = _job(kafka, topic, out, executors, {"trigger": trigger})
    back: list[threading.Thread] = []

    def kill(batch: tm.Batch) -> None:
        if batch.id == 10:
            own_broker.kill()
            back.append(threading.Thread(target=own_broker.start))
            back[0].start()

    alerts.foreach_batch(kill, empty=True)
    memory = Memory(ctx)
    ctx.run()
    back[0].join()
    written = Counter(_written(kafka, out))
    assert set(written) == fleet.alerts
    print(memory)
    print(f"duplicates after the broker was killed: {written.total() - len(written)}")
    assert memory.grown_mib < SLACK_MIB, memory


class Memory:
    """The memory of this process at the end of each batch of a job, and how long the job took."""

    def __init__(self, ctx: tm.StreamingContext) -> None:
        self._process = psutil.Process()
        self._begin = time.monotonic()
        self._seen: list[tuple[int, int, float]] = []  # records so far, bytes, when
        ctx.listeners.append(self)

    def on_event(self, event: tm.Event) -> None:
        if event.kind == "completed" and event.progress is not None:
            before = self._seen[-1][0] if self._seen else 0
            rss = self._process.memory_info().rss
            self._seen.append((before + event.progress.records, rss, time.monotonic()))

    def at(self, part: float) -> float:
        """In MiB, when this part of the records was done."""
        return next(rss for records, rss, _ in self._seen if records >= part * self._seen[-1][0]) / MIB

    @property
    def grown_mib(self) -> float:
        """From a tenth of the records to the most that was seen."""
        return max(rss for _, rss, _ in self._seen) / MIB - self.at(0.1)

    def __repr__(self) -> str:
        records, _, end = self._seen[-1]
        marks = ", ".join(f"{self.at(part):.0f} MiB at {part:.0%}" for part in (0.0, 0.1, 0.5, 1.0))
        return f"<{records} records in {end - self._begin:.1f} s; {marks}; grown {self.grown_mib:.0f} MiB>"


def _fill(kafka: Clients, fleet: Fleet) -> str:
    topic = kafka.create_topic(PARTITIONS)
    kafka.fill(topic, fleet.records())
    return topic


def _job(
    kafka: Clients,
    topic: str,
    out: str,
    executors: int,
    settings: dict[str, Any],
    source: dict[str, Any] | None = None,
) -> tuple[tm.StreamingContext, tm.DStream]:
    """The twelve lines."""
    ctx = tm.StreamingContext(**settings, executors=executors)
    readings = ctx.kafka(
        topic,
        bootstrap_servers=kafka.bootstrap_servers,
        format=tm.Json({"device": "string", "ts": "timestamp[ms]", "temperature": "float64"}),
        event_time="ts",
        watermark="5s",
        **source or {},
    )
    alerts = (
        readings.filter(col("temperature").is_not_null())
        .key_by("device")
        .detect("temperature", tm.ml.Ewma())
        .filter(col("is_anomaly"))
    )
    alerts.to_kafka(out, format=tm.Json())
    return ctx, alerts


def _written(kafka: Clients, topic: str) -> Iterator[tuple[str, int]]:
    for message in kafka.consume(topic):
        alert = json.loads(message.value() or b"")
        assert (message.key() or b"").decode() == alert["device"]
        ts = np.datetime64(alert["ts"].removesuffix("Z"), "ms")
        yield alert["device"], int(ts.astype(np.int64))
