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


def _dispatch(listeners: Sequence[AnyListener], event: Event) -> None:
    """Tells all listeners; called on the listeners' thread."""
    if event.kind == "warning":
        _logger.warning("%s", event.error)
    for listener in tuple(listeners):
        try:
            _tell(listener, event)
        except Exception:
            _logger.exception("a listener failed on %r", event)


def _tell(listener: AnyListener, event: Event) -> None:
    hear = getattr(listener, "on_event", None)
    if hear is None and callable(listener):
        hear = listener
    if hear is None:
        raise TypeError(f"a listener is a function or has on_event, found {listener!r}")
    hear(event)
