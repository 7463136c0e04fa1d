"""Expressions: a value for each row, computed from its columns in Rust.

Nothing is computed and nothing is checked while an expression is built: it is a description, and everything that is
wrong with it is reported, all at once, when the stream that uses it is checked.

>>> from tidemill import col
>>> (col("temperature") > 80) & (col("status") == "ok")
<Expr temperature > 80 AND status = 'ok'>
"""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, runtime_checkable

import tidemill._native as _native
from tidemill.hints import no_attribute

__all__ = ["Expr", "Literal", "When", "aggregate", "col", "count", "functions", "lit", "sql_expr", "when"]


@runtime_checkable
class _Scalar(Protocol):
    """A NumPy scalar, told by what it can do, so that NumPy need not be imported."""

    def item(self) -> Any: ...


Literal: TypeAlias = (
    bool | int | float | str | bytes | dt.datetime | dt.date | dt.time | dt.timedelta | Decimal | None
)
"""A Python value that may stand where an expression is expected; NumPy scalars too."""

_PYTHON_TYPES: dict[object, builtins.str] = {
    bool: "bool",
    bytes: "binary",
    dt.date: "date32",
    dt.datetime: "timestamp[us]",
    dt.timedelta: "duration[us]",
    float: "float64",
    int: "int64",
    builtins.str: "string",
}
"""As Polars reads them."""

_UFUNC_OPERATORS = {
    "add": "+",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "divide": "/",
    "equal": "==",
    "floor_divide": "//",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "logical_and": "&",
    "logical_or": "|",
    "multiply": "*",
    "not_equal": "!=",
    "power": "**",
    "remainder": "%",
    "subtract": "-",
}
"""What NumPy calls for an operator between one of its numbers and an expression."""

_UFUNC_FUNCTIONS = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "ceil": "ceil",
    "cos": "cos",
    "cosh": "cosh",
    "exp": "exp",
    "floor": "floor",
    "isnan": "isnan",
    "log": "ln",
    "log10": "log10",
    "log2": "log2",
    "sign": "signum",
    "sin": "sin",
    "sinh": "sinh",
    "sqrt": "sqrt",
    "tan": "tan",
    "tanh": "tanh",
    "trunc": "trunc",
}
"""Functions that NumPy means as the engine does."""

_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)


class Expr(_native.Expr):
    """A value for each row; made by :func:`col`, :func:`lit`, :func:`when` and :func:`sql_expr`.

    Operators are Python's: ``+ - * / // % **``, comparisons, and ``& | ~`` for and, or, not. Nulls stay null, ``/``
    is true division, ``//`` and ``%`` round down as in Python, and integers that overflow or are divided by zero
    (``//``, ``%``) fail the batch with a :class:`~tidemill.DataError`. Floats never do: ``/`` by zero is an infinity,
    and the square root or logarithm of a negative number NaN, as in NumPy. A moment less another is a length of time,
    and a moment or a day may be moved by one, as in Polars. ``== None`` asks :meth:`is_null`; any other comparison
    with null is true for no row, and is refused.

    >>> from tidemill import col
    >>> (col("celsius") * 1.8 + 32).alias("fahrenheit")
    <Expr celsius * 1.8 + 32 AS fahrenheit>
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == makes an expression, so an Expr cannot be a key

    def __repr__(self) -> builtins.str:
        return f"<Expr {self}>"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"the expression {self} is neither true nor false before it meets rows; "
            "use & for and, | for or, ~ for not (with parentheses), and between(low, high) for low <= x <= high"
        )

    def __array_ufunc__(self, ufunc: Any, method: builtins.str, *inputs: Any, **options: Any) -> Expr:
        """NumPy's functions of a number, ``np.log(col("x"))``: those that there are here too."""
        name = ufunc.__name__
        if method == "__call__" and not options:
            if name in _UFUNC_OPERATORS:
                return _operator(_UFUNC_OPERATORS[name], *inputs)
            if name in _UFUNC_FUNCTIONS:
                return _function(_UFUNC_FUNCTIONS[name], *inputs)
        raise TypeError(
            f"np.{name} takes numbers, found the expression {self}, which has none before it meets rows; "
            "dir(tm.functions) lists the functions of expressions, and map_batches(fn) calls NumPy with a whole batch"
        )

    def __round__(self, digits: int = 0) -> Expr:
        return self.round(digits)

    def __floor__(self) -> Expr:
        return self.floor()

    def __ceil__(self) -> Expr:
        return self.ceil()

    def __trunc__(self) -> Expr:
        return _function("trunc", self)

    def __float__(self) -> NoReturn:
        raise TypeError(
            f"the expression {self} is no number before it meets rows; functions of math are methods of it here, as in "
            'col("x").sqrt(), or in tm.functions, as in tm.functions.sin(col("x")); cast(float) converts'
        )

    def __int__(self) -> NoReturn:
        raise TypeError(f"the expression {self} is no number before it meets rows; cast(int) converts")

    def __iter__(self) -> NoReturn:
        text = (
            f"the expression {self} has no rows to go through; foreach_batch(fn) gets them, a batch at a time"
        )
        raise TypeError(text)

    def __getitem__(self, key: builtins.str | int) -> Expr:
        """The member of a struct or map with this name, or the item of a list in this place (-1 is the last).

        Where there is none, and where the struct, map or list is null, it is null.

        >>> from tidemill import col
        >>> col("readings")[-1]["value"]
        <Expr member(item(readings, -1), 'value')>
        """
        if isinstance(key, builtins.str):
            return _function("member", self, key)
        if type(key) is int:
            return _function("item", self, key)
        raise TypeError(
            f"a member's name or an item's place is expected, found {key!r}; the expression {self} has no rows: "
            "stream.filter(...) picks rows, and .str.slice(start, length) characters"
        )

    @property
    def struct(self) -> StructMethods:
        """What can be done with structs.

        >>> from tidemill import col
        >>> col("at").struct.field("lat")
        <Expr member(at, 'lat')>
        """
        return StructMethods(self)

    @property
    def list(self) -> ListMethods:
        """What can be done with lists.

        >>> from tidemill import col
        >>> col("tags").list.len()
        <Expr item_count(tags)>
        """
        return ListMethods(self)

    def __add__(self, other: Expr | Literal) -> Expr:
        return _operator("+", self, other)

    def __radd__(self, other: Literal) -> Expr:
        return _operator("+", other, self)

    def __sub__(self, other: Expr | Literal) -> Expr:
        return _operator("-", self, other)

    def __rsub__(self, other: Literal) -> Expr:
        return _operator("-", other, self)

    def __mul__(self, other: Expr | Literal) -> Expr:
        return _operator("*", self, other)

    def __rmul__(self, other: Literal) -> Expr:
        return _operator("*", other, self)

    def __truediv__(self, other: Expr | Literal) -> Expr:
        return _operator("/", self, other)

    def __rtruediv__(self, other: Literal) -> Expr:
        return _operator("/", other, self)

    def __floordiv__(self, other: Expr | Literal) -> Expr:
        return _operator("//", self, other)

    def __rfloordiv__(self, other: Literal) -> Expr:
        return _operator("//", other, self)

    def __mod__(self, other: Expr | Literal) -> Expr:
        return _operator("%", self, other)

    def __rmod__(self, other: Literal) -> Expr:
        return _operator("%", other, self)

    def __pow__(self, other: Expr | Literal) -> Expr:
        return _operator("**", self, other)

    def __rpow__(self, other: Literal) -> Expr:
        return _operator("**", other, self)

    def __neg__(self) -> Expr:
        return _operator("-", self)

    def __abs__(self) -> Expr:
        return self.abs()

    def __and__(self, other: Expr | bool | None) -> Expr:
        return _operator("&", self, other)

    def __rand__(self, other: bool | None) -> Expr:
        return _operator("&", other, self)

    def __or__(self, other: Expr | bool | None) -> Expr:
        return _operator("|", self, other)

    def __ror__(self, other: bool | None) -> Expr:
        return _operator("|", other, self)

    def __invert__(self) -> Expr:
        return _operator("~", self)

    def __eq__(self, other: Expr | Literal) -> Expr:  # type: ignore[override]
        return self.is_null() if other is None else _operator("==", self, other)

    def __ne__(self, other: Expr | Literal) -> Expr:  # type: ignore[override]
        return self.is_not_null() if other is None else _operator("!=", self, other)

    def __lt__(self, other: Expr | Literal) -> Expr:
        return _operator("<", self, other)

    def __le__(self, other: Expr | Literal) -> Expr:
        return _operator("<=", self, other)

    def __gt__(self, other: Expr | Literal) -> Expr:
        return _operator(">", self, other)

    def __ge__(self, other: Expr | Literal) -> Expr:
        return _operator(">=", self, other)

    def alias(self, name: builtins.str) -> Expr:
        """The same value under another name.

        >>> from tidemill import col
        >>> (col("a") + 1).alias("b").output_name
        'b'
        """
        return Expr(_native.expr_alias(self, name))

    def cast(self, type: builtins.str | type[Any], *, strict: bool = True) -> Expr:  # noqa: A002
        """Converted to a type by Arrow's name: ``"int64"``, ``"timestamp[us, Europe/Rome]"``, ``"decimal(10, 2)"``.

        Python's types stand for Arrow's as in Polars: ``int`` for int64, ``float`` for float64, ``str``, ``bool``,
        ``bytes``, ``date``, ``datetime`` and ``timedelta``.

        A value that cannot be converted fails the batch with a :class:`~tidemill.DataError`; with ``strict=False`` it
        becomes null. An unknown type is a :class:`~tidemill.SchemaError` at once.

        >>> from tidemill import col
        >>> col("x").cast("int64", strict=False)
        <Expr TRY_CAST(x AS int64)>
        """
        return Expr(_native.expr_cast(self, _type_name("cast", type), strict))

    def is_null(self) -> Expr:
        """Whether it is null.

        >>> from tidemill import col
        >>> col("x").is_null()
        <Expr x IS NULL>
        """
        return _operator("is null", self)

    def is_not_null(self) -> Expr:
        """Whether it is not null.

        >>> from tidemill import col
        >>> col("x").is_not_null()
        <Expr x IS NOT NULL>
        """
        return _operator("is not null", self)

    def is_nan(self) -> Expr:
        """Whether it is the float that is no number; null where it is null.

        >>> from tidemill import col
        >>> col("x").is_nan()
        <Expr isnan(x)>
        """
        return _function("isnan", self)

    def fill_null(self, value: Expr | Literal) -> Expr:
        """``value`` where this is null.

        >>> from tidemill import col
        >>> col("x").fill_null(0)
        <Expr coalesce(x, 0)>
        """
        return _function("coalesce", self, value)

    def coalesce(self, *others: Expr | Literal) -> Expr:
        """The first of this and the others that is not null.

        >>> from tidemill import col
        >>> col("x").coalesce(col("y"), 0)
        <Expr coalesce(x, y, 0)>
        """
        return _function("coalesce", self, *others)

    def is_in(self, values: Iterable[Expr | Literal]) -> Expr:
        """Whether it equals one of ``values``.

        >>> from tidemill import col
        >>> col("status").is_in(["ok", "warn"])
        <Expr status IN ('ok', 'warn')>
        """
        if isinstance(values, builtins.str | bytes):
            raise TypeError(f"is_in takes several values, found {values!r}; pass [{values!r}]")
        return _operator("in", self, *values)

    def between(self, low: Expr | Literal, high: Expr | Literal) -> Expr:
        """Whether it lies between two values, both included.

        >>> from tidemill import col
        >>> col("x").between(1, 5)
        <Expr x BETWEEN 1 AND 5>
        """
        return _operator("between", self, low, high)

    def clip(self, low: Expr | Literal = None, high: Expr | Literal = None) -> Expr:
        """Never less than ``low`` and never more than ``high``; ``None`` leaves a side open. Null stays null.

        >>> from tidemill import col
        >>> col("x").clip(high=100)
        <Expr CASE WHEN x > 100 THEN 100 ELSE x END>
        """
        clipped = self
        if low is not None:
            clipped = when(clipped < low).then(low).otherwise(clipped)
        if high is not None:
            clipped = when(clipped > high).then(high).otherwise(clipped)
        return clipped

    def abs(self) -> Expr:
        """Without its sign.

        >>> from tidemill import col
        >>> col("x").abs()
        <Expr abs(x)>
        """
        return _function("abs", self)

    def round(self, digits: int = 0) -> Expr:
        """Rounded to so many digits after the point; halves go away from zero.

        >>> from tidemill import col
        >>> col("x").round(2)
        <Expr round(x, 2)>
        """
        return _function("round", self, digits)

    def floor(self) -> Expr:
        """The largest whole number not above it.

        >>> from tidemill import col
        >>> col("x").floor()
        <Expr floor(x)>
        """
        return _function("floor", self)

    def ceil(self) -> Expr:
        """The smallest whole number not below it.

        >>> from tidemill import col
        >>> col("x").ceil()
        <Expr ceil(x)>
        """
        return _function("ceil", self)

    def sqrt(self) -> Expr:
        """The square root; NaN of a negative number.

        >>> from tidemill import col
        >>> col("x").sqrt()
        <Expr sqrt(x)>
        """
        return _function("sqrt", self)

    def exp(self) -> Expr:
        """The exponential.

        >>> from tidemill import col
        >>> col("x").exp()
        <Expr exp(x)>
        """
        return _function("exp", self)

    def ln(self) -> Expr:
        """The natural logarithm.

        >>> from tidemill import col
        >>> col("x").ln()
        <Expr ln(x)>
        """
        return _function("ln", self)

    def log10(self) -> Expr:
        """The logarithm to base 10.

        >>> from tidemill import col
        >>> col("x").log10()
        <Expr log10(x)>
        """
        return _function("log10", self)

    def sign(self) -> Expr:
        """-1, 0 or 1.

        >>> from tidemill import col
        >>> col("x").sign()
        <Expr signum(x)>
        """
        return _function("signum", self)

    def sum(self) -> Expr:
        """The sum over a group's rows; null where all are null. A sum of integers that overflows fails the batch.

        Integers, decimals and durations are summed exactly. Floats are added one after the other, in an order that
        threads and executors do not change: the same batches give the same bits. Each addition rounds, so that a sum of
        `n` floats is off by at most `n` · 2⁻⁵³ of the sum of their *magnitudes* (in practice about √n · 2⁻⁵³), however
        small the sum itself is, and batches cut otherwise may give another within that bound. Where large values cancel
        each other and the rest matters, cast them to a decimal first.

        >>> from tidemill import col
        >>> col("x").sum()
        <Expr sum(x)>
        """
        return aggregate("sum", self)

    def mean(self) -> Expr:
        """The mean over a group's rows; null where all are null.

        Of numbers it is a float64: of integers and decimals the one nearest to the exact mean, of floats their sum, for
        whose rounding see :meth:`sum`, divided by their count. Of durations and timestamps it is one too, in the same
        unit, rounded towards zero as in Polars.

        >>> from tidemill import col
        >>> col("x").mean()
        <Expr mean(x)>
        """
        return aggregate("mean", self)

    def min(self) -> Expr:
        """The smallest of a group; NaN is larger than every number.

        >>> from tidemill import col
        >>> col("x").min()
        <Expr min(x)>
        """
        return aggregate("min", self)

    def max(self) -> Expr:
        """The largest of a group; NaN is larger than every number.

        >>> from tidemill import col
        >>> col("x").max()
        <Expr max(x)>
        """
        return aggregate("max", self)

    def var(self) -> Expr:
        """The sample variance of a group (``ddof=1``); null for fewer than two values.

        >>> from tidemill import col
        >>> col("x").var()
        <Expr var(x)>
        """
        return aggregate("var", self)

    def stddev(self) -> Expr:
        """The sample standard deviation of a group (``ddof=1``); null for fewer than two values.

        >>> from tidemill import col
        >>> col("x").stddev()
        <Expr stddev(x)>
        """
        return aggregate("stddev", self)

    def std(self) -> Expr:
        """As :meth:`stddev`, under its name in Polars, pandas and NumPy.

        >>> from tidemill import col
        >>> col("x").std()
        <Expr stddev(x)>
        """
        return self.stddev()

    def count(self) -> Expr:
        """How many rows of a group are not null; :func:`tidemill.count` counts all.

        >>> from tidemill import col
        >>> col("x").count()
        <Expr count(x)>
        """
        return aggregate("count", self)

    def n_unique(self) -> Expr:
        """How many different values a group has, counted exactly; all of them are remembered.

        >>> from tidemill import col
        >>> col("x").n_unique()
        <Expr count(DISTINCT x)>
        """
        return Expr(_native.expr_aggregate("count", [self], True))

    def first(self) -> Expr:
        """The first value of a group: in a window by event time, in a batch in order of arrival.

        >>> from tidemill import col
        >>> col("x").first()
        <Expr first(x)>
        """
        return aggregate("first", self)

    def last(self) -> Expr:
        """The last value of a group: in a window by event time, in a batch in order of arrival.

        >>> from tidemill import col
        >>> col("x").last()
        <Expr last(x)>
        """
        return aggregate("last", self)

    def approx_distinct(self) -> Expr:
        """About how many different values a group has.

        Exact up to 256, and from there by HyperLogLog: about 1 % off. A group takes 8 bytes a value up to 2 KiB, then
        16 KiB. The result depends on the values alone, not on their order or on batches.

        >>> from tidemill import col
        >>> col("x").approx_distinct()
        <Expr approx_distinct(x)>
        """
        return aggregate("approx_distinct", self)

    def approx_quantile(self, q: float) -> Expr:
        """About the value below which a part `q` of a group lies (t-digest): 0.5 is the median.

        Between the values themselves where a group has fewer than 256. NaN is larger than every number.

        >>> from tidemill import col
        >>> col("x").approx_quantile(0.99)
        <Expr approx_quantile(x, 0.99)>
        """
        return aggregate("approx_quantile", self, q)

    def top_k(self, k: int) -> Expr:
        """The `k` largest values of a group, as a list from the largest down.

        >>> from tidemill import col
        >>> col("x").top_k(3)
        <Expr top_k(x, 3)>
        """
        return aggregate("top_k", self, k)

    def collect(self) -> Expr:
        """All values of a group as a list, nulls included.

        They are in order of arrival: of the batches, within a batch of the source's partitions, and within a partition
        of its offsets. Where windows overlap they are so within each pane (the greatest common divisor of length and
        slide), and the panes follow one another in event time.

        >>> from tidemill import col
        >>> col("x").collect()
        <Expr collect(x)>
        """
        return aggregate("collect", self)

    def filter(self, condition: Expr | builtins.str) -> Expr:
        """The aggregate over only those rows of a group for which `condition` is true; null counts as false.

        A group without such rows is there all the same: its sum is null, its count 0. A second filter narrows the
        first. In SQL text it is ``sum(x) FILTER (WHERE status = 'ok')``.

        Args:
            condition: an expression, or SQL text. What the aggregate is made of is computed for the rows that pass
                alone, so that ``(1 // col("n")).sum().filter(col("n") != 0)`` divides by no zero.

        >>> import tidemill as tm
        >>> tm.col("x").sum().filter(tm.col("status") == "ok")
        <Expr sum(x) FILTER (WHERE status = 'ok')>
        >>> tm.count().filter("status = 'ok' AND x > 0") / tm.count()
        <Expr count(*) FILTER (WHERE status = 'ok' AND x > 0) / count(*)>
        """
        parsed = sql_expr(condition) if isinstance(condition, builtins.str) else _expression(condition)
        return Expr(_native.expr_filter(self, parsed))

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: builtins.str) -> Any:
            written = {} if name.startswith("_") else _written()
            raise no_attribute(f"{type(self).__name__!r} object", name, written)

    @property
    def str(self) -> StringMethods:
        """What can be done with text.

        >>> from tidemill import col
        >>> col("name").str.lower()
        <Expr lower(name)>
        """
        return StringMethods(self)

    @property
    def dt(self) -> DatetimeMethods:
        """What can be done with times.

        >>> from tidemill import col
        >>> col("ts").dt.hour()
        <Expr date_part('hour', ts)>
        """
        return DatetimeMethods(self)


def _written() -> dict[str, str]:
    """All that can be made of an expression, as it is written: methods, aggregates and functions."""
    functions = {name: f"tm.functions.{name}(...)" for name in _native.expr_function_names()}
    aggregates = {name: f'tm.aggregate("{name}", ...)' for name in _native.expr_aggregate_names()}
    return functions | aggregates | {name: name for name in dir(Expr)}


class _Methods:
    """What can be done with values of one type, reached by an attribute of an expression."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: builtins.str) -> Any:
            functions = {one: f"tm.functions.{one}(...)" for one in _native.expr_function_names()}
            own = {one: one for one in dir(type(self))}
            written = {} if name.startswith("_") else functions | own
            raise no_attribute(f"{type(self).__name__!r} object", name, written)


class StringMethods(_Methods):
    """Functions of text, reached by ``col("name").str``.

    >>> from tidemill import col
    >>> col("name").str.lower().str.starts_with("pump")
    <Expr starts_with(lower(name), 'pump')>
    """

    __slots__ = ("_text",)

    def __init__(self, text: Expr) -> None:
        self._text = text

    def lower(self) -> Expr:
        """In small letters.

        >>> from tidemill import col
        >>> col("name").str.lower()
        <Expr lower(name)>
        """
        return _function("lower", self._text)

    def upper(self) -> Expr:
        """In capital letters.

        >>> from tidemill import col
        >>> col("name").str.upper()
        <Expr upper(name)>
        """
        return _function("upper", self._text)

    def strip(self, characters: str = " ") -> Expr:
        """Without these characters at both ends.

        >>> from tidemill import col
        >>> col("name").str.strip()
        <Expr btrim(name, ' ')>
        """
        return _function("btrim", self._text, characters)

    def lstrip(self, characters: str = " ") -> Expr:
        """Without these characters at its start.

        >>> from tidemill import col
        >>> col("code").str.lstrip("0")
        <Expr ltrim(code, '0')>
        """
        return _function("ltrim", self._text, characters)

    def rstrip(self, characters: str = " ") -> Expr:
        """Without these characters at its end.

        >>> from tidemill import col
        >>> col("line").str.rstrip()
        <Expr rtrim(line, ' ')>
        """
        return _function("rtrim", self._text, characters)

    def length(self) -> Expr:
        """The number of its characters.

        >>> from tidemill import col
        >>> col("name").str.length()
        <Expr character_length(name)>
        """
        return _function("character_length", self._text)

    def contains(self, part: Expr | str) -> Expr:
        """Whether ``part`` occurs in it, as it is; :meth:`matches` takes a pattern.

        >>> from tidemill import col
        >>> col("name").str.contains("pump")
        <Expr contains(name, 'pump')>
        """
        return _function("contains", self._text, part)

    def starts_with(self, prefix: Expr | str) -> Expr:
        """Whether it starts with ``prefix``.

        >>> from tidemill import col
        >>> col("name").str.starts_with("pump")
        <Expr starts_with(name, 'pump')>
        """
        return _function("starts_with", self._text, prefix)

    def ends_with(self, suffix: Expr | str) -> Expr:
        """Whether it ends with ``suffix``.

        >>> from tidemill import col
        >>> col("name").str.ends_with(col("suffix"))
        <Expr ends_with(name, suffix)>
        """
        return _function("ends_with", self._text, suffix)

    def matches(self, pattern: str) -> Expr:
        """Whether a regular expression (of Rust's ``regex``) matches somewhere in it.

        >>> from tidemill import col
        >>> col("name").str.matches("^pump-[0-9]+$")
        <Expr regexp_like(name, '^pump-[0-9]+$')>
        """
        return _function("regexp_like", self._text, pattern)

    def replace(self, old: Expr | str, new: Expr | str) -> Expr:
        """With every ``old`` replaced by ``new``.

        >>> from tidemill import col
        >>> col("name").str.replace("-", "_")
        <Expr replace(name, '-', '_')>
        """
        return _function("replace", self._text, old, new)

    def slice(self, start: int, length: int | None = None) -> Expr:
        """Its characters from ``start`` (from 0) on, at most ``length`` of them.

        >>> from tidemill import col
        >>> col("name").str.slice(0, 4)
        <Expr substr(name, 1, 4)>
        """
        if start < 0:
            raise ValueError(f"slice counts from the start, from 0; found {start}")
        return _function("substr", self._text, start + 1, *(() if length is None else (length,)))

    def split_part(self, separator: str, index: int) -> Expr:
        """The part number ``index`` (from 0) between separators; empty text where there is none.

        >>> from tidemill import col
        >>> col("name").str.split_part("-", 0)
        <Expr split_part(name, '-', 1)>
        """
        return _function("split_part", self._text, separator, index + 1 if index >= 0 else index)

    def to_datetime(self, format: str | None = None, *, strict: bool = True) -> Expr:  # noqa: A002
        """The moment that it says, ISO 8601 or as ``format`` (of Rust's ``chrono``) says; microseconds.

        Text that cannot be read fails the batch with a :class:`~tidemill.DataError`; with ``strict=False`` it becomes
        null. In SQL text that is ``try_to_timestamp_micros``.

        >>> from tidemill import col
        >>> col("text").str.to_datetime("%d.%m.%Y %H:%M")
        <Expr to_timestamp_micros(text, '%d.%m.%Y %H:%M')>
        >>> col("text").str.to_datetime(strict=False)
        <Expr try_to_timestamp_micros(text)>
        """
        return self._read("to_timestamp_micros", format, strict)

    def to_date(self, format: str | None = None, *, strict: bool = True) -> Expr:  # noqa: A002
        """The day that it says, as :meth:`to_datetime` reads it.

        >>> from tidemill import col
        >>> col("text").str.to_date("%d.%m.%Y", strict=False)
        <Expr try_to_date(text, '%d.%m.%Y')>
        """
        return self._read("to_date", format, strict)

    def _read(self, function: str, format: str | None, strict: bool) -> Expr:  # noqa: A002
        name = function if strict else f"try_{function}"
        return _function(name, self._text, *(() if format is None else (format,)))


class DatetimeMethods(_Methods):
    """Functions of timestamps and dates, reached by ``col("ts").dt``; parts are in the column's own zone.

    >>> from tidemill import col
    >>> col("ts").dt.truncate("day")
    <Expr date_trunc('day', ts)>
    """

    __slots__ = ("_moment",)

    def __init__(self, moment: Expr) -> None:
        self._moment = moment

    def _part(self, name: str) -> Expr:
        return _function("date_part", name, self._moment)

    def year(self) -> Expr:
        """The year.

        >>> from tidemill import col
        >>> col("ts").dt.year()
        <Expr date_part('year', ts)>
        """
        return self._part("year")

    def month(self) -> Expr:
        """The month, from 1.

        >>> from tidemill import col
        >>> col("ts").dt.month()
        <Expr date_part('month', ts)>
        """
        return self._part("month")

    def day(self) -> Expr:
        """The day of the month, from 1.

        >>> from tidemill import col
        >>> col("ts").dt.day()
        <Expr date_part('day', ts)>
        """
        return self._part("day")

    def day_of_year(self) -> Expr:
        """The day of the year, from 1.

        >>> from tidemill import col
        >>> col("ts").dt.day_of_year()
        <Expr date_part('doy', ts)>
        """
        return self._part("doy")

    def day_of_week(self) -> Expr:
        """The day of the week, Sunday is 0.

        >>> from tidemill import col
        >>> col("ts").dt.day_of_week()
        <Expr date_part('dow', ts)>
        """
        return self._part("dow")

    def hour(self) -> Expr:
        """The hour, 0 to 23.

        >>> from tidemill import col
        >>> col("ts").dt.hour()
        <Expr date_part('hour', ts)>
        """
        return self._part("hour")

    def minute(self) -> Expr:
        """The minute, 0 to 59.

        >>> from tidemill import col
        >>> col("ts").dt.minute()
        <Expr date_part('minute', ts)>
        """
        return self._part("minute")

    def second(self) -> Expr:
        """The whole second, 0 to 59.

        >>> from tidemill import col
        >>> col("ts").dt.second()
        <Expr date_part('second', ts)>
        """
        return self._part("second")

    def epoch(self) -> Expr:
        """The seconds since 1970-01-01 UTC, as a float64.

        >>> from tidemill import col
        >>> col("ts").dt.epoch()
        <Expr date_part('epoch', ts)>
        """
        return self._part("epoch")

    def truncate(self, unit: str) -> Expr:
        """The start of its ``"second"``, ``"minute"``, ``"hour"``, ``"day"``, ``"week"``, ``"month"`` or ``"year"``.

        >>> from tidemill import col
        >>> col("ts").dt.truncate("hour")
        <Expr date_trunc('hour', ts)>
        """
        return _function("date_trunc", unit, self._moment)

    def format(self, pattern: str) -> Expr:
        """As text, by a pattern such as ``"%Y-%m-%d %H:%M"``.

        >>> from tidemill import col
        >>> col("ts").dt.format("%H:%M")
        <Expr to_char(ts, '%H:%M')>
        """
        return _function("to_char", self._moment, pattern)


class StructMethods(_Methods):
    """Functions of structs, reached by ``col("at").struct``.

    >>> from tidemill import col
    >>> col("at").struct.field("place").struct.field("lat")
    <Expr member(member(at, 'place'), 'lat')>
    """

    __slots__ = ("_of",)

    def __init__(self, of: Expr) -> None:
        self._of = of

    def field(self, name: builtins.str) -> Expr:
        """The member with this name, as ``col("a")["name"]``; null where the struct is.

        >>> from tidemill import col
        >>> col("at").struct.field("lat")
        <Expr member(at, 'lat')>
        """
        return _function("member", self._of, name)


class ListMethods(_Methods):
    """Functions of lists, reached by ``col("tags").list``.

    >>> from tidemill import col
    >>> col("readings").list.last()["t"]
    <Expr member(item(readings, -1), 't')>
    """

    __slots__ = ("_of",)

    def __init__(self, of: Expr) -> None:
        self._of = of

    def len(self) -> Expr:
        """How many items it has, also of a map; null where it is null.

        >>> from tidemill import col
        >>> col("tags").list.len()
        <Expr item_count(tags)>
        """
        return _function("item_count", self._of)

    def get(self, place: int | Expr) -> Expr:
        """The item in a place, counted from 0, or from the end where negative; null where there is none.

        >>> from tidemill import col
        >>> col("tags").list.get(0)
        <Expr item(tags, 0)>
        """
        return _function("item", self._of, place)

    def first(self) -> Expr:
        """The first item.

        >>> from tidemill import col
        >>> col("tags").list.first()
        <Expr item(tags, 0)>
        """
        return self.get(0)

    def last(self) -> Expr:
        """The last item.

        >>> from tidemill import col
        >>> col("tags").list.last()
        <Expr item(tags, -1)>
        """
        return self.get(-1)

    def contains(self, item: Expr | Literal) -> Expr:
        """Whether one of its items is this.

        >>> from tidemill import col
        >>> col("tags").list.contains("spare")
        <Expr array_has(tags, 'spare')>
        """
        return _function("array_has", self._of, item)

    def sum(self) -> Expr:
        """The sum of its numbers, nulls left out; null where it has none.

        >>> from tidemill import col
        >>> col("samples").list.sum()
        <Expr array_sum(samples)>
        """
        return _function("array_sum", self._of)

    def mean(self) -> Expr:
        """The mean of its numbers, nulls left out; null where it has none.

        >>> from tidemill import col
        >>> col("samples").list.mean()
        <Expr array_avg(samples)>
        """
        return _function("array_avg", self._of)

    def min(self) -> Expr:
        """Its least item, nulls left out; null where it has none.

        >>> from tidemill import col
        >>> col("samples").list.min()
        <Expr array_min(samples)>
        """
        return _function("array_min", self._of)

    def max(self) -> Expr:
        """Its greatest item, nulls left out; null where it has none.

        >>> from tidemill import col
        >>> col("samples").list.max()
        <Expr array_max(samples)>
        """
        return _function("array_max", self._of)

    def sort(self, *, descending: bool = False) -> Expr:
        """Its items in order, nulls first.

        >>> from tidemill import col
        >>> col("samples").list.sort(descending=True)
        <Expr array_sort(samples, 'DESC', 'NULLS FIRST')>
        """
        return _function("array_sort", self._of, "DESC" if descending else "ASC", "NULLS FIRST")

    def unique(self) -> Expr:
        """Its items, each once, in the order in which they come first.

        >>> from tidemill import col
        >>> col("tags").list.unique()
        <Expr array_distinct(tags)>
        """
        return _function("array_distinct", self._of)

    def reverse(self) -> Expr:
        """Its items from the last to the first.

        >>> from tidemill import col
        >>> col("tags").list.reverse()
        <Expr array_reverse(tags)>
        """
        return _function("array_reverse", self._of)

    def join(self, separator: str) -> Expr:
        """The text of its items with this between them, nulls left out.

        >>> from tidemill import col
        >>> col("tags").list.join(", ")
        <Expr array_to_string(tags, ', ')>
        """
        return _function("array_to_string", self._of, separator)


class When:
    """A condition that waits for its value: ``when(condition).then(value)``."""

    __slots__ = ("_branches", "_condition")

    def __repr__(self) -> str:
        return f"<when({self._condition}), which waits for .then(value)>"

    if not TYPE_CHECKING:  # a checker knows by itself what is not there

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or not hasattr(Then, name):
                raise no_attribute(f"{type(self).__name__!r} object", name, dir(type(self)))
            text = f"{name} comes after a value: when({self._condition}).then(value).{name}(...)"
            raise AttributeError(text, name=name)

    def __init__(self, condition: Expr, branches: tuple[tuple[Expr, Expr], ...] = ()) -> None:
        self._condition = condition
        self._branches = branches

    def then(self, value: Expr | Literal) -> Then:
        """The value where the condition is true.

        >>> from tidemill import col, when
        >>> when(col("t") > 80).then("hot")
        <Expr CASE WHEN t > 80 THEN 'hot' END>
        """
        return Then((*self._branches, (self._condition, _expression(value))))


class Then(Expr):
    """An expression with branches; null where no condition is true, unless :meth:`otherwise` says what."""

    __slots__ = ("_branches",)
    _branches: tuple[tuple[Expr, Expr], ...]

    def __new__(cls, branches: tuple[tuple[Expr, Expr], ...]) -> Then:
        made = super().__new__(cls, _native.expr_when(list(branches)))
        made._branches = branches
        return made

    def when(self, condition: Expr | str, *more: object) -> When:
        """A further condition, looked at where none before is true.

        >>> from tidemill import col, when
        >>> when(col("t") > 80).then("hot").when(col("t") < 0).then("cold")
        <Expr CASE WHEN t > 80 THEN 'hot' WHEN t < 0 THEN 'cold' END>
        """
        return When(_condition(condition, more), self._branches)

    def otherwise(self, value: Expr | Literal) -> Expr:
        """The value where no condition is true.

        >>> from tidemill import col, when
        >>> when(col("t") > 80).then("hot").otherwise("fine")
        <Expr CASE WHEN t > 80 THEN 'hot' ELSE 'fine' END>
        """
        return Expr(_native.expr_when(list(self._branches), _expression(value)))


class NoSuchFunction(_native.ConfigError, AttributeError):
    """A name that `tm.functions` does not have, or must not: what gives a row another value each time.

    It is an `AttributeError` too, so that ``hasattr`` and ``getattr`` with a default do what they do elsewhere.
    """


class _Functions:
    """Every function by its name; ``dir(tm.functions)`` lists them, ``help(tm.functions.<name>)`` explains one.

    >>> from tidemill import col
    >>> from tidemill.expressions import functions
    >>> functions.atan2(col("y"), col("x"))
    <Expr atan2(y, x)>
    """

    def __getattr__(self, name: str) -> Function:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return Function(name)
        except _native.ConfigError as error:
            raise NoSuchFunction(str(error), name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return _native.expr_function_names()

    def __repr__(self) -> str:
        return f"<{len(dir(self))} functions of columns: dir(tm.functions), help(tm.functions.round)>"


class Function:
    """A function of columns: called with expressions and literals, it gives an expression."""

    def __init__(self, name: str) -> None:
        syntax, description, arguments = _native.expr_function_info(name)
        self.__name__ = name
        listed = "".join(f"\n    {argument}: {meaning}" for argument, meaning in arguments)
        self.__doc__ = f"{syntax}\n\n{description}\n{listed}"

    def __call__(self, *arguments: Expr | Literal) -> Expr:
        return _function(self.__name__, *arguments)

    def __repr__(self) -> str:
        return f"<function {self.__name__} of columns>"


functions = _Functions()
"""Every immutable function of the engine, by name: ``tm.functions.date_bin(…)``."""


def col(name: str) -> Expr:
    """The column of this name; names are case-sensitive.

    >>> from tidemill import col
    >>> col("temperature") > 80
    <Expr temperature > 80>
    """
    if not isinstance(name, str):
        raise TypeError(f"a column's name is a str, found {name!r}; lit({name!r}) is a literal")
    return Expr(_native.expr_col(name))


def lit(value: Literal, type: str | type[Any] | None = None) -> Expr:  # noqa: A002
    """The same value in every row, of ``type`` if one is given.

    Datetimes without a zone are UTC where they meet a column with one.

    >>> from tidemill.expressions import lit
    >>> lit("ok")
    <Expr 'ok'>
    """
    literal = _literal(value)
    return literal if type is None else Expr(_native.expr_cast(literal, _type_name("lit", type), True))


def count(column: str | Expr | None = None) -> Expr:
    """How many rows a group has; of a column, how many are not null.

    >>> import tidemill as tm
    >>> tm.count()
    <Expr count(*)>
    """
    if column is None:
        return Expr(_native.expr_aggregate("count", [], False))
    return aggregate("count", col(column) if isinstance(column, str) else column)


def aggregate(name: str, *arguments: Expr | Literal) -> Expr:
    """Any aggregate function by its name: ``"corr"``, ``"median"``, ``"bool_and"``, ``"approx_median"`` and so on.

    In windows, those whose state can be kept and merged may be used; the error of another lists them. The median of
    integers is a float64, and that of decimals a decimal with one more digit behind the point, so that it is exact.

    >>> import tidemill as tm
    >>> tm.aggregate("corr", tm.col("load"), tm.col("heat"))
    <Expr corr(load, heat)>
    """
    return Expr(_native.expr_aggregate(name, [_expression(argument) for argument in arguments], False))


def sql_expr(text: str) -> Expr:
    """An expression written in SQL, as after WHERE; column names are case-sensitive, text is in single quotes.

    Signs mean what they mean in Python's expressions: ``/`` is true division and ``%`` rounds down. A power is
    ``power(x, y)``; ``^``, which is a power to some and bits to others, is refused.

    >>> from tidemill.expressions import sql_expr
    >>> sql_expr("t > 80 AND status = 'ok'")
    <Expr t > 80 AND status = 'ok'>
    """
    return Expr(_native.expr_sql(text))


def when(condition: Expr | str, *more: object) -> When:
    """A value that depends on conditions: the first that is true decides, and only its value is computed.

    Args:
        condition: an expression, or SQL text.
        more: nothing: a value goes into ``.then(value)``, and conditions are joined with ``&``.

    >>> from tidemill.expressions import col, when
    >>> when(col("t") > 80).then("hot").otherwise("fine")
    <Expr CASE WHEN t > 80 THEN 'hot' ELSE 'fine' END>
    """
    return When(_condition(condition, more))


def _condition(condition: Expr | str, more: tuple[object, ...]) -> Expr:
    """Of `when`: other libraries take the value beside it, or several of which all must be true."""
    shown = sql_expr(condition) if isinstance(condition, str) else _expression(condition)
    if more:
        values = [one for one in more if not isinstance(one, Expr)] or list(more)
        raise TypeError(
            f"when() takes one condition, found {1 + len(more)} arguments; write when({shown}).then({values[0]!r}), "
            "and join conditions with &"
        )
    return shown


def _type_name(function: str, given: object) -> str:
    """Arrow's name of a type that may be Python's, or another library's of Arrow's types."""
    if isinstance(given, str):
        return given
    if isinstance(given, type) and given in _PYTHON_TYPES:
        return _PYTHON_TYPES[given]
    if hasattr(given, "__arrow_c_schema__"):
        return _native.Schema({"x": given}).types[0]
    raise _native.SchemaError(
        f'{function}() takes a type by its Arrow name, such as "float64" or "timestamp[ms]", or int, float, str or '
        f"bool, found {given!r}"
    )


def _operator(operator: str, *operands: Expr | Literal) -> Expr:
    return Expr(_native.expr_operator(operator, [_expression(operand) for operand in operands]))


def _function(name: str, *arguments: Expr | Literal) -> Expr:
    return Expr(_native.expr_function(name, [_expression(argument) for argument in arguments]))


def _expression(value: Expr | Literal) -> Expr:
    return value if isinstance(value, Expr) else _literal(value)


def _literal(value: Literal) -> Expr:
    raw, type_name = _raw(value)
    return Expr(_native.expr_lit(raw, type_name))


def _raw(value: Any) -> tuple[Any, str | None]:
    """What the engine takes for a Python value: a plain value, and the type that it stands for."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value, None
    if isinstance(value, Decimal):
        return _raw_decimal(value)
    if isinstance(value, dt.datetime | dt.date | dt.time | dt.timedelta):
        return _raw_time(value)
    if isinstance(value, _Scalar):
        return _raw(value.item())
    raise TypeError(f"expected an expression or a literal, found {value!r} of type {type(value).__name__}")


def _raw_time(value: dt.datetime | dt.date | dt.time | dt.timedelta) -> tuple[int, str]:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return (value - _EPOCH) // _MICROSECOND, "timestamp[us]"
        return (value - _EPOCH.replace(tzinfo=dt.UTC)) // _MICROSECOND, "timestamp[us, UTC]"
    if isinstance(value, dt.timedelta):
        return value // _MICROSECOND, "duration[us]"
    if isinstance(value, dt.date):
        return value.toordinal() - _EPOCH.toordinal(), "date32"
    since_midnight = dt.datetime.combine(_EPOCH.date(), value.replace(tzinfo=None)) - _EPOCH
    return since_midnight // _MICROSECOND, "time64[us]"


def _raw_decimal(value: Decimal) -> tuple[str, str]:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"expected a finite decimal, found {value}")
    scale = max(-exponent, 0)
    digits = max(len(value.as_tuple().digits) + max(exponent, 0), scale)
    return f"{value:f}", f"decimal({digits}, {scale})"
