"""Hearing of what happens to a running stream.

Listeners run on a thread of their own: a slow one never holds a batch. They deliberately change nothing; what they
raise is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import tidemill._native as _native

Event = _native.Event
Progress = _native.Progress
ConfigError = _native.ConfigError

_logger = logging.getLogger("tidemill")


class Listener(Protocol):
    """An object that hears events; a plain function of one event does as well.

    `Event.kind` is one of ``started``, ``planned``, ``completed``, ``warning``, ``failed`` and ``stopped``; what an
    event carries beside it is None where it does not apply.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> ctx.listeners.append(lambda event: print(event.kind))
    """

    def on_event(self, event: Event, /) -> None:
        """Hears of `event`."""
        ...


AnyListener = Listener | Callable[[Event], object]
"""A `Listener`, or a function of one event."""


def _check(listeners: Sequence[object]) -> None:
    """Refuses what cannot hear, before the first event would find it."""
    for index, listener in enumerate(listeners):
        if _ear(listener) is None:
            raise ConfigError(
                f"listeners[{index}] is a function of one Event, or has a method on_event, found {listener!r}; "
                "append, say, a function such as lambda event: print(event)"
            )


def _ear(listener: object) -> Callable[[Event], object] | None:
    hear = getattr(listener, "on_event", None) or listener
    return hear if callable(hear) else None


class _Dispatcher:
    """Tells all listeners; called on the listeners' thread.

    It holds the list alone: with the context in it, a context would be tied to its own engine and never collected.
    """

    def __init__(self, listeners: Sequence[AnyListener]) -> None:
        self._listeners = listeners
        self._failed: set[int] = set()

    def __call__(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                _tell(listener, event)
            except Exception as error:
                self._log(listener, event, error)

    def _log(self, listener: AnyListener, event: Event, error: Exception) -> None:
        """The whole story once: what fails, fails at each event."""
        if id(listener) in self._failed:
            _logger.error("a listener failed again on %r: %r", event, error)
        else:
            self._failed.add(id(listener))
            _logger.error("a listener failed on %r", event, exc_info=error)


def _tell(listener: AnyListener, event: Event) -> None:
    hear = _ear(listener)
    if hear is None:
        raise TypeError(f"a listener is a function of one Event or has on_event, found {listener!r}")
    hear(event)
