"""What every benchmark is given: broker, topic, how many records are in it, how often to measure, where to write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.bench import readings
from tests.bench.figure import ROUNDS
from tests.kafka.broker import Broker

RECORDS = 5_000_000
LIMIT_S = 1200.0


@dataclass(frozen=True)
class Settings:
    """The command line, resolved; a topic is filled when a benchmark first asks for it."""

    bootstrap_servers: str
    asked_topic: str | None = None
    asked_records: int | None = None
    rounds: int = ROUNDS
    peers: tuple[str, ...] = ()
    """Those to compare with; all where none is named."""
    out: Path = Path("figures.md")
    late_ms: int = 0
    """How late readings may come within a partition, in event time; what is filled has some so late."""
    limit_s: float = LIMIT_S
    """After so long a run of a peer is ended."""
    restarts: Broker | None = None
    """The broker that peers may kill and start again; None where it is to be left alone."""

    @property
    def records(self) -> int:
        """Records in the topic."""
        return self.asked_records or RECORDS

    @cached_property
    def topic(self) -> str:
        """The topic that is there, or else one filled with readings."""
        return self.asked_topic or readings.fill(self.bootstrap_servers, self.records, self.late_ms)

    def beside(self, name: str) -> Path:
        """A file beside that of all figures, named after it."""
        return self.out.with_name(f"{self.out.stem}-{name}")
