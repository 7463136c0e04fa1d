"""Whole jobs from Python: against librdkafka that throws away, and with a Python function that does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.figure import Figure, Measured, in_turn
from tests.bench.settings import Settings
from tests.bench.sides import measure


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""

    yield Figure(
        "the job: decode, filter, detect", "records/s", *_turn(settings, "job", "librdkafka"),
        against="confluent-kafka's consume, one handle", reach="≥ 1.0",
    )  # fmt: skip
    yield Figure(
        "do-nothing map_batches", "records/s", *_turn(settings, "job_with_map_batches", "job"),
        against="the job without it", reach="≥ 0.95",
    )  # fmt: skip


def _turn(settings: Settings, ours: str, theirs: str) -> tuple[Measured, Measured]:
    where = (settings.topic, settings.bootstrap_servers)
    return in_turn(lambda: measure(ours, *where), lambda: measure(theirs, *where))
