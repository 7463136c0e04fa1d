"""The sides of the comparison, and one run of one of them.

It deliberately knows no more of a side than its script, where it comes from, and how long its windows stay open.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers import answer, watched
from tests.bench.peers.answer import Expected
from tests.bench.peers.connector import spark_connector
from tests.bench.peers.package import Package
from tests.bench.peers.program import FLINK, KAFKA_STREAMS, Program
from tests.bench.peers.task import LATENESS_MS, Moment
from tests.bench.settings import Settings


@dataclass(frozen=True)
class Run:
    """One run of one side: how long from process start to end, how fast without its start, what it took."""

    seconds: float
    steady: float
    cpu_s: float
    peak_mib: float
    windows: int


@dataclass(frozen=True)
class Side:
    """One side. `answers` is false for the floor, which computes nothing."""

    name: str
    title: str
    origin: Package | Program
    lateness_ms: int | None = None
    """How long a window stays open past its end, had no reading come late; None where the topic's end closes all."""
    answers: bool = True
    how: str = ""
    """What of it is run, where its name and version do not say."""
    reach_steady: str = ""
    reach_whole: str = ""

    def label(self) -> str:
        """Its title, version, and what of it is run."""
        name = self.title if self.origin.why_not() else f"{self.title} {self.origin.version()}"
        return f"{name}, {self.how}" if self.how else name

    def run(self, settings: Settings, expected: Expected) -> Run:
        """Run it once and check its answer; RuntimeError where it fails or is wrong."""
        module = f"tests.bench.peers.with_{self.name}"
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "answer"
            done = watched.run(command(module, settings, expected, out), settings.limit_s)
            windows = expected.check(answer.read(out), self._open_ms(settings)) if self.answers else 0
        return Run(done.seconds, _steady(done), done.cpu_s, done.peak_mib, windows)

    def _open_ms(self, settings: Settings) -> int | None:
        return None if self.lateness_ms is None else self.lateness_ms + settings.late_ms


def command(module: str, settings: Settings, expected: Expected, out: Path) -> list[str]:
    """How a side's script is run; `task.py` reads it."""
    numbers = [str(expected.records), str(settings.late_ms)]
    return [sys.executable, "-m", module, settings.bootstrap_servers, settings.topic, *numbers, str(out)]


SIDES = [
    Side("tidemill", "tidemill", Package("tidemill")),
    Side("librdkafka", "confluent-kafka", Package("confluent-kafka"), answers=False, how="reads and throws away"),
    Side(
        "flink", "Flink SQL", FLINK, how="2 threads, no checkpoints", reach_steady="≥ 5", reach_whole="≥ 10"
    ),
    Side(
        "kafka_streams", "Kafka Streams", KAFKA_STREAMS, lateness_ms=0, how="2 threads, at least once",
        reach_steady="≥ 5", reach_whole="≥ 10",
    ),
    Side("pathway", "Pathway", Package("pathway"), how="2 threads", reach_steady="≥ 20", reach_whole="≥ 10"),
    Side("bytewax", "Bytewax", Package("bytewax"), how="2 workers", reach_steady="≥ 25", reach_whole="≥ 10"),
    Side(
        "quix", "Quix Streams", Package("quixstreams"), lateness_ms=0, reach_steady="≥ 70", reach_whole="≥ 10"
    ),
    Side(
        "spark", "Spark Structured Streaming", Package("pyspark", connector=spark_connector), how="local[2]",
        lateness_ms=LATENESS_MS, reach_steady="≥ 15", reach_whole="≥ 10",
    ),
]  # fmt: skip


def _moment(done: watched.Watched, name: Moment) -> dict[str, Any]:
    """What a side told of a moment; RuntimeError where it told nothing."""
    told = [line for line in done.said if line.get("moment") == name]
    if not told:
        raise RuntimeError(f"it did not tell when its {name} record came")
    return told[-1]


def _steady(done: watched.Watched) -> float:
    """Records a second between the first that it told of and the last."""
    first, last = _moment(done, "first"), _moment(done, "last")
    took = last["at"] - first["at"]
    return float((last["records"] - first["records"]) / took) if took > 0 else float("nan")
