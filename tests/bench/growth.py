"""What a record costs as the job grows: keys, partitions, bytes a message, rows a batch, threads.

Every size is measured beside the smallest of its kind, in turn; the ratio is of their costs. It deliberately gives all
readings one window, so that as many keys are held as there are, and makes each topic for its sizes alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.bench.figure import Figure, Measured
from tests.bench.peers import watched
from tests.bench.readings import PER_SECOND, START_MS
from tests.bench.settings import Settings
from tests.kafka.clients import Clients

RECORDS = 1_000_000
MOST_BYTES = 256 << 20
"""Of a topic of large messages; fewer of them are sent, the larger they are."""
BATCHES = 400
"""At most so many are run of a size: small ones would take all day for the records of large ones."""
LIMIT_S = 540.0
SCRAMBLE = 2_654_435_761  # a prime: times it, modulo the keys, every key comes once before any comes again


@dataclass(frozen=True)
class Topic:
    """What a topic holds."""

    records: int
    keys: int = 1_000
    partitions: int = 4
    size: int = 120

    def values(self) -> Iterator[tuple[int, bytes]]:
        """The records with their partitions; a key is always in the same one."""
        for number in range(self.records):
            key = number * SCRAMBLE % self.keys
            yield key % self.partitions, self._value(number, key)

    def _value(self, number: int, key: int) -> bytes:
        ts, temp = START_MS + number * 1000 // PER_SECOND, 20 + number % 700 / 100
        value = b'{"device":"%04d","ts":%d,"temp":%.1f}' % (key, ts, temp)
        pad = self.size - len(value) - len(',"pad":""')
        return value[:-1] + b',"pad":"%b"}' % (b"x" * pad) if pad >= 0 else value


@dataclass(frozen=True)
class Size:
    """One case: its name, its topic, and how the job is run on it."""

    name: str
    topic: Topic
    batch: int = RECORDS
    threads: int | None = None


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    for sizes in _kinds(settings.asked_records or RECORDS):
        yield from _compared(settings, sizes)


def _kinds(records: int) -> list[list[Size]]:
    topic = Topic(records)
    return [
        [Size(f"{k:,} keys", replace(topic, keys=k, records=max(records, k))) for k in _decades(3, 7)],
        [Size(f"{p} partitions", replace(topic, partitions=p)) for p in (1, 4, 16, 64)],
        [
            Size(f"messages of {s:,} B", replace(topic, size=s, records=min(records, MOST_BYTES // s)))
            for s in (50, 120, *_decades(3, 5))
        ],
        [
            Size(f"batches of {b:,} rows", replace(topic, records=min(records, b * BATCHES)), batch=b)
            for b in (50, *_decades(3, 6))
        ],
        [Size(f"{t} threads", topic, threads=t) for t in (1, 2)],
    ]


def _decades(first: int, last: int) -> list[int]:
    return [10**power for power in range(first, last + 1)]


def _compared(settings: Settings, sizes: list[Size]) -> Iterator[Figure]:
    """The sizes of one kind in turn, each beside the smallest."""
    clients = Clients(settings.bootstrap_servers)
    topics: dict[Topic, str] = {}
    runs: dict[str, list[Measured]] = {size.name: [] for size in sizes}
    try:
        for topic in {size.topic: None for size in sizes}:
            topics[topic] = clients.create_topic(topic.partitions, retention_ms="-1")
            clients.fill(topics[topic], topic.values())
        for _ in range(settings.rounds):
            for size in sizes:
                runs[size.name].append(_run(settings, size, topics[size.topic]))
    finally:
        for name in topics.values():
            clients.delete_topic(name)
    smallest, *larger = sizes
    for size in larger:
        ours, theirs = Measured.of(runs[size.name]), Measured.of(runs[smallest.name])
        reach = "≤ 3" if "keys" in size.name else ""
        yield Figure(
            f"a record of the job, {size.name}", "µs", ours, theirs,
            against=smallest.name, reach=reach, details={"records": f"{size.topic.records:,}"},
        )  # fmt: skip


def _run(settings: Settings, size: Size, topic: str) -> Measured:
    """Microseconds a record, without the start."""
    arguments = [settings.bootstrap_servers, topic, str(size.batch), str(size.threads or "")]
    done = watched.run([sys.executable, "-m", "tests.bench.growth_side", *arguments], LIMIT_S)
    (said,) = done.said
    if said["records"] != size.topic.records:
        raise RuntimeError(f"of {size.topic.records} records {said['records']} were read")
    if said["keys"] != min(size.topic.keys, size.topic.records):
        raise RuntimeError(f"there were {said['keys']} windows, expected {size.topic.keys}")
    return Measured(said["seconds"] / said["records"] * 1e6, done.cpu_s, done.peak_mib)
