"""A job with a checkpoint that is killed again and again: its output is that of a run which nothing disturbed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kafka.clients import Clients, Record
from tests.kafka.test_source import MakeTopic

ROWS, DEVICES = 4_000, 7

JOB = """
import sys
import tidemill as tm

source, out, servers, checkpoint, trigger = sys.argv[1:]
due = tm.available_now(max_records=150) if trigger == "all" else tm.interval("20ms")
ctx = tm.StreamingContext(trigger=due, name="fleet", checkpoint=checkpoint.split(","))
readings = ctx.kafka(
    source, bootstrap_servers=servers, starting="earliest", event_time="ts",
    format=tm.Json({"device": "string", "t": "float64", "ts": "timestamp[ms]"}),
    max_rate_per_partition=None if trigger == "all" else 2_000,
)
counted = readings.window("5s", on="ts").group_by("device").agg(n=tm.count(), total=tm.col("t").sum())
counted.to_kafka(out, key="device")
readings.key_by("device").detect("t", tm.ml.Ewma(warmup=5)).select("device", "ts", "t", "score").to_kafka(out)
ctx.run()
"""


@pytest.fixture
def filled(kafka: Clients, make_topic: MakeTopic) -> str:
    topic = make_topic(3)
    readings = (
        {"device": f"d{n % DEVICES}", "t": 20 + (n * 37 % 101) / 8, "ts": 1_700_000_000_000 + n * 25}
        for n in range(ROWS)
    )
    kafka.produce(
        topic,
        [Record(json.dumps(row).encode(), partition=n % DEVICES % 3) for n, row in enumerate(readings)],
    )
    return topic


def start(
    folder: Path, kafka: Clients, source: str, out: str, checkpoint: str, trigger: str
) -> subprocess.Popen[bytes]:
    script = folder / "job.py"
    script.write_text(JOB)
    command = [sys.executable, str(script), source, out, kafka.bootstrap_servers, checkpoint, trigger]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def finish(job: subprocess.Popen[bytes]) -> None:
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said.decode()


def written(kafka: Clients, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """All that a reader of committed records sees."""
    return sorted((message.key() or b"", message.value() or b"") for message in kafka.consume(topic))


def undisturbed(
    folder: Path, kafka: Clients, source: str, out: str
) -> list[tuple[bytes | None, bytes | None]]:
    finish(start(folder, kafka, source, out, str(folder / "whole"), "all"))
    return written(kafka, out)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_job_that_is_killed_again_and_again_puts_out_what_one_does_that_is_not(
    tmp_path: Path, kafka: Clients, make_topic: MakeTopic, filled: str, replicas: int
) -> None:
    expected = undisturbed(tmp_path, kafka, filled, make_topic())
    out, chance = make_topic(), random.Random(replicas)
    checkpoint = ",".join(str(tmp_path / f"replica-{number}") for number in range(replicas))
    for _ in range(5):
        job = start(tmp_path, kafka, filled, out, checkpoint, "ticks")
        time.sleep(chance.uniform(0.3, 1.5))
        assert job.poll() is None, job.communicate()[1].decode()
        job.send_signal(signal.SIGKILL)
        job.communicate()
    finish(start(tmp_path, kafka, filled, out, checkpoint, "all"))
    assert written(kafka, out) == expected


def test_another_start_goes_on_where_the_last_one_stopped(
    tmp_path: Path, kafka: Clients, make_topic: MakeTopic, filled: str
) -> None:
    out, checkpoint = make_topic(), str(tmp_path / "checkpoint")
    finish(start(tmp_path, kafka, filled, out, checkpoint, "all"))
    first = written(kafka, out)
    finish(start(tmp_path, kafka, filled, out, checkpoint, "all"))
    assert written(kafka, out) == first
