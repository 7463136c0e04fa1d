"""Expressions as Python builds them: text, literals, and what is refused at once."""

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tidemill import ConfigError, SchemaError, _native
from tidemill.expressions import Expr, col, functions, lit, sql_expr, when


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (col("a") + 1, "a + 1"),
        (1 - col("a"), "1 - a"),
        (col("a") * 2.5 / col("b"), "a * 2.5 / b"),
        (col("a") // 2, "a // 2"),
        (7 % col("a"), "7 % a"),
        (2 ** col("a"), "power(2, a)"),
        (-col("a"), "-a"),
        (abs(col("a")), "abs(a)"),
        ((col("a") > 1) & (col("b") <= 2), "a > 1 AND b <= 2"),
        ((col("a") == 1) | ~(col("b") != 2), "a = 1 OR NOT b <> 2"),
        (1 < col("a"), "a > 1"),  # noqa: SIM300
        (col("a") == None, "a IS NULL"),  # noqa: E711
        (col("a") != None, "a IS NOT NULL"),  # noqa: E711
        (col("a").is_in(["x", "y"]), "a IN ('x', 'y')"),
        (col("a").is_in(range(2)), "a IN (0, 1)"),
        (col("a").between(1, 5), "a BETWEEN 1 AND 5"),
        (col("a").cast("date"), "CAST(a AS date32)"),
        (col("a").cast("int8", strict=False), "TRY_CAST(a AS int8)"),
        (col("a").fill_null(0), "coalesce(a, 0)"),
        (col("a").clip(0, 1).alias("b"), None),
        (col("a").str.contains("x"), "contains(a, 'x')"),
        (col("a").str.slice(0, 3), "substr(a, 1, 3)"),
        (col("ts").dt.truncate("hour"), "date_trunc('hour', ts)"),
        (when(col("a") > 1).then("x").otherwise("y"), "CASE WHEN a > 1 THEN 'x' ELSE 'y' END"),
        (when(col("a") > 1).then(1).when(col("b")).then(2), "CASE WHEN a > 1 THEN 1 WHEN b THEN 2 END"),
        (functions.atan2(col("y"), col("x")), "atan2(y, x)"),
        (sql_expr("t > 80 AND status = 'ok'"), "t > 80 AND status = 'ok'"),
    ],
)
def test_an_expression_reads_as_it_was_meant(expression: Expr, text: str | None) -> None:
    assert isinstance(expression, Expr)
    assert isinstance(expression, _native.Expr)
    if text is not None:
        assert str(expression) == text
        assert repr(expression) == f"<Expr {text}>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (3, "3"),
        (2**64 - 1, "18446744073709551615"),
        (1.5, "1.5"),
        ("it's", "'it''s'"),
        (dt.datetime(2026, 1, 2, 3, 4, 5), "'2026-01-02T03:04:05'"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "'2026-01-02T03:04:05Z'"),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1))), "'2026-01-02T02:00:00Z'"),
        (dt.date(1969, 12, 31), "'1969-12-31'"),
        (dt.time(12, 30), "'12:30:00'"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
    ],
)
def test_python_values_are_literals(value: Any, text: str) -> None:
    assert str(lit(value)) == text


def test_decimals_spans_and_bytes_are_literals() -> None:
    for value in (Decimal("12.50"), Decimal("1E+3"), Decimal("-0.001"), dt.timedelta(seconds=1.5), b"\x00x"):
        assert isinstance(lit(value), Expr)


def test_a_literal_takes_a_type() -> None:
    assert str(lit(5, "int8")) == "CAST(5 AS int8)"


@pytest.mark.parametrize("value", [object(), [1], {"a": 1}, 1j])
def test_what_is_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="expected an expression or a literal"):
        col("a") + value


def test_an_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 64 bits"):
        lit(2**64)


def test_a_decimal_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite decimal"):
        lit(Decimal("NaN"))


def test_an_expression_has_no_truth() -> None:
    with pytest.raises(TypeError, match="use & for and"):
        bool(col("a") > 1)
    with pytest.raises(TypeError, match="between"):
        1 < col("a") < 3  # noqa: B015
    with pytest.raises(TypeError, match="use & for and"):
        col("a") > 1 and col("b") > 2


def test_a_column_is_named_by_text() -> None:
    with pytest.raises(TypeError, match="lit"):
        col(5)  # type: ignore[arg-type]


def test_a_text_is_not_several_values() -> None:
    with pytest.raises(TypeError, match="several values"):
        col("a").is_in("abc")


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(SchemaError, match='did you mean "float64"'):
        col("a").cast("flot64")


def test_functions_are_listed_and_documented() -> None:
    assert "date_bin" in dir(functions)
    assert "random" not in dir(functions)
    assert "date_bin(" in (functions.date_bin.__doc__ or "")
    with pytest.raises(AttributeError, match="did you mean lower"):
        getattr(functions, "lowr")  # noqa: B009
    with pytest.raises(AttributeError, match="always gives the same"):
        getattr(functions, "random")  # noqa: B009
    with pytest.raises(ConfigError, match="always gives the same"):
        getattr(functions, "random")  # noqa: B009
    assert not hasattr(functions, "random")
    assert not hasattr(functions, "lowr")


def test_an_expression_says_what_it_reads_and_how_it_is_called() -> None:
    expression = (col("a") + col("b") * col("a")).alias("c")
    assert expression.columns == ["a", "b"]
    assert expression.output_name == "c"
    assert col("a").output_name == "a"
    assert (col("a") + 1).output_name is None


def test_an_expression_is_no_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        {col("a"): 1}
