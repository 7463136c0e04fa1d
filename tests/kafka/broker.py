"""An Apache Kafka broker for tests: started on free loopback ports, killed, paused, and surely ended.

It deliberately produces and consumes nothing: `conftest.py` has the helpers that do. A broker is controller
and broker at once (KRaft), with the settings that make a single one answer quickly.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka import jars

HEAP = "512m"
# A program of one second is over before the optimising compiler has paid off.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
START_LIMIT_S = 120.0
HOST = "127.0.0.1"

# Factors of one where there is one broker; few partitions of the internal topics, because each is a folder
# that is made and synced; no rebalance delay, because a test's consumer is alone in its group. The cleaner looks often
# whether there is something to compact: a test waits for it.
SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://{host}:{controller_port}
advertised.listeners={listeners}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
log.cleaner.backoff.ms=100
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr=1
"""


@dataclass(frozen=True)
class Place:
    """Which of a cluster's brokers one is."""

    node: int
    controller_ports: tuple[int, ...]
    cluster: str


class Broker:
    """One Kafka broker with a data folder of its own; also a context manager.

    `start` after `kill` finds the same data on the same address, as after a crash. However the suite ends, also by
    Ctrl-C or `kill -9`, the broker ends with it.
    """

    listeners: ClassVar[dict[str, str]] = {"PLAINTEXT": "PLAINTEXT"}
    """Where it listens for clients: a name, and Kafka's name of how it speaks there. `PLAINTEXT` is its own too."""

    def __init__(self, place: Place | None = None) -> None:
        """The only broker of its cluster, or the one at `place`."""
        self._jars = jars.resolve()
        self._home = Path(tempfile.mkdtemp(prefix="tidemill-kafka-"))
        controller_port, *ports = free_ports(1 + len(self.listeners))
        self._place = place or Place(1, (controller_port,), uuid.uuid4().hex[:22])
        self._ports = dict(zip(self.listeners, ports, strict=True))
        self._port = self._ports["PLAINTEXT"]
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._format()
        atexit.register(self.close)

    @property
    def bootstrap_servers(self) -> str:
        """The address, as `host:port`."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """Where one of `listeners` is, as `host:port`."""
        return f"{HOST}:{self._ports[listener]}"

    @property
    def log(self) -> Path:
        """What the broker wrote, over all its starts."""
        return self._home / "broker.log"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        if self._process is not None:
            raise RuntimeError(f"the broker at {self.bootstrap_servers} runs already")
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for the suite, which ends the broker when it is done with it.
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._settings)), cwd=self._home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._watchdog = _watch(self._process.pid, self._home)
        self._await_answer()
        return self

    def kill(self) -> None:
        """End it as a power cut would (`kill -9`); the data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; the data stays."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._running().send_signal(signal.SIGCONT)

    def segment(self, topic: str, partition: int) -> Path:
        """The file with the first records of a partition."""
        return self._home / "data" / f"{topic}-{partition}" / f"{0:020}.log"

    def save_log(self, folder: Path) -> Path:
        """Copy the log to where it outlives the broker, and say where."""
        return Path(shutil.copy(self.log, folder / f"{self._home.name}.log"))

    def close(self) -> None:
        """End it for good and remove its data."""
        if self._process is not None:
            self.kill()
        atexit.unregister(self.close)
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _settings(self) -> Path:
        return self._home / "server.properties"

    def _java(self, main: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        dated = "-Dorg.slf4j.simpleLogger.showDateTime=true"
        return ["java", f"-Xmx{HEAP}", dated, *options, "-cp", f"{self._jars}/*", main, *arguments]

    def _format(self) -> None:
        ports = self._place.controller_ports
        text = SETTINGS.format(
            host=HOST, controller_port=ports[self._place.node - 1], data=self._home / "data",
            node=self._place.node, replicas=len(ports),
            voters=",".join(f"{node}@{HOST}:{port}" for node, port in enumerate(ports, 1)),
            listeners=",".join(f"{name}://{self.address(name)}" for name in self.listeners),
            protocols=",".join(f"{name}:{protocol}" for name, protocol in self.listeners.items()),
        )  # fmt: skip
        self._settings.write_text(text + self.more_settings())
        cluster = ["--cluster-id", self._place.cluster, "--config", str(self._settings)]
        subprocess.run(
            self._java("kafka.tools.StorageTool", "format", *cluster, *self.more_users(), options=SHORT_LIVED),
            cwd=self._home, stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )  # fmt: skip

    def more_settings(self) -> str:
        """What the settings hold beside what every broker has; for a kind of broker that has more."""
        return ""

    def more_users(self) -> list[str]:
        """What the storage is told of users."""
        return []

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"the broker at {self.bootstrap_servers} does not run")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        if how is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # a frozen process hears nothing else
        # Before the process is reaped: afterwards its number may be another's, and the watchdog would kill that.
        _dismiss(self._watchdog)
        process.wait()
        self._process = self._watchdog = None

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not _listens(self._port):
            self._check_start(deadline)
            time.sleep(0.05)
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        while not _has_brokers(admin):
            self._check_start(deadline)
            time.sleep(0.05)

    def _check_start(self, deadline: float) -> None:
        if self._running().poll() is None and time.monotonic() < deadline:
            return
        tail = self.log.read_text(errors="replace")[-4000:]
        self.close()
        raise RuntimeError(f"the broker did not answer within {START_LIMIT_S:.0f} s; its log ends:\n{tail}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, held all at once so that they differ."""
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _has_brokers(admin: AdminClient) -> bool:
    """An open port is not enough: until the controller has let the broker in, metadata names no broker."""
    try:
        return len(admin.list_topics(timeout=2).brokers) > 0
    except KafkaException:
        return False


def _watch(pid: int, home: Path) -> subprocess.Popen[bytes]:
    """A process that waits for its input to end, which the kernel does when this process is gone, however it went.

    The parent-death signal of Linux was not taken: it fires when the *thread* that started the broker ends.
    """
    script = 'cat >/dev/null; kill -9 "$1"; rm -rf "$2"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(pid), str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _dismiss(watchdog: subprocess.Popen[bytes] | None) -> None:
    if watchdog is None:
        return
    os.killpg(watchdog.pid, signal.SIGKILL)
    watchdog.wait()
    if watchdog.stdin is not None:
        watchdog.stdin.close()
