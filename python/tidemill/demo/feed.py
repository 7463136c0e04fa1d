"""Sends the fleet's readings to Kafka as JSON, at their pace, from a thread of its own.

It deliberately never runs ahead of what the embedded broker can keep: where the job reads too slowly, the fleet waits.
Nor does it run on after its time: what could not be sent by then is not, and `behind` says how much it is.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from tidemill import SinkError
from tidemill.demo.fleet import Fault, Fleet, Readings

STEP_S = 0.01
FLUSH_LIMIT_S = 10.0
STEP_READINGS = 20_000
"""At most so many at once, so that a rate that is beyond this machine does not keep it from looking at the clock."""


class Producer(Protocol):
    """What the feed needs of a producer."""

    def send(self, topic: str, records: list[tuple[bytes, bytes]]) -> None:
        """Hand over (key, value) pairs; raises where earlier ones were lost."""

    def flush(self, timeout: float) -> int:
        """Wait until all is sent; how many records are not. Raises where some were lost."""


class Feed:
    """The producer of a demonstration.

    With an `unread_limit`, at most so many readings are on their way that the job has not read yet.
    """

    def __init__(self, fleet: Fleet, producer: Producer, topic: str, unread_limit: int | None = None) -> None:
        self.sent = 0
        """Readings sent so far."""
        self.behind = 0
        """Readings that were due by the end and were not sent; 0 before, and where it was ended early."""
        self.read = 0
        """Readings that the job has read, as it says."""
        self.sent_ms: dict[Fault, float] = {}
        """When the first faulty reading of each fault was sent, in milliseconds since the epoch."""
        self._fleet = fleet
        self._producer = producer
        self._topic = topic
        self._unread_limit = unread_limit
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._onsets = sorted(((fleet.index_of(fault), fault) for fault in fleet.faults), key=lambda o: o[0])

    def machine(self, device: str) -> int | None:
        """The number of a machine of this fleet by its name; None for any other name."""
        _, _, digits = device.partition("machine-")
        if not digits.isdecimal():
            return None
        return int(digits) if int(digits) < self._fleet.machines else None

    def start(self, seconds: float) -> None:
        """Begin to send, for so long."""
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="demo-feed", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is more to send."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End it early or wait for its end; all that was sent has then arrived, or the producer's error is raised."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def send_due(self, elapsed_s: float, at_most: int | None = None) -> None:
        """Send what is due so long after the start, `at_most` so many readings, as far as the limit lets."""
        due = round(elapsed_s * self._fleet.rate)
        until = due if self._unread_limit is None else min(due, self.read + self._unread_limit)
        until = until if at_most is None else min(until, self.sent + at_most)
        if until > self.sent:
            self._send(until, time.time() * 1000)

    def _run(self, seconds: float) -> None:
        begin, elapsed = time.monotonic(), 0.0
        try:
            while elapsed < seconds and not self._stop.wait(STEP_S):
                elapsed = time.monotonic() - begin
                self.send_due(min(seconds, elapsed), STEP_READINGS)
            if elapsed >= seconds:
                self.behind = round(seconds * self._fleet.rate) - self.sent
            self._flush()
        except Exception as error:
            self._error = error  # raised by `stop`, in the thread that can tell the user

    def _flush(self) -> None:
        left = self._producer.flush(FLUSH_LIMIT_S)
        if left:
            raise SinkError(
                f"{left} readings were not sent within {FLUSH_LIMIT_S:g} s; is the broker overloaded?"
            )

    def _send(self, until: int, now_ms: float) -> None:
        # Known before it can be heard of: the alarm comes from another thread.
        while self._onsets and self._onsets[0][0] < until:
            self.sent_ms[self._onsets.pop(0)[1]] = now_ms
        self._producer.send(self._topic, encode(self._fleet.readings(self.sent, until), int(now_ms)))
        self.sent = until


def encode(readings: Readings, ts_ms: int) -> list[tuple[bytes, bytes]]:
    """Key and JSON of each reading."""
    rows = zip(readings.machine.tolist(), readings.seq.tolist(), readings.temperature.tolist(), strict=True)
    return [(_device(machine), _json(machine, ts_ms, seq, temperature)) for machine, seq, temperature in rows]


def _device(machine: int) -> bytes:
    return b"machine-%04d" % machine


def _json(machine: int, ts_ms: int, seq: int, temperature: float) -> bytes:
    return b'{"device":"machine-%04d","ts":%d,"seq":%d,"temperature":%.3f}' % (
        machine,
        ts_ms,
        seq,
        temperature,
    )
