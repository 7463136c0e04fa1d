"""Operators and outputs of a stream, over a scripted source."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidemill as tm
from tests.python.conftest import Numbers, collect
from tidemill.testing import ScriptedSource, batch


def test_columns_are_filtered_selected_renamed_and_dropped(numbers: Numbers) -> None:
    stream = numbers(1, 2, 3, 4).filter("x > 1").with_columns(y=tm.col("x") * 2).rename({"x": "a"}).drop("a")
    assert stream.columns == ["y"]
    assert collect(stream, "y") == [4.0, 6.0, 8.0]


def test_select_takes_names_expressions_and_named_expressions(numbers: Numbers) -> None:
    stream = numbers(1).select("x", (tm.col("x") + 1).alias("y"), z=tm.col("x") + 2)
    assert [one.to_numpy().tolist() for one in stream] == [[[1.0, 2.0, 3.0]]]


def test_an_expression_without_a_name_is_refused(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match=r"has no name; add \.alias"):
        numbers(1).select(tm.col("x") + 1)


def test_a_union_has_the_rows_of_both(numbers: Numbers) -> None:
    stream = numbers(1, 5, 9)
    assert collect(stream.filter("x < 2").union(stream.filter("x > 8"))) == [1.0, 9.0]


def test_streams_of_two_contexts_are_not_joined(numbers: Numbers, source: ScriptedSource) -> None:
    other = tm.StreamingContext().scripted(source, format=tm.Json({"x": "float64"}))
    with pytest.raises(tm.ConfigError, match="two contexts"):
        numbers(1).union(other)


def test_a_function_given_to_filter_is_refused_with_what_to_do(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match=r"not offered yet.*map_batches"):
        numbers(1).filter(lambda row: True)  # type: ignore[arg-type]


def test_all_mistakes_of_a_plan_come_at_once_with_their_lines(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    stream = numbers(1)
    stream.filter("y > 1").pprint()
    stream.drop("z").pprint()
    with pytest.raises(tm.TidemillError) as caught:
        drained.run()
    text = str(caught.value)
    assert "2 mistakes" in text
    assert "test_dstream.py:" in text
    assert '"y"' in text
    assert '"z"' in text


def test_a_stream_shows_its_columns_or_what_is_wrong(numbers: Numbers) -> None:
    stream = numbers(1)
    assert repr(stream) == 'DStream(Schema({"x": "float64"}))'
    assert 'there is no column "y"' in repr(stream.filter("y > 1"))


def test_explain_shows_operators_lines_and_the_guarantee(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    stream = numbers(1).score(lambda matrix: matrix[:, 0], ["x"])
    stream.filter("score > 0").pprint()
    text = drained.explain()
    assert "test_dstream.py:" in text
    assert "at least once" in text
    assert "score(" in text
    assert "filter" not in stream.explain()


@pytest.mark.parametrize(
    "make",
    [
        lambda one: {"y": one["x"] * 2},
        lambda one: {"y": (one["x"] * 2).tolist()},
        lambda one: pa.table({"y": one["x"] * 2}),
        lambda one: pl.DataFrame({"y": one["x"] * 2}),
        lambda one: pd.DataFrame({"y": one["x"] * 2}),
        lambda one: pd.DataFrame({"y": one["x"] * 2}, index=[f"row {row}" for row in range(len(one))]),
        lambda one: {"y": pa.chunked_array([one["x"] * 2])},
    ],
    ids=["numpy", "list", "pyarrow", "polars", "pandas", "pandas with an index", "chunked"],
)
def test_map_batches_takes_rows_of_every_kind(numbers: Numbers, make: Any) -> None:
    assert collect(numbers(1, 2, 3).map_batches(make, schema={"y": "float64"}), "y") == [2.0, 4.0, 6.0]


def test_map_batches_is_called_once_a_partition(numbers: Numbers) -> None:
    seen: list[tuple[int | None, int]] = []

    def note(one: tm.Batch) -> tm.Batch:
        seen.append((one.partition, one.num_rows))
        return one

    assert collect(numbers(1, 2, 3).map_batches(note)) == [1.0, 2.0, 3.0]
    assert sorted(seen) == [(0, 2), (1, 1)]


def test_map_batches_adds_columns_to_those_there(numbers: Numbers) -> None:
    stream = numbers(1, 2).map_batches(lambda one: {"y": -one["x"]}, adds={"y": "float64"})
    assert stream.columns == ["x", "y"]
    assert collect(stream, "y") == [-2.0, -1.0]


def test_the_inputs_columns_may_be_beside_the_added_ones(numbers: Numbers) -> None:
    stream = numbers(1, 2).map_batches(
        lambda one: one.to_polars().with_columns(y=-pl.col("x"), scratch=1), adds={"y": "float64"}
    )
    assert stream.columns == ["x", "y"]
    assert collect(stream, "y") == [-2.0, -1.0]


@pytest.mark.parametrize("declared", [{}, {"schema": {"x": "float64"}}], ids=["as the input", "schema"])
def test_undeclared_columns_are_named_and_never_dropped_unseen(
    numbers: Numbers, drained: tm.StreamingContext, declared: Any
) -> None:
    stream = numbers(1).map_batches(lambda one: {"x": one["x"], "y": one["x"], "z": one["x"]}, **declared)
    stream.foreach_batch(lambda one: None)
    with pytest.raises(tm.SchemaError, match=r'undeclared columns: "y", "z".*adds=.*schema='):
        drained.run()


@pytest.mark.parametrize(
    ("values", "declared", "expected"),
    [
        (pa.array([1.0, None, -3.0]), "int32", pa.array([1, None, -3], pa.int32())),
        (pa.array([float("inf"), 0.5]), "float32", pa.array([float("inf"), 0.5], pa.float32())),
        (pa.array(["a"], pa.large_string()), "string", pa.array(["a"])),
        (
            pa.array([1_000], pa.timestamp("ms")),  # without a zone it is UTC
            "timestamp[us, Europe/Rome]",
            pa.array([1_000_000], pa.timestamp("us", "Europe/Rome")),
        ),
    ],
    ids=["float to integer", "double to single", "text", "time"],
)
def test_what_fits_the_declared_type_is_cast(
    numbers: Numbers, values: Any, declared: str, expected: Any
) -> None:
    stream = numbers(1).map_batches(lambda one: {"y": values}, schema={"y": declared})
    (found,) = stream
    assert found.to_pyarrow().column("y").combine_chunks() == expected


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        (pa.array([1.0, 1.5]), "int64", r"1.5 \(float64\) in row 1"),
        (pa.array([300]), "int8", "in row 0 does not fit"),
        (pa.array([2**53 + 1]), "float64", "in row 0 does not fit"),
        (pa.array(["1"]), "int64", "is declared, found"),
        (pa.array([1]), "bool", "is declared, found"),
        (pa.array([1]), "timestamp[s]", "is declared, found"),
    ],
    ids=["a fraction", "too large", "too long", "text", "truth", "time"],
)
def test_what_would_change_in_the_declared_type_is_refused(
    numbers: Numbers, drained: tm.StreamingContext, values: Any, declared: str, message: str
) -> None:
    numbers(1).map_batches(lambda one: {"y": values}, schema={"y": declared}).foreach_batch(lambda one: None)
    with pytest.raises(tm.SchemaError, match=message):
        drained.run()


def test_two_calls_of_one_function_never_overlap(numbers: Numbers) -> None:
    inside = threading.Lock()

    def alone(one: tm.Batch) -> tm.Batch:
        assert inside.acquire(blocking=False), "two calls overlap"
        threading.Event().wait(0.01)  # room for another call to come in
        inside.release()
        return one

    assert len(collect(numbers(*range(100)).map_batches(alone))) == 100


@pytest.mark.parametrize(
    ("fn", "declared", "message"),
    [
        (lambda one: {"y": one["x"] + 0.5}, {"schema": {"y": "int64"}}, r"1.5 .* in row 0 does not fit"),
        (lambda one: {"y": ["a"]}, {"schema": {"y": "int64"}}, "is declared, found"),
        (lambda one: {"z": one["x"]}, {"schema": {"y": "int64"}}, 'lacks a declared column.*"y"'),
        (lambda one: {"y": np.zeros(5)}, {"adds": {"y": "float64"}}, "was given 1, and returned 5"),
    ],
    ids=["lossy", "other type", "missing", "other length"],
)
def test_a_result_that_does_not_fit_is_a_schema_error(
    numbers: Numbers, drained: tm.StreamingContext, fn: Any, declared: Any, message: str
) -> None:
    numbers(1).map_batches(fn, **declared).foreach_batch(lambda one: None)
    with pytest.raises(tm.SchemaError, match=message) as caught:
        drained.run()
    assert "test_dstream.py:" in str(caught.value)


def test_map_batches_refuses_what_makes_no_sense(numbers: Numbers) -> None:
    stream = numbers(1)
    with pytest.raises(tm.ConfigError, match="takes a function"):
        stream.map_batches(3)  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match="schema= or adds="):
        stream.map_batches(print, schema={"x": "int64"}, adds={"y": "int64"})


class Model:
    """An estimator as scikit-learn's are."""

    def __init__(self, *methods: str) -> None:
        self.shapes: list[tuple[int, ...]] = []
        for method in methods:
            setattr(self, method, getattr(self, f"_{method}"))

    def _score_samples(self, matrix: Any) -> Any:
        self.shapes.append(matrix.shape)
        assert matrix.dtype == np.float32
        assert matrix.flags.c_contiguous
        return matrix[:, 0]

    def _decision_function(self, matrix: Any) -> Any:
        return matrix[:, 0] + 10

    def _predict_proba(self, matrix: Any) -> Any:
        return np.column_stack([1 - matrix[:, 0], matrix[:, 0]])

    def _predict(self, matrix: Any) -> Any:
        return matrix[:, 0] + 100


@pytest.mark.parametrize(
    ("methods", "chosen", "expected", "shown"),
    [
        (("score_samples", "decision_function", "predict"), None, -0.5, "-Model.score_samples"),
        (("decision_function", "predict"), None, -10.5, "-Model.decision_function"),
        (("predict_proba", "predict"), None, 0.5, "Model.predict_proba[:, 1]"),
        (("predict",), None, 100.5, "Model.predict"),
        (("score_samples", "predict"), "predict", 100.5, "Model.predict"),
    ],
)
def test_score_chooses_the_estimators_method(
    numbers: Numbers, methods: tuple[str, ...], chosen: str | None, expected: float, shown: str
) -> None:
    stream = numbers(0.5).score(Model(*methods), ["x"], method=chosen)
    assert f"score({shown})" in stream.explain()
    assert stream.schema["score"] == "float64"
    assert collect(stream, "score") == [expected]


def test_score_takes_any_callable_and_gives_it_one_matrix_a_partition(numbers: Numbers) -> None:
    shapes: list[tuple[int, ...]] = []

    def model(matrix: Any) -> Any:
        shapes.append(matrix.shape)
        return np.nan_to_num(matrix[:, 0], nan=-1.0)

    assert collect(numbers(1, 2, None).score(model, ["x"], dtype="float64", into="s"), "s") == [
        -1.0,
        1.0,
        2.0,
    ]
    assert sorted(shapes) == [(1, 1), (2, 1)]


def test_score_refuses_a_wrong_shape_and_what_is_no_model(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    stream = numbers(1, 2, 3)
    with pytest.raises(tm.ConfigError, match="takes a list of columns"):
        stream.score(print, "x")
    with pytest.raises(tm.ConfigError, match="object has no method"):
        stream.score(object(), ["x"])
    with pytest.raises(tm.ConfigError, match="at least one column"):
        stream.score(print, [])
    with pytest.raises(tm.ConfigError, match='dtype="float32" or "float64", found \'int64\''):
        stream.score(print, ["x"], dtype="int64")  # type: ignore[arg-type]
    stream.score(lambda matrix: [1.0, 2.0, 3.0, 4.0], ["x"]).pprint()
    with pytest.raises(tm.SchemaError, match=r"one score a row"):
        drained.run()


def test_the_columns_of_score_are_checked_before_the_start(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    format = tm.Json({"x": "int32", "ok": "bool", "ts": "timestamp[ms]", "name": "string"})  # noqa: A001
    stream = drained.scripted(source, format=format, metadata=["key"])
    assert "score" in stream.score(print, ["x", "ok", "ts"]).columns
    with pytest.raises(tm.SchemaError, match='no column "y"'):
        _ = stream.score(print, ["x", "y"]).columns
    stream.score(print, ["x", "name", "kafka_key"]).pprint()
    with pytest.raises(tm.SchemaError, match=r"(?s)3 mistakes.*\"name\" is string.*\"kafka_key\" is binary"):
        drained.start()


def test_a_scikit_learn_forest_scores(numbers: Numbers) -> None:
    forest = pytest.importorskip("sklearn.ensemble").IsolationForest(random_state=0)
    forest.fit(np.random.default_rng(0).normal(size=(200, 1)).astype("float32"))
    usual, strange = collect(numbers(0.0, 50.0).score(forest, ["x"]), "score")
    assert usual < strange


def test_a_function_that_takes_more_than_a_batch_is_refused_where_it_is_named(numbers: Numbers) -> None:
    def write(batch: Any, epoch: int) -> Any: ...

    stream = numbers(1)
    for operator in stream.foreach_batch, stream.map_batches:
        with pytest.raises(
            tm.ConfigError, match=r"missing a required argument: 'epoch'; .* batch\.id and batch\.time"
        ):
            operator(write)  # type: ignore[arg-type]

    def repeat(batch: tm.Batch, times: int = 2) -> None: ...

    stream.foreach_batch(print)
    stream.foreach_batch(repeat)


def test_a_function_whose_call_does_nothing_is_refused(numbers: Numbers) -> None:
    async def later(batch: tm.Batch) -> None: ...

    def lazy(batch: tm.Batch) -> Any:
        yield batch

    stream = numbers(1)
    for operator in stream.foreach_batch, stream.map_batches:
        with pytest.raises(tm.ConfigError, match=r"found the coroutine function .*later"):
            operator(later)
        with pytest.raises(tm.ConfigError, match=r"found the generator function .*lazy"):
            operator(lazy)


@pytest.mark.parametrize("key", [["x", "y"], 5, tm.col("x")])
def test_a_key_that_is_no_column_is_refused(numbers: Numbers, key: Any) -> None:
    with pytest.raises(tm.ConfigError, match="name of a column as key=, or None, found"):
        numbers(1).to_kafka("alerts", bootstrap_servers="localhost:1", key=key)


def test_foreach_batch_gets_all_rows_of_a_batch_and_empty_ones_on_demand(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    stream = drained.scripted(source, format=tm.Json({"x": "float64"}))
    source.push(0, [b'{"x": 1}'])
    source.push(1, [b'{"x": 2}'])
    full: list[tm.Batch] = []
    stream.foreach_batch(full.append)
    stream.filter("x > 5").foreach_batch(full.append)
    empty: list[tm.Batch] = []
    stream.filter("x > 5").foreach_batch(empty.append, empty=True)
    drained.run()
    assert [(one.num_rows, one.partition) for one in full] == [(2, None)]
    assert [one.num_rows for one in empty] == [0]
    assert empty[0].columns == ["x"]
    assert [tuple(one) for one in full[0].offset_ranges] == [("readings", 0, 0, 1), ("readings", 1, 0, 1)]


def test_pprint_prints_to_pythons_own_output(
    numbers: Numbers, drained: tm.StreamingContext, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers(1.5, 99.5).pprint(1)
    drained.run()
    out = capsys.readouterr().out
    assert "Time: " in out
    assert "1.5" in out
    assert "99.5" not in out
    assert "..." in out


def printing(ctx: tm.StreamingContext, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stands beside the time of each header that a job prints."""
    ctx.run()
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Time: ")]
    return [re.sub(r"^Time: \S+ \S+( |$)", "", head) for head in heads]


def test_a_single_pprint_has_no_title_and_a_named_one_has_its_name(
    source: ScriptedSource, capsys: pytest.CaptureFixture[str]
) -> None:
    source.push(0, [b"a"])
    for name, title in ((None, ""), ("hot", "(hot)")):
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Raw()).pprint(name=name)
        assert printing(ctx, capsys) == [title]


def test_several_pprints_are_told_apart_by_operator_and_line(
    numbers: Numbers, drained: tm.StreamingContext, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = numbers(1.5)
    stream.filter("x > 1").pprint()
    stream.pprint(name="all")
    first, second = printing(drained, capsys)
    assert re.fullmatch(r"\(filter, test_dstream\.py:\d+\)", first)
    assert second == "(all)"


@pytest.mark.parametrize(("empty", "headers"), [(False, 0), (True, 1)])
def test_batches_without_rows_are_printed_only_on_demand(
    numbers: Numbers,
    drained: tm.StreamingContext,
    capsys: pytest.CaptureFixture[str],
    empty: bool,
    headers: int,
) -> None:
    numbers(1.5).filter("x > 5").pprint(empty=empty)
    assert len(printing(drained, capsys)) == headers


def test_pprint_refuses_a_number_of_rows_below_zero(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match="the number of rows to print, found -1"):
        numbers(1).pprint(-1)


def test_streams_and_detectors_are_told_from_what_is_none(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match=r"union\(\) takes streams, found 's'"):
        numbers(1).union("s")  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match=r"such as tm\.ml\.Ewma\(\), found <class"):
        numbers(1).detect("x", tm.ml.Ewma)  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match=r"such as tm\.ml\.Ewma\(\), found 'ewma'"):
        numbers(1).detect("x", "ewma")  # type: ignore[arg-type]


def test_a_type_that_is_none_is_told_with_its_column() -> None:
    with pytest.raises(tm.SchemaError, match=r'a type is expected, found 5; .*float64.*column "a"'):
        tm.Json({"a": 5})


def test_keyed_rows_of_one_key_come_to_one_shard(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    for partition in (0, 1):
        source.push(partition, [b'{"k": "a"}', b'{"k": "b"}'])
    seen: dict[str, set[int | None]] = {}

    def note(one: tm.Batch) -> tm.Batch:
        for key in one["k"]:
            seen.setdefault(key, set()).add(one.partition)
        return one

    drained.scripted(source, format=tm.Json({"k": "string"})).key_by("k").map_batches(note).foreach_batch(
        lambda _: None
    )
    drained.run()
    assert {key: len(shards) for key, shards in seen.items()} == {"a": 1, "b": 1}


def test_detect_adds_its_columns_and_finds_the_outlier(
    source: ScriptedSource, drained: tm.StreamingContext
) -> None:
    random = np.random.default_rng(0)
    values = [*random.normal(size=400), 50.0]
    source.push(0, [f'{{"k": "a", "x": {value}}}'.encode() for value in values])
    stream = drained.scripted(source, format=tm.Json({"k": "string", "x": "float64"}))
    found = stream.key_by("k").detect("x", tm.ml.Ewma(), prefix="e_")
    assert found.columns == ["k", "x", "e_score", "e_p_value", "e_is_anomaly"]
    assert 50.0 in collect(found.filter("e_is_anomaly"))


def test_to_kafka_needs_a_cluster(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match="needs bootstrap_servers"):
        numbers(1).to_kafka("alerts")
    with pytest.raises(tm.ConfigError, match=r"tm\.Raw"):
        numbers(1).to_kafka("alerts", value="x", bootstrap_servers="localhost:1")


def test_to_kafka_refuses_other_timestamps(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match='timestamps is "batch" or "sending", found "now"'):
        numbers(1).to_kafka("alerts", bootstrap_servers="localhost:1", timestamps="now")  # type: ignore[arg-type]


def test_to_kafka_refuses_a_setting_that_its_promise_rests_on(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    settings: dict[str, str | int] = {"acks": 1, "enable.idempotence": "false", "linger.ms": 5}
    numbers(1).to_kafka("alerts", bootstrap_servers="localhost:1", config=settings)
    with pytest.raises(tm.ConfigError, match="2 mistakes") as raised:
        drained.run()
    assert 'acks is not set in config, found "1"; leave it out: every in-sync' in str(raised.value)


def test_mistakes_in_an_output_are_told_with_all_others_before_anything_is_connected(
    numbers: Numbers, drained: tm.StreamingContext
) -> None:
    stream = numbers(1)
    stream.to_kafka("alerts", key="y", value="x", format=tm.Raw(), bootstrap_servers="localhost:1")
    stream.filter("z > 1").pprint()
    with pytest.raises(tm.SchemaError, match="3 mistakes") as raised:
        drained.start()
    for part in ('no column "y"', "(key of to_kafka(alerts), in output, ", "format Raw writes a binary", "z"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("raw", r"format=tm\.Json\(\), .* or tm\.Raw\(\), found 'raw'"),
        (tm.Raw, r"or tm\.Raw\(\), found <class"),
        (tm.Json, r"or tm\.Raw\(\), found <class"),
        (tm.Json({"x": "float64"}), r"writes all columns.*select\(\)"),
    ],
    ids=["a name", "the class", "the other class", "a schema"],
)
def test_to_kafka_refuses_what_is_no_format(numbers: Numbers, format: Any, message: str) -> None:  # noqa: A002
    with pytest.raises(tm.ConfigError, match=message):
        numbers(1).to_kafka("alerts", format=format, bootstrap_servers="localhost:1")


@pytest.mark.parametrize("argument", ["watermark", "idle_timeout", "max_future"])
@pytest.mark.parametrize("source_of", ["kafka", "scripted"])
@pytest.mark.parametrize("given", ["5 parsecs", -1, True])
def test_a_wrong_duration_of_a_source_is_named(
    source: ScriptedSource, source_of: str, argument: str, given: Any
) -> None:
    ctx = tm.StreamingContext()
    made: dict[str, Any] = {
        "kafka": partial(ctx.kafka, "a", bootstrap_servers="localhost:9092"),
        "scripted": partial(ctx.scripted, source),
    }
    with pytest.raises(tm.ConfigError, match=rf"^{argument}: a duration is expected, found .*; pass text"):
        made[source_of](format=tm.Raw(), **{argument: given})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of topics, pattern and partitions, found none"),
        ({"topics": "a", "partitions": {"a": [0]}}, "found topics and partitions"),
        ({"topics": "a", "pattern": "b"}, "found topics and pattern"),
        ({"pattern": "a(b"}, r'pattern="a\(b" is no regular expression: unclosed group at character 2'),
        ({"pattern": "*-a"}, r"at character 1 .*any text is \.\*"),
        ({"pattern": ["a"]}, "regular expression as text, found"),
        ({"pattern": "a.*", "starting": {0: 5}}, "a partition's number or"),
        ({"topics": "a", "security": object()}, "security is tm.Tls"),
        ({"topics": "a", "on_data_loss": "ignore"}, "on_data_loss is one of fail, skip"),
        ({"topics": "a", "on_bad": "ignore"}, "on_bad is one of fail, drop, dead_letter"),
        ({"topics": "a", "metadata": ["ofset"]}, 'did you mean "offset"'),
        ({"topics": "a", "starting": "begin"}, 'starting is "earliest" or "latest"'),
        ({"topics": "a", "ending": "committed"}, "ending is"),
        ({"topics": ["a", "b"], "starting": {0: 5}}, "a partition's number or"),
        ({"topics": "a", "max_rate_per_partition": -1.0}, "must be a positive number"),
        ({"topics": "a", "format": tm.Csv()}, "needs a schema"),
        ({"topics": "a", "format": "json"}, "format is tm.Json"),
        ({"topics": "a", "event_time": 5}, "^event_time: 'int' object"),
        ({"topics": "a", "max_rate_per_partition": "fast"}, "^max_rate_per_partition: "),
        ({"topics": ""}, 'the names of topics, found ""'),
        ({"topics": ["a", ""]}, 'the names of topics, found ""'),
        ({"topics": "a", "bootstrap_servers": ""}, "needs bootstrap_servers"),
        ({"topics": "a", "starting": "committed"}, "needs a group_id"),
        ({"topics": "a", "starting_fallback": "committed"}, 'starting_fallback is "earliest" or "latest"'),
        ({"topics": "a", "config": {"group.id": "b"}}, "group.id is not set in config.*; pass group_id"),
        ({"topics": "a", "config": {"isolation.level": "read_uncommitted"}}, "last stable offset"),
        ({"topics": "a", "config": {"bootstrap.servers": "x"}}, "pass bootstrap_servers"),
    ],
)
def test_kafka_refuses_what_is_wrong_or_not_offered_yet(arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"bootstrap_servers": "localhost:9092", "format": tm.Raw(), **arguments}
    with pytest.raises(tm.ConfigError, match=message):
        tm.StreamingContext().kafka(**settings)


def test_kafka_tells_every_setting_that_is_not_the_users() -> None:
    config: dict[str, str | int] = {"group.id": "b", "enable.auto.commit": "true"}
    with pytest.raises(tm.ConfigError, match="2 mistakes") as raised:
        tm.StreamingContext().kafka("a", bootstrap_servers="localhost:9092", format=tm.Raw(), config=config)
    assert "pass group_id" in str(raised.value)
    assert "enable.auto.commit is not set in config" in str(raised.value)


def test_a_naive_datetime_has_no_place_in_a_stream() -> None:
    from datetime import datetime

    with pytest.raises(tm.ConfigError, match="has no time zone"):
        tm.StreamingContext().kafka(
            "a", bootstrap_servers="x", format=tm.Raw(), starting=datetime(2026, 1, 1)
        )


def test_starting_and_ending_are_heeded(source: ScriptedSource) -> None:
    source.push(0, [b"0", b"1", b"2", b"3"])
    ctx = tm.StreamingContext(trigger=tm.available_now())
    bounds: dict[str, Any] = {"starting": {0: 1, 1: 0}, "ending": {0: 3, 1: 0}}
    stream = ctx.scripted(source, format=tm.Raw(), metadata=["offset"], **bounds)
    assert collect(stream, "kafka_offset") == [1, 2]


def test_bad_records_are_dropped_and_counted_or_fail(source: ScriptedSource) -> None:
    source.push(0, [b'{"x": 1}', b"oops", b'{"x": 2}', None])
    choices: tuple[Literal["drop", "fail"], ...] = ("drop", "fail")
    for on_bad in choices:
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Json({"x": "float64"}), on_bad=on_bad).foreach_batch(lambda _: None)
        if on_bad == "fail":
            with pytest.raises(tm.DataError, match=r"readings.*partition 0.*offset 1"):
                ctx.run()
        else:
            ctx.run()
            assert ctx.progress is not None
            assert (ctx.progress.records, ctx.progress.bad, ctx.progress.tombstones) == (4, 1, 1)


def test_a_batch_may_be_kept_after_its_stream_has_ended(numbers: Numbers) -> None:
    kept = list(numbers(1, 2))
    view = kept[0]["x"]
    del kept
    assert sorted(view.tolist()) == [1.0, 2.0]
    assert batch({"x": view})["x"].tolist() == view.tolist()


def test_the_late_rows_are_an_operator_only_where_they_are_asked_for(drained: tm.StreamingContext) -> None:
    json = tm.Json({"ts": "timestamp[ms]", "late_reason": "string"})
    stream = drained.scripted(ScriptedSource(partitions=1), format=json, event_time="ts")
    windows = stream.window("1m", on="ts").agg(n=tm.count("late_reason"))
    windows.pprint()
    assert " late for windows" not in drained.explain()
    assert windows.late is windows.late
    wrong = stream.window("1m", on="ts").agg(n=tm.count("reason"))
    with pytest.raises(tm.SchemaError) as raised:
        print(wrong.columns)
    assert "(in late" not in str(raised.value)


@pytest.mark.parametrize("kind", ["int64", "string", "timestamp[us]", "bool", "float64", "list<string>"])
@pytest.mark.parametrize("rows", [0, 2])
def test_a_function_may_return_nothing_but_nulls_or_no_rows_for_any_type(kind: str, rows: int) -> None:

    for made in (
        lambda: {"found": [None] * rows},
        lambda: pl.DataFrame({"found": [None] * rows}),
        lambda: pa.table({"found": pa.nulls(rows)}),
    ):
        source = tm.testing.ScriptedSource()
        source.push(0, [b"{}"])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        stream = ctx.scripted(source, format=tm.Json({"t": "float64"}))
        mapped = stream.map_batches(lambda batch, made=made: made(), schema={"found": kind})  # type: ignore[misc]
        found = [pa.table(batch)["found"].to_pylist() for batch in mapped]
        assert found == ([[None] * rows] if rows else [])
