"""The comparison with peers: a wrong answer is refused whatever is wrong with it; a run is watched with its tree."""

from __future__ import annotations

import json
import os
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench.growth import Topic
from tests.bench.peers import answer, comparison, program, restart, watched
from tests.bench.peers.answer import TYPES, Expected, WrongAnswer
from tests.bench.peers.package import Package
from tests.bench.peers.program import FLINK, KAFKA_STREAMS
from tests.bench.peers.sides import Run, Side
from tests.bench.peers.task import HALFWAY, Task
from tests.bench.settings import Settings
from tests.kafka import jars
from tests.kafka.broker import Broker

ROWS = [(0, "a", 21.0, 3), (0, "b", 25.5, 1), (10_000, "a", 30.0, 2), (20_000, "a", 22.0, 1)]
REACHED_MS = 25_000
LIMIT_S = 60.0
BUSY = """
import time
data, end = b"x" * 100_000_000, time.process_time() + 0.5
while time.process_time() < end:
    pass
"""


def windows(rows: list[Any]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(TYPES.names, row, strict=True)) for row in rows], schema=TYPES)


def check(rows: list[Any], lateness_ms: int | None = None) -> int:
    return Expected(windows(ROWS), 7, REACHED_MS).check(windows(rows), lateness_ms)


def test_the_same_windows_in_any_order_are_right() -> None:
    assert check(ROWS[::-1]) == 4


def test_means_may_differ_by_rounding_only() -> None:
    assert check([(0, "a", 21.0 + 1e-12, 3), *ROWS[1:]]) == 4
    with pytest.raises(WrongAnswer, match=r"1 windows another mean.*'a'"):
        check([(0, "a", 21.0 + 1e-8, 3), *ROWS[1:]])


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(0, "a", 21.0, 4), *ROWS[1:]], "1 windows another count"),
        (ROWS[1:], "1 windows missing"),
        ([*ROWS, (30_000, "a", 1.0, 1)], "1 windows not expected"),
        ([*ROWS, ROWS[0]], "given twice"),
        ([(0, "a", float("nan"), 3), *ROWS[1:]], "1 windows another mean"),
        ([(0, "a", None, 3), *ROWS[1:]], "1 windows another mean"),
        ([], "closed no window"),
    ],
)
def test_a_wrong_answer_is_refused(rows: list[Any], why: str) -> None:
    with pytest.raises(WrongAnswer, match=why):
        check(rows)


def test_a_side_with_a_lateness_may_leave_open_what_is_open_for_it() -> None:
    assert check(ROWS[:3], lateness_ms=0) == 3
    assert check(ROWS[:2], lateness_ms=10_000) == 2
    with pytest.raises(WrongAnswer, match="missing"):
        check(ROWS[:2], lateness_ms=0)


def test_what_a_side_left_open_must_be_right_where_it_is_given() -> None:
    with pytest.raises(WrongAnswer, match="another count"):
        check([*ROWS[:3], (20_000, "a", 22.0, 2)], lateness_ms=10_000)


def test_answers_are_read_from_csv_and_from_a_folder_of_parquet(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "answer.csv").write_text("window_start,device,mean,n\n0,a,21.0,3\n")
    assert answer.read(tmp_path / "one" / "answer") == windows(ROWS[:1])
    (tmp_path / "two" / "answer").mkdir(parents=True)
    pq.write_table(windows(ROWS), tmp_path / "two" / "answer" / "part-0.parquet")
    assert answer.read(tmp_path / "two" / "answer") == windows(ROWS)


def test_a_row_that_was_taken_back_is_no_answer(tmp_path: Path) -> None:
    lines = ["window_start,device,mean,n,diff", "0,a,20.0,2,1", "0,a,20.0,2,-1", "0,a,21.0,3,1", ""]
    (tmp_path / "answer.csv").write_text("\n".join(lines))
    assert answer.read(tmp_path / "answer") == windows(ROWS[:1])


def test_a_run_is_watched_with_what_it_starts() -> None:
    child = f"{sys.executable!r}, '-c', {BUSY!r}"
    script = f"import subprocess; subprocess.run([{child}], check=True); print('{{\"a\": 1}}')"
    done = watched.run([sys.executable, "-c", script], LIMIT_S)
    assert done.cpu_s >= 0.5
    assert done.peak_mib >= 90
    assert done.said == [{"a": 1}]


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 1 after .*ValueError: no such thing"):
        watched.run([sys.executable, "-c", "raise ValueError('no such thing')"], LIMIT_S)


def test_a_run_that_does_not_end_is_ended() -> None:
    with pytest.raises(RuntimeError, match="did not end within 0 s"):
        watched.run([sys.executable, "-c", "import time; time.sleep(600)"], 0.2)


def test_a_side_that_cannot_run_has_a_row_that_says_why() -> None:
    side = Side("none", "Nothing", Package("no-such-package"))
    result = comparison.Result(side, 10, side.origin.why_not() or "")
    assert result.row(result).startswith("| Nothing | not installed: pip install")
    assert result.row(result).count("|") == comparison.HEAD.splitlines()[0].count("|")


def test_a_problem_of_many_lines_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pom: Path, name: str) -> Path:
        raise jars.BrokerUnavailable(f"Maven could not fetch the jars of {name}:\nno network")

    monkeypatch.setattr(jars, "resolve", refuse)
    result = comparison.Result(Side("flink", "Flink", FLINK), 10, "")
    result.run(Settings("", "topic"), Expected(windows(ROWS), 7, REACHED_MS), 1)
    assert "| Maven could not fetch the jars of flink: no network |" in result.row(result)


def test_the_versions_of_java_programs_are_those_of_their_poms() -> None:
    assert FLINK.version() == "2.3.0"
    (broker,) = ElementTree.parse(jars.POM).iterfind("{*}properties/{*}kafka.version")
    assert KAFKA_STREAMS.version() == broker.text


def test_a_java_program_is_compiled_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[list[Path]] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jars, "resolve", lambda pom, name: tmp_path)
    monkeypatch.setattr(program, "_compile", lambda sources, *_folders: compiled.append(sources))
    KAFKA_STREAMS.prepare()
    KAFKA_STREAMS.prepare()
    assert [[source.name for source in sources] for sources in compiled] == [
        ["Task.java", "KafkaStreamsDsl.java"]
    ]
    monkeypatch.setattr(program, "COMMON", program.JVM / "flink")
    KAFKA_STREAMS.prepare()
    assert len(compiled) == 2


def test_a_java_program_is_told_what_its_script_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(jars, "resolve", lambda pom, name: tmp_path)
    monkeypatch.setattr(jars, "cached", lambda name, sources, fill: tmp_path)
    monkeypatch.setattr(os, "execvp", lambda _file, command: became.append(command))
    FLINK.run(Task("host:1", "topic", 7, 500, tmp_path / "answer"))
    told = ["peers.FlinkSql", "host:1", "topic", "7", "500", str(tmp_path / "answer"), "10000", "20.0"]
    assert became[0][-len(told) :] == told


def test_a_peers_row_says_how_many_times_as_fast_ours_is() -> None:
    def result(seconds: float) -> comparison.Result:
        side = Side("side", "Side", Package("numpy"), reach_whole="≥ 10")
        return comparison.Result(side, 1000, "", [Run(seconds, 1000 / seconds, 2.0, 50.0, 4)])

    ours, theirs = result(1.0), result(8.0)
    row = theirs.row(ours)
    assert "| 8x (to reach ≥ 10) | 8x |" in row
    assert row.count("|") == ours.row(ours).count("|") == comparison.HEAD.splitlines()[0].count("|")


class FakeBroker(Broker):
    """Remembers what was done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def kill(self) -> None:
        self.done.append("killed")

    def start(self) -> Self:
        self.done.append("started")
        return self


def test_the_broker_is_killed_and_started_once_the_job_is_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "GONE_S", 0.0)
    broker, halfway = FakeBroker(), tmp_path / HALFWAY
    halfway.write_text("500")
    records, _ = restart.restart(broker, halfway, threading.Event())
    assert (broker.done, records) == (["killed", "started"], 500)


def test_a_job_that_does_not_need_the_broker_any_more_is_told_of_once_there_is_one(tmp_path: Path) -> None:
    broker, halfway, ended = FakeBroker(), tmp_path / HALFWAY, threading.Event()
    halfway.write_text("500")
    ended.set()
    with pytest.raises(RuntimeError, match="ended without the broker"):
        restart.restart(broker, halfway, ended)
    assert broker.done == ["killed", "started"]


def test_a_job_that_ends_before_its_middle_is_told_of_and_the_broker_left_alone(tmp_path: Path) -> None:
    broker, ended = FakeBroker(), threading.Event()
    ended.set()
    with pytest.raises(RuntimeError, match="ended before it was in the middle"):
        restart.restart(broker, tmp_path / HALFWAY, ended)
    assert broker.done == []


def test_the_run_that_outlives_its_broker_has_a_row_whatever_came_of_it() -> None:
    columns = comparison.HEAD.splitlines()[0].count("|")
    survived = comparison.Restarted(restart.Survived(1_500, 2.5, 4))
    failed = comparison.Restarted(problem="1 windows missing")
    assert "after 1,500 records, back after 2.5 s |" in survived.row()
    assert survived.row().endswith("| yes, 4 |")
    assert "| 1 windows missing |" in failed.row()
    assert survived.row().count("|") == failed.row().count("|") == columns


@pytest.mark.parametrize("keys", [7, 1_000])
def test_a_topic_of_growth_has_every_key_in_one_partition_and_messages_of_its_size(keys: int) -> None:
    values = list(Topic(records=1_000, keys=keys, partitions=3, size=500).values())
    assert {len(value) for _, value in values} == {500}
    places = {(json.loads(value)["device"], partition) for partition, value in values}
    assert len(places) == keys
