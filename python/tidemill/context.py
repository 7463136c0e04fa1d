"""A streaming job: its settings, its sources, its start and end.

A `StreamingContext` only holds things together. It deliberately has no operators: those are on the `DStream` that a
source gives.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

import tidemill._native as _native
from tidemill.batch import Batch
from tidemill.dead_letters import DeadLetters, OnBad, _word
from tidemill.dstream import DStream, Duration, _settings
from tidemill.hints import hinted, no_attribute
from tidemill.listener import AnyListener, _check, _Dispatcher
from tidemill.security import Sasl, Tls, _protection
from tidemill.sources import (
    Metadata,
    Position,
    _bound,
    _metadata,
    _partitions,
    _servers,
    _starting,
    _subscribed,
    _topics,
)
from tidemill.table import Table

if TYPE_CHECKING:
    from datetime import datetime

    from tidemill.formats import Format

BackPressure = _native.BackPressure
ConfigError = _native.ConfigError
Trigger = _native.Trigger

Place = str | os.PathLike[str]
"""A directory, or the URL of one."""

_DEFAULT_INTERVAL = "1s"
_PATIENCE_S = 3.0
_QUIET_S = 5.0
"""After so long without a row at any output, whoever waits for the job is told what it waits for."""
_logger = logging.getLogger("tidemill")


def interval(every: Duration) -> Trigger:
    """A batch at every tick: a multiple of `every` since the epoch. Missed ticks are skipped.

    >>> import tidemill as tm
    >>> tm.interval("500ms")
    interval("500ms")
    """
    return Trigger.interval(every)


def as_soon_as_possible() -> Trigger:
    """A batch as soon as there are records and the batch before has been mapped.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    """
    return Trigger.as_soon_as_possible()


def available_now(max_records: int | None = None, close_windows: bool | None = None) -> Trigger:
    """What is there at the start, in batches of at most `max_records` records; then the job ends by itself.

    For backfills and tests. Windows that are still open at the end leave with the last batch; with
    ``close_windows=False`` they do not, and the log says how many there were.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=100_000))
    """
    return Trigger.available_now(max_records, close_windows)


@hinted
class StreamingContext:
    """A streaming job. Sources make streams, streams have outputs, `run` runs it all.

    Contexts are independent of each other: several live in one process, a stopped one may be started again (each
    source then starts where `starting` says), and a notebook's cell may be run again. A context that is no longer
    referred to stops by itself and gives its threads back, so keep it in a variable.

    What there is to say of a job goes to ``logging.getLogger("tidemill")``: warnings with what to do, and at debug one
    line a batch; librdkafka's own lines go to ``"tidemill.kafka"``. Levels are looked at when a job starts and at each
    of its events. Lines come through a queue: one that logging's handlers are too slow for is left out, and counted.

    Args:
        batch_interval: the time between batches: ``"500ms"``, a ``timedelta`` or seconds, in whole milliseconds; by
            default ``"1s"``.
        trigger: another rule than the interval: `interval`, `as_soon_as_possible` or `available_now`.
        name: the job's name in errors and logs; by default the script's or the notebook's.
        checkpoint: where the job keeps its progress and what its operators remember, so that another start goes on from
            there, exactly: a directory, or several on several disks, of which most must be there. The first start makes
            them. Positions then come from there, and `starting` says only where a source that is not in it starts.
        guarantee: with a checkpoint ``"exactly_once"``: what `to_kafka` and `to_files` publish is there once, whatever
            fails; functions of `foreach_batch` may be given a batch again. Without one ``"at_least_once"``. None means
            the one that applies.
        on_state_change: of an operator whose state is of another form than in the checkpoint: ``"fail"`` ends the start
            with an error that names both, ``"reset"`` lets the operator begin without state.
        executors: how many executors share the work, in this process, up to 1,024; results never depend on it.
        threads: how many threads ingest, and how many reduce, of all executors together, up to 1,024; by default one a
            core.
        max_memory: what the Kafka clients have read ahead, the chunks at hand (up to 4 MiB a partition) and the rows
            of the batches in flight may take: ``"25%"`` of the memory that the process may use, ``"2GiB"``, or bytes.
            One batch that needs more by itself fails the job with a `MemoryLimitError` that names partition and size.
        max_state_bytes: what keys, windows and detectors remember may take, in the same units; beyond it the job fails
            with a `MemoryLimitError` that names the operator, before the system kills the process.
        backpressure: with an interval, batches that take longer than it are followed by smaller ones until the stream
            keeps up: a `BackPressure` sets how. False lets each take all that memory and `max_records` allow.
        clock: a `tidemill.testing.ManualClock`, for tests.

    Raises:
        ConfigError: a setting is wrong; the message says what is expected.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource(partitions=1)
    >>> source.push(0, [b'{"t": 20.5}', b'{"t": 99.0}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> readings = ctx.scripted(source, format=tm.Json({"t": "float64"}))
    >>> readings.filter("t > 90").foreach_batch(lambda batch: print(batch["t"]))
    >>> ctx.run()
    [99.]
    """

    def __init__(
        self,
        batch_interval: Duration | None = None,
        *,
        trigger: Trigger | None = None,
        name: str | None = None,
        checkpoint: Place | Sequence[Place] | None = None,
        guarantee: Literal["exactly_once", "at_least_once"] | None = None,
        on_state_change: Literal["fail", "reset"] = "fail",
        executors: int = 1,
        threads: int | None = None,
        max_memory: str | int = "25%",
        max_state_bytes: str | int = "50%",
        backpressure: bool | BackPressure = True,
        clock: _native.ManualClock | None = None,
    ) -> None:
        replicas = _replicas(checkpoint)
        _guaranteed(guarantee, bool(replicas))
        due = _trigger(batch_interval, trigger)
        self._impatience: threading.Timer | None = None
        self._listeners: list[AnyListener] = []
        self._native = _native.Context(
            name or _script_name(),
            due,
            executors=executors,
            threads=threads,
            max_memory=max_memory,
            max_state_bytes=max_state_bytes,
            back_pressure=_back_pressure(backpressure, due),
            clock=clock,
            dispatch=_Dispatcher(self._listeners),
            checkpoint=replicas,
            on_state_change=on_state_change,
        )
        self._stop_asked = False
        self._start_asked = False
        # At the end of the script: a thread that calls Python after that would hang. By a weak reference, since a
        # strong one would keep a context alive that only its own functions refer to.
        weakref.finalize(self, _abandon, weakref.ref(self), weakref.ref(self._native))

    def kafka(
        self,
        topics: str | Sequence[str] | None = None,
        *,
        pattern: str | None = None,
        partitions: Mapping[str, Iterable[int]] | Iterable[tuple[str, int]] | None = None,
        bootstrap_servers: str | Sequence[str],
        format: Format,  # noqa: A002
        event_time: str | None = None,
        watermark: Duration = "0s",
        idle_timeout: Duration | None = "10s",
        max_future: Duration = "1h",
        starting: Position | None = None,
        starting_fallback: Literal["earliest", "latest"] | datetime = "latest",
        ending: Position | None = None,
        group_id: str | None = None,
        on_bad: OnBad | DeadLetters = "fail",
        on_data_loss: Literal["fail", "skip"] = "fail",
        metadata: Sequence[Metadata] = (),
        security: Tls | Sasl | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
        max_rate_per_partition: float | None = None,
        name: str | None = None,
    ) -> DStream:
        """The records of Kafka topics as a stream.

        Nothing connects before `start`, but for ``tm.Json()`` without a schema.

        Args:
            topics: one topic or several.
            pattern: instead of `topics`, a regular expression that the whole name of a topic matches; never one of
                Kafka's own. Topics that are made while the job runs are found within seconds and read from their
                beginning, but for a job that ends by itself. ``metadata=["topic"]`` tells their records apart.
            partitions: instead of `topics`, some partitions: ``{"readings": [0, 1]}`` or ``[("readings", 0)]``.
            bootstrap_servers: ``"host:port"``, several as a list or separated by commas.
            format: `Json` or `Csv` with a schema, `Text` or `Raw`; `Json` without one tells its columns from the last
                records, and prints them to be pasted.
            event_time: the column that says when a record happened, or ``"kafka_timestamp"``.
            watermark: how far the watermark stays behind the largest event time.
            idle_timeout: a partition that has been read to its end for so long holds the watermark no more; None
                for never.
            max_future: an event time further ahead of its batch is not believed: it moves no watermark and comes to no
                window. Streams that come together before a window need the same.
            starting: where reading starts: ``"earliest"``, ``"latest"``, ``"committed"`` (what the `group_id` has
                committed), a ``datetime`` with a time zone (the first record at or after it), or an offset for every
                partition: ``{0: 500, 1: 720}``, with several topics or a pattern ``{("readings", 0): 500, ...}``. By
                default at the earliest record where the job ends by itself (`ending`, or the trigger
                `available_now`), else at the latest.
            starting_fallback: with ``starting="committed"``, where a topic starts of which the group has committed
                nothing. A partition that was added to a topic since then starts at its beginning.
            ending: where reading ends, in the same words but for ``"committed"``; resolved once, at the start.
            group_id: a consumer group that processed positions are committed to after each batch, for lag tools; by a
                job that has read nothing, at its end, those where it began.
            on_bad: what a record that does not fit the format does: ``"fail"`` the batch, ``"drop"``: be left out and
                counted, or ``"dead_letter"``: be counted, and a row of `DStream.dead_letters`, which then needs an
                output. `DeadLetters` is such an output in one step.
            on_data_loss: what becomes of records that were to be read and are gone. ``"fail"``: an error that
                names them ends the job. ``"skip"``: they are skipped, counted in ``progress.lost`` and warned of, with
                topic, partition and offsets, be it that retention took them, or that the log was cut; a topic that is
                deleted is let go, and one that is made again is read from its beginning.
            metadata: columns from around the payload, called ``kafka_key`` (binary), ``kafka_topic``,
                ``kafka_partition``, ``kafka_offset``, ``kafka_timestamp`` (timestamp[ms, UTC]) and ``kafka_headers``.
            security: `Tls`, or a login by `Sasl` or `Sasl.oauth`; by default neither.
            config: further librdkafka settings, by their own names; one that decides what is promised here is refused,
                with the argument to use instead, and so is one that loads code or shows a password to whoever listens.
            max_rate_per_partition: at most so many records a second and partition.
            name: the source's name in errors and progress; by default the topics, or the pattern.

        Raises:
            ConfigError: an argument is wrong.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext("500ms")
        >>> readings = ctx.kafka(
        ...     "readings", bootstrap_servers="localhost:9092",
        ...     format=tm.Json({"device": "string", "ts": "timestamp[ms]", "temperature": "float64"}),
        ...     event_time="ts", watermark="5s",
        ... )
        >>> readings.columns
        ['device', 'ts', 'temperature']
        >>> ctx.kafka(
        ...     pattern="sensors-.*", bootstrap_servers="localhost:9092", format=tm.Raw(), metadata=["topic"]
        ... ).columns
        ['value', 'kafka_topic']
        """
        named, assigned = _topics(topics), _partitions(partitions)
        read = _subscribed(named, pattern, assigned)
        servers = _servers(bootstrap_servers)
        _connectable(servers, starting, group_id)
        reading = _reading(
            read if pattern is None else [], name=name or ",".join(read), format=format,
            event_time=event_time, watermark=watermark,
            idle_timeout=idle_timeout, max_future=max_future, starting=starting, ending=ending,
            on_bad=on_bad, metadata=metadata, max_rate_per_partition=max_rate_per_partition,
            starting_fallback=starting_fallback,
        )  # fmt: skip
        stream = self._native.kafka(
            named,
            pattern,
            assigned,
            servers,
            _settings(config),
            _protection(security),
            group_id,
            on_data_loss,
            **reading,
        )
        return _with_dead_letters(DStream(self, stream), on_bad)

    def scripted(
        self,
        source: _native.ScriptedSource,
        *,
        format: Format,  # noqa: A002
        event_time: str | None = None,
        watermark: Duration = "0s",
        idle_timeout: Duration | None = "10s",
        max_future: Duration = "1h",
        starting: Position | None = "earliest",
        ending: Position | None = None,
        on_bad: OnBad | DeadLetters = "fail",
        metadata: Sequence[Metadata] = (),
        max_rate_per_partition: float | None = None,
        name: str | None = None,
    ) -> DStream:
        """The records of a `tidemill.testing.ScriptedSource`: a whole job in a test, without a broker.

        Arguments are those of `kafka`, but that reading starts at the earliest record.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource(partitions=2)
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Raw(), metadata=["offset"]).columns
        ['value', 'kafka_offset']
        """
        if isinstance(on_bad, DeadLetters) and on_bad.topic:
            raise ConfigError(
                "DeadLetters(topic=...) writes to the source's own cluster, and a scripted source has none; "
                'pass path=, or on_bad="dead_letter" with an output of the stream .dead_letters'
            )
        reading = _reading(
            [source.topic], name=name or source.topic, format=format, event_time=event_time, watermark=watermark,
            idle_timeout=idle_timeout, max_future=max_future, starting=starting, ending=ending,
            on_bad=on_bad, metadata=metadata, max_rate_per_partition=max_rate_per_partition,
        )  # fmt: skip
        stream = self._native.scripted(source, **reading)
        return _with_dead_letters(DStream(self, stream), on_bad)

    def start(self) -> None:
        """Checks the whole plan and starts the job; returns once its outputs are open and its positions are known.

        A record that is written after that is read, also with ``starting="latest"``. Ctrl-C calls the start off.

        Raises:
            ConfigError, SchemaError: all mistakes of the plan at once, each with its operator and line.
            SourceError, SinkError: a broker or topic cannot be reached.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(tm.testing.ScriptedSource(), format=tm.Raw()).pprint()
        >>> ctx.start()
        >>> ctx.await_termination()
        True
        """
        self._starting()
        self._native.start()

    def run(self) -> None:
        """Starts the job and waits for its end.

        Ctrl-C or SIGTERM ends it gracefully: batches that have been planned are finished, and `run` returns. A
        second Ctrl-C raises KeyboardInterrupt. The same holds in `await_termination` and in ``for batch in stream``.

        Raises:
            Exception: what ended the job: the user's own exception, or a `TidemillError`.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b"a", b"b"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: print(batch.num_rows, "rows"))
        >>> ctx.run()
        2 rows
        """
        self._starting()
        with self._graceful_signals(), self._told_of_quiet():
            self._native.start()
            if self._stop_asked:  # heard before there was anything to stop
                self._native.request_stop(graceful=True)
            self._native.wait(None)

    def await_termination(self, timeout: Duration | None = None) -> bool:
        """Waits until the job has ended, `timeout` at most, and says whether it has.

        In the main thread, Ctrl-C and SIGTERM end the job gracefully meanwhile, as in `run`.

        Raises:
            ConfigError: the job has never been started.
            Exception: what ended the job, if that was an error: the very object that a user's function raised.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext("10ms")
        >>> ctx.scripted(tm.testing.ScriptedSource(), format=tm.Raw()).pprint()
        >>> ctx.start()
        >>> ctx.await_termination("50ms")
        False
        >>> ctx.stop()
        >>> ctx.await_termination()
        True
        """
        if not self._start_asked:
            raise ConfigError(
                f"the context {self.name!r} has never been started, and so has no end to wait for; call start() "
                "before, or run() in place of both"
            )
        with self._graceful_signals(), self._told_of_quiet():
            return self._native.wait(timeout)

    def stop(self, graceful: bool = True) -> None:
        """Ends the job and waits for that.

        Called from within one of the job's own functions, it returns at once and takes effect after the batch. What
        ended the job before, if that was an error, is in `error`.

        Args:
            graceful: finish the batches that have been planned. False gives up at once: a batch that an output has
                not taken, or Kafka not acknowledged, counts as not delivered, and its rows may come again.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b"a"])
        >>> ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
        >>> def first(batch):
        ...     print(batch["value"])
        ...     ctx.stop()
        >>> ctx.scripted(source, format=tm.Raw()).foreach_batch(first)
        >>> ctx.run()
        [b'a']
        """
        self._native.stop(graceful)

    @property
    def is_running(self) -> bool:
        """Whether the job has been started and has not ended.

        >>> import tidemill as tm
        >>> tm.StreamingContext().is_running
        False
        """
        return self._native.is_running

    @property
    def name(self) -> str:
        """The job's name, in errors and logs; by default the script's.

        >>> import tidemill as tm
        >>> tm.StreamingContext(name="alerts").name
        'alerts'
        """
        return self._native.name

    @property
    def listeners(self) -> list[AnyListener]:
        """Who hears of what happens; append to it.

        They are functions of one `Event`, objects with ``on_event``, or a `StreamingListener`, which has Spark's nine
        events.

        It is read at each event, and so may change while the job runs. Listeners are called on a thread of their own,
        one after the other: a slow one holds no batch, misses events where it is too slow, and is not waited for at the
        end for more than two seconds. What one raises is logged.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"t": 1.5}', b"no JSON", b'{"t": 2.5}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        >>> ctx.scripted(source, format=tm.Json({"t": "float64"}), on_bad="drop").to_table("readings")
        >>> totals = {"records": 0, "bad": 0}
        >>> def add_up(event):
        ...     if event.kind == "completed":
        ...         totals["records"] += event.progress.records
        ...         totals["bad"] += event.progress.bad
        >>> ctx.listeners.append(add_up)
        >>> ctx.run()
        >>> totals
        {'records': 3, 'bad': 1}
        """
        return self._listeners

    @property
    def progress(self) -> _native.Progress | None:
        """The figures of the last batch and the totals since the start; None before the first batch.

        `Progress` lists them all, with their units.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b"a", b"b", b"c"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=2))
        >>> ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
        >>> ctx.run()
        >>> ctx.progress.records, ctx.progress.totals.records
        (1, 3)
        """
        return self._native.progress

    def table(self, name: str) -> Table:
        """The rows that `DStream.to_table` keeps under this name, as they are now.

        The result is a snapshot between two batches; ask again for newer rows. Before the start it has no rows.

        Raises:
            ConfigError: there is no table of this name; the message says which there are.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b'{"t": 1.5}', b'{"t": 2.5}'])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Json({"t": "float64"})).to_table("readings")
        >>> ctx.run()
        >>> ctx.table("readings").to_pandas()
             t
        0  1.5
        1  2.5
        """
        return Table(*self._native.table(name))

    @property
    def error(self) -> BaseException | None:
        """What ended the job, if that was an error.

        >>> import tidemill as tm
        >>> source = tm.testing.ScriptedSource()
        >>> source.push(0, [b"a"])
        >>> ctx = tm.StreamingContext(trigger=tm.available_now())
        >>> ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: 1 / 0)
        >>> try:
        ...     ctx.run()
        ... except ZeroDivisionError:
        ...     pass
        >>> ctx.error
        ZeroDivisionError('division by zero')
        """
        return self._native.error

    def explain(self) -> str:
        """The plan as text: sources, operators with their lines, stages, outputs, and the guarantee.

        Raises:
            ConfigError, SchemaError: all mistakes of the plan at once.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Json({"t": "float64"}), name="readings")
        >>> s.filter("t > 80").pprint()
        >>> print(ctx.explain())
        #0  source readings  (...)
              columns: t: float64
        #1 <- #0  filter ...
              columns: t: float64
        #2 <- #1  output 0: pprint [at least once]  (...)
        <BLANKLINE>
        """
        return self._native.explain()

    def __enter__(self) -> StreamingContext:
        self._native.expect_waiter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._start_asked and self._native.has_outputs:
                _logger.warning(
                    "%s: left without having run, though it has outputs; call ctx.start() within the with block, or "
                    "ctx.run() in place of it",
                    self.name,
                )
            self.stop(graceful=error is None)
            if error is None:
                self._native.wait(None)
        finally:
            self._native.waiter_left()

    def __repr__(self) -> str:
        return f"<StreamingContext {self.name!r}: {self._condition()}>"

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(f"{type(self).__name__!r} object", name, dir(type(self)))

    def _condition(self) -> str:
        if self.is_running:
            return "running"
        if self.error is not None:
            return f"failed: {self.error!r}"
        return "ended" if self._native.has_run else "not started"

    def _starting(self) -> None:
        """What comes before every start."""
        _check(self._listeners)
        self._stop_asked = False
        self._start_asked = True

    def _iterate(self, stream: _native.Stream) -> Iterator[Batch]:
        """The batches of a stream; the job runs while they are asked for."""
        self._starting()
        with self._graceful_loop(), self._told_of_quiet(), self._waited_for():
            batches = self._native.iterate(stream)
            if self._stop_asked:  # heard before there was anything to stop
                self._native.request_stop(graceful=True)
            try:
                while (batch := batches.next()) is not None:
                    yield Batch(batch)
                self._native.wait(None)
            finally:
                batches.close()
                self._native.loop_left()
                self.stop()

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """Somebody is there whom an error is raised to; it need not be printed too."""
        self._native.expect_waiter()
        try:
            yield
        finally:
            self._native.waiter_left()

    @contextmanager
    def _graceful_loop(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end a loop after the batches that were begun; a handler of the script's own stays."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours = {number: usual for number, usual in _USUAL.items() if signal.getsignal(number) is usual}
        handler = self._on_signal
        for number in ours:
            signal.signal(number, handler)
        try:
            yield
        finally:
            if self._impatience is not None:
                self._impatience.cancel()
            # A loop that was left behind may be collected later, on any thread and under another handler.
            in_main = threading.current_thread() is threading.main_thread()
            for number, usual in ours.items():
                if in_main and signal.getsignal(number) == handler:
                    signal.signal(number, usual)

    @contextmanager
    def _graceful_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop the job; only the main thread can hear them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            if self._impatience is not None:
                self._impatience.cancel()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop_asked:
            self._native.request_stop(graceful=False)
            raise KeyboardInterrupt
        self._stop_asked = True
        self._native.request_stop(graceful=True)
        self._impatience = threading.Timer(_PATIENCE_S, self._tell_of_waiting)
        self._impatience.daemon = True
        self._impatience.start()

    def _tell_of_waiting(self) -> None:
        """Who has pressed Ctrl-C and sees nothing happen does not know that something is waited for."""
        if self.is_running:
            _logger.warning(
                "%s: asked to end, and waiting until the batches that were begun are delivered; "
                "Ctrl-C again gives them up",
                self.name,
            )

    @contextmanager
    def _told_of_quiet(self) -> Iterator[None]:
        """Who waits for a job that shows nothing does not know whether it works: it is said once what it waits for."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        timer = threading.Timer(_QUIET_S, _tell_of_quiet, [weakref.ref(self)])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


_USUAL: Mapping[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What Python itself does at the signals that end a job gracefully."""


def _tell_of_quiet(waiting: weakref.ref[StreamingContext]) -> None:
    """A warning to somebody at a terminal; a service that has nothing to do has nothing to be warned of."""
    context = waiting()
    if context is None or not context.is_running:
        return
    totals = context.progress.totals if context.progress is not None else None
    if totals is not None and totals.output_rows:
        return
    read = (
        "nothing has come to an output yet: what is written from now on is read, unless starting= says otherwise"
        if totals is None or not totals.records
        else f"{totals.records:,} records read, and none has come to an output yet"
    )
    level = logging.WARNING if sys.stderr is not None and sys.stderr.isatty() else logging.INFO
    _logger.log(level, "%s is running; %s; Ctrl-C ends it", context.name, read)


def _abandon(context: weakref.ref[StreamingContext], native: weakref.ref[_native.Context]) -> None:
    """Nobody can reach the context any more, or the interpreter ends round it: then it is still there."""
    left = context()
    if left is not None and left.is_running and not left._stop_asked and not hasattr(sys, "ps1"):
        _logger.warning(
            "%s: the script has ended, and the job with it, though it was running; call ctx.await_termination() at the "
            "end, or ctx.run() in place of start(), or use a with block",
            left.name,
        )
    if (abandoned := native()) is not None:
        abandoned.abandon()


def _script_name() -> str:
    script = os.path.basename(sys.argv[0] if sys.argv else "")
    if script in _KERNELS:
        return _notebook_name()
    return script or "tidemill"


_KERNELS = frozenset({"colab_kernel_launcher.py", "ipykernel_launcher.py"})
"""What runs a notebook's cells, and is not what a person calls their job."""


def _notebook_name() -> str:
    """The notebook's file, where the kernel was told of it: by Jupyter's servers from 2.0 on, or by VS Code."""
    told = os.environ.get("JPY_SESSION_NAME") or getattr(
        sys.modules.get("__main__"), "__vsc_ipynb_file__", None
    )
    return os.path.basename(told) if isinstance(told, str) and told else "notebook"


def _replicas(checkpoint: Place | Sequence[Place] | None) -> list[str]:
    if checkpoint is None:
        return []
    places = [checkpoint] if isinstance(checkpoint, str | os.PathLike) else list(checkpoint)
    if not places or not all(isinstance(place, str | os.PathLike) for place in places):
        raise ConfigError(f"checkpoint is a directory, or a list of several, found {checkpoint!r}")
    return [os.fspath(place) for place in places]


def _guaranteed(guarantee: object, is_kept: bool) -> None:
    if guarantee not in (None, "exactly_once", "at_least_once"):
        raise ConfigError(f'guarantee is "exactly_once" or "at_least_once", found {guarantee!r}')
    if guarantee == "exactly_once" and not is_kept:
        raise ConfigError(
            'guarantee="exactly_once" needs a checkpoint, found none: pass checkpoint="./checkpoint", and the '
            "job goes on from there after whatever ended it"
        )
    if guarantee == "at_least_once" and is_kept:
        raise ConfigError(
            'guarantee="at_least_once" is not offered yet with a checkpoint, which is exactly once: leave one of them '
            "out"
        )


def _back_pressure(setting: object, trigger: Trigger) -> BackPressure | None:
    if isinstance(setting, BackPressure):
        if not trigger.has_ticks:
            raise ConfigError(
                f"a BackPressure counts with an interval, whose batches may take too long, found {trigger!r}; leave "
                "backpressure= out, or set max_rate_per_partition= at the source"
            )
        return setting
    if not isinstance(setting, bool):
        raise ConfigError(f"backpressure: True, False or a BackPressure is expected, found {setting!r}")
    return BackPressure() if setting else None


def _trigger(batch_interval: Duration | None, trigger: Trigger | None) -> Trigger:
    if trigger is None:
        return interval(_DEFAULT_INTERVAL if batch_interval is None else batch_interval)
    if not isinstance(trigger, Trigger):
        raise ConfigError(
            "trigger is tm.interval(...), tm.as_soon_as_possible() or tm.available_now(), found "
            + repr(trigger)
        )
    if batch_interval is not None:
        raise ConfigError(
            f"either batch_interval or trigger is expected, found {batch_interval!r} and {trigger!r}"
        )
    return trigger


def _connectable(bootstrap_servers: str, starting: Position | None, group_id: str | None) -> None:
    """Refuses at the call what would otherwise be found when the job starts."""
    if not bootstrap_servers:
        raise ConfigError('kafka() needs bootstrap_servers, found ""; pass, say, "localhost:9092"')
    if starting == "committed" and not group_id:
        raise ConfigError('starting="committed" needs a group_id: it is the group that has committed')


def _with_dead_letters(stream: DStream, on_bad: OnBad | DeadLetters) -> DStream:
    if isinstance(on_bad, DeadLetters):
        on_bad._take(stream.dead_letters)
    return stream


def _reading(
    topics: list[str],
    *,
    name: str,
    format: Format,  # noqa: A002
    event_time: str | None,
    watermark: Duration,
    idle_timeout: Duration | None,
    max_future: Duration,
    starting: Position | None,
    ending: Position | None,
    on_bad: OnBad | DeadLetters,
    metadata: Sequence[Metadata],
    max_rate_per_partition: float | None,
    starting_fallback: Literal["earliest", "latest"] | datetime = "latest",
) -> dict[str, Any]:
    """What every source is told of how to read, in the core's words."""
    from tidemill.formats import _arguments

    return {
        "name": name,
        "format": _arguments(format),
        "event_time": event_time,
        "watermark": watermark,
        "idle_timeout": idle_timeout,
        "max_future": max_future,
        "starting": _starting(starting, starting_fallback, topics),
        "ending": _bound("ending", ending, topics),
        "on_bad": _word(on_bad),
        "metadata": _metadata(metadata),
        "max_rate_per_partition": max_rate_per_partition,
    }
