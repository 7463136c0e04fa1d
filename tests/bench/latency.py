"""How long a record takes from being produced to its result in another topic, beside librdkafka that only echoes it.

Every record carries when it was sent; who reads the results compares. It deliberately has the producer, the side and
the reader in a process each, so that none waits for another's interpreter lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.bench.figure import Figure, Measured
from tests.bench.readings import PARTITIONS
from tests.bench.settings import Settings
from tests.kafka.clients import Clients
from tests.places import ROOT

RATES = (1_000, 100_000)
WARM_UP_S, MEASURED_S = 3, 10
SILENCE_LIMIT_S, END_LIMIT_S = 60.0, 30.0
LOT = 10_000
Times = npt.NDArray[np.int64]
SIDES = {"stateless": "filter to Kafka", "keyed": "detect by key to Kafka", "echo": ""}
PROBE = b'{"device":"probe","ts":0,"temp":20.0,"sent":0}'


@dataclass(frozen=True)
class Latency:
    """One run of one side; times in milliseconds."""

    p50: float
    p99: float
    rate: float
    cpu_s: float
    peak_mib: float


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    for rate in RATES:
        runs: dict[str, list[Latency]] = {side: [] for side in SIDES}
        for _ in range(settings.rounds):
            for side in SIDES:
                runs[side].append(_run(side, rate, settings.bootstrap_servers))
        yield from _figures(rate, runs)


def _figures(rate: int, runs: dict[str, list[Latency]]) -> Iterator[Figure]:
    for side in ("stateless", "keyed"):
        for name, reach in (("p50", ""), ("p99", "≤ 3")):
            ours, theirs = (
                Measured.of([Measured(getattr(run, name), run.cpu_s, run.peak_mib) for run in runs[of]])
                for of in (side, "echo")
            )
            sent = " / ".join(f"{median(run.rate for run in runs[of]):,.0f}" for of in (side, "echo"))
            yield Figure(
                f"latency {name}, as soon as possible, {SIDES[side]}, {rate:,} records/s", "ms", ours, theirs,
                against="a plain librdkafka echo", reach=reach, details={"records/s sent": sent},
            )  # fmt: skip


def _run(side: str, rate: int, bootstrap_servers: str) -> Latency:
    """Between two topics of its own, one side; the first seconds are left out."""
    clients = Clients(bootstrap_servers)
    source, results = (clients.create_topic(PARTITIONS) for _ in range(2))
    try:
        with _process(side, bootstrap_servers, source, results) as process:
            reader = Reader(bootstrap_servers, results, process)
            clients.produce(source, [PROBE])
            reader.until(1)
            with _process(
                "produce", bootstrap_servers, source, str(rate), str(WARM_UP_S + MEASURED_S)
            ) as producer:
                reader.until(1 + rate * (WARM_UP_S + MEASURED_S))
                producer.wait(END_LIMIT_S)
            return _latency(reader, psutil.Process(process.pid))
    finally:
        clients.delete_topic(source)
        clients.delete_topic(results)


def _latency(reader: Reader, side: psutil.Process) -> Latency:
    sent, received = reader.times()
    seconds = (sent - sent.min()) / 1e9
    p50, p99 = np.percentile((received - sent)[seconds >= WARM_UP_S] / 1e6, [50, 99])
    used, resident = side.cpu_times(), side.memory_info().rss
    rate = len(sent) / float(seconds.max())
    return Latency(float(p50), float(p99), rate, used.user + used.system, resident / 2**20)


@contextmanager
def _process(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The producer or a side, which runs until it is told to end."""
    command = [sys.executable, "-m", "tests.bench.latency_sides", name, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Reader:
    """Reads the results, and notes when each lot of them came."""

    def __init__(self, bootstrap_servers: str, topic: str, side: subprocess.Popen[bytes]) -> None:
        settings = {"group.id": "bench-latency", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5}
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, **settings})
        self._consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        self._side = side
        self._lots: list[tuple[int, list[bytes]]] = []
        self._count = 0

    def until(self, count: int) -> None:
        """Read until there were so many in all; RuntimeError where the side ends or nothing comes any more."""
        silent_since = time.monotonic()
        while self._count < count:
            if self._take():
                silent_since = time.monotonic()
            elif self._side.poll() is not None or time.monotonic() - silent_since > SILENCE_LIMIT_S:
                raise RuntimeError(
                    f"of {count} results {self._count} came within {SILENCE_LIMIT_S:.0f} s; "
                    f"the side ended with {self._side.poll()}"
                )

    def times(self) -> tuple[Times, Times]:
        """When each record was sent, and when its result was here, in nanoseconds; the probe is left out."""
        sent = np.array([json.loads(value)["sent"] for _, lot in self._lots for value in lot], np.int64)
        received = np.repeat(
            np.array([at for at, _ in self._lots], np.int64), [len(lot) for _, lot in self._lots]
        )
        return sent[sent > 0], received[sent > 0]

    def _take(self) -> bool:
        """What is there, after waiting for the first: asked for many, the client waits for so many."""
        first = self._consumer.poll(0.2)
        if first is None:
            return False
        messages = [first, *self._consumer.consume(LOT, 0)]
        values = [value for m in messages if m.error() is None and (value := m.value()) is not None]
        self._lots.append((time.time_ns(), values))
        self._count += len(values)
        return True
