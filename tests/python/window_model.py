"""What windows of event time must come to, as a plain Python function of the plans of a job.

It deliberately has no panes, no shards and no partials: for each row it asks which windows cover it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import xor

Key = str | None
Row = tuple[Key, int | None, int | None]
"""Key, event time in ms, value."""
Result = tuple[
    int, int, Key, int, int | None, float | None, int | None, int | None, int, int | None, int | None
]
"""Start, end, key, count, sum, mean, min, max; of the positive values count, sum and exclusive or."""


@dataclass(frozen=True)
class Shape:
    """Length, slide and offset of windows, in ms."""

    length: int
    slide: int
    offset: int = 0

    def covering(self, ts: int) -> list[tuple[int, int]]:
        """The windows that cover a moment, in order."""
        last = (ts - self.offset) // self.slide * self.slide + self.offset
        starts = range(last, ts - self.length, -self.slide)
        return sorted((start, start + self.length) for start in starts)


@dataclass(frozen=True)
class Plan:
    """One batch: its time in ms, what it reads of each partition, and W(n) in ms; infinite where it closes all."""

    time: int
    ranges: Mapping[int, tuple[int, int]]
    watermark: float


@dataclass
class Answer:
    """What each batch must emit, and what must be in `.late`."""

    final: list[list[Result]] = field(default_factory=list)
    updates: list[list[Result]] = field(default_factory=list)
    late: list[list[tuple[Key, int | None, int | None, str]]] = field(default_factory=list)


def answer(
    rows: Sequence[Sequence[Row]], plans: Iterable[Plan], shape: Shape, max_future: int = 3_600_000
) -> Answer:
    """Runs the plans over the rows of each partition."""
    windows: dict[tuple[int, int], dict[Key, list[int | None]]] = defaultdict(lambda: defaultdict(list))
    found, before = Answer(), -math.inf
    for plan in plans:
        late, touched = [], set()
        for partition, (start, until) in sorted(plan.ranges.items()):
            for key, ts, value in rows[partition][start:until]:
                reason = _reason(ts, shape, plan.time + max_future, before)
                if reason is not None or ts is None:
                    late.append((key, ts, value, reason or "null"))
                    continue
                for window in shape.covering(ts):
                    if window[1] > before:
                        windows[window][key].append(value)
                        touched.add((window, key))
        found.late.append(late)
        found.updates.append([_result(window, key, windows[window][key]) for window, key in touched])
        ended = [window for window in windows if window[1] <= plan.watermark]
        found.final.append(
            [_result(window, key, values) for window in ended for key, values in windows.pop(window).items()]
        )
        before = max(before, plan.watermark)
    return found


def _reason(ts: int | None, shape: Shape, latest: int, before: float) -> str | None:
    if ts is None:
        return "null"
    if ts > latest:
        return "future"
    return "late" if shape.covering(ts)[-1][1] <= before else None


def _result(window: tuple[int, int], key: Key, values: Sequence[int | None]) -> Result:
    known = [value for value in values if value is not None]
    positive = [value for value in known if value > 0]
    some = (len(positive), sum(positive), reduce(xor, positive)) if positive else (0, None, None)
    if not known:
        return (*window, key, len(values), None, None, None, None, *some)
    return (*window, key, len(values), sum(known), sum(known) / len(known), min(known), max(known), *some)
