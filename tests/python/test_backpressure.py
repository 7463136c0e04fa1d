"""Back-pressure: a stream that cannot keep up takes what it can work off, and loses nothing."""

from __future__ import annotations

import queue

import pytest

import tidemill as tm
from tidemill.testing import ManualClock, ScriptedSource

RECORDS = 40_000


class Worker:
    """Works off a thousand records a second, and ten times as many once half of all are done, on the test's clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.sizes: list[int] = []
        self.seen: list[bytes] = []
        self.slow_batches = 0
        self._clock = clock

    @property
    def is_fast(self) -> bool:
        return len(self.seen) > RECORDS // 2

    def __call__(self, batch: tm.Batch) -> None:
        self.slow_batches += not self.is_fast
        self._clock.advance(batch.num_rows / (10_000 if self.is_fast else 1_000))
        self.sizes.append(batch.num_rows)
        self.seen += batch["value"].tolist()


def run(
    worker: Worker, source: ScriptedSource, clock: ManualClock, setting: bool | tm.BackPressure
) -> list[tm.Progress]:
    """All records, and what was told of each batch."""
    ctx = tm.StreamingContext("1s", clock=clock, backpressure=setting)
    ctx.scripted(source, format=tm.Raw(), starting="earliest").foreach_batch(worker)
    events: queue.SimpleQueue[tm.Event] = queue.SimpleQueue()
    ctx.listeners.append(events.put)
    told: list[tm.Progress] = []
    planned = 0
    with ctx:
        ctx.start()
        clock.advance("1s")
        while sum(one.records for one in told) < RECORDS:
            event = events.get(timeout=30)
            planned += event.kind == "planned"
            if event.progress is not None:
                told.append(event.progress)
                # Fast batches no longer take until the next tick. It must not come while one is measured.
                if worker.is_fast and len(told) == planned:
                    clock.advance("1s")
    return told


def test_batches_come_to_take_their_interval_and_follow_a_function_that_gets_faster(
    source: ScriptedSource, clock: ManualClock
) -> None:
    values = [str(number).encode() for number in range(RECORDS)]
    source.push(0, values)
    worker = Worker(clock)
    told = run(worker, source, clock, tm.BackPressure(initial_rate=4_000))
    assert worker.seen == values, "each once and in order"
    # The second may be planned before the first is done.
    assert (worker.sizes[0], worker.sizes[1] in (4_000, 1_000)) == (4_000, True), worker.sizes
    assert set(worker.sizes[2 : worker.slow_batches]) == {1_000}, worker.sizes
    assert max(worker.sizes) > 5_000, worker.sizes
    assert 1_000.0 in [one.rate_limit for one in told]
    assert told[-1].rate_limit is None, "it keeps up again"


def test_without_it_a_batch_takes_all_there_is(source: ScriptedSource, clock: ManualClock) -> None:
    source.push(0, [b"a"] * RECORDS)
    worker = Worker(clock)
    told = run(worker, source, clock, setting=False)
    assert worker.sizes[1] == RECORDS - worker.sizes[0]
    assert {one.rate_limit for one in told} == {None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"integral": -0.1}, "integral must be 0 or above, found -0.1"),
        ({"min_rate": 0}, "min_rate must be above 0, found 0; it is in records a second"),
        ({"initial_rate": float("inf")}, "initial_rate must be above 0, found inf"),
    ],
)
def test_settings_that_spark_refuses_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(tm.ConfigError, match=message):
        tm.BackPressure(**settings)


def test_another_value_is_refused() -> None:
    with pytest.raises(tm.ConfigError, match="True, False or a BackPressure is expected, found 'on'"):
        tm.StreamingContext("1s", backpressure="on")  # type: ignore[arg-type]


def test_settings_are_values() -> None:
    assert tm.BackPressure() == tm.BackPressure(min_rate=100) != tm.BackPressure(min_rate=1)
