"""The job in Kafka Streams, which is a Java program: see `jvm/kafka_streams`."""

from __future__ import annotations

from tests.bench.peers.program import KAFKA_STREAMS
from tests.bench.peers.task import begin

if __name__ == "__main__":
    KAFKA_STREAMS.run(begin())
