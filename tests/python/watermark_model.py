"""What the watermark of a bounded job must be after each batch, as a plain Python function of rows and ranges.

It deliberately knows no clock: a partition that stands at its end in a job that ends there holds nobody back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Ranges = Mapping[int, tuple[int, int]]
"""Of each partition, the offsets that a batch reads."""


def watermarks(
    times: Sequence[Sequence[int | None]], batches: Iterable[tuple[int, Ranges]], delay: int
) -> list[int | None]:
    """W(n) in ms for the event times of each partition; of each batch, the latest time to believe and its ranges."""
    largest: list[int | None] = [None] * len(times)
    position = [0] * len(times)
    now: int | None = None
    found: list[int | None] = []
    for latest, ranges in batches:
        awake = []
        for partition, (start, until) in ranges.items():
            if start < until or position[partition] < len(times[partition]):
                awake.append(partition)
            position[partition] = until
            seen = [time for time in times[partition][start:until] if time is not None and time <= latest]
            known = largest[partition]
            largest[partition] = max(seen if known is None else [*seen, known], default=None)
        held = [largest[partition] for partition in awake]
        known_times = [time for time in held if time is not None]
        if awake and len(known_times) == len(held):
            reached = min(known_times) - delay
            now = reached if now is None else max(now, reached)
        found.append(now)
    return found
