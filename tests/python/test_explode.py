"""`explode`: a row for each element, one with a null for a list that has none, and nothing lost between pieces."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

LISTS: list[list[int | None] | None] = [[1, 2], [], None, [3], [4, None, 5]]


def lists(partitions: int = 1, **made: tuple[str, list[Any]]) -> tuple[tm.StreamingContext, tm.DStream]:
    """A stream with a column of lists for each of `made`, whose rows are counted by n."""
    source = ScriptedSource(partitions=partitions)
    rows = len(next(iter(made.values()))[1])
    source.push(0, [f'{{"n": {n}}}'.encode() for n in range(rows)])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    types = {name: type_ for name, (type_, _) in made.items()}
    numbers = ctx.scripted(source, format=tm.Json({"n": "int64"}))
    given = numbers.map_batches(
        lambda batch: {name: pa.array(rows) for name, (_, rows) in made.items()}, adds=types
    )
    return ctx, given


def test_a_row_becomes_one_for_each_element() -> None:
    ctx, stream = lists(tags=("list<int64>", LISTS))
    stream.explode("tags").to_table("rows")
    ctx.run()
    expected = [(0, 1), (0, 2), (1, None), (2, None), (3, 3), (4, 4), (4, None), (4, 5)]
    assert ctx.table("rows").to_polars().rows() == expected


def test_lists_are_taken_apart_side_by_side() -> None:
    names: list[list[str] | None] = [["a", "b"], [], [], ["c"], ["d", "e", "f"]]
    ctx, stream = lists(tags=("list<int64>", LISTS), names=("list<string>", names))
    stream.explode(["tags", "names"]).select("names", "tags").to_table("rows")
    ctx.run()
    expected = [("a", 1), ("b", 2), (None, None), (None, None), ("c", 3), ("d", 4), ("e", None), ("f", 5)]
    assert ctx.table("rows").to_polars().rows() == expected


def test_lists_of_different_length_are_told() -> None:
    ctx, stream = lists(a=("list<int64>", [[1, 2]]), b=("list<int64>", [[1]]))
    stream.explode("a", "b").to_table("rows")
    with pytest.raises(tm.DataError, match=r'found 2 in "a" and 1 in "b".*test_explode'):
        ctx.run()


def test_long_lists_come_in_pieces_and_whole() -> None:
    long = [list(range(50_000)), [], list(range(7))]
    ctx, stream = lists(tags=("list<int64>", long))
    stream.explode("tags").group_by("n").agg(rows=tm.count(), total=tm.col("tags").sum()).to_table("rows")
    ctx.run()
    found = sorted(ctx.table("rows").to_polars().rows())
    assert found == [(0, 50_000, sum(range(50_000))), (1, 1, None), (2, 7, 21)]


def test_headers_become_rows() -> None:
    ctx = tm.StreamingContext()
    stream = ctx.scripted(ScriptedSource(), format=tm.Raw(), metadata=["headers", "offset"])
    types = '{"kafka_headers": "struct<key: string, value: binary>", "kafka_offset": "int64"}'
    assert (
        repr(stream.select("kafka_headers", "kafka_offset").explode("kafka_headers").schema)
        == f"Schema({types})"
    )


def test_what_is_no_list_is_told_at_the_start() -> None:
    _, stream = lists(tags=("list<int64>", LISTS))
    with pytest.raises(tm.SchemaError, match='explode takes lists apart, and "n" is int64'):
        _ = stream.explode("n", "tags").schema
    with pytest.raises(tm.TidemillError, match='did you mean "tags"'):
        _ = stream.explode("tag").schema
    with pytest.raises(tm.ConfigError, match="explode needs at least one column"):
        _ = stream.explode().schema


def test_a_stream_stays_keyed_unless_its_key_is_taken_apart() -> None:
    _, stream = lists(tags=("list<float64>", [[1.0]]))
    keyed = stream.key_by("n").explode("tags").detect("tags", tm.ml.Ewma())
    assert keyed.columns == ["n", "tags", "score", "p_value", "is_anomaly"]
    with pytest.raises(tm.ConfigError, match="the keying by tags ended in explode"):
        _ = stream.key_by("tags").explode("tags").detect("tags", tm.ml.Ewma()).columns
