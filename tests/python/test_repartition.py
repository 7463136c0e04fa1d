"""`repartition`: rows are dealt evenly, the same way wherever batches are cut and whoever does the work."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

ROWS = 4_000


@pytest.fixture(scope="module")
def filled() -> ScriptedSource:
    """Nearly all rows in one of two partitions."""
    source = ScriptedSource("readings", partitions=2)
    source.push(0, [f'{{"n": {n}, "k": {n % 5}}}'.encode() for n in range(10, ROWS)])
    source.push(1, [f'{{"n": {n}, "k": {n % 5}}}'.encode() for n in range(10)])
    return source


def dealt(
    source: ScriptedSource, parts: int | None, *, executors: int = 1, threads: int = 2, cut: int = 1_000_000
) -> dict[int, int | None]:
    """The shard to which each row is dealt."""
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=cut), executors=executors, threads=threads)
    shards: dict[int, int | None] = {}

    def note(batch: tm.Batch) -> dict[str, Any]:
        shards.update((row["n"], batch.partition) for row in batch.to_pylist())
        return {"seen": [True] * batch.num_rows}

    stream = ctx.scripted(source, format=tm.Json({"n": "int64", "k": "int64"}))
    stream.repartition(parts).map_batches(note, adds={"seen": "bool"}).to_table("rows", max_rows=None)
    ctx.run()
    assert sorted(ctx.table("rows")["n"].tolist()) == list(range(ROWS))
    return shards


@pytest.mark.parametrize(("parts", "shards"), [(None, 8), (1, 1), (3, 3), (8, 8), (64, 8)])
def test_rows_are_dealt_evenly(filled: ScriptedSource, parts: int | None, shards: int) -> None:
    counts = Counter(dealt(filled, parts).values())
    assert len(counts) == shards
    assert max(counts.values()) < 1.25 * min(counts.values()), counts


@pytest.mark.parametrize(
    ("executors", "threads", "cut"), [(1, 1, 250), (1, 8, 37), (3, 3, 250), (3, 8, 1_000_000)]
)
def test_where_a_row_goes_does_not_depend_on_the_work(
    filled: ScriptedSource, executors: int, threads: int, cut: int
) -> None:
    expected = dealt(filled, 4)
    assert dealt(filled, 4, executors=executors, threads=threads, cut=cut) == expected


def test_a_stream_is_keyed_no_more(filled: ScriptedSource) -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(filled, format=tm.Json({"n": "float64", "k": "int64"}))
    stream.key_by("k").repartition().detect("n", tm.ml.Ewma()).to_table("rows")
    with pytest.raises(tm.TidemillError, match=r"the keying by k ended in repartition"):
        ctx.run()


def test_it_stands_between_keyed_operators(filled: ScriptedSource) -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(filled, format=tm.Json({"n": "float64", "k": "int64"}))
    scored = stream.key_by("k").detect("n", tm.ml.Ewma()).repartition(2)
    scored.group_by("k").agg(rows=tm.count()).to_table("counts")
    ctx.run()
    assert sorted(ctx.table("counts")["rows"].tolist()) == [ROWS // 5] * 5


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "k", True])
def test_no_number_of_shards_is_refused(filled: ScriptedSource, wrong: Any) -> None:
    stream = tm.StreamingContext().scripted(filled, format=tm.Json({"n": "int64"}))
    with pytest.raises(tm.ConfigError, match=r"a whole number of shards from 1, found"):
        stream.repartition(wrong)


def test_explain_shows_it(filled: ScriptedSource) -> None:
    stream = tm.StreamingContext().scripted(filled, format=tm.Json({"n": "int64"}))
    assert "repartition [over 3 of the shards]" in stream.repartition(3).explain()
    assert "repartition [over all shards]" in stream.repartition().explain()
