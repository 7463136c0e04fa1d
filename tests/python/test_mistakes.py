"""All mistakes of a plan at once: a wrong operator hides none of those after it, and causes none."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import tidemill as tm
from tidemill import col
from tidemill.testing import ScriptedSource

SCHEMA = {"device": "string", "site": "string", "ts": "timestamp[ms]", "t": "float64", "n": "int64"}


def readings() -> tm.DStream:
    ctx = tm.StreamingContext()
    return ctx.scripted(ScriptedSource(), format=tm.Json(SCHEMA), event_time="ts")


def mistakes(stream: tm.DStream) -> list[str]:
    """What is wrong with the plan up to here, each mistake as it is told."""
    with pytest.raises(tm.TidemillError) as found:
        _ = stream.columns
    text = str(found.value)
    if not re.match(r"\d+ mistakes", text):
        return [text]
    return re.split(r"\n  \d+\. ", text)[1:]


def told(stream: tm.DStream, *parts: str) -> None:
    """These mistakes, in their order, and no other."""
    found = mistakes(stream)
    assert len(found) == len(parts), found
    for mistake, part in zip(found, parts, strict=True):
        assert part in mistake


def wrong_select() -> tm.DStream:
    """A column that is right, one that is wrong, and one that passes a key on."""
    return readings().select("device", "ts", good=col("n") + 1, bad=col("tt") * 2)


def untimed(event_time: str = "tss") -> tm.DStream:
    """A source whose event time is no timestamp of its columns."""
    return tm.StreamingContext().scripted(ScriptedSource(), format=tm.Json(SCHEMA), event_time=event_time)


def test_an_unknown_event_time_hides_none_of_the_mistakes_behind_it() -> None:
    s = untimed()
    told(s, 'no column "tss"; the columns are device, site, ts, t, n')
    told(s.filter("tt > 3").select("device", "nn"), '"tss"', '"tt"', '"nn"')
    told(s.key_by("devise").detect("tt", tm.ml.Ewma()), '"tss"', '"devise"', '"tt"')
    told(s.filter(col("ts") > 3.5).union(s.filter("t > 0")), '"tss"', "timestamp[ms] and float64")


def test_nor_do_windows_that_go_by_it_make_another() -> None:
    s = untimed()
    for on in ("tss", "ts"):  # the wrong name again, and the one that was meant
        windowed = s.filter("t > 0").select("device", "ts", "t").window("10s", on=on).group_by("device")
        told(windowed.agg(t=col("t").max()), '"tss"')
        told(windowed.agg(t=col("tt").max()).filter("device > 3"), '"tss"', '"tt"', "device")
        told(s.window("10s", on=on).agg(n=tm.count()).late.filter("late_reason > 3"), '"tss"', "late_reason")
    told(s.window("10s", on="zz").agg(n=tm.count()), '"tss"', 'no column "zz"')
    told(s.group_by("device").agg(n=tm.count()).window("10s", on="n").agg(m=tm.count()), '"tss"', '"n"')


def test_an_event_time_of_another_type_is_told_once_too() -> None:
    s = untimed("n")
    told(s.window("10s", on="n").agg(t=col("t").max()).filter("t = 'x'"), '"n" is int64', "'x'")
    told(s.filter(col("n").dt.hour() > 3), '"n" is int64')


@pytest.mark.parametrize(
    "after", [lambda s: s, lambda s: s.filter("bad > 3"), lambda s: s.with_columns(c=col("bad"))]
)
def test_what_depends_on_a_wrong_column_is_no_mistake(after: Callable[[tm.DStream], tm.DStream]) -> None:
    told(after(wrong_select()), '"tt"')


def test_what_does_not_depend_on_it_is() -> None:
    s = wrong_select()
    told(s.filter("good = 'x'"), '"tt"', "'x'")
    told(s.filter(col("n") > 1), '"tt"', '"n"; the columns are device, ts, good, bad')
    told(s.filter(col("n") > col("bad")), '"tt"', 'no column "n"')
    told(s.select("bad", other=col("bad") + col("goood")).drop("goood"), '"tt"', '"goood"', '"goood"')
    told(
        s.with_columns(more=col("bad") + 1, worse=col("device") + 1).filter("more > worse"), '"tt"', "device"
    )
    told(s.rename({"bad": "x", "gut": "g"}).filter("x > 1 AND bad > 1"), '"tt"', '"gut"', '"bad"')


def test_several_wrong_columns_are_each_told_once() -> None:
    s = readings().with_columns(a=col("x1"), b=col("x2"), c=col("t") + 1)
    told(s.with_columns(d=col("a") + col("b") + col("c")).filter("c = 'hot'"), '"x1"', '"x2"', "hot")


def test_a_wrong_column_may_be_whatever_the_next_operator_asks_for() -> None:
    s = wrong_select()
    told(s.key_by("bad").detect("bad", tm.ml.Ewma()), '"tt"')
    told(s.key_by("device").score(lambda matrix: matrix[:, 0], ["bad", "good"]), '"tt"')
    told(s.key_by("bad", "devise").detect("device", tm.ml.Ewma()), '"tt"', '"devise"', '"device"')
    told(s.score(lambda matrix: matrix[:, 0], ["bad", "device"]), '"tt"', '"device" is string')
    told(s.group_by("bad").agg(m=col("bad").mean(), n=tm.count()).filter("m > n"), '"tt"')


def test_streams_with_a_wrong_column_are_joined_by_their_names() -> None:
    base = readings()
    right, wrong = base.select("device", "t"), base.select("device", t=col("tt"))
    told(wrong.union(right).filter("t = 'hot'"), '"tt"', "hot")
    told(right.union(wrong).filter("t = 'hot'"), '"tt"', "hot")
    told(right.union(base.select("site", t=col("tt"))), '"tt"', "another (site: string, t: unknown)")
    told(
        right.union(base.select(device=col("n"), t=col("tt"))),
        '"tt"',
        "another (device: int64, t: unknown)",
    )


def test_keys_and_event_time_that_a_mistake_hides_are_not_missed() -> None:
    keyed = readings().key_by("device")
    told(keyed.select("t", device=col("devise")).detect("t", tm.ml.Ewma()), '"devise"')
    told(
        keyed.select("t", key=col("devise")).detect("t", tm.ml.Ewma()),
        '"devise"',
        "the keying by device ended",
    )
    s = readings().select("device", "t", ts=col("time"))
    windows = s.window("1m", on="ts").group_by("device").agg(m=col("t").mean(), w=col("tt").max())
    told(windows.filter("m = 'hot'").filter("window_end > ts"), '"time"', '"tt"', "hot", '"ts"')
    late = s.window("1m", on="ts").late
    told(late.filter("late_reason > 1").filter("ts > 0"), '"time"', "late_reason")
    told(s.window("1m", on="when").agg(n=tm.count()), '"time"', '"when"')


def test_a_wrong_aggregation_hides_none_of_the_mistakes_after_it() -> None:
    totals = readings().group_by("device", "sight").agg(m=col("tt").mean(), n=tm.count(), top=col("t").max())
    told(totals.filter("m > 3").filter("n = 'many'").drop("sight", "t"), '"sight"', '"tt"', "many", '"t"')
    windows = readings().window("1m", on="n").group_by("device").agg(m=col("t").mean())
    told(windows.filter("window_start > ts").filter("m = 'hot'"), 'on="n"', 'no column "ts"', "hot")


def test_a_column_that_comes_twice_is_of_unknown_type() -> None:
    s = readings().select("device", device=col("t"))
    told(s.filter("device > 3").filter("device = 'x'").drop("site"), '"device" would exist twice', '"site"')


def test_an_output_is_not_told_of_columns_that_a_mistake_hides() -> None:
    ctx = tm.StreamingContext()
    s = ctx.kafka("readings", bootstrap_servers="nowhere:1", format=tm.Json(SCHEMA))
    s.select("device", payload=col("tt")).to_kafka("out", format=tm.Raw(), value="payload")
    s.to_kafka("out", format=tm.Raw(), value="payload")
    with pytest.raises(tm.TidemillError, match="2 mistakes") as found:
        ctx.explain()
    assert '"tt"' in str(found.value)
    assert '"payload"' in str(found.value)
