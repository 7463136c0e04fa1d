"""Fixtures of the Kafka tests: a broker for the whole run, a topic for each test.

Tests that kill or pause a broker take `own_broker`, never the shared one. Where no broker can be had, the tests
are skipped with the reason; under CI that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.kafka.broker import Broker
from tests.kafka.clients import Clients
from tests.kafka.jars import BrokerUnavailable

if TYPE_CHECKING:
    from tests.kafka.secured import SecuredBroker

ADDRESS = "TIDEMILL_TEST_KAFKA"
Kind = TypeVar("Kind")


@pytest.fixture(scope="session")
def bootstrap_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a broker for the whole run: the one named by TIDEMILL_TEST_KAFKA, else one that is started."""
    given = os.environ.get(ADDRESS)
    if given:
        yield given
        return
    with broker_or_skip(Broker) as broker:
        yield broker.bootstrap_servers
        if request.session.testsfailed:
            print(f"\nthe broker's log: {broker.save_log(tmp_path_factory.getbasetemp())}")


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker for one test alone, which may kill it, pause it and start it again."""
    with broker_or_skip(Broker) as broker:
        yield broker


@pytest.fixture(scope="session")
def secured() -> Iterator[SecuredBroker]:
    """A broker for all tests of protected clusters; its first user starts it."""
    from tests.kafka.secured import SecuredBroker  # only its tests need what it makes certificates by

    with broker_or_skip(SecuredBroker) as broker:
        yield broker


@pytest.fixture
def kafka(bootstrap_servers: str) -> Clients:
    """Produce and consume helpers for the shared broker."""
    return Clients(bootstrap_servers)


@pytest.fixture
def make_topic(kafka: Clients) -> Iterator[Callable[..., str]]:
    """Makes topics, `make_topic(partitions=1, **settings) -> name`, and removes them after the test."""
    made: list[str] = []

    def make(partitions: int = 1, **config: str) -> str:
        made.append(kafka.create_topic(partitions, **config))
        return made[-1]

    yield make
    for name in made:
        kafka.delete_topic(name)


@pytest.fixture
def make_named(kafka: Clients) -> Iterator[Callable[..., str]]:
    """Makes topics of one partition by their names, and removes them after the test."""
    made: list[str] = []

    def make(name: str, partitions: int = 1) -> str:
        made.append(kafka.create_topic(partitions, name=name))
        return name

    yield make
    for name in made:
        kafka.delete_topic(name)


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    """A topic of one partition for one test."""
    return make_topic()


def broker_or_skip(kind: type[Kind]) -> Kind:
    """A broker of some kind, not started; where none can be had, the test is skipped."""
    try:
        return kind()
    except BrokerUnavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"under CI the Kafka tests must run: {reason}")
        pytest.skip(str(reason))
