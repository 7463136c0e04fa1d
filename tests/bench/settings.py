"""What every benchmark is given: a broker, a topic, and how many records are in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line, resolved."""

    bootstrap_servers: str
    topic: str
    records: int
