"""What whoever comes from another library tries first, and what the errors and texts then say."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tidemill as tm
from tests.python.conftest import Numbers, collect
from tidemill import col
from tidemill.testing import ScriptedSource, batch

SCHEMA = {"device": "string", "ts": "timestamp[ms]", "t": "float64", "n": "int64", "b": "bool"}


def readings(*rows: bytes, ctx: tm.StreamingContext | None = None) -> tm.DStream:
    source = ScriptedSource(partitions=1)
    source.push(0, list(rows))
    ctx = ctx or tm.StreamingContext(trigger=tm.available_now())
    return ctx.scripted(source, format=tm.Json(SCHEMA), event_time="ts", name="readings")


def refused(stream: tm.DStream) -> str:
    """What is wrong with the plan."""
    with pytest.raises(tm.TidemillError) as found:
        _ = stream.columns
    return str(found.value)


# -- what other libraries take ------------------------------------------------------------------------------------


def test_key_by_takes_expressions_and_lists_as_group_by_does() -> None:
    s = readings(b'{"device": "Pump", "n": 1}', b'{"device": "pump", "n": 2}')
    keyed = s.key_by(col("device").str.lower().alias("device"))
    assert keyed.map_batches(lambda one: one).columns == s.columns
    assert s.key_by(["device", "n"]).explain() == s.key_by("device", "n").explain()
    assert s.key_by(kind=col("device").str.slice(0, 1)).columns[-1] == "kind"
    assert s.key_by(col("device")).detect("t", tm.ml.Ewma()).columns[-1] == "is_anomaly"
    with pytest.raises(tm.ConfigError, match=r"has no name; add \.alias"):
        s.key_by(col("device").str.lower())
    with pytest.raises(tm.ConfigError, match="a key is a column's name or an expression, found 3"):
        s.key_by(3)  # type: ignore[arg-type]


def test_group_by_takes_a_list() -> None:
    s = readings(b'{"device": "a", "n": 1, "ts": 0}', b'{"device": "a", "n": 2, "ts": 1}')
    assert s.group_by(["device"]).agg(n=col("n").sum()).columns == ["device", "n"]
    assert s.window("1s", on="ts").group_by(["device", col("b")]).agg(n=tm.count()).columns[2:4] == [
        "device",
        "b",
    ]
    assert collect(s.group_by(["device"]).agg(n=col("n").sum()), "n") == [3]


def test_windows_say_what_on_and_emit_are() -> None:
    s = readings()
    with pytest.raises(tm.ConfigError, match='found <Expr ts>; pass on="ts"'):
        s.window("1s", on=col("ts"))  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match='emit is "final" or "updates", found None'):
        s.window("1s", on="ts", emit=None)  # type: ignore[arg-type]


def test_brokers_may_be_a_list() -> None:
    ctx = tm.StreamingContext()
    s = ctx.kafka("in", bootstrap_servers=["a:1", "b:2"], format=tm.Raw())
    s.to_kafka("out", format=tm.Raw(), bootstrap_servers=("c:3",))
    with pytest.raises(tm.ConfigError, match='"host:port" or a list of such, found 9092'):
        ctx.kafka("in", bootstrap_servers=9092, format=tm.Raw())  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match="needs bootstrap_servers"):
        ctx.kafka("in", bootstrap_servers=[], format=tm.Raw())


def test_the_rows_of_a_batch_are_a_list_and_no_loop() -> None:
    rows = batch({"t": [1.5, None], "s": ["a", "b"]})
    assert rows.to_pylist() == [{"t": 1.5, "s": "a"}, {"t": None, "s": "b"}]
    with pytest.raises(TypeError, match=r"a batch is columns.*to_pylist\(\)"):
        iter(rows)
    assert "t" in rows
    assert "x" not in rows


# -- aggregates -----------------------------------------------------------------------------------------------------


def test_what_fails_over_aggregates_names_them() -> None:
    s = readings(b'{"n": 1}').group_by().agg(m=col("n").sum() // (tm.count() - 1))
    with pytest.raises(tm.DataError, match=r"sum\(n\) // \(count\(\*\) - 1\) divides an integer by zero"):
        collect(s, "m")


def test_operators_are_told_as_they_are_written() -> None:
    assert "// does not take (string, int64) in device // 2" in refused(
        readings().select(x=col("device") // 2)
    )
    assert "% does not take (string, int64)" in refused(readings().select(x=col("device") % 2))


def test_a_window_finer_than_its_column_says_how_to_declare_it() -> None:
    windows = readings().window("1us", on="ts").agg(n=tm.count())
    assert "declare the column as timestamp[us]" in refused(windows)
    assert "declare" not in refused(readings().window("1s", "2s", on="ts").agg(n=tm.count()))


def test_the_results_of_aggregates_cannot_be_read_by_guessing_their_names() -> None:
    s = readings().group_by().agg(a=col("n").sum(), b=col("__aggregate_0") + col("\x1f0\x1fsum(n)"))
    found = refused(s)
    assert '"__aggregate_0"' in found
    assert "2 mistakes" in found


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        (tm.aggregate("median"), "median takes one column of numbers, found median() (median(), in agg"),
        (
            tm.aggregate("median", col("b")),
            "median takes one column of numbers, found median(bool); cast it first",
        ),
        (
            tm.aggregate("bool_and", col("n")),
            "bool_and takes one column of bool, such as a comparison, found bool_and",
        ),
        (
            tm.aggregate("approx_quantile", col("t")),
            "takes one column of numbers, and a constant from 0 to 1",
        ),
        (
            tm.aggregate("string_agg", col("device")),
            "one column of text, and the constant text that goes between",
        ),
        (tm.aggregate("corr", col("t")), "corr takes two columns of numbers"),
        (col("b").sum(), '.cast("int64")'),
        (col("b").mean(), '.cast("int64")'),
        (col("b").stddev(), '.cast("int64")'),
    ],
)
def test_an_aggregate_says_what_it_takes(aggregate: tm.Expr, said: str) -> None:
    found = refused(readings().group_by().agg(x=aggregate))
    assert said in found
    assert "other arguments" not in found
    assert "ORDER BY" not in found


def test_an_aggregate_that_was_not_called_is_told_so() -> None:
    groups = readings().group_by("device")
    with pytest.raises(tm.ConfigError, match=r"found the function count; call it: count\(\)"):
        groups.agg(tm.count)  # type: ignore[arg-type]
    with pytest.raises(tm.ConfigError, match=r'call it: col\("t"\)\.sum\(\)'):
        groups.agg(n=col("t").sum)  # type: ignore[arg-type]


def test_an_event_time_that_is_no_column_is_told_by_its_argument() -> None:
    ctx = tm.StreamingContext()
    s = ctx.scripted(ScriptedSource(), format=tm.Json(SCHEMA), event_time="time")
    assert 'there is no column "time"' in refused(s)
    assert 'event_time="time"' in refused(s)


def test_text_in_double_quotes_is_told_apart_from_columns() -> None:
    s = readings()
    assert "for text write 'a'" in refused(s.filter('device = "a"'))
    assert 'did you mean "device"? Double quotes' in refused(s.filter("\"devise\" = 'a'"))
    assert "for text write" not in refused(s.filter("device = a"))
    assert "for text write" not in refused(s.filter(col("device") == col("a")))
    assert s.filter("\"device\" = 'a'").columns == s.columns


def test_windows_over_results_and_computed_columns_say_what_can_be_done() -> None:
    s = readings()
    again = s.window("1s", on="ts").agg(n=tm.count()).window("1m", on="window_end").agg(n=col("n").sum())
    assert "windows over the results of agg are not offered yet" in refused(again)
    computed = s.with_columns(later=col("ts")).window("1m", on="later").agg(n=tm.count())
    assert "ctx.kafka(…).with_event_time(expr, watermark=…)" in refused(computed)
    anew = s.map_batches(lambda one: one, schema=SCHEMA).window("1m", on="ts").agg(n=tm.count())
    assert "map_batches(fn, adds=…)" in refused(anew)


# -- models ---------------------------------------------------------------------------------------------------------


class Doubling:
    """An estimator that was fitted on a frame, and complains of what scikit-learn would."""

    def __init__(self, *names: str) -> None:
        self.feature_names_in_ = np.array(names, dtype=object)
        self.seen: list[type] = []

    def predict(self, rows: Any) -> Any:
        self.seen.append(type(rows))
        assert list(rows.columns) == list(self.feature_names_in_)
        return np.asarray(rows)[:, 0] * 2


def test_a_class_in_place_of_a_model_is_refused_at_the_call(numbers: Numbers) -> None:
    with pytest.raises(tm.ConfigError, match=r"found the class Doubling.*Doubling\(\)\.fit"):
        numbers(1).score(Doubling, columns=["x"])


def test_a_model_that_was_fitted_on_a_frame_is_given_one(numbers: Numbers) -> None:
    model = Doubling("temperature")
    assert collect(numbers(1, 2).score(model, columns=["x"]), "score") == [2.0, 4.0]
    assert set(model.seen) == {pd.DataFrame}


def test_columns_in_another_order_than_the_model_was_fitted_on_are_refused() -> None:
    with pytest.raises(tm.ConfigError, match=r"\['t', 'n'\]; found \['n', 't'\]"):
        readings().score(Doubling("t", "n"), columns=["n", "t"])


def test_scikit_learn_has_nothing_to_warn_of(numbers: Numbers) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    model = ensemble.IsolationForest(n_estimators=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(pd.DataFrame({"x": np.arange(50.0)}))
        assert len(collect(numbers(1, 99).score(model, columns=["x"]), "score")) == 2


# -- names, texts and listeners ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("where", "filter"),
        ("groupby", "group_by"),
        ("groupBy", "group_by"),
        ("map", "map_batches"),
        ("writeStream", "to_kafka or to_files or to_table or foreach_batch or pprint"),
        ("withColumn", "with_columns"),
        ("fliter", "filter"),
    ],
)
def test_a_stream_answers_the_names_of_other_libraries(name: str, ours: str) -> None:
    with pytest.raises(AttributeError) as found:
        getattr(readings(), name)
    assert str(found.value) == f"'DStream' object has no attribute {name!r}; did you mean {ours}?"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("average", "mean"),
        ("medain", 'tm.aggregate("median", ...)'),
        ("nunique", "n_unique"),
        ("astype", "cast"),
        ("isNull", "is_null"),
        ("atan", "tm.functions.atan(...)"),
    ],
)
def test_an_expression_does_too(name: str, ours: str) -> None:
    with pytest.raises(AttributeError) as found:
        getattr(col("c"), name)
    assert str(found.value).endswith(f"; did you mean {ours}?")


@pytest.mark.parametrize(
    ("methods", "name", "ours"),
    [
        (col("s").str, "lenght", "length"),
        (col("s").str, "ltrim", "tm.functions.ltrim(...)"),
        (col("t").dt, "hours", "hour"),
        (col("a").list, "contain", "contains"),
        (col("a").struct, "fields", "field"),
    ],
)
def test_and_what_hangs_on_it(methods: Any, name: str, ours: str) -> None:
    with pytest.raises(AttributeError) as found:
        getattr(methods, name)
    assert str(found.value).endswith(f"has no attribute {name!r}; did you mean {ours}?")


def test_so_do_modules_and_half_sentences() -> None:
    with pytest.raises(AttributeError, match="did you mean Ewma"):
        _ = tm.ml.Zscore  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="did you mean StreamingContext"):
        _ = tm.streamingcontext
    with pytest.raises(AttributeError, match="did you mean agg"):
        _ = readings().group_by("device").sum  # type: ignore[attr-defined]


def test_what_is_near_nothing_is_told_plainly() -> None:
    assert not hasattr(readings(), "_repr_png_")
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'$"):
        _ = readings().xyzzy  # type: ignore[attr-defined]


def test_half_sentences_show_what_was_said() -> None:
    s = readings()
    assert (
        repr(s.group_by("device", k=col("n") + 1))
        == "<GroupedStream: by device, k = n + 1; .agg(...) ends it>"
    )
    windows = s.window("10s", "5s", on="ts")
    assert repr(windows) == "<WindowedStream: windows of 10s every 5s on ts; .agg(...) ends it>"
    assert repr(windows.group_by()) == (
        "<GroupedWindows: windows of 10s every 5s on ts, all rows as one group; .agg(...) ends it>"
    )
    assert "dir(tm.functions)" in repr(tm.functions)


def test_a_context_says_how_it_is(numbers: Numbers, drained: tm.StreamingContext) -> None:
    assert repr(drained) == "<StreamingContext 'test': not started>"
    fails = threading.Event()

    def fail(one: tm.Batch) -> None:
        if fails.is_set():
            raise ValueError("mine")

    numbers(1).foreach_batch(fail)
    drained.run()
    assert repr(drained) == "<StreamingContext 'test': ended>"
    fails.set()
    with pytest.raises(ValueError, match="mine"):
        drained.run()
    assert repr(drained) == "<StreamingContext 'test': failed: ValueError('mine')>"


def test_events_and_progress_show_what_matters() -> None:
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1, close_windows=False))
    rows = [b'{"ts": 1000}', b'{"ts": 70000}', b'{"ts": 1000}']
    readings(*rows, ctx=ctx).window("10s", on="ts").agg(n=tm.count()).foreach_batch(lambda one: None)
    events: list[tm.Event] = []
    ctx.listeners.append(events.append)
    ctx.run()
    shown = [repr(event) for event in events]
    assert shown[0] == 'Event("started", batch_id=0)'
    assert shown[1] == 'Event("planned", batch_id=0, 1 offsets)'
    first = next(text for text in shown if "completed" in text)
    assert first.startswith('Event("completed", Progress(batch 0: 1 records in, ')
    assert "1 late" in repr(ctx.progress)
    assert "watermark 1970-01-01 00:01:10+00:00" in repr(ctx.progress)
    assert "late" not in first
    assert "bad" not in repr(ctx.progress)


def test_what_cannot_hear_is_refused_before_the_start(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1).foreach_batch(lambda one: None)
    drained.listeners.extend([print, 5])  # type: ignore[list-item]
    with pytest.raises(tm.ConfigError, match=r"listeners\[1\] is a function of one Event.*found 5"):
        drained.run()
    assert not drained.is_running


def test_a_listener_that_fails_shows_its_traceback_once(
    numbers: Numbers, drained: tm.StreamingContext, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    drained.listeners.append(lambda event: 1 / 0)
    drained.listeners.append(lambda event: ended.set() if event.kind == "stopped" else None)
    numbers(1).foreach_batch(lambda one: None)
    drained.run()
    assert ended.wait(30)
    told = [record for record in caplog.records if "a listener failed" in record.getMessage()]
    assert [record.exc_info is not None for record in told] == [True, False, False, False]


def test_a_with_block_that_never_starts_is_warned_of(
    numbers: Numbers, drained: tm.StreamingContext, caplog: pytest.LogCaptureFixture
) -> None:
    stream = numbers(1)
    with drained:
        pass
    assert not caplog.records
    stream.foreach_batch(lambda one: None)
    with drained:
        pass
    assert "call ctx.start() within the with block" in caplog.text
    caplog.clear()
    with drained:
        drained.start()
    assert "ctx.start()" not in caplog.text


def test_explain_shows_what_outputs_are() -> None:
    ctx = tm.StreamingContext()
    s = ctx.kafka("in", bootstrap_servers="nowhere:1", format=tm.Json(SCHEMA))

    def alarm(one: tm.Batch) -> None: ...

    s.key_by("device").to_kafka("alerts")
    s.to_kafka("copy")
    s.pprint(name="all")
    s.pprint()
    s.to_table("last")
    s.foreach_batch(alarm)
    text = ctx.explain()
    for label in (
        "to_kafka(alerts), key device",
        "to_kafka(copy), no key",
        "pprint(all)",
        "pprint",
        "to_table(last)",
    ):
        assert f": {label} [at least once]" in text
    assert "alarm) [at least once]" in text
