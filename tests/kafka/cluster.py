"""Three brokers that are one cluster: what one of them has, the others have too, and each may go.

It deliberately breaks nothing by itself: a test stops and kills the members. Clients that need a login come by TLS and
SCRAM; the suite's own helpers come without.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ClassVar, Self

from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka.broker import START_LIMIT_S, Broker, Place, free_ports
from tests.kafka.secured import SecuredBroker

# A member that is killed is missed after three seconds, and not after nine.
QUICK = """\
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class Member(SecuredBroker):
    """One of the three, with an open listener and one with TLS and logins."""

    listeners: ClassVar[dict[str, str]] = {"PLAINTEXT": "PLAINTEXT", "LOGIN": "SASL_SSL"}

    def more_settings(self) -> str:
        """Missed soon."""
        return super().more_settings() + QUICK


class Cluster:
    """Three brokers, started and ended together; also a context manager."""

    def __init__(self) -> None:
        ports = tuple(free_ports(3))
        cluster = uuid.uuid4().hex[:22]
        first = Member(Place(1, ports, cluster))
        # One authority for all: whoever trusts it trusts each of them.
        self.members = [first, *(Member(Place(node, ports, cluster), first.authority) for node in (2, 3))]

    def address(self, listener: str = "PLAINTEXT") -> str:
        """Where the brokers are, separated by commas."""
        return ",".join(member.address(listener) for member in self.members)

    @property
    def ca(self) -> str:
        """The file of the authority that their certificates come from."""
        return self.members[0].ca

    def __enter__(self) -> Self:
        # At the same time: one alone is no majority, and would wait for the others.
        with ThreadPoolExecutor(len(self.members)) as threads:
            list(threads.map(Broker.start, self.members))
        self.await_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.close()

    def await_all(self) -> None:
        """Wait until all brokers are members again and every partition has all its replicas in step."""
        self._await(len(self.members))

    def await_missed(self) -> None:
        """Wait until one broker is missed, and what it led is led by others."""
        self._await(len(self.members) - 1)

    def _await(self, brokers: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 0})
        deadline = time.monotonic() + START_LIMIT_S
        while not self._is_served_by(admin, brokers):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster is not served by {brokers} after {START_LIMIT_S:.0f} s")
            time.sleep(0.1)

    def _is_served_by(self, admin: AdminClient, brokers: int) -> bool:
        try:
            seen = admin.list_topics(timeout=2)
        except KafkaException:
            return False
        partitions = [p for topic in seen.topics.values() for p in topic.partitions.values()]
        missed = len(self.members) - brokers
        in_step = all(len(p.isrs) == len(p.replicas) - missed and p.leader in p.isrs for p in partitions)
        return len(seen.brokers) == brokers and in_step

    def move_leaders_home(self) -> None:
        """Have each partition led by the first of its replicas again: leaders move while all brokers live."""
        admin = AdminClient({"bootstrap.servers": self.address(), "log_level": 0})
        admin.elect_leaders(ElectionType.PREFERRED).result(START_LIMIT_S)
