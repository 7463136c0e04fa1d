"""Dead letters as a user meets them: a stream like any other, files in one step, and every wrong word told at once."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

GOOD = b'{"t": 20.5}'
BAD = [b'{"t": "warm"}', b"oops\xff", b"", b'{"t": 1} \x00']


@pytest.fixture
def source() -> ScriptedSource:
    made = ScriptedSource("readings", partitions=2)
    made.push(0, [GOOD, BAD[0], None, BAD[1], GOOD])
    made.push(1, [BAD[2], GOOD, BAD[3]])
    return made


def job(source: ScriptedSource, **options: Any) -> tuple[tm.StreamingContext, tm.DStream]:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    on_bad = options.pop("on_bad", "dead_letter")
    return ctx, ctx.scripted(source, format=tm.Json({"t": "float64"}), on_bad=on_bad, **options)


def test_every_bad_record_is_a_row_with_its_bytes_reason_and_place(source: ScriptedSource) -> None:
    ctx, readings = job(source)
    readings.to_table("good")
    readings.dead_letters.to_table("bad")
    ctx.run()
    assert ctx.table("good")["t"].tolist() == [20.5] * 3
    letters = ctx.table("bad").to_pyarrow().to_pylist()
    assert [letter["value"] for letter in letters] == BAD
    places = [(one["kafka_topic"], one["kafka_partition"], one["kafka_offset"]) for one in letters]
    assert places == [("readings", 0, 1), ("readings", 0, 3), ("readings", 1, 0), ("readings", 1, 2)]
    assert [letter["position"] for letter in letters] == [6, 4, 0, 9]
    assert letters[0]["reason"] == 'expected a number within float64 in column "t", found `"warm"}`'
    assert ctx.progress is not None
    assert (ctx.progress.records, ctx.progress.bad, ctx.progress.tombstones) == (8, 4, 1)


def test_the_columns_are_the_same_whatever_the_format(source: ScriptedSource) -> None:
    formats: list[tm.Json | tm.Text | tm.Csv] = [
        tm.Json({"t": "float64"}),
        tm.Text(),
        tm.Csv({"t": "float64"}),
    ]
    for format_ in formats:
        stream = tm.StreamingContext().scripted(source, format=format_, on_bad="dead_letter")
        assert repr(stream.dead_letters.schema) == (
            'Schema({"value": "binary", "reason": "string", "position": "int64", "kafka_topic": "string", '
            '"kafka_partition": "int32", "kafka_offset": "int64", "kafka_timestamp": "timestamp[ms, UTC]", '
            '"kafka_key": "binary", "kafka_headers": "list<struct<key: string, value: binary>>"})'
        )


def test_dead_letters_are_filtered_grouped_mapped_united_and_looped_over(source: ScriptedSource) -> None:
    ctx, readings = job(source)
    readings.to_table("good")
    letters = readings.dead_letters
    counts = letters.group_by("kafka_partition").agg(n=tm.count())
    counts.to_table("counts")
    letters.filter("position > 4").select("value").to_table("deep")
    sizes = letters.map_batches(lambda rows: {"n": [len(one) for one in rows["value"]]}, adds={"n": "int64"})
    sizes.select("n").to_table("sizes")
    twice = letters.select("value").union(readings.dead_letters.select("value"))
    seen = [value for batch in twice for value in batch["value"]]
    assert sorted(map(bytes, seen)) == sorted(2 * BAD)
    assert dict(ctx.table("counts").to_polars().rows()) == {0: 2, 1: 2}
    assert ctx.table("deep")["value"].tolist() == [BAD[0], BAD[3]]
    assert ctx.table("sizes")["n"].tolist() == [13, 5, 0, 10]


def test_dead_letters_become_files_in_one_step(source: ScriptedSource, tmp_path: Path) -> None:
    ctx, readings = job(source, on_bad=tm.DeadLetters(path=tmp_path / "parquet"))
    readings.to_table("good")
    ctx.run()
    found = pl.read_parquet(tmp_path / "parquet" / "*.parquet").sort("kafka_partition", "kafka_offset")
    assert found["value"].to_list() == BAD
    assert found.columns == readings.dead_letters.columns
    ctx, readings = job(source, on_bad=tm.DeadLetters(path=tmp_path / "json", format="json"))
    readings.to_table("good")
    ctx.run()
    (written,) = (tmp_path / "json").glob("*.json")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [base64.b64decode(row["value"]) for row in rows] == BAD


def test_dead_letters_of_a_job_without_other_outputs_are_of_syntax_alone(source: ScriptedSource) -> None:
    _, readings = job(source)
    assert [value for batch in readings.dead_letters for value in batch["value"].tolist()] == BAD[1:]


def test_dead_letters_that_nobody_takes_are_told_before_the_start(source: ScriptedSource) -> None:
    ctx, readings = job(source)
    readings.to_table("good")
    with pytest.raises(tm.ConfigError, match="no output takes its dead letters") as told:
        ctx.run()
    assert 'on_bad=tm.DeadLetters(topic="...")' in str(told.value)
    assert "test_dead_letters.py:" in str(told.value)
    assert "output 0" in readings.explain()  # a part of the plan is shown all the same


def test_wrong_words_are_told_at_once(source: ScriptedSource, tmp_path: Path) -> None:
    with pytest.raises(tm.ConfigError, match="fails at a bad record, and so has no dead letters"):
        _ = job(source, on_bad="fail")[1].dead_letters
    with pytest.raises(tm.ConfigError, match="drops bad records, and so has no dead letters"):
        _ = job(source, on_bad="drop")[1].dead_letters
    with pytest.raises(tm.ConfigError, match="this stream is made by filter"):
        _ = job(source)[1].filter("t > 1").dead_letters
    with pytest.raises(tm.ConfigError, match="either topic= or path=, found neither"):
        tm.DeadLetters()
    with pytest.raises(tm.ConfigError, match="either topic= or path=, found both"):
        tm.DeadLetters(topic="bad", path=tmp_path)
    with pytest.raises(tm.ConfigError, match='format="parquet" or "json", found \'csv\''):
        tm.DeadLetters(path=tmp_path, format="csv")  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match="a scripted source has none"):
        job(source, on_bad=tm.DeadLetters(topic="bad"))
    with pytest.raises(
        tm.ConfigError, match='on_bad is one of fail, drop, dead_letter; found "dead_leter"; did'
    ):
        job(source, on_bad="dead_leter")


def test_a_topic_of_dead_letters_is_not_the_one_that_is_read() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now())
    readings = ctx.kafka(
        "readings", bootstrap_servers="localhost:1", format=tm.Text(), on_bad=tm.DeadLetters(topic="readings")
    )
    readings.to_table("good")
    with pytest.raises(tm.ConfigError, match="writes into the topic that its rows are read from"):
        ctx.start()
