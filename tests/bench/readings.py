"""The topic that benchmarks read: IoT readings of about 120 bytes of JSON, 4 partitions, keyed by device.

It deliberately makes the same bytes each time: 1,000 devices, 10,000 readings a second of event time, and a fixed
start, so that tables of different days can be compared. They come in order, or three of ten come late.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from random import Random

import numpy as np

from tests.kafka.clients import Clients, Record

PARTITIONS = 4
DEVICES = 1000
START_MS = 1_750_000_000_000
PER_SECOND = 10_000
LATE_SHARE = 0.3
FORMAT = {
    "device": "string", "ts": "timestamp[ms]", "temp": "float64", "hum": "float64",
    "status": "string", "seq": "int64", "fw": "string", "site": "string",
}  # fmt: skip


def fill(bootstrap_servers: str, count: int, late_ms: int = 0) -> str:
    """Make the topic, unless an earlier benchmark of the same broker has, and give its name."""
    clients, topic = Clients(bootstrap_servers), f"readings-{count}" + (f"-late-{late_ms}" if late_ms else "")
    if sum(clients.ends(topic).values()) == count:  # the same bytes each time, so that their number tells
        return topic
    # The readings are of long ago: with the default of a week the broker would remove them after some minutes.
    clients.create_topic(PARTITIONS, name=topic, retention_ms="-1")
    clients.produce(topic, late(records(count), late_ms) if late_ms else records(count))
    return topic


def late(readings: Iterable[Record], late_ms: int) -> Iterator[Record]:
    """The same readings, of which three of ten come later, each by up to so many milliseconds of event time."""
    rng = Random(1)
    held: list[tuple[int, int, Record]] = []  # when each is due; the number decides between those due at once
    for number, reading in enumerate(readings):
        now = reading.timestamp_ms or 0
        delay = 1 + int(rng.random() * late_ms) if rng.random() < LATE_SHARE else 0
        heapq.heappush(held, (now + delay, number, reading))
        while held and held[0][0] <= now:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


def records(count: int) -> Iterator[Record]:
    """The readings, in order."""
    rng = np.random.default_rng(0)
    block = 10_000
    for begin in range(0, count, block):
        size = min(block, count - begin)
        columns = (rng.integers(0, DEVICES, size), rng.normal(22, 4, size), rng.uniform(30, 60, size))
        for offset, (device, temp, hum) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            yield _record(begin + offset, device, temp, hum)


def _record(number: int, device: int, temp: float, hum: float) -> Record:
    ts = START_MS + number * 1000 // PER_SECOND
    name = b"device-%04d" % device
    value = (
        b'{"device":"%b","ts":%d,"temp":%.2f,"hum":%.1f,"status":"%b","seq":%d,"fw":"1.4.%d","site":"site-%02d"}'
        % (name, ts, temp, hum, b"ok" if temp < 32 else b"hot", number, device % 7, device % 40)
    )
    return Record(value, name, device % PARTITIONS, ts)
