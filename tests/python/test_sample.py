"""`sample`: the same rows wherever batches are cut and whoever does the work, about as many as asked for."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

ROWS = 3_000
FORMAT = tm.Json({"n": "int64", "tags": "list<int64>"})
SETTINGS = [(1, 1), (1, 8), (3, 3), (3, 8)]
"""Executors and threads."""
CUTS = [7, 250, 1_000_000]
"""Records a batch."""

Made = Callable[[tm.DStream], tm.DStream]


@pytest.fixture(scope="module")
def filled() -> ScriptedSource:
    source = ScriptedSource("readings", partitions=4)
    for partition in range(4):
        rows = ({"n": n, "tags": list(range(n % 4))} for n in range(partition, ROWS, 4))
        source.push(partition, [json.dumps(row).encode() for row in rows])
    return source


def run(source: ScriptedSource, made: Made, *, cut: int, executors: int = 1, threads: int = 2) -> list[Any]:
    """All rows of a stream, in order of their values."""
    trigger = tm.available_now(max_records=cut)
    ctx = tm.StreamingContext(trigger=trigger, executors=executors, threads=threads)
    made(ctx.scripted(source, format=FORMAT)).to_table("rows", max_rows=None)
    ctx.run()
    return sorted(ctx.table("rows").to_polars().rows())


def kept(source: ScriptedSource, made: Made) -> list[Any]:
    """The rows, which are the same whatever the batches, executors and threads."""
    rows = run(source, made, cut=CUTS[-1])
    for cut in CUTS:
        assert run(source, made, cut=cut) == rows, cut
    for executors, threads in SETTINGS:
        assert run(source, made, cut=250, executors=executors, threads=threads) == rows, (executors, threads)
    return rows


def assert_about(found: int, rows: int, fraction: float) -> None:
    """But for four standard deviations, which the fixed seeds keep."""
    assert abs(found - rows * fraction) <= 4 * (rows * fraction * (1 - fraction)) ** 0.5, found


MADE: dict[str, tuple[Made, int]] = {
    "a source": (lambda s: s.select("n"), ROWS),
    "a filter": (lambda s: s.filter("n % 2 = 0").select("n"), ROWS // 2),
    "an explode": (lambda s: s.explode("tags"), ROWS // 4 * 7),
    "a union": (lambda s: s.select("n").union(s.select("n")), 2 * ROWS),
    "columns that are added": (lambda s: s.map_batches(_doubled, adds={"m": "int64"}).select("m"), ROWS),
    "columns that are made anew": (lambda s: s.map_batches(_doubled, schema={"m": "int64"}), ROWS),
    "a computed event time": (
        lambda s: s.with_event_time(tm.col("n").cast("timestamp[ms]").alias("ts")).select("n"),
        ROWS,
    ),
    "rows that are dealt out": (lambda s: s.repartition(3).select("n"), ROWS),
    "an exchange": (lambda s: s.key_by(k=tm.col("n") % 10).select("n"), ROWS),
}


def _doubled(batch: tm.Batch) -> dict[str, Any]:
    assert batch.schema.names == ["n", "tags"], "and nothing that a sample is drawn by"
    return {"m": batch["n"] * 2}


@pytest.mark.parametrize(("made", "rows"), MADE.values(), ids=MADE)
def test_the_same_rows_are_kept_behind(filled: ScriptedSource, made: Made, rows: int) -> None:
    assert_about(len(kept(filled, lambda s: made(s).sample(0.3, seed=7))), rows, 0.3)


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99, 1, np.float32(0.25)])
def test_about_the_fraction_is_kept(filled: ScriptedSource, fraction: float) -> None:
    rows = run(filled, lambda s: s.select("n").sample(fraction, seed=np.int64(3)), cut=1_000)
    assert_about(len(rows), ROWS, float(fraction))
    assert len(set(rows)) == len(rows), "without replacement"


def test_a_filter_may_stand_before_or_behind(filled: ScriptedSource) -> None:
    before = run(filled, lambda s: s.filter("n % 3 = 0").sample(0.4, seed=1).select("n"), cut=250)
    behind = run(filled, lambda s: s.sample(0.4, seed=1).filter("n % 3 = 0").select("n"), cut=250)
    assert before == behind


def test_other_seeds_keep_other_rows_and_the_same_seed_the_same(filled: ScriptedSource) -> None:
    def rows(seed: int | None) -> set[Any]:
        return set(run(filled, lambda s: s.sample(0.2, seed).select("n"), cut=1_000))

    assert rows(1) == rows(1)
    assert rows(None) == rows(None), "of its own, and yet the same in every run"
    for one, other in [(1, 2), (0, -1), (2**63 - 1, -(2**63)), (1, None)]:
        assert_about(len(rows(one) & rows(other)), ROWS, 0.04)


def test_the_samples_of_a_script_without_a_seed_differ(filled: ScriptedSource) -> None:
    def twice(stream: tm.DStream) -> tm.DStream:
        return stream.select("n").sample(0.5).union(stream.select("n").sample(0.5))

    rows = run(filled, twice, cut=1_000)
    assert_about(len(rows) - len(set(rows)), ROWS, 0.25)


def test_explain_shows_the_seed_that_the_stream_chose(filled: ScriptedSource) -> None:
    stream = tm.StreamingContext().scripted(filled, format=FORMAT)
    chosen = re.search(
        r"sample 0\.25 \[seed (\d+), its own\]  \(.*test_sample", stream.sample(0.25).explain()
    )
    assert chosen is not None
    seed = int(chosen[1])
    assert f"sample 0.25 [seed {seed}]" in stream.sample(0.25, seed).explain()
    own = run(filled, lambda s: s.sample(0.25).select("n"), cut=1_000)
    assert own == run(filled, lambda s: s.sample(0.25, seed).select("n"), cut=1_000)


def test_groups_are_kept_by_key_and_batch(filled: ScriptedSource) -> None:
    def made(stream: tm.DStream) -> tm.DStream:
        return stream.group_by(k=tm.col("n") % 100).agg(n=tm.count()).sample(0.3, seed=5)

    rows = run(filled, made, cut=300)
    assert_about(len(rows), 1_000, 0.3)
    for executors, threads in SETTINGS:
        assert run(filled, made, cut=300, executors=executors, threads=threads) == rows


def test_all_updates_of_a_window_are_kept_or_none() -> None:
    source = ScriptedSource("readings", partitions=2)
    for partition in range(2):
        rows = ({"k": n % 50, "ts": n * 10} for n in range(partition, 2_000, 2))
        source.push(partition, [json.dumps(row).encode() for row in rows])

    def windows(cut: int) -> tuple[set[Any], set[Any]]:
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=cut))
        stream = ctx.scripted(source, format=tm.Json({"k": "int64", "ts": "timestamp[ms]"}), event_time="ts")
        counts = stream.window("10s", on="ts", emit="updates").group_by("k").agg(n=tm.count())
        counts.to_table("all")
        counts.sample(0.3, seed=5).to_table("some")
        ctx.run()
        return set(ctx.table("all").to_polars().rows()), set(ctx.table("some").to_polars().rows())

    (everything, some), (_, in_large_batches) = windows(20), windows(10_000)
    places = {row[:3] for row in some}
    assert {row[:3] for row in in_large_batches} == places
    assert some == {row for row in everything if row[:3] in places}
    assert_about(len(places), 100, 0.3)


def test_dead_letters_are_sampled_like_any_rows() -> None:
    source = ScriptedSource("readings", partitions=2)
    source.push(0, [b"oops" if n % 2 else b'{"n": 1}' for n in range(1_000)])

    def letters(cut: int) -> list[Any]:
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=cut))
        stream = ctx.scripted(source, format=tm.Json({"n": "int64"}), on_bad="dead_letter")
        stream.to_table("good")
        stream.dead_letters.sample(0.2, seed=3).to_table("some")
        ctx.run()
        assert ctx.table("good").to_polars().rows() == [(1,)] * 500
        return sorted(ctx.table("some")["kafka_offset"].tolist())

    assert letters(13) == letters(10_000)
    assert_about(len(letters(10_000)), 500, 0.2)


def _stream() -> tm.DStream:
    return tm.StreamingContext().scripted(ScriptedSource(), format=FORMAT)


def _called(arguments: Iterable[Any], named: dict[str, Any]) -> Any:
    return _stream().sample(*arguments, **named)


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((False, 0.1), {}, "a fraction from 0 to 1, found False; write, say, sample(0.1, seed=7)"),
        (("0.1",), {}, "a fraction from 0 to 1, found '0.1'"),
        ((None,), {}, "a fraction from 0 to 1, found None"),
        ((0.1, 1.5), {}, "a whole number from -2**63 to 2**63 - 1 as seed=, found 1.5"),
        ((0.1,), {"seed": "x"}, "as seed=, found 'x'"),
        ((0.1,), {"seed": True}, "as seed=, found True"),
        ((0.1,), {"seed": 2**63}, f"as seed=, found {2**63}"),
    ],
)
def test_what_is_no_fraction_or_seed_is_told_at_once(
    arguments: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    with pytest.raises(tm.ConfigError, match=re.escape(message)):
        _called(arguments, named)


@pytest.mark.parametrize("named", [{"frac": 0.1}, {"fraction": 0.1, "random_state": 1}])
def test_the_names_of_pandas_are_answered(named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"did you mean (fraction|seed)\?"):
        _called((), named)


def test_there_is_no_replacement() -> None:
    for name in ("withReplacement", "with_replacement"):
        with pytest.raises(TypeError, match="each row once at most, without replacement: leave it out"):
            _called((0.1,), {name: False})


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(10, "found 10; write 0.1 for 10 %"), (-0.5, "found -0.5"), (float("nan"), "found NaN")],
)
def test_a_fraction_out_of_range_is_told_before_start_with_its_line(fraction: float, message: str) -> None:
    frame = inspect.currentframe()
    stream, line = _stream().sample(fraction), frame.f_lineno if frame else 0
    stream.filter("m > 1").pprint()
    with pytest.raises(tm.ConfigError, match=r"2 mistakes") as told:
        stream._context.run()  # type: ignore[attr-defined]
    assert message in str(told.value)
    assert f"in sample, {__file__}:{line}" in str(told.value)
