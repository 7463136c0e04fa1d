"""Hearing of what happens to a running stream.

Listeners run on a thread of their own: a slow one never holds a batch. They deliberately change nothing; what they
raise is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

import tidemill._native as _native
from tidemill.offset import OffsetRange

Event = _native.Event
Progress = _native.Progress
ConfigError = _native.ConfigError

_logger = logging.getLogger("tidemill")


class Listener(Protocol):
    """An object that hears events; a plain function of one event does as well.

    `Event.kind` is one of ``started``, ``planned``, ``completed``, ``warning``, ``failed``, ``missed`` and ``stopped``;
    what an event carries beside it is None where it does not apply.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> ctx.listeners.append(lambda event: print(event.kind))
    """

    def on_event(self, event: Event, /) -> None:
        """Hears of `event`."""
        ...


@dataclass(frozen=True)
class ReceiverInfo:
    """A source of the stream, as a `StreamingListener` hears of it.

    * `name`: the source's name, as in errors.
    * `active`: whether it is being read.
    * `error`: what went wrong with it, as an exception that is not raised; None where nothing did.

    >>> import tidemill as tm
    >>> tm.ReceiverInfo("kafka readings", active=True)
    ReceiverInfo(name='kafka readings', active=True, error=None)
    """

    name: str
    active: bool
    error: BaseException | None = None


@dataclass(frozen=True)
class OutputOperationInfo:
    """What one output does with a batch.

    * `batch_id`: the batch.
    * `id`: the output's number, in the order in which outputs were made, from 0.
    * `name`: the output's name.
    * `rows`: how many rows it is given.
    * `start_time`, `end_time`: when, in UTC; `end_time` is None until it has ended.
    * `error`: why it failed, as an exception that is not raised; None where it did not.

    >>> from datetime import datetime
    >>> import tidemill as tm
    >>> tm.OutputOperationInfo(7, 0, "alerts", 5, datetime(2026, 1, 1)).rows
    5
    """

    batch_id: int
    id: int
    name: str
    rows: int
    start_time: datetime
    end_time: datetime | None = None
    error: BaseException | None = None

    @property
    def duration(self) -> float | None:
        """How long it took, in seconds; None until it has ended.

        >>> from datetime import datetime, timedelta
        >>> import tidemill as tm
        >>> begun = datetime(2026, 1, 1)
        >>> tm.OutputOperationInfo(0, 0, "alerts", 5, begun, begun + timedelta(seconds=2)).duration
        2.0
        """
        return None if self.end_time is None else (self.end_time - self.start_time).total_seconds()


@dataclass(frozen=True)
class BatchInfo:
    """What is known of a batch, as a `StreamingListener` hears of it; what has not happened yet is None.

    * `batch_id`, `batch_time`: its number within the run, and its own time in UTC.
    * `offset_ranges`: what it reads, as `Batch.offset_ranges`: a tuple of `OffsetRange`.
    * `submission_time`: when it was planned, in UTC.
    * `processing_start_time`, `processing_end_time`: when the work on it began, and when every output had it, in UTC.
    * `output_operations`: what the outputs that were given it did, by their numbers.
    * `progress`: all figures of a batch that has completed; see `Progress`.

    >>> from datetime import datetime
    >>> import tidemill as tm
    >>> now = datetime(2026, 1, 1)
    >>> info = tm.BatchInfo(7, now, (tm.OffsetRange("readings", 0, 5, 8),), submission_time=now)
    >>> info.num_records, info.total_delay, info.output_operations
    (3, None, {})
    """

    batch_id: int
    batch_time: datetime
    offset_ranges: tuple[OffsetRange, ...]
    submission_time: datetime
    processing_start_time: datetime | None = None
    processing_end_time: datetime | None = None
    output_operations: dict[int, OutputOperationInfo] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def num_records(self) -> int:
        """How many records it read; until it has completed, how many offsets it is to read.

        >>> from datetime import datetime
        >>> import tidemill as tm
        >>> now = datetime(2026, 1, 1)
        >>> ranges = tm.OffsetRange("readings", 0, 5, 8), tm.OffsetRange("readings", 1, 0, 2)
        >>> tm.BatchInfo(0, now, ranges, now).num_records
        5
        """
        if self.progress is not None:
            return self.progress.records
        return sum(one.until_offset - one.from_offset for one in self.offset_ranges)

    @property
    def scheduling_delay(self) -> float | None:
        """How long it waited until the work on it began, in seconds.

        >>> from datetime import datetime, timedelta
        >>> import tidemill as tm
        >>> now = datetime(2026, 1, 1)
        >>> tm.BatchInfo(0, now, [], now, now + timedelta(seconds=1)).scheduling_delay
        1.0
        """
        return _seconds(self.submission_time, self.processing_start_time)

    @property
    def processing_delay(self) -> float | None:
        """How long the work on it took, in seconds.

        >>> from datetime import datetime, timedelta
        >>> import tidemill as tm
        >>> now = datetime(2026, 1, 1)
        >>> tm.BatchInfo(0, now, [], now, now, now + timedelta(seconds=2)).processing_delay
        2.0
        """
        return _seconds(self.processing_start_time, self.processing_end_time)

    @property
    def total_delay(self) -> float | None:
        """From when it was planned to when every output had it, in seconds.

        >>> from datetime import datetime, timedelta
        >>> import tidemill as tm
        >>> now = datetime(2026, 1, 1)
        >>> tm.BatchInfo(0, now, [], now, now, now + timedelta(seconds=3)).total_delay
        3.0
        """
        return _seconds(self.submission_time, self.processing_end_time)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()


class StreamingListener:
    """Spark Streaming's listener: a method for each of its nine events, by Python's names; override what you need.

    Append an instance to ``ctx.listeners``. A slow one holds neither a batch nor the end (it misses the events of some
    batches where it is too slow), and what one raises is logged and goes no further.

    >>> import tidemill as tm
    >>> class Delays(tm.StreamingListener):
    ...     def on_batch_completed(self, batch):
    ...         names = [operation.name for operation in batch.output_operations.values()]
    ...         print(batch.batch_id, batch.num_records, names, batch.total_delay >= batch.processing_delay)
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b"a", b"b", b"c"])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=2))
    >>> ctx.scripted(source, format=tm.Raw()).to_table("records")
    >>> ctx.listeners.append(Delays())
    >>> ctx.run()
    0 2 ['to_table(records)'] True
    1 1 ['to_table(records)'] True
    """

    def on_streaming_started(self, batch_id: int, /) -> None:
        """The stream has started; its first batch will be `batch_id`."""

    def on_receiver_started(self, receiver: ReceiverInfo, /) -> None:
        """A source is read."""

    def on_receiver_error(self, receiver: ReceiverInfo, /) -> None:
        """Something went wrong with a source; ``receiver.error`` says what."""

    def on_receiver_stopped(self, receiver: ReceiverInfo, /) -> None:
        """A source is read no more."""

    def on_batch_submitted(self, batch: BatchInfo, /) -> None:
        """A batch has been planned."""

    def on_batch_started(self, batch: BatchInfo, /) -> None:
        """The work on a batch has begun."""

    def on_batch_completed(self, batch: BatchInfo, /) -> None:
        """Every output has the batch."""

    def on_output_operation_started(self, operation: OutputOperationInfo, /) -> None:
        """An output is given a batch."""

    def on_output_operation_completed(self, operation: OutputOperationInfo, /) -> None:
        """An output has taken a batch, or has failed to: ``operation.error`` says why."""


AnyListener = Listener | StreamingListener | Callable[[Event], object]
"""A `Listener`, a `StreamingListener`, or a function of one event."""

_PLAIN = frozenset({"started", "planned", "completed", "warning", "failed", "missed", "stopped"})
"""The events that functions hear; a `StreamingListener` is made of more."""

_SPARK = {
    "".join(part.title() if index else part for index, part in enumerate(name.split("_"))): name
    for name in vars(StreamingListener)
    if name.startswith("on_")
}
"""Our names by Spark's."""


def _check(listeners: Sequence[object]) -> None:
    """Refuses what cannot hear, before the first event would find it."""
    for index, listener in enumerate(listeners):
        if _ear(listener) is None:
            raise ConfigError(
                f"listeners[{index}] is a function of one Event, has a method on_event, or is a StreamingListener, "
                f"found {listener!r}; append, say, a function such as lambda event: print(event)"
            )
        spark = [name for name in _SPARK if hasattr(listener, name)]
        if spark:
            names = ", ".join(f"{name} is {_SPARK[name]} here" for name in spark)
            raise ConfigError(
                f"listeners[{index}] has methods with Spark's names, which nobody calls: {names}"
            )


def _ear(listener: object) -> Callable[[Event], object] | None:
    if isinstance(listener, type):
        return None
    if isinstance(listener, StreamingListener):
        return _nothing
    hear = getattr(listener, "on_event", None) or listener
    return hear if callable(hear) else None


def _nothing(_: Event) -> None:
    """What a `StreamingListener` hears of an event itself."""


_Call = tuple[str, object]
"""A method of a `StreamingListener`, and what it is given."""


class _Batches:
    """Puts together what a `StreamingListener` is told, from the events of the engine."""

    def __init__(self) -> None:
        self._pending: dict[int, BatchInfo] = {}

    def calls(self, event: Event) -> Iterator[_Call]:
        """The methods that an event comes to."""
        begins = getattr(self, f"_{event.kind}", None)
        if begins is not None:
            yield from begins(event)

    def _started(self, event: Event) -> Iterator[_Call]:
        yield "on_streaming_started", event.batch_id

    def _source_started(self, event: Event) -> Iterator[_Call]:
        yield "on_receiver_started", ReceiverInfo(event.source or "", active=True)

    def _source_failed(self, event: Event) -> Iterator[_Call]:
        yield "on_receiver_error", ReceiverInfo(event.source or "", active=True, error=event.error)

    def _source_stopped(self, event: Event) -> Iterator[_Call]:
        yield "on_receiver_stopped", ReceiverInfo(event.source or "", active=False)

    def _planned(self, event: Event) -> Iterator[_Call]:
        batch, time, ranges = event.batch_id, event.batch_time, event.offset_ranges
        if batch is not None and time is not None and event.time is not None:
            info = BatchInfo(batch, time, ranges or (), submission_time=event.time)
            self._pending[batch] = info
            yield "on_batch_submitted", info

    def _batch_started(self, event: Event) -> Iterator[_Call]:
        # Of a batch whose plan was missed, nothing is told until it has completed: too little is known.
        batch = event.batch_id
        if batch is not None and batch in self._pending:
            info = replace(self._pending[batch], processing_start_time=event.time)
            self._pending[batch] = info
            yield "on_batch_started", info

    def _output_started(self, event: Event) -> Iterator[_Call]:
        if operation := self._operation(event, ended=False):
            yield "on_output_operation_started", operation

    def _output_completed(self, event: Event) -> Iterator[_Call]:
        if operation := self._operation(event, ended=True):
            yield "on_output_operation_completed", operation

    def _completed(self, event: Event) -> Iterator[_Call]:
        progress = event.progress
        if progress is None:
            return
        info = self._pending.pop(progress.batch_id, None)
        # Batches before it whose end was missed will never be asked for again.
        self._pending = {batch: info for batch, info in self._pending.items() if batch > progress.batch_id}
        yield "on_batch_completed", _completed(info, progress)

    def _operation(self, event: Event, *, ended: bool) -> OutputOperationInfo | None:
        if event.output is None or event.batch_id is None or event.time is None:
            return None
        number, name, rows = event.output
        end = event.time + timedelta(seconds=event.duration or 0) if ended else None
        operation = OutputOperationInfo(event.batch_id, number, name, rows, event.time, end, event.error)
        if info := self._pending.get(event.batch_id):
            operations = {**info.output_operations, number: operation}
            self._pending[event.batch_id] = replace(info, output_operations=operations)
        return operation


def _completed(info: BatchInfo | None, progress: Progress) -> BatchInfo:
    """A batch with its figures; by them alone where what came before was missed."""
    if info is None:
        submitted = progress.batch_time
        info = BatchInfo(progress.batch_id, progress.batch_time, progress.offset_ranges, submitted)
    started = info.submission_time + timedelta(seconds=progress.scheduling_delay)
    ended = info.submission_time + timedelta(seconds=progress.total_delay)
    return replace(
        info,
        processing_start_time=started,
        processing_end_time=ended,
        progress=progress,
    )


class _Dispatcher:
    """Tells all listeners; called on the listeners' thread.

    It holds the list alone: with the context in it, a context would be tied to its own engine and never collected.
    """

    def __init__(self, listeners: Sequence[AnyListener]) -> None:
        self._listeners = listeners
        self._batches = _Batches()
        self._failed: set[int] = set()

    def __call__(self, event: Event) -> None:
        calls = list(self._batches.calls(event))
        for listener in tuple(self._listeners):
            try:
                _tell(listener, event, calls)
            except Exception as error:
                self._log(listener, event, error)

    def _log(self, listener: AnyListener, event: Event, error: Exception) -> None:
        """The whole story once: what fails, fails at each event."""
        if id(listener) in self._failed:
            _logger.error("a listener failed again on %r: %r", event, error)
        else:
            self._failed.add(id(listener))
            _logger.error("a listener failed on %r", event, exc_info=error)


def _tell(listener: AnyListener, event: Event, calls: Sequence[_Call]) -> None:
    if isinstance(listener, StreamingListener):
        for method, argument in calls:
            getattr(listener, method)(argument)
        return
    hear = _ear(listener)
    if hear is None:
        raise TypeError(
            f"a listener is a function of one Event, has on_event, or is a StreamingListener, found {listener!r}"
        )
    if event.kind in _PLAIN:
        hear(event)
