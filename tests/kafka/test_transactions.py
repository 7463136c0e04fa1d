"""One transaction a batch on a cluster that fails: whatever is lost, late or killed, each batch is there once, whole.

The sink is driven by `Publisher`, a driver's half without a stream around it; what it has done is read by
confluent-kafka with `read_committed`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import pytest

import tidemill as tm
from tests.kafka.clients import Clients
from tests.kafka.conftest import broker_or_skip
from tests.kafka.proxy import LIMIT_S, Api, Fate, ProxiedBroker
from tidemill._native import Publisher

PHASES = [
    Api.INIT_PRODUCER_ID,
    Api.ADD_PARTITIONS_TO_TXN,
    Api.ADD_OFFSETS_TO_TXN,
    Api.TXN_OFFSET_COMMIT,
    Api.PRODUCE,
    Api.END_TXN,
]


@pytest.fixture(scope="module")
def broker() -> Iterator[ProxiedBroker]:
    """A broker behind a proxy, for this module alone: it is killed here."""
    with broker_or_skip(ProxiedBroker) as proxied:
        yield proxied


class Job:
    """A job with two outputs and a source's group, whose drivers come one after the other."""

    def __init__(self, broker: ProxiedBroker) -> None:
        self.broker = broker
        self.kafka = Clients(broker.bootstrap_servers)
        self.name = str(uuid.uuid4())
        # The batches' time is long past: retention would take them while they are read.
        self.topics = [self.kafka.create_topic(count, retention_ms="-1") for count in (1, 2)]
        self.epoch = 0
        self.publishers: list[Publisher] = []

    def driver(self, *, proxied: bool = False, **config: str) -> Publisher:
        """A driver that has not taken over yet."""
        servers = self.broker.proxy.address if proxied else self.broker.bootstrap_servers
        settings = [(name.replace("_", "."), value) for name, value in config.items()]
        self.publishers.append(Publisher(servers, self.topics, settings))
        return self.publishers[-1]

    def take_over(self, driver: Publisher) -> str | None:
        """In the next epoch, until it succeeds; the marker."""
        while True:
            self.epoch += 1
            try:
                return driver.init(self.name, self.epoch)
            except tm.TidemillError:
                assert driver.needs_take_over

    def prepare(self, driver: Publisher, batch: int, attempt: str = "") -> str:
        """The marker of a batch whose values say what they are of."""
        values = [[f"{batch}{attempt}:{row}".encode() for row in rows] for rows in (range(300), range(20))]
        return driver.prepare(batch, values)

    def publish(self, driver: Publisher, batch: int) -> list[str]:
        """With the offset of the source that belongs to the batch."""
        return driver.publish([(f"group-{self.name}", [(self.topics[0], 0, batch + 1)])])

    def settle(self) -> Self:
        """Until nothing is open: a commit is decided before all partitions have heard of it."""
        deadline = time.monotonic() + LIMIT_S
        for topic in self.topics:
            while self.kafka.ends(topic) != self.kafka.ends(topic, committed_only=False):
                assert time.monotonic() < deadline, f"a transaction in {topic} does not end"
        return self

    def batches(self) -> list[str]:
        """The batches that readers see, each checked to be whole and there once."""
        found: dict[str, int] = {}
        for topic, rows in zip(self.topics, (300, 20), strict=True):
            values = [(message.value() or b"").decode() for message in self.kafka.consume(topic)]
            assert len(values) == len(set(values)), "a row is there twice"
            for value in values:
                found[value.split(":")[0]] = found.get(value.split(":")[0], 0) + 1
            assert all(count % rows == 0 for count in found.values() if topic == self.topics[0])
        assert set(found.values()) <= {320}, f"a batch is not whole: {found}"
        return sorted(found)

    def reached(self) -> int | None:
        """The source's offset."""
        return self.kafka.committed(f"group-{self.name}", self.topics[0], 0)


@pytest.fixture
def job(broker: ProxiedBroker) -> Iterator[Job]:
    """A new job; what is left of its drivers ends with the test."""
    made = Job(broker)
    yield made
    broker.proxy.clear()
    broker.proxy.up()
    for publisher in made.publishers:
        publisher.close()


@contextmanager
def in_background(call: Callable[[], object]) -> Iterator[Future[object]]:
    """A call on a thread of its own."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(call)


def once_more(job: Job, driver: Publisher, batch: int, marker: str, before: str | None) -> str:
    """What a driver does that has lost sight of a batch: it takes over, and the marker decides."""
    assert driver.needs_take_over
    found = job.take_over(driver)
    assert found in (marker, before), "the marker is of neither batch"
    if found == before:
        marker = job.prepare(driver, batch)
        job.publish(driver, batch)
    return marker


@pytest.mark.parametrize("api", PHASES, ids=lambda api: api.name)
@pytest.mark.parametrize("fate", [Fate.CUT, Fate.CUT_AFTER, Fate.REPEAT], ids=lambda fate: fate.name)
def test_a_connection_that_is_cut_at_any_request_doubles_and_loses_nothing(
    broker: ProxiedBroker, job: Job, api: Api, fate: Fate
) -> None:
    driver = job.driver(proxied=True)
    incident = broker.proxy.meet(api, fate) if api is Api.INIT_PRODUCER_ID else None
    assert job.take_over(driver) is None
    incident = incident or broker.proxy.meet(api, fate)
    marker = None
    for batch in range(3):
        before, marker = marker, job.prepare(driver, batch)
        try:
            job.publish(driver, batch)
        except tm.TidemillError:
            marker = once_more(job, driver, batch, marker, before)
        incident.wait()
        if batch == 0:
            incident.release()
    assert job.settle().batches() == ["0", "1", "2"]
    assert job.reached() == 3
    assert job.take_over(job.driver()) == marker


@pytest.mark.parametrize("fate", [Fate.CUT, Fate.CUT_AFTER], ids=lambda fate: fate.name)
def test_a_commit_whose_answer_is_lost_for_good_is_told_by_the_marker(
    broker: ProxiedBroker, job: Job, fate: Fate
) -> None:
    driver = job.driver(proxied=True)
    job.take_over(driver)
    last = job.prepare(driver, 0)
    job.publish(driver, 0)
    marker = job.prepare(driver, 1)
    incident = broker.proxy.meet(Api.END_TXN, fate, then_down=True)
    with in_background(lambda: job.publish(driver, 1)) as publishing:
        incident.wait()
        driver.cancel()
        with pytest.raises(tm.TidemillError, match="the commit was sent, and Kafka had not answered"):
            publishing.result(LIMIT_S)
    assert driver.needs_take_over
    committed = fate is Fate.CUT_AFTER
    assert job.take_over(job.driver()) == (marker if committed else last)
    assert job.settle().batches() == (["0", "1"] if committed else ["0"])
    assert job.reached() == (2 if committed else 1)


def test_a_commit_that_arrives_when_the_next_driver_publishes_does_not_end_its_transaction(
    broker: ProxiedBroker, job: Job
) -> None:
    old, new = job.driver(proxied=True), job.driver(proxied=True)
    job.take_over(old)
    job.prepare(old, 0, "-old")
    late = broker.proxy.meet(Api.END_TXN, Fate.LATE, then_down=True)
    with in_background(lambda: job.publish(old, 0)) as publishing:
        late.wait()
        old.cancel()
        assert isinstance(publishing.exception(LIMIT_S), tm.TidemillError)
    broker.proxy.up()
    assert job.take_over(new) is None
    job.prepare(new, 0, "-new")
    held = broker.proxy.meet(Api.END_TXN, Fate.HOLD)
    with in_background(lambda: job.publish(new, 0)) as publishing:
        held.wait()  # all of the new driver's output is in its open transaction
        late.release()
        assert job.batches() == []
        held.release()
        publishing.result(LIMIT_S)
    assert job.settle().batches() == ["0-new"]
    assert job.reached() == 1


def test_a_driver_that_was_held_up_before_its_commit_is_fenced(broker: ProxiedBroker, job: Job) -> None:
    old, new = job.driver(proxied=True), job.driver()
    job.take_over(old)
    last = job.prepare(old, 0)
    job.publish(old, 0)
    job.prepare(old, 1, "-old")
    held = broker.proxy.meet(Api.END_TXN, Fate.HOLD)
    with in_background(lambda: job.publish(old, 1)) as publishing:
        held.wait()
        assert job.take_over(new) == last
        job.prepare(new, 1, "-new")
        job.publish(new, 1)
        held.release()
        with pytest.raises(tm.FencedError, match="another producer has taken over"):
            publishing.result(LIMIT_S)
    assert old.needs_take_over
    assert job.settle().batches() == ["0", "1-new"]


KILLED = [*PHASES, None]


@pytest.mark.parametrize("phase", KILLED, ids=lambda phase: "after EndTxn" if phase is None else phase.name)
def test_a_broker_that_is_killed_in_any_phase_and_comes_back(
    broker: ProxiedBroker, job: Job, phase: Api | None
) -> None:
    driver = job.driver(proxied=True)
    fate = Fate.CUT_AFTER if phase is None else Fate.HOLD
    killing = Api.END_TXN if phase is None else phase
    marker = None
    if killing is Api.INIT_PRODUCER_ID:
        incident = broker.proxy.meet(killing, fate)
        with in_background(lambda: job.take_over(driver)) as taking:
            incident.wait()
            restart(broker)
            incident.release()
            assert taking.result(LIMIT_S) is None
    else:
        job.take_over(driver)
        marker = job.prepare(driver, 0)
        incident = broker.proxy.meet(killing, fate, then_down=phase is None)
        with in_background(lambda: job.publish(driver, 0)) as publishing:
            incident.wait()
            if phase is None:
                # A single broker that dies after its decision to commit, and before all partitions have heard of it,
                # forgets some when it comes back: it takes those without a leader yet for deleted. That is Kafka's own.
                job.settle()
            restart(broker)
            incident.release()
            broker.proxy.up()
            if publishing.exception(LIMIT_S) is not None:
                marker = once_more(job, driver, 0, marker, None)
    before, marker = marker, job.prepare(driver, 1)
    try:
        job.publish(driver, 1)
    except tm.TidemillError:
        marker = once_more(job, driver, 1, marker, before)
    assert job.settle().batches() == (["1"] if phase is Api.INIT_PRODUCER_ID else ["0", "1"])
    assert job.reached() == 2
    assert job.take_over(job.driver()) == marker


def restart(broker: ProxiedBroker) -> None:
    """As after a power cut."""
    broker.kill()
    broker.start()


CHILD = """\
import sys
from tidemill._native import Publisher
servers, job, *topics = sys.argv[1:]
driver = Publisher(servers, topics)
driver.init(job, 1)
print(driver.prepare(0, [[b"0:%d" % row for row in range(300)], [b"0:%d" % row for row in range(20)]]), flush=True)
driver.publish([("group-" + job, [(topics[0], 0, 1)])])
"""


@pytest.mark.parametrize("api", [Api.PRODUCE, Api.TXN_OFFSET_COMMIT, Api.END_TXN, None], ids=str)
def test_a_driver_that_is_killed_in_its_transaction_leaves_a_whole_batch_or_none(
    broker: ProxiedBroker, job: Job, api: Api | None
) -> None:
    fate = Fate.CUT_AFTER if api is None else Fate.HOLD
    incident = broker.proxy.meet(Api.END_TXN if api is None else api, fate, then_down=api is None)
    command = [sys.executable, "-c", CHILD, broker.proxy.address, job.name, *job.topics]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    marker = child.stdout.readline().strip()
    incident.wait()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    broker.proxy.cut()
    incident.release()
    job.epoch = 1
    found = job.take_over(job.driver())
    assert found == (marker if api is None else None)
    assert job.settle().batches() == (["0"] if api is None else [])
    assert job.reached() == (1 if api is None else None)
