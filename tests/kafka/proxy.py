"""A proxy between clients and a broker that loses, holds and cuts what a test names, and passes all else on.

It reads of a request what it is (Kafka's API key) and of an answer which request it belongs to, and deliberately
nothing else: bytes go on as they came. Nothing happens by itself: each incident happens once, at the next request of
its kind.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import TracebackType
from typing import ClassVar, Self

from tests.kafka.broker import HOST, Broker, free_ports

LIMIT_S = 60.0
"""Longer than anything here takes: only a defect makes a test wait for it."""


class Api(IntEnum):
    """What a request is, by Kafka's own numbers."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Fate(Enum):
    """What becomes of a request."""

    HOLD = "it waits until it is released, and all behind it on its connection"
    DROP = "it never arrives, and nobody is told"
    CUT = "its connection is cut before it arrives"
    CUT_AFTER = "it has its effect, and its connection is cut before the answer is passed on"
    LATE = "its connection is cut, and it arrives when it is released"
    REPEAT = "it arrives, and once more when it is released"


@dataclass
class Incident:
    """One request that does not go its usual way."""

    api: Api
    fate: Fate
    skip: int = 0
    """So many requests of the kind pass before it."""
    then_down: bool = False
    """No connection comes about after it, until the proxy is up again."""
    _happened: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _arrived: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Until it has happened: the request is held, dropped, or answered by the broker."""
        _await(self._happened, f"no {self.api.name} came that could be met by {self.fate.name}")

    def release(self) -> None:
        """Let go what is held back, and wait until the broker has answered it or has hung up."""
        self._released.set()
        if self.fate in (Fate.LATE, Fate.REPEAT):
            _await(self._arrived, f"the broker has not answered the late {self.api.name}")


class Proxy:
    """Listens on a port of its own and connects each client to the broker; also a context manager."""

    def __init__(self, port: int, broker_port: int) -> None:
        self._port = port
        self._broker_port = broker_port
        self._lock = threading.Lock()  # over the incidents and the list of connections
        self._incidents: list[Incident] = []
        self._links: set[_Link] = set()
        self._is_up = True
        self._server: socket.socket | None = None

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{HOST}:{self._port}"

    def start(self) -> Self:
        """Listen."""
        self._server = socket.create_server((HOST, self._port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()
        return self

    def close(self) -> None:
        """End it, and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.clear()
        self.cut()

    def meet(self, api: Api, fate: Fate, *, skip: int = 0, then_down: bool = False) -> Incident:
        """Have the next request of a kind met by a fate."""
        incident = Incident(api, fate, skip, then_down)
        with self._lock:
            self._incidents.append(incident)
        return incident

    def clear(self) -> None:
        """Forget the incidents that have not happened, and let go what is held."""
        with self._lock:
            incidents, self._incidents = self._incidents, []
        for incident in incidents:
            incident._released.set()

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def down(self) -> None:
        """Cut every connection and let none come about."""
        self._is_up = False
        self.cut()

    def up(self) -> None:
        """Let connections come about again."""
        self._is_up = True

    @contextmanager
    def is_down(self) -> Iterator[None]:
        """Down for a while."""
        self.down()
        try:
            yield
        finally:
            self.up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if not self._is_up:
                raise ConnectionRefusedError
            broker = socket.create_connection((HOST, self._broker_port), timeout=LIMIT_S)
            broker.settimeout(None)
        except OSError:
            client.close()
            return
        for one in (client, broker):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(self, client, broker)
        with self._lock:
            self._links.add(link)
        link.start()

    def _left(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def _incident(self, api: int) -> Incident | None:
        """What this request is to be met by, if by anything."""
        with self._lock:
            for incident in self._incidents:
                if incident.api == api:
                    if incident.skip:
                        incident.skip -= 1
                        return None
                    self._incidents.remove(incident)
                    return incident
        return None


class _Link:
    """One client's connection, and the one to the broker that it stands for."""

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._lock = threading.Lock()  # over what is awaited
        self._awaited: dict[int, list[Incident]] = {}

    def start(self) -> None:
        for work in (self._requests, self._answers):
            threading.Thread(target=work, daemon=True).start()

    def cut(self) -> None:
        for one in (self._client, self._broker):
            _shut(one)

    def _requests(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := _frame(self._client)) is not None:
                api, _version, number = struct.unpack_from(">hhi", frame)
                incident = self._proxy._incident(api)
                if incident is not None and not self._happen(incident, frame, number):
                    return
                if incident is None:
                    _send(self._broker, frame)
        self._end()

    def _happen(self, incident: Incident, frame: bytes, number: int) -> bool:
        """Whether the connection goes on."""
        match incident.fate:
            case Fate.HOLD:
                incident._happened.set()
                incident._released.wait(LIMIT_S)
                _send(self._broker, frame)
                return True
            case Fate.DROP:
                self._fall(incident)
                incident._happened.set()
                return True
            case Fate.CUT:
                self._fall(incident)
                self._end()
                incident._happened.set()
                return False
            case Fate.CUT_AFTER:
                self._expect(number, incident)
                _send(self._broker, frame)
                return True
            case Fate.LATE:
                self._fall(incident)
                _shut(self._client)
                threading.Thread(target=self._late, args=(incident, frame, number), daemon=True).start()
                incident._happened.set()
                return False
            case Fate.REPEAT:
                _send(self._broker, frame)
                incident._happened.set()
                threading.Thread(target=self._late, args=(incident, frame, number), daemon=True).start()
                return True

    def _late(self, incident: Incident, frame: bytes, number: int) -> None:
        incident._released.wait()
        self._expect(number, incident)
        try:
            _send(self._broker, frame)
        except OSError:
            incident._arrived.set()

    def _fall(self, incident: Incident) -> None:
        if incident.then_down:
            self._proxy._is_up = False
            with self._proxy._lock:
                others = [link for link in self._proxy._links if link is not self]
            for link in others:
                link.cut()

    def _expect(self, number: int, incident: Incident) -> None:
        with self._lock:
            self._awaited.setdefault(number, []).append(incident)

    def _answers(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := _frame(self._broker)) is not None:
                (number,) = struct.unpack_from(">i", frame)
                with self._lock:
                    incidents = self._awaited.pop(number, [])
                if not incidents:
                    # Who is gone may still have something under way to the broker.
                    with contextlib.suppress(OSError):
                        _send(self._client, frame)
                for incident in incidents:
                    incident._arrived.set()
                    if incident.fate is Fate.CUT_AFTER:
                        self._fall(incident)
                        self._end()
                        incident._happened.set()
        self._end()
        with self._lock:
            waiting = [incident for incidents in self._awaited.values() for incident in incidents]
        for incident in waiting:
            incident._arrived.set()

    def _end(self) -> None:
        self.cut()
        self._proxy._left(self)


class ProxiedBroker(Broker):
    """A broker with a second address, at which clients come through `proxy` and stay behind it."""

    listeners: ClassVar[dict[str, str]] = {"PLAINTEXT": "PLAINTEXT", "PROXIED": "PLAINTEXT"}

    def __init__(self) -> None:
        (self._proxy_port,) = free_ports(1)
        super().__init__()
        self.proxy = Proxy(self._proxy_port, self._ports["PROXIED"])

    def more_settings(self) -> str:
        """Who has come through the proxy is sent there again."""
        direct = f"PLAINTEXT://{self.address('PLAINTEXT')}"
        return f"advertised.listeners={direct},PROXIED://{HOST}:{self._proxy_port}\n"

    def __enter__(self) -> Self:
        self.proxy.start()
        return super().__enter__()

    def close(self) -> None:
        """End the proxy too."""
        self.proxy.close()
        super().close()


def _await(event: threading.Event, otherwise: str) -> None:
    if not event.wait(LIMIT_S):
        raise RuntimeError(f"within {LIMIT_S:.0f} s {otherwise}")


def _frame(connection: socket.socket) -> bytes | None:
    """The next request or answer without its length; None at the end."""
    head = _exactly(connection, 4)
    return None if head is None else _exactly(connection, int.from_bytes(head, "big"))


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _send(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(len(frame).to_bytes(4, "big") + frame)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
