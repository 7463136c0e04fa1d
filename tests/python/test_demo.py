"""The demonstration: the fleet is the same for a seed, it is never sent too fast, and the score forgives nothing."""

from __future__ import annotations

import json
import threading
from itertools import pairwise

import numpy as np
import pytest

import tidemill as tm
from tidemill import demo
from tidemill._native import DemoProducer
from tidemill.demo.feed import Feed, encode
from tidemill.demo.fleet import NOISE_C, REPORTS_PER_SECOND, Fault, FaultKind, Fleet
from tidemill.demo.score import Alarm, Score

SECONDS, RATE = 30.0, 2000
ALL = int(SECONDS * RATE)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet.simulate(RATE, SECONDS, seed=7)


def test_the_same_seed_gives_the_same_readings_however_they_are_asked_for(fleet: Fleet) -> None:
    whole = fleet.readings(0, ALL)
    cuts = [0, 1, 4095, 4097, 30_000, ALL]
    parts = [Fleet.simulate(RATE, SECONDS, seed=7).readings(begin, end) for begin, end in pairwise(cuts)]
    for name in ("machine", "seq", "temperature"):
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(p, name) for p in parts]))


def test_another_seed_gives_other_machines_and_other_faults(fleet: Fleet) -> None:
    other = Fleet.simulate(RATE, SECONDS, seed=8)
    assert other.faults != fleet.faults
    assert not np.array_equal(other.readings(0, 100).temperature, fleet.readings(0, 100).temperature)


@pytest.mark.parametrize(("rate", "seconds"), [(20, 5.0), (RATE, SECONDS), (100_000, 60.0)])
def test_faults_of_every_kind_come_after_the_start_and_before_the_end(rate: int, seconds: float) -> None:
    fleet = Fleet.simulate(rate, seconds)
    per_machine = seconds * rate / fleet.machines
    assert len({fault.machine for fault in fleet.faults}) == len(fleet.faults) > 0
    for fault in fleet.faults:
        assert 0.2 * per_machine <= fault.start <= 0.9 * per_machine
    if fleet.machines >= 3:
        assert {fault.kind for fault in fleet.faults} == set(FaultKind)


def test_the_fleet_grows_with_the_rate_so_that_each_machine_is_seen_as_often() -> None:
    fleet = Fleet.simulate(100_000, 1.0)
    assert np.bincount(fleet.readings(0, 100_000).machine).tolist() == [REPORTS_PER_SECOND] * fleet.machines


def test_a_machine_in_good_health_stays_near_its_wave(fleet: Fleet) -> None:
    readings = fleet.without_faults().readings(0, ALL)
    steps = np.diff(readings.temperature[readings.machine == 3])
    assert abs(steps.std() / (NOISE_C * np.sqrt(2)) - 1) < 0.1


def test_a_fault_changes_its_own_machine_from_its_start_on_and_nothing_else(fleet: Fleet) -> None:
    changed = fleet.readings(0, ALL).temperature != fleet.without_faults().readings(0, ALL).temperature
    readings = fleet.readings(0, ALL)
    for fault in fleet.faults:
        mine = changed[readings.machine == fault.machine]
        assert np.flatnonzero(mine)[0] == fault.start
        assert mine.sum() == 3 if fault.kind is FaultKind.SPIKE else mine[fault.start :].all()
    healthy = ~np.isin(readings.machine, [fault.machine for fault in fleet.faults])
    assert not changed[healthy].any()


def test_readings_are_sent_as_json_with_the_machine_as_key(fleet: Fleet) -> None:
    readings = fleet.readings(0, 150)
    records = encode(readings, ts_ms=1234)
    assert records[101][0] == b"machine-0001"
    reading = json.loads(records[101][1])
    assert reading == {"device": "machine-0001", "ts": 1234, "seq": 1, "temperature": pytest.approx(
        readings.temperature[101], abs=1e-3
    )}  # fmt: skip


class Collected:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []

    def send(self, topic: str, records: list[tuple[bytes, bytes]]) -> None:
        assert topic == "readings"
        self.records += records

    def flush(self, timeout: float) -> int:
        return 0


class Refusing(Collected):
    """A producer whose broker has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def send(self, topic: str, records: list[tuple[bytes, bytes]]) -> None:
        self.asked.set()
        raise ConnectionError("the broker has gone")


def test_what_is_due_is_sent_once(fleet: Fleet) -> None:
    producer = Collected()
    feed = Feed(fleet, producer, "readings")
    for elapsed in (0.0, 0.5, 0.5, 0.25, 1.0):
        feed.send_due(elapsed)
    assert feed.sent == RATE
    assert producer.records == [
        (key, value) for key, value in producer.records if json.loads(value)["device"].encode() == key
    ]
    assert [json.loads(value)["seq"] for key, value in producer.records if key == b"machine-0000"] == list(
        range(20)
    )


def test_the_fleet_waits_for_a_job_that_reads_too_slowly(fleet: Fleet) -> None:
    feed = Feed(fleet, Collected(), "readings", unread_limit=100)
    feed.send_due(1.0)
    assert feed.sent == 100
    feed.read = 40
    feed.send_due(1.0)
    assert feed.sent == 140


def test_it_is_known_when_each_fault_was_sent(fleet: Fleet) -> None:
    feed = Feed(fleet, Collected(), "readings")
    first = min(fleet.faults, key=fleet.index_of)
    feed.send_due(fleet.index_of(first) / RATE)
    assert feed.sent_ms == {}
    feed.send_due(SECONDS)
    assert set(feed.sent_ms) == set(fleet.faults)


def test_an_error_of_the_producer_reaches_whoever_stops_the_feed(fleet: Fleet) -> None:
    producer = Refusing()
    feed = Feed(fleet, producer, "readings")
    feed.start(SECONDS)
    assert producer.asked.wait(timeout=60)
    with pytest.raises(ConnectionError, match="gone"):
        feed.stop()


def test_readings_that_were_not_sent_are_told_to_whoever_stops_the_feed(fleet: Fleet) -> None:
    class Slow(Collected):
        def flush(self, timeout: float) -> int:
            return 3

    feed = Feed(fleet, Slow(), "readings")
    feed.start(0.0)
    with pytest.raises(tm.SinkError, match="3 readings were not sent within 10 s"):
        feed.stop()


def test_records_that_did_not_arrive_are_told_once_by_the_demonstrations_producer() -> None:
    producer = DemoProducer("127.0.0.1:1", timeout="50ms")  # nobody listens there
    producer.send("readings", [(b"a", b"1"), (b"b", b"2")])
    with pytest.raises(tm.SinkError, match=r"2 records did not arrive, the first because of: .*timed out"):
        producer.flush(30)
    assert producer.flush(0) == 0
    producer.close()


SHIFT = Fault(FaultKind.SHIFT, machine=1, start=100)
SPIKE = Fault(FaultKind.SPIKE, machine=2, start=200)
SENT_MS = {SHIFT: 1000.0, SPIKE: 2000.0}


def scored(*alarms: tuple[int, int, float]) -> Score:
    score = Score((SHIFT, SPIKE))
    for machine, seq, heard_ms in alarms:
        score.hear(Alarm(machine, seq, heard_ms), SENT_MS)
    return score


def test_an_alarm_within_the_window_finds_the_fault_and_says_how_late() -> None:
    score = scored((1, 103, 1030.0))
    assert [(f.fault, f.late_points, f.late_ms) for f in score.found] == [(SHIFT, 3, 30.0)]
    assert (score.missed, score.false_alarms) == ([SPIKE], [])


def test_a_second_alarm_in_the_window_counts_neither_as_found_nor_as_false() -> None:
    score = scored((1, 103, 1030.0), (1, 105, 1040.0))
    assert (len(score.found), score.repeats, score.false_alarms) == (1, 1, [])


@pytest.mark.parametrize(
    ("machine", "seq"),
    [(1, 99), (1, 100 + SHIFT.window), (3, 100), (2, 100)],
    ids=["early", "late", "healthy", "other"],
)
def test_an_alarm_elsewhere_is_false(machine: int, seq: int) -> None:
    score = scored((machine, seq, 0.0))
    assert (score.found, len(score.false_alarms)) == ([], 1)


def test_faults_that_were_never_sent_are_not_counted_as_missed() -> None:
    score = scored((1, 100, 1010.0)).within([SHIFT])
    assert (len(score.found), score.missed) == (1, [])


def test_the_summary_says_what_was_found_how_late_and_what_was_false() -> None:
    score = scored((1, 103, 1030.0), (9, 9, 0.0))
    assert score.summary(readings=60_000).splitlines() == [
        "1 of 2 injected faults found (missed: spike)",
        "late by 3 (median), 3 (90 of 100) readings",
        "        30 (median), 30 (90 of 100) ms, from sent to heard",
        "1 false alarm in 60,000 readings",
    ]


def test_a_demonstration_that_ended_before_its_first_fault_is_not_called_a_failure_to_find() -> None:
    assert scored().within([]).summary(readings=5000) == "ended before the first fault, after 5,000 readings"


def test_a_summary_without_findings_names_no_delay() -> None:
    assert "late" not in scored().summary(readings=1)


def test_what_this_machine_could_not_send_in_time_is_not_sent_and_is_counted(fleet: Fleet) -> None:
    feed = Feed(fleet, Collected(), "readings", unread_limit=100)  # of a job that reads nothing
    feed.send_due(1.0, at_most=70)
    assert feed.sent == 70
    feed._run(0.1)
    assert (feed.sent, feed.behind) == (100, 100)


def test_topics_that_are_somebodys_own_are_not_written_into(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        def __init__(self, bootstrap_servers: str) -> None: ...

        def create_topic(self, name: str, partitions: int) -> bool:
            return name != "fleet"

    monkeypatch.setattr("tidemill._native.DemoProducer", There)
    options = demo.Options(bootstrap_servers="nowhere:1", topic="fleet")
    with pytest.raises(
        tm.ConfigError, match="found the topic 'fleet' there already; give --topic a name that is not taken"
    ):
        demo.run(options)
    demo._ours("tidemill-demo-2-alerts")
