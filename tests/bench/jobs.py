"""Whole jobs from Python: against librdkafka that throws away, and with a Python function that does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.bench.figure import Figure, Measured, in_turn
from tests.bench.rust import librdkafka
from tests.bench.settings import Settings
from tests.bench.sides import measure


def figures(settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""

    yield Figure(
        "the job: decode, filter, detect", "records/s",
        *in_turn(partial(_side, "job", settings), partial(librdkafka, settings)),
        against="rd_kafka_consume_batch_queue, one handle", reach="≥ 1.0",
    )  # fmt: skip
    yield Figure(
        "do-nothing map_batches", "records/s",
        *in_turn(partial(_side, "job_with_map_batches", settings), partial(_side, "job", settings)),
        against="the job without it", reach="≥ 0.95",
    )  # fmt: skip


def _side(name: str, settings: Settings) -> Measured:
    return measure(name, settings.topic, settings.bootstrap_servers)
