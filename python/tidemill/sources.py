"""Where records come from and where reading starts and ends, as a user writes it.

Only the words are here: the sources themselves are in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import tidemill._native as _native
from tidemill.hints import today

ConfigError = _native.ConfigError

Position = Literal["earliest", "latest", "committed"] | datetime | Mapping[Any, int]
"""Where reading starts or ends: ``"earliest"``, ``"latest"``, ``"committed"`` (what the consumer group has committed,
and `starting_fallback` for a partition where that is nothing), a moment with a time zone (the first record at or after
it), or an offset for every partition: ``{0: 500, 1: 720}``, with several topics ``{("readings", 0): 500, ...}``."""

Metadata = Literal["key", "topic", "partition", "offset", "timestamp", "headers"]
"""A column from around the payload; it is called ``kafka_key`` and so on."""


def _servers(bootstrap_servers: object) -> str:
    """In one text: other clients take a list."""
    if isinstance(bootstrap_servers, str):
        return bootstrap_servers
    if not isinstance(bootstrap_servers, Sequence) or not all(
        isinstance(one, str) for one in bootstrap_servers
    ):
        raise ConfigError(
            f'bootstrap_servers is "host:port" or a list of such, found {bootstrap_servers!r}; '
            'pass, say, "localhost:9092"'
        )
    return ",".join(bootstrap_servers)


def _topics(topics: str | Sequence[str] | None) -> list[str]:
    if topics is None:
        return []
    return [topics] if isinstance(topics, str) else list(topics)


def _partitions(
    partitions: Mapping[str, Iterable[int]] | Iterable[tuple[str, int]] | None,
) -> list[tuple[str, int]]:
    if partitions is None:
        return []
    if isinstance(partitions, Mapping):
        return [(topic, number) for topic, numbers in partitions.items() for number in numbers]
    return list(partitions)


def _subscribed(topics: list[str], pattern: str | None, partitions: list[tuple[str, int]]) -> list[str]:
    """The topics read, or their pattern, where exactly one way of naming them is used."""
    if "" in topics:
        raise ConfigError('kafka() takes the names of topics, found ""')
    given = {"topics": bool(topics), "pattern": pattern is not None, "partitions": bool(partitions)}
    found = [way for way, is_given in given.items() if is_given]
    if len(found) != 1:
        raise ConfigError(
            f"kafka() takes one of topics, pattern and partitions, found {' and '.join(found) or 'none'}; "
            'pass, say, topics="readings"'
        )
    if pattern is not None:
        if not isinstance(pattern, str):
            raise ConfigError(
                f'pattern is a regular expression as text, found {pattern!r}; pass, say, "sensors-.*"'
            )
        return [pattern]
    return topics or list(dict.fromkeys(topic for topic, _ in partitions))


def _starting(
    position: Position | None, fallback: Literal["earliest", "latest"] | datetime, topics: list[str]
) -> _native.Bound | None:
    otherwise = _bound("starting_fallback", fallback, [])
    if position == "committed" and otherwise is not None:
        return _native.Bound.committed(otherwise)
    return _bound("starting", position, topics)


def _bound(what: str, position: Position | None, topics: list[str]) -> _native.Bound | None:
    if position is None:
        return None
    if isinstance(position, str):
        return _native.Bound.named(what, position)
    if isinstance(position, datetime):
        return _native.Bound.at(_millis(what, position))
    if isinstance(position, Mapping):
        return _native.Bound.offsets(
            [(*_place(what, key, topics), _offset(what, key, offset)) for key, offset in position.items()]
        )
    raise ConfigError(f"{what} is text, a datetime or a dict of offsets, found {position!r}")


def _millis(what: str, moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ConfigError(
            f"{what}={moment!r} has no time zone; pass, say, datetime(..., tzinfo=timezone.utc)"
        )
    return round(moment.timestamp() * 1000)


def _place(what: str, key: object, topics: list[str]) -> tuple[str, int]:
    match key:
        case int(partition) if len(topics) == 1 and partition >= 0:
            return topics[0], partition
        case (str(topic), int(partition)) if partition >= 0:
            return topic, partition
        case _:
            raise ConfigError(f"{what}: a partition's number or (topic, number) is expected, found {key!r}")


def _offset(what: str, key: object, offset: object) -> int:
    """Kafka's own clients have negative numbers for the ends of a log."""
    if isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0:
        return offset
    raise ConfigError(
        f'{what}: an offset is a whole number from 0 on, found {offset!r} for {key!r}; for all partitions "earliest" '
        'is the first one that is there, and "latest" the next one that is written'
    )


def _metadata(given: Sequence[Metadata] | None) -> list[Metadata]:
    if isinstance(given, str):
        raise ConfigError(f'metadata is a list of names, found "{given}"; pass ["{given}"]')
    return list(given or ())


def _refuse(options: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuses what is not offered yet: name → (given, the only value that is)."""
    found = [
        f"{name}={given!r}: {today(name)}" for name, (given, offered) in options.items() if given != offered
    ]
    if found:
        raise ConfigError("; ".join(found))
