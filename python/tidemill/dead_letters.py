"""Where the records go that do not fit, in one step: to a topic or into files.

It deliberately does nothing that ``stream.dead_letters`` does not: whoever wants to filter, count or rename dead
letters starts from that stream.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tidemill._native as _native

if TYPE_CHECKING:
    from tidemill.dstream import DStream

ConfigError = _native.ConfigError

OnBad = Literal["fail", "drop", "dead_letter"]


@dataclass(frozen=True, kw_only=True)
class DeadLetters:
    """Bad records go to a topic or into files, and the stream goes on: ``on_bad=tm.DeadLetters(...)``.

    Args:
        topic: a topic of the source's own cluster, which must exist, and take records as large as the source's does
            (``max.message.bytes``): one that it refuses ends the job with an error. Each record has its bytes, key and
            headers as they were, and the headers ``tidemill.reason``, ``tidemill.topic``, ``tidemill.partition``,
            ``tidemill.offset``, ``tidemill.timestamp`` and ``tidemill.position`` (the byte where it goes wrong), as
            text. A record that comes here from a topic of dead letters has them twice, the last ones being the newest.
        path: a directory, as in `DStream.to_files`, for the columns of `DStream.dead_letters`.
        format: of the files: ``"parquet"``, or ``"json"`` (binary as base64).

    Raises:
        ConfigError: neither `topic` nor `path`, or both.

    >>> import tempfile, polars, tidemill as tm
    >>> folder = tempfile.mkdtemp()
    >>> source = tm.testing.ScriptedSource("readings")
    >>> source.push(0, [b'{"t": 20.5}', b'{"t": "warm"}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> format = tm.Json({"t": "float64"})
    >>> ctx.scripted(source, format=format, on_bad=tm.DeadLetters(path=folder)).pprint()
    >>> ctx.run()
    -------------------------------------------
    Time: ...
    -------------------------------------------
    +------+
    | t    |
    +------+
    | 20.5 |
    +------+
    <BLANKLINE>
    >>> polars.read_parquet(f"{folder}/*.parquet")["value", "position"].rows()
    [(b'{"t": "warm"}', 6)]
    """

    topic: str | None = None
    path: str | os.PathLike[str] | None = None
    format: Literal["parquet", "json"] = "parquet"

    def __post_init__(self) -> None:
        if bool(self.topic) == bool(self.path):
            found = "both" if self.topic else "neither"
            raise ConfigError(
                f'DeadLetters() takes either topic= or path=, found {found}; pass, say, topic="readings-bad", and for '
                'more outputs on_bad="dead_letter" with the stream .dead_letters'
            )
        if self.format not in ("parquet", "json"):
            raise ConfigError(f'DeadLetters() takes format="parquet" or "json", found {self.format!r}')
        if self.topic and self.format != "parquet":
            raise ConfigError(
                "DeadLetters(topic=...) writes the original bytes and takes no format=; leave it out"
            )

    def _take(self, letters: DStream) -> None:
        """Gives the dead letters their output."""
        from tidemill.formats import Raw

        if self.topic:
            records = letters._next(letters._native.dead_letter_records())
            records.to_kafka(self.topic, key="kafka_key", value="value", format=Raw(), headers="headers")
        elif self.path:
            letters.to_files(self.path, format=self.format)


def _word(on_bad: OnBad | DeadLetters) -> str:
    """What the core is told."""
    return "dead_letter" if isinstance(on_bad, DeadLetters) else on_bad
