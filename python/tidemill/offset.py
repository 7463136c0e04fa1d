"""Offsets: what a batch reads of a partition.

It deliberately knows no source: a range is names and numbers, and the same in batches, events and figures.
"""

from __future__ import annotations

from typing import NamedTuple


class OffsetRange(NamedTuple):
    """The records ``[from_offset, until_offset)`` of one partition.

    Compaction and transaction markers leave holes: a range may hold fewer records than it spans.

    >>> import tidemill as tm
    >>> tm.OffsetRange("readings", 0, 5, 8).until_offset
    8
    """

    topic: str
    """The topic's name."""
    partition: int
    """The partition's number."""
    from_offset: int
    """The first offset read."""
    until_offset: int
    """The first offset not read."""
