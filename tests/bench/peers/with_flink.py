"""The job in Flink SQL, which is a Java program: see `jvm/flink`."""

from __future__ import annotations

from tests.bench.peers.program import FLINK
from tests.bench.peers.task import begin

if __name__ == "__main__":
    FLINK.run(begin())
