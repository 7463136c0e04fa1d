"""What it takes to test a streaming job, or to try one, without a broker to run first and without waiting.

A `ScriptedSource` yields what the test pushes, a `ManualClock` stands still until the test moves it. They are the same
that tidemill's own suite uses. Where Kafka itself belongs to what is tried, a `Broker` is one inside this process.
Nothing here is for production.

A job that ends by itself needs no clock:

>>> import tidemill as tm
>>> source = tm.testing.ScriptedSource(topic="readings", partitions=1)
>>> source.push(0, [b'{"t": 20.5}', b'{"t": 99.0}'])
>>> ctx = tm.StreamingContext(trigger=tm.available_now())
>>> hot = ctx.scripted(source, format=tm.Json({"t": "float64"})).filter("t > 90")
>>> [batch["t"].tolist() for batch in hot]
[[99.0]]

How a job takes a failure is tested by a script too. This one happens after two records, and ends the job with the
very exception that was given:

>>> ctx = tm.StreamingContext(trigger=tm.available_now())
>>> ctx.scripted(source, format=tm.Raw()).foreach_batch(print)
>>> source.fail_next("fetch", OSError("the disk is gone"), after=1)
>>> ctx.run()
Traceback (most recent call last):
    ...
OSError: the disk is gone
tidemill: ...

So is what a job does while its source says nothing:

>>> ctx = tm.StreamingContext(trigger=tm.available_now(), name="patient")
>>> ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: print(batch.num_rows, "rows"))
>>> source.stall()
>>> ctx.start()
>>> source.await_fetch()
True
>>> ctx.is_running, ctx.progress
(True, None)
>>> source.release()
>>> ctx.await_termination()
2 rows
True
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import tidemill._native as _native
from tidemill.batch import Batch

ScriptedSource = _native.ScriptedSource
ManualClock = _native.ManualClock

ConfigError = _native.ConfigError
SinkError = _native.SinkError
SourceError = _native.SourceError

__all__ = ["Broker", "ManualClock", "ScriptedSource", "batch"]

_ARRIVAL_LIMIT_S = 10.0
_LOOK_EVERY = "5ms"
"""How often `send` looks whether all has arrived: what a small one takes at least."""


class Broker:
    """Kafka inside this process: the real protocol on a port of this machine, to try things and for tests.

    Any Kafka client reads and writes here, at `bootstrap_servers`. Records are in memory, the last 5 MiB of each
    partition, and end with the broker: at `close`, at the end of a ``with`` block, or when nothing refers to it any
    more. There is no login, no TLS, and no disk.

    Args:
        topics: the topics to begin with, and the number of partitions of each. Another one is made with four
            partitions when it is first written to.

    Raises:
        ConfigError: a topic without a name, or without partitions.

    >>> import tidemill as tm
    >>> with tm.testing.Broker({"readings": 2}) as broker:
    ...     broker.send("readings", [("pump", '{"t": 20.5}'), ("press", '{"t": 99.0}')])
    ...     ctx = tm.StreamingContext(trigger=tm.available_now())
    ...     servers, json = broker.bootstrap_servers, tm.Json({"t": "float64"})
    ...     hot = ctx.kafka("readings", bootstrap_servers=servers, format=json).filter("t > 90")
    ...     [batch["t"].tolist() for batch in hot]
    [[99.0]]
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        topics = _topics(topics)
        self._native: _native.MockBroker | None = _native.MockBroker()
        self._servers = self._native.bootstrap_servers
        self._producer = _native.DemoProducer(self._servers)
        for name, partitions in topics.items():
            self._native.create_topic(name, partitions)

    @property
    def bootstrap_servers(self) -> str:
        """Where it listens: ``"127.0.0.1:port"``, with a port that was free.

        >>> import tidemill as tm
        >>> with tm.testing.Broker() as broker:
        ...     broker.bootstrap_servers
        '127.0.0.1:...'
        """
        return self._servers

    def send(self, topic: str, records: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """Writes records and returns when all have arrived: what is read after that has them.

        Args:
            topic: where to.
            records: pairs of a key and a payload, text or bytes. Records of one key are in one partition, in this
                order, as with Kafka's own clients.

        Raises:
            ConfigError: what is no such pair.
            SinkError: not all have arrived within ten seconds.
            SourceError: the broker has been closed.

        >>> import tidemill as tm
        >>> with tm.testing.Broker({"letters": 1}) as broker:
        ...     broker.send("letters", [("a", "alpha"), ("b", b"beta")])
        ...     ctx = tm.StreamingContext(trigger=tm.available_now())
        ...     letters = ctx.kafka("letters", bootstrap_servers=broker.bootstrap_servers, format=tm.Text())
        ...     [batch["value"].tolist() for batch in letters]
        [['alpha', 'beta']]
        """
        if self._native is None:
            raise SourceError("the broker has been closed, and its records are gone; make another Broker")
        self._producer.send(topic, [_record(one) for one in records])
        deadline = time.monotonic() + _ARRIVAL_LIMIT_S
        while left := self._producer.flush(_LOOK_EVERY):
            if time.monotonic() > deadline:
                raise SinkError(
                    f"{left} records for topic {topic!r} have not arrived within {_ARRIVAL_LIMIT_S:g} s"
                )

    def close(self) -> None:
        """Ends the broker; its records are gone. Another time it does nothing.

        >>> import tidemill as tm
        >>> broker = tm.testing.Broker({"readings": 2})
        >>> broker.close()
        >>> broker
        <Broker: closed>
        """
        if self._native is not None:
            self._producer.close()
            self._native.close()
            self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Broker: {'closed' if self._native is None else self._servers}>"


def _topics(given: object) -> dict[str, int]:
    """Refuses what librdkafka would take without a word, and never serve."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f'a Broker takes topics as {{"readings": 2}}, with their partitions, found {given!r}'
        )
    for name, partitions in given.items():
        if not isinstance(name, str) or not name or type(partitions) is not int or partitions < 1:
            raise ConfigError(
                f"a topic has a name, and 1 partition or more, found {{{name!r}: {partitions!r}}}"
            )
    return dict(given)


def _record(given: object) -> tuple[bytes, bytes]:
    match given:
        case (str() | bytes() as key, str() | bytes() as payload):
            return _bytes(key), _bytes(payload)
        case (str() | bytes(), dict() as payload):
            raise ConfigError(f"a payload is text or bytes, found {payload!r}; encode it: json.dumps(...)")
    raise ConfigError(f"a record is a pair of a key and a payload, each text or bytes, found {given!r}")


def _bytes(given: str | bytes) -> bytes:
    return given.encode() if isinstance(given, str) else given


def batch(rows: Any, *, id: int = 0, time_ms: int = 0, partition: int | None = None) -> Batch:  # noqa: A002
    """A `Batch` made by hand, for tests of functions over batches.

    Args:
        rows: anything with the Arrow PyCapsule interface, or a dict of columns.
        id: the batch's number.
        time_ms: the batch's time, in milliseconds since the epoch.
        partition: the partition that the rows come from.

    Raises:
        SchemaError: columns of different lengths, or of a type without an Arrow type.

    >>> import numpy as np
    >>> import tidemill as tm
    >>> tm.testing.batch({"t": np.array([1.0, 2.0])})["t"].mean()
    np.float64(1.5)
    """
    return Batch(_native.Batch(rows, id, time_ms, partition))
