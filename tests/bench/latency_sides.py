"""What the measure of latency runs: `python -m tests.bench.latency_sides NAME …`, until SIGTERM, and the producer.

It deliberately measures nothing: the reader of the results does.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.bench.readings import DEVICES, PARTITIONS

if TYPE_CHECKING:
    import tidemill as tm

COLUMNS = {"device": "string", "ts": "timestamp[ms]", "temp": "float64", "sent": "int64"}
# The default of 5 ms would hide what is measured; the default queue is full after a second.
PRODUCER = {"linger.ms": 1, "queue.buffering.max.messages": 1_000_000}
TICK_S = 0.001
LOT = 10_000


def stateless(servers: str, source: str, results: str) -> None:
    """Decode, filter, and write again as JSON."""
    ctx, readings = _readings(servers, source)
    readings.filter("temp >= 20").to_kafka(results)
    ctx.run()


def keyed(servers: str, source: str, results: str) -> None:
    """The same with a detector by key on the way."""
    import tidemill as tm

    ctx, readings = _readings(servers, source)
    readings.filter("temp >= 20").key_by("device").detect("temp", tm.ml.Ewma()).to_kafka(results)
    ctx.run()


def echo(servers: str, source: str, results: str) -> None:
    """What comes is sent on unseen, by librdkafka from Python."""
    settings = {"group.id": "bench-echo", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5}
    consumer = Consumer({"bootstrap.servers": servers, **settings})
    consumer.assign([TopicPartition(source, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    producer = Producer({"bootstrap.servers": servers, **PRODUCER})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        first = consumer.poll(0.1)
        for message in [first, *consumer.consume(LOT, 0)] if first else ():
            producer.produce(results, message.value(), message.key())
        producer.poll(0)


def produce(servers: str, topic: str, rate: str, seconds: str) -> None:
    """Readings at a steady rate, each with the time at which it was handed to the client."""
    producer = Producer({"bootstrap.servers": servers, **PRODUCER})
    count, begin = 0, time.monotonic()
    while count < int(rate) * int(seconds):
        due = min(int((time.monotonic() - begin) * int(rate)), int(rate) * int(seconds))
        for number in range(count, due):
            producer.produce(topic, _reading(number), b"device-%04d" % (number % DEVICES))
        count = due
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush()


def _readings(servers: str, source: str) -> tuple[tm.StreamingContext, tm.DStream]:
    import tidemill as tm

    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    readings = ctx.kafka(
        source, bootstrap_servers=servers, format=tm.Json(COLUMNS), event_time="ts", starting="earliest"
    )
    return ctx, readings


def _reading(number: int) -> bytes:
    sent = time.time_ns()
    return b'{"device":"device-%04d","ts":%d,"temp":%.2f,"sent":%d}' % (
        number % DEVICES, sent // 1_000_000, 20 + number % 700 / 100, sent,
    )  # fmt: skip


SIDES = {side.__name__: side for side in (stateless, keyed, echo, produce)}


if __name__ == "__main__":
    SIDES[sys.argv[1]](*sys.argv[2:])
