"""Rows on their way into aggregates: grouped by key, and perhaps in windows of event time.

These are half-sentences, ``s.window("10s", on="ts").group_by("device")``, which `agg` ends. They deliberately compute
nothing and check nothing: the plan does, at start, all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tidemill._native as _native
from tidemill.expressions import Expr
from tidemill.hints import no_attribute

if TYPE_CHECKING:
    from tidemill.dstream import AggregatedStream, DStream

ConfigError = _native.ConfigError


class _HalfSentence:
    """What `agg` ends, and says so where a stream's method is called on it."""

    def __init__(self, stream: DStream) -> None:
        self._stream = stream

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or not hasattr(type(self._stream), name):
                raise no_attribute(f"{type(self).__name__!r} object", name, dir(type(self)))
            text = (
                f"{name} is a stream's, and this is none yet: end it with .agg(...), say .agg(n=tm.count()), or "
                f"put {name} before"
            )
            raise AttributeError(text, name=name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._half()}; .agg(...) ends it>"

    def _half(self) -> str:
        """What has been said so far."""
        raise NotImplementedError


class GroupedStream(_HalfSentence):
    """The rows of each batch by key; made by `DStream.group_by`.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> format = tm.Json({"device": "string", "ts": "timestamp[ms]", "t": "float64"})
    >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
    >>> s.group_by("device").agg(hottest=tm.col("t").max()).columns
    ['device', 'hottest']
    """

    def __init__(
        self,
        stream: DStream,
        keys: Sequence[str | Expr],
        named: Mapping[str, Expr],
    ) -> None:
        super().__init__(stream)
        self._keys = keys
        self._named = named

    def _half(self) -> str:
        return _by(self._keys, self._named)

    def agg(self, *columns: Expr | Sequence[Expr], **named: Expr) -> DStream:
        """One row a group: the keys, and a column for each aggregate.

        What is made of aggregates and keys is an expression like any other, say
        ``(col("x").sum() / tm.count()).alias("m")``.
        Groups leave in a fixed order that does not depend on threads or executors, which is not that of the keys.
        A batch without rows makes no group.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Json({"site": "string", "t": "float64"}))
        >>> s.group_by("site").agg(mean=tm.col("t").mean(), spread=tm.col("t").max() - tm.col("t").min()).columns
        ['site', 'mean', 'spread']
        """
        listed = _flat(columns)
        _check(listed, named)
        native = self._stream._native.aggregate(list(self._keys), self._named, listed, named, None)
        return self._stream._next(native)


class WindowedStream(_HalfSentence):
    """The rows in windows of event time; made by `DStream.window`.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> format = tm.Json({"device": "string", "ts": "timestamp[ms]", "t": "float64"})
    >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
    >>> s.window("1m", on="ts").group_by("device").agg(hottest=tm.col("t").max()).columns
    ['window_start', 'window_end', 'device', 'hottest']
    """

    def __init__(self, stream: DStream, window: _native.Window) -> None:
        super().__init__(stream)
        self._window = window

    def _half(self) -> str:
        return repr(self._window)

    def group_by(self, *keys: str | Expr | Sequence[str | Expr], **named: Expr) -> GroupedWindows:
        """The rows of each window by key.

        A key is remembered until its window has left. ``count``, ``sum`` and ``max`` of int64 by an int64 take 76 to
        144 bytes a key and window (of sliding ones, a key and pane), of which the key and the three values are 32.

        Args:
            keys: columns, or expressions with a name, one by one or as a list; none makes one group of all rows of a
                window. They may be of any type but maps and intervals, lists and structs too. Null is a key of its own,
                NaN equals NaN, and -0.0 is 0.0.
            named: further keys, each computed by an expression.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> format = tm.Json({"device": "string", "ts": "timestamp[ms]", "t": "float64"})
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
        >>> s.window("1m", "10s", on="ts").group_by("device").agg(mean=tm.col("t").mean()).columns
        ['window_start', 'window_end', 'device', 'mean']
        """
        return GroupedWindows(self, _keys(keys), named)

    def agg(self, *columns: Expr | Sequence[Expr], **named: Expr) -> AggregatedStream:
        """One row a window: its start and end, and a column for each aggregate.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> format = tm.Json({"ts": "timestamp[ms]", "t": "float64"})
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
        >>> s.window("1m", on="ts").agg(hottest=tm.col("t").max()).columns
        ['window_start', 'window_end', 'hottest']
        """
        return self.group_by().agg(*columns, **named)

    @cached_property
    def late(self) -> DStream:
        """The rows that have no place in the windows, with all columns and ``late_reason``.

        The reason is ``"late"`` where every window of the row has ended (or would begin before the first moment that
        the column can hold), ``"future"`` where its time is too far ahead to be believed, ``"null"`` where there is
        none.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> format = tm.Json({"ts": "timestamp[ms]", "t": "float64"})
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
        >>> s.window("1m", on="ts").late.columns
        ['ts', 't', 'late_reason']
        """
        return self._stream._next(self._stream._native.late(self._window))


class GroupedWindows(_HalfSentence):
    """The rows of each window by key; made by `WindowedStream.group_by`.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> format = tm.Json({"device": "string", "ts": "timestamp[ms]", "t": "float64"})
    >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
    >>> by_device = s.window("1m", on="ts").group_by("device")
    >>> by_device.agg(n=tm.count()).columns
    ['window_start', 'window_end', 'device', 'n']
    """

    def __init__(
        self, windowed: WindowedStream, keys: Sequence[str | Expr], named: Mapping[str, Expr]
    ) -> None:
        super().__init__(windowed._stream)
        self._windowed = windowed
        self._keys = keys
        self._named = named

    def _half(self) -> str:
        return f"{self._windowed._half()}, {_by(self._keys, self._named)}"

    def agg(self, *columns: Expr | Sequence[Expr], **named: Expr) -> AggregatedStream:
        """One row a key and window: ``window_start``, ``window_end``, the keys, and a column for each aggregate.

        See `GroupedStream.agg` for what a column may be. Within a batch the rows leave by shard, which is a part of the
        keys, and within a shard in order of window and then of key: the windows of one key come in order, those of
        different keys need not. Sort where the order over all keys matters.

        >>> import tidemill as tm
        >>> ctx = tm.StreamingContext()
        >>> format = tm.Json({"device": "string", "ts": "timestamp[ms]", "t": "float64"})
        >>> s = ctx.scripted(tm.testing.ScriptedSource(), format=format, event_time="ts")
        >>> s.window("1m", on="ts").group_by("device").agg(mean=tm.col("t").mean(), n=tm.count()).columns
        ['window_start', 'window_end', 'device', 'mean', 'n']
        """
        listed = _flat(columns)
        _check(listed, named)
        windowed, stream = self._windowed, self._stream
        native = stream._native.aggregate(list(self._keys), self._named, listed, named, windowed._window)
        return stream._windowed(native, windowed)


def _by(keys: Sequence[str | Expr], named: Mapping[str, Expr]) -> str:
    shown = [*map(str, keys), *(f"{name} = {value}" for name, value in named.items())]
    return f"by {', '.join(shown)}" if shown else "all rows as one group"


def _keys(keys: Sequence[str | Expr | Sequence[str | Expr]]) -> list[str | Expr]:
    """The keys one by one: other libraries take a list."""
    flat = _flat(keys)
    _tell(
        f'a key is a column\'s name or an expression, found {key!r}; write, say, "device"'
        for key in flat
        if not isinstance(key, str | Expr)
    )
    return flat


def _flat(columns: Iterable[Any]) -> list[Any]:
    """One by one what may stand in lists: other libraries take them."""
    flat: list[Any] = []
    for column in columns:
        flat += _flat(column) if isinstance(column, list | tuple) else [column]
    return flat


def _tell(mistakes: Iterable[str]) -> None:
    """Raises all mistakes at once, as the plan does."""
    found = list(mistakes)
    if len(found) == 1:
        raise ConfigError(found[0])
    if found:
        listed = "".join(f"\n  {number}. {mistake}" for number, mistake in enumerate(found, 1))
        raise ConfigError(f"{len(found)} mistakes, found before start:{listed}")


def _check(columns: Sequence[object], named: Mapping[str, object]) -> None:
    """Refuses what is no column: the engine's own hint for an expression is not one for an aggregate."""
    given = (*columns, *named.values())
    _tell(_no_column(column) for column in given if not isinstance(column, _native.Expr | str))


def _no_column(column: object) -> str:
    if callable(column):
        return f"agg() takes aggregates, found the function {_call(column)[:-2]}; call it: {_call(column)}"
    return f"agg() takes aggregates, found {column!r}; write it as, say, {_example(column)}"


def _call(function: object) -> str:
    """As it should have been written."""
    name = getattr(function, "__name__", type(function).__name__)
    of = getattr(function, "__self__", None)
    if isinstance(of, Expr):
        value = f'col("{of.output_name}")' if of.columns == [of.output_name] else f"({of})"
        return f"{value}.{name}()"
    return f"{name}()"


def _example(column: object) -> str:
    """An aggregate like the one that was meant: pandas and Spark take ``{"n": "sum"}``."""
    match column:
        case {**pairs} if pairs:
            name, function = next(iter(pairs.items()))
            method = function if isinstance(function, str) and hasattr(Expr, function) else "sum"
            return f'{name}=col("{name}").{method}()'
        case _:
            return 'n=col("n").sum()'
