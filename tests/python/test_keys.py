"""Keys of any type: in groups of a batch, in windows and in keyed streams, with nulls."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

FORMAT = tm.Json({"n": "int64", "ts": "timestamp[ms]"})
RECORD = pa.struct([("site", pa.string()), ("levels", pa.list_(pa.int64()))])

CASES = {
    "bool": (pa.bool_(), [True, False, None]),
    "int": (pa.uint64(), [2**64 - 1, 0, None]),
    "float": (pa.float64(), [0.0, math.nan, None]),
    "string": (pa.string(), ["", "a", None]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None]),
    "binary": (pa.binary(), [b"", b"\xff", None]),
    "fixed binary": (pa.binary(2), [b"ab", b"\xff\x00", None]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.50"), Decimal("-0.10"), None]),
    "wide decimal": (pa.decimal256(60, 2), [Decimal("9" * 50 + ".10"), Decimal("0.50"), None]),
    "date": (pa.date32(), [dt.date(1969, 12, 31), dt.date(2026, 1, 1), None]),
    "time": (pa.time32("ms"), [dt.time(0), dt.time(23, 59, 59, 999_000), None]),
    "timestamp": (pa.timestamp("us"), [dt.datetime(1969, 1, 1, 0, 0, 0, 1), dt.datetime(2026, 1, 1), None]),
    "duration": (pa.duration("us"), [dt.timedelta(microseconds=-1), dt.timedelta(days=3), None]),
    "list": (pa.list_(pa.int64()), [[], [1, None], [None, 1], None]),
    "fixed list": (pa.list_(pa.float32(), 2), [[0.5, None], [None, 0.5], None]),
    "struct": (RECORD, [{"site": "a", "levels": [1]}, {"site": None, "levels": None}, None]),
    "list of structs": (pa.list_(RECORD), [[{"site": "a", "levels": []}], [None], None]),
    "null": (pa.null(), [None]),
}


def keyed(key: pa.DataType, values: list[Any]) -> tuple[tm.StreamingContext, tm.DStream]:
    """A stream of two partitions whose rows have these keys in turn, in a column of this type."""
    source = ScriptedSource(partitions=2)
    for n in range(30):
        source.push(n % 2, [json.dumps({"n": n, "ts": n}).encode()])
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=12), executors=2)

    def with_key(batch: tm.Batch) -> dict[str, Any]:
        rows = [values[n % len(values)] for n in batch.to_pyarrow()["n"].to_pylist()]
        return {"key": pa.array(rows, key, from_pandas=False)}

    schema = pa.schema([("key", key)])
    return ctx, ctx.scripted(source, format=FORMAT, event_time="ts").map_batches(with_key, adds=schema)


def rows_of(stream: tm.DStream) -> list[dict[str, Any]]:
    return [row for batch in stream for row in batch.to_pyarrow().to_pylist()]


def expected(values: list[Any]) -> Counter[str]:
    return Counter(repr(values[n % len(values)]) for n in range(30))


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_batch_are_grouped(case: str) -> None:
    key, values = CASES[case]
    _, stream = keyed(key, values)
    found: Counter[str] = Counter()
    grouped = stream.group_by("key").agg(n=tm.count())
    for row in rows_of(grouped):
        found[repr(row["key"])] += row["n"]
    assert found == expected(values)


@pytest.mark.parametrize("case", CASES)
def test_rows_of_windows_are_grouped_by_it_among_others(case: str) -> None:
    key, values = CASES[case]
    _, stream = keyed(key, values)
    grouped = stream.window("10ms", on="ts").group_by("key", odd=tm.col("n") % 2).agg(n=tm.count())
    found = {(row["window_start"], repr(row["key"]), row["odd"]): row["n"] for row in rows_of(grouped)}
    model = Counter(
        (dt.datetime(1970, 1, 1, 0, 0, 0, n // 10 * 10_000), repr(values[n % len(values)]), n % 2)
        for n in range(30)
    )
    assert found == model


@pytest.mark.parametrize("case", CASES)
def test_a_keyed_stream_has_all_rows_of_a_key_in_one_shard(case: str) -> None:
    key, values = CASES[case]
    _, stream = keyed(key, values)
    shards: dict[str, set[object]] = defaultdict(set)
    found: Counter[str] = Counter()

    def note(batch: tm.Batch) -> tm.Batch:
        for value in batch.to_pyarrow()["key"].to_pylist():
            shards[repr(value)].add(batch.partition)
            found[repr(value)] += 1
        return batch

    scored = stream.key_by("key").detect("n", tm.ml.Ewma()).map_batches(note)
    assert len(rows_of(scored)) == 30
    assert found == expected(values)
    assert all(len(of_key) == 1 for of_key in shards.values())


def test_zero_has_no_sign_and_nan_equals_itself() -> None:
    _, stream = keyed(pa.float64(), [-0.0, 0.0, math.nan, -math.nan])
    found: Counter[str] = Counter()
    for row in rows_of(stream.group_by("key").agg(n=tm.count())):
        found[repr(row["key"])] += row["n"]
    assert found == {"0.0": 16, "nan": 14}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (pa.map_(pa.string(), pa.int64()), "the entries of a map have no order.*make columns of the entries"),
        (pa.list_(pa.map_(pa.string(), pa.int64())), "list<map<string, int64>> cannot be a key"),
        (pa.month_day_nano_interval(), "a month is no fixed number of days.*cast it to a duration"),
    ],
)
def test_what_cannot_be_a_key_is_told_before_the_start(key: pa.DataType, text: str) -> None:
    _, stream = keyed(key, [None])
    for made in (
        lambda: stream.group_by("key").agg(n=tm.count()),
        lambda: stream.window("1s", on="ts").group_by("key").agg(n=tm.count()),
        lambda: stream.key_by("key").detect("n", tm.ml.Ewma()),
    ):
        with pytest.raises(tm.SchemaError, match=text):
            _ = made().columns
