"""Functions of lists and maps: what `col(...).list` and `tm.functions` compute of them, nulls and empty ones too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

import tidemill as tm
from tidemill import col
from tidemill.testing import ScriptedSource

SCHEMA = {
    "a": list[int],
    "x": list[float],
    "s": list[str],
    "m": dict[str, float],
    "n": int,
    "deep": list[list[int]],
}
RECORDS = [
    {"a": [3, 1, None, 2, 3], "x": [0.5, None, -1.5], "s": ["b", "a", None, "b"],
     "m": {"u": 1.0}, "n": 3, "deep": [[1], [2, 3]]},
    {"a": [], "x": [], "s": [], "m": {}, "n": 0, "deep": []},
    {"a": [None], "x": [None], "s": [None], "m": None, "n": None, "deep": [None, [None]]},
    {},
]  # fmt: skip

Computed = Callable[[tm.Expr], list[Any]]


@pytest.fixture
def computed() -> Computed:
    """The values of an expression over the records, in order."""

    def compute(expression: tm.Expr) -> list[Any]:
        source = ScriptedSource("readings", partitions=1)
        source.push(0, [json.dumps(record).encode() for record in RECORDS])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        stream = ctx.scripted(source, format=tm.Json(SCHEMA)).select(found=expression)
        return [row["found"] for batch in stream for row in batch.to_pyarrow().to_pylist()]

    return compute


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        (col("a").list.contains(1), [True, False, False, None]),
        (col("a").list.contains(col("n")), [True, False, None, None]),
        (col("s").list.contains("b"), [True, False, False, None]),
        (col("a").list.sum(), [9, None, None, None]),
        (col("x").list.sum(), [-1.0, None, None, None]),
        (col("a").list.mean(), [2.25, None, None, None]),
        (col("x").list.mean(), [-0.5, None, None, None]),
        (col("a").list.min(), [1, None, None, None]),
        (col("x").list.max(), [0.5, None, None, None]),
        (col("s").list.max(), ["b", None, None, None]),
        (col("a").list.sort(), [[None, 1, 2, 3, 3], [], [None], None]),
        (col("a").list.sort(descending=True), [[None, 3, 3, 2, 1], [], [None], None]),
        (col("a").list.unique(), [[3, 1, None, 2], [], [None], None]),
        (col("s").list.reverse(), [["b", None, "a", "b"], [], [None], None]),
        (col("s").list.join("-"), ["b-a-b", "", "", None]),
        (tm.functions.map_keys(col("m")), [["u"], [], None, None]),
        (tm.functions.map_values(col("m")), [[1.0], [], None, None]),
        (tm.functions.flatten(col("deep")), [[1, 2, 3], [], [None], None]),
        (tm.functions.array_position(col("a"), tm.lit(2)), [4, None, None, None]),
        (tm.sql_expr("array_sum(a) + array_length(s)"), [13, None, None, None]),
    ],
    ids=str,
)
def test_values_of_lists_and_maps(computed: Computed, expression: tm.Expr, values: list[Any]) -> None:
    assert computed(expression) == values


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (col("n").list.sum(), "array_sum"),
        (col("s").list.mean(), "array_avg"),
        (col("n").list.contains(1), "array_has"),
        (col("m").list.max(), "array_max"),
        (col("n").list.sort(), "array_sort"),
        (col("m").list.unique(), "array_distinct"),
    ],
    ids=str,
)
def test_what_is_no_such_list_is_told_before_the_start(
    computed: Computed, expression: tm.Expr, part: str
) -> None:
    with pytest.raises(tm.SchemaError) as error:
        computed(expression)
    print(error.value)
    assert part in str(error.value)
    assert "in select" in str(error.value)


def test_no_function_makes_a_list_as_long_as_a_number_says() -> None:
    for name in ("range", "generate_series", "array_repeat", "array_resize"):
        with pytest.raises(tm.ConfigError, match="there is no function"):
            getattr(tm.functions, name)


def test_every_function_of_lists_answers_or_refuses(computed: Computed) -> None:
    """Of each number of arguments, of several types: a value, or an error of ours, and never a panic."""
    names = [
        name for name in dir(tm.functions) if name.startswith(("array_", "list_", "map_", "cosine", "inner"))
    ]
    assert len(names) > 60
    others = [
        (),
        (tm.lit(1),),
        (col("a"),),
        (tm.lit("b"), tm.lit(2)),
        (tm.lit(1), tm.lit(2)),
        (tm.lit(math.inf),),
    ]
    answers = 0
    for name in names:
        for of in (col("a"), col("x"), col("s"), col("m"), col("deep")):
            for more in others:
                try:
                    answers += len(computed(getattr(tm.functions, name)(of, *more)))
                except tm.TidemillError:
                    continue
    assert answers > 1_000
