"""What is said of a name that is not there: what it is called here, or the nearest that there is.

It deliberately makes no name work: a thing has one name, and whoever tries that of another library is told ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

_OUTPUTS = ("to_kafka", "to_files", "to_table", "foreach_batch", "pprint")

_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    # streams
    "agg": ("group_by", "window"),
    "aggregate": ("group_by", "window"),
    "apply": ("map_batches",),
    "assign": ("with_columns",),
    "collect": ("to_table",),
    "concat": ("union",),
    "count": ("group_by", "agg"),
    "dtypes": ("schema",),
    "foreach": ("foreach_batch",),
    "foreachrdd": ("foreach_batch",),
    "head": ("pprint", "to_table"),
    "map": ("map_batches",),
    "mapinarrow": ("map_batches",),
    "mapinpandas": ("map_batches",),
    "mappartitions": ("map_batches",),
    "partitionby": ("key_by",),
    "pipe": ("map_batches",),
    "predict": ("score",),
    "print": ("pprint",),
    "printschema": ("schema",),
    "query": ("filter",),
    "resample": ("window",),
    "rolling": ("window",),
    "show": ("pprint",),
    "sink": _OUTPUTS,
    "to": _OUTPUTS,
    "topandas": ("to_table",),
    "topolars": ("to_table",),
    "tocsv": ("to_files",),
    "tojson": ("to_files",),
    "toparquet": ("to_files",),
    "transform": ("map_batches",),
    "where": ("filter",),
    "withcolumn": ("with_columns",),
    "withcolumnrenamed": ("rename",),
    "write": _OUTPUTS,
    "writecsv": ("to_files",),
    "writejson": ("to_files",),
    "writeparquet": ("to_files",),
    "writestream": _OUTPUTS,
    # aggregates and expressions
    "astype": ("cast",),
    "average": ("mean",),
    "avg": ("mean",),
    "countdistinct": ("n_unique",),
    "endswith": ("str",),
    "fillna": ("fill_null",),
    "hour": ("dt",),
    "isna": ("is_null",),
    "lower": ("str",),
    "notna": ("is_not_null",),
    "notnull": ("is_not_null",),
    "nunique": ("n_unique",),
    "percentile": ("approx_quantile",),
    "quantile": ("approx_quantile",),
    "rename": ("alias",),
    "startswith": ("str",),
    "sum": ("agg",),
    "upper": ("str",),
    # detectors
    "ema": ("Ewma",),
    "zscore": ("Ewma",),
}
"""What Spark, Polars and pandas call it, in small letters and without underscores, and what of ours does it."""


def meant(name: str, there: Iterable[str]) -> tuple[str, ...]:
    """The names of `there` that whoever wrote `name` may have meant; none where nothing is near.

    >>> from tidemill.hints import meant
    >>> meant("groupBy", ["filter", "group_by"]), meant("where", ["filter", "group_by"])
    (('group_by',), ('filter',))
    >>> meant("fliter", ["filter", "group_by"]), meant("join", ["filter", "group_by"])
    (('filter',), ())
    """
    names = [one for one in there if not one.startswith("_")]
    bare = {_bare(one): one for one in reversed(names)}
    if _bare(name) in bare:
        return (bare[_bare(name)],)
    known = tuple(one for one in _ELSEWHERE.get(_bare(name), ()) if one in names)
    return known or tuple(bare[near] for near in get_close_matches(_bare(name), bare, n=1, cutoff=0.8))


def no_attribute(owner: str, name: str, there: Mapping[str, str] | Iterable[str]) -> AttributeError:
    """The error for an attribute that is not there; a mapping says how each name is written in full.

    >>> from tidemill.hints import no_attribute
    >>> str(no_attribute("'DStream' object", "where", ["filter"]))
    "'DStream' object has no attribute 'where'; did you mean filter?"
    """
    written = there if isinstance(there, Mapping) else {one: one for one in there}
    text = f"{owner} has no attribute {name!r}"
    if not name.startswith("_") and (found := meant(name, written)):
        text += f"; did you mean {' or '.join(written[one] for one in found)}?"
    return AttributeError(text, name=name)


def _bare(name: str) -> str:
    return name.replace("_", "").lower()
