"""The floor: librdkafka from Python, which reads the topic in batches and throws it away.

It deliberately decodes nothing and leaves no answer: no job that uses this client from Python can be faster.
"""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.bench.peers.task import Steps, Task, begin, tell

BATCH = 10_000
# Without the first, a partition whose queue is full sleeps for a second.
SETTINGS = {"fetch.queue.backoff.ms": 5, "queued.min.messages": 200_000, "enable.auto.commit": False}


def main() -> None:
    task = begin()
    consumer = _consumer(task)
    steps = Steps(task.records)
    while True:
        messages = consumer.consume(BATCH, 1.0)
        if messages and steps.passed(len(messages)):
            break
    tell("last", task.records)
    consumer.close()


def _consumer(task: Task) -> Consumer:
    consumer = Consumer({"bootstrap.servers": task.broker, "group.id": "bench-floor", **SETTINGS})
    partitions = consumer.list_topics(task.topic, timeout=30).topics[task.topic].partitions
    consumer.assign([TopicPartition(task.topic, partition, OFFSET_BEGINNING) for partition in partitions])
    return consumer


if __name__ == "__main__":
    main()
