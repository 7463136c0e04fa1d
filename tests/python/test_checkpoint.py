"""A job with a checkpoint, without a broker: what another start goes on with, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

FORMAT = tm.Json({"k": "string", "t": "float64", "ts": "timestamp[ms]"})
Rows = list[dict[str, Any]]


class Fleet:
    """A source of readings, and jobs over it that share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, 0
        self.source = ScriptedSource("readings", partitions=2)

    def send(self, rows: int) -> None:
        """More readings, of five devices, each of which is in one partition."""
        for n in range(self.sent, self.sent + rows):
            row = {"k": f"k{n % 5}", "t": float(n * 7 % 31), "ts": n * 1_000}
            self.source.push(n % 5 % 2, [json.dumps(row).encode()])
        self.sent += rows

    def context(self, checkpoint: str | list[str], **settings: Any) -> tm.StreamingContext:
        replicas = [checkpoint] if isinstance(checkpoint, str) else checkpoint
        places = [self.folder / replica for replica in replicas]
        trigger = tm.available_now(max_records=37)
        return tm.StreamingContext(trigger=trigger, name="fleet", checkpoint=places, **settings)

    def run(self, checkpoint: str | list[str], out: str, **settings: Any) -> tm.StreamingContext:
        """Windows and scores of all that is there, into files."""
        ctx = self.context(checkpoint, **settings)
        readings = ctx.scripted(self.source, format=FORMAT, event_time="ts")
        counted = readings.window("10s", "5s", on="ts").group_by("k").agg(n=tm.count(), t=tm.col("t").sum())
        counted.to_files(self.folder / out / "windows", format="json")
        readings.key_by("k").detect("t", tm.ml.Ewma(warmup=3)).to_files(self.folder / out / "scores")
        ctx.run()
        return ctx

    def written(self, out: str) -> list[Rows]:
        """What a reader of the output finds."""
        tables = (tm.read_output(self.folder / out / kind).to_table() for kind in ("windows", "scores"))
        return [sorted(table.to_pylist(), key=str) for table in tables]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.mark.parametrize(
    "replicas", [["one"], ["one", "two", "three"]], ids=["one replica", "three replicas"]
)
def test_starts_one_after_another_come_to_what_a_single_one_does(fleet: Fleet, replicas: list[str]) -> None:
    for rows in (100, 0, 61, 1, 80):
        fleet.send(rows)
        ctx = fleet.run(replicas, "parts", executors=1 + rows % 3)
    assert ctx.progress is not None
    assert ctx.progress.totals.records == fleet.sent
    fleet.run("whole", "whole")
    assert fleet.written("parts") == fleet.written("whole")


def test_a_replica_may_be_lost_and_the_others_moved(fleet: Fleet) -> None:
    fleet.send(100)
    fleet.run(["one", "two", "three"], "parts")
    shutil.rmtree(fleet.folder / "two")
    fleet.send(50)
    fleet.run(["one", "two", "three"], "parts")
    for replica in ("one", "two", "three"):
        (fleet.folder / replica).rename(fleet.folder / f"moved-{replica}")
    fleet.send(50)
    fleet.run(["moved-one", "moved-two", "moved-three"], "parts")
    fleet.run("whole", "whole")
    assert fleet.written("parts") == fleet.written("whole")


def test_another_job_is_not_taken_for_the_one_that_the_checkpoint_is_of(fleet: Fleet) -> None:
    fleet.send(10)
    fleet.run("checkpoint", "out")
    ctx = tm.StreamingContext(
        trigger=tm.available_now(), name="another", checkpoint=fleet.folder / "checkpoint"
    )
    ctx.scripted(fleet.source, format=FORMAT).foreach_batch(lambda batch: None)
    with pytest.raises(
        tm.CheckpointError, match=r'of the job "another", found that of "fleet".*name="fleet"'
    ):
        ctx.run()


def test_two_at_once_are_one_too_many(fleet: Fleet) -> None:
    fleet.send(10)
    ctx = tm.StreamingContext("50ms", name="fleet", checkpoint=fleet.folder / "checkpoint")
    ctx.scripted(fleet.source, format=FORMAT, starting="earliest").foreach_batch(lambda batch: None)
    ctx.start()
    try:
        with pytest.raises(
            tm.CheckpointError, match=rf"is being run by process {os.getpid()} on .*; stop it first"
        ):
            fleet.run("checkpoint", "out")
        assert ctx.is_running
    finally:
        ctx.stop()
    assert ctx.error is None


def test_other_replicas_than_before_are_told(fleet: Fleet) -> None:
    fleet.send(10)
    fleet.run(["one", "two", "three"], "out")
    with pytest.raises(tm.CheckpointError, match="2 replicas are given, and the job has 3"):
        fleet.run(["one", "three"], "out")
    shutil.rmtree(fleet.folder / "one")
    shutil.rmtree(fleet.folder / "three")
    with pytest.raises(
        tm.CheckpointError, match=r"2 of 3 voters are needed .*, found 1; .*bring back the replicas"
    ):
        fleet.run(["one", "two", "three"], "out")


def test_a_function_has_the_number_of_its_batch_over_all_starts(fleet: Fleet) -> None:
    numbers: list[int] = []
    for _ in range(3):
        fleet.send(40)
        ctx = fleet.context("checkpoint")
        readings = ctx.scripted(fleet.source, format=FORMAT)
        readings.foreach_batch(lambda batch: numbers.append(batch.id))
        ctx.run()
    assert numbers == [0, 1, 2, 3, 4, 5]


def test_a_batch_whose_function_failed_comes_again(fleet: Fleet) -> None:
    seen: list[float] = []

    def fails_once(batch: tm.Batch) -> None:
        if not seen:
            seen.append(-1)
            raise ValueError("not yet")
        seen.extend(batch["t"].tolist())

    def start() -> None:
        ctx = fleet.context("checkpoint")
        ctx.scripted(fleet.source, format=FORMAT).foreach_batch(fails_once)
        ctx.run()

    fleet.send(100)
    with pytest.raises(ValueError, match="not yet"):
        start()
    start()
    assert len(seen) == 101


def test_a_state_of_another_form_says_both_and_the_ways_out(fleet: Fleet) -> None:
    def start(calls: dict[str, tm.Expr], **settings: Any) -> None:
        ctx = fleet.context("checkpoint", **settings)
        readings = ctx.scripted(fleet.source, format=FORMAT, event_time="ts")
        readings.window("10s", on="ts").group_by("k").agg(**calls).to_table("windows")
        ctx.run()

    fleet.send(50)
    start({"n": tm.count()})
    fleet.send(50)
    with pytest.raises(tm.CheckpointError) as error:
        start({"n": tm.count(), "high": tm.col("t").max()})
    assert 'the state of the operator "' in str(error.value)
    assert "on_state_change=" in str(error.value)
    start({"n": tm.count(), "high": tm.col("t").max()}, on_state_change="reset")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(fleet: Fleet) -> None:
    (fleet.folder / "closed").mkdir(mode=0o500)
    with pytest.raises(tm.TidemillError, match="closed"):
        fleet.run("closed/checkpoint", "out")


def test_a_file_is_no_checkpoint(fleet: Fleet) -> None:
    (fleet.folder / "file").write_text("no directory")
    with pytest.raises(tm.TidemillError, match="file"):
        fleet.run("file", "out")


def test_what_another_library_remembers_is_refused_with_what_to_do(fleet: Fleet) -> None:
    ctx = fleet.context("checkpoint")
    readings = ctx.scripted(fleet.source, format=FORMAT, event_time="ts")
    call = tm.aggregate("approx_percentile_cont_with_weight", tm.col("t"), tm.col("t"), 0.5)
    readings.window("10s", on="ts").group_by("k").agg(m=call).to_table("windows")
    with pytest.raises(tm.ConfigError, match="cannot be checkpointed yet"):
        ctx.run()
