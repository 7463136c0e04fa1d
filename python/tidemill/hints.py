"""What is said of a name that is not there, be it an attribute or an argument: what it is called here, what does its
work until it is offered, or the nearest that there is.

It deliberately makes no name work: a thing has one name, and whoever tries that of another library is told ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)

_OUTPUTS = ("to_kafka", "to_files", "to_table", "foreach_batch", "pprint")

_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    # streams
    "agg": ("group_by", "window"),
    "aggregate": ("group_by", "window"),
    "apply": ("map_batches",),
    "assign": ("with_columns",),
    "collect": ("to_table",),
    "combinebykey": ("group_by",),
    "concat": ("union",),
    "count": ("group_by", "agg"),
    "countbyvalue": ("group_by",),
    "dtypes": ("schema",),
    "explodeouter": ("explode",),
    "flatten": ("explode",),
    "foreach": ("foreach_batch",),
    "foreachrdd": ("foreach_batch",),
    "groupbykey": ("group_by",),
    "head": ("pprint", "to_table"),
    "map": ("map_batches",),
    "mapinarrow": ("map_batches",),
    "mapinpandas": ("map_batches",),
    "mappartitions": ("map_batches",),
    "partitionby": ("key_by",),
    "pipe": ("map_batches",),
    "predict": ("score",),
    "print": ("pprint",),
    "posexplode": ("explode",),
    "printschema": ("schema",),
    "query": ("filter",),
    "reduce": ("group_by",),
    "reducebykey": ("group_by",),
    "resample": ("window",),
    "rolling": ("window",),
    "show": ("pprint",),
    "saveastextfiles": ("to_files",),
    "sink": _OUTPUTS,
    "sinkparquet": ("to_files",),
    "subscribe": ("kafka", "foreach_batch", "topics"),
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
    "withwatermark": ("with_event_time", "kafka"),
    "write": _OUTPUTS,
    "writecsv": ("to_files",),
    "writejson": ("to_files",),
    "writeparquet": ("to_files",),
    "writestream": _OUTPUTS,
    # contexts
    "addstreaminglistener": ("listeners",),
    "awaitterminationortimeout": ("await_termination",),
    "close": ("stop",),
    "createdirectstream": ("kafka",),
    "exception": ("error",),
    "execute": ("run",),
    "fromkafka": ("kafka",),
    "isactive": ("is_running",),
    "join": ("await_termination",),
    "kafkastream": ("kafka",),
    "lastprogress": ("progress",),
    "listen": ("run",),
    "metrics": ("progress",),
    "read": ("kafka",),
    "readkafka": ("kafka",),
    "readstream": ("kafka",),
    "recentprogress": ("progress",),
    "shutdown": ("stop",),
    "source": ("kafka",),
    "status": ("progress",),
    "stream": ("DStream", "kafka"),
    "terminate": ("stop",),
    "wait": ("await_termination",),
    # the module
    "availablenowtrigger": ("available_now",),
    "context": ("StreamingContext",),
    "dlq": ("DeadLetters", "dead_letters", "on_bad"),
    "deadletter": ("DeadLetters", "dead_letters", "on_bad"),
    "deadletterqueue": ("DeadLetters", "dead_letters", "on_bad"),
    "deadletters": ("on_bad",),
    "deadlettertopic": ("DeadLetters", "dead_letters", "on_bad"),
    "continuous": ("as_soon_as_possible",),
    "dataframe": ("DStream",),
    "once": ("available_now",),
    "processingtime": ("interval",),
    "session": ("StreamingContext",),
    "sparkcontext": ("StreamingContext",),
    "sparksession": ("StreamingContext",),
    "trigger": ("interval", "as_soon_as_possible", "available_now"),
    # arguments
    "appname": ("name",),
    "autooffsetreset": ("starting",),
    "batch": ("batch_interval",),
    "batchduration": ("batch_interval",),
    "brokers": ("bootstrap_servers",),
    "by": ("keys",),
    "consumergroup": ("group_id",),
    "cores": ("threads",),
    "endingoffsets": ("ending",),
    "endingtimestamp": ("ending",),
    "every": ("slide",),
    "f": ("fn",),
    "failondataloss": ("on_data_loss",),
    "features": ("columns",),
    "frac": ("fraction",),
    "func": ("fn",),
    "function": ("fn",),
    "group": ("group_id",),
    "groupid": ("group_id",),
    "interval": ("batch_interval",),
    "host": ("bootstrap_servers",),
    "hosts": ("bootstrap_servers",),
    "kafka.bootstrap.servers": ("bootstrap_servers",),
    "lateness": ("watermark",),
    "master": ("executors",),
    "maxoffsetspertrigger": ("max_rate_per_partition", "trigger"),
    "offsets": ("starting",),
    "outputmode": ("emit",),
    "parallelism": ("threads", "executors"),
    "randomstate": ("seed",),
    "period": ("length",),
    "schema": ("format", "adds"),
    "servers": ("bootstrap_servers",),
    "size": ("length",),
    "slideduration": ("slide",),
    "startingoffsets": ("starting",),
    "startingtimestamp": ("starting",),
    "subscribepattern": ("pattern",),
    "timecolumn": ("on", "event_time"),
    "timestamp": ("event_time", "timestamps"),
    "timestampfield": ("event_time",),
    "valuedeserializer": ("format",),
    "valueformat": ("format",),
    "valueserializer": ("format",),
    "windowduration": ("length",),
    "workers": ("threads", "executors"),
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
    "burnin": ("warmup",),
    "cooldown": ("quiet",),
    "fadingfactor": ("alpha",),
    "graceperiod": ("warmup",),
    "minperiods": ("warmup",),
    "pvalue": ("threshold",),
    "significance": ("threshold",),
    "warmupperiod": ("warmup",),
}
"""What Spark, Kafka, Polars and pandas call it, in small letters and without underscores, and what of ours does it."""

_NOT_YET: Mapping[str, str] = {
    "asofjoin cogroup crossjoin fullouterjoin innerjoin intervaljoin join joinasof jointable leftjoin leftouterjoin "
    "merge rightouterjoin": (
        "joins are not offered yet: union() brings streams of the same columns together, and a table that you hold is "
        "looked up in map_batches(fn, adds=...)"
    ),
    "sessionwindow": (
        'session windows are not offered yet: window("10s", on="ts") has those of a fixed length'
    ),
    "countbyvalueandwindow countbywindow countwindow groupbykeyandwindow reducebykeyandwindow reducebywindow": (
        "windows by batch time or by count are not offered yet: "
        'window("10s", on="ts").group_by(...).agg(...) has those of event time'
    ),
    "sql query sqlcontext": (
        "whole SQL queries are not offered yet: filter() takes a condition in SQL, tm.sql_expr(...) makes a column of "
        "SQL, and group_by(...).agg(...) aggregates"
    ),
    "mapwithstate updatestatebykey flatmapgroupswithstate mapgroupswithstate": (
        "your own state by key is not offered yet: detect() and windows remember by key, and what a function of "
        "foreach_batch(fn) keeps lives as long as the job runs"
    ),
    "deduplicate distinct dropduplicates dropduplicateswithinwatermark unique": (
        "finding duplicates is not offered yet: "
        'window("10m", on="ts").group_by("id").agg(x=col("x").first()) has one row an id and window'
    ),
    "filterrows flatmap flatmapvalues maprows mapvalues udf pandasudf": (
        "functions of single rows are not offered yet: write an expression, or map_batches(fn), which gets whole "
        "batches"
    ),
    "remember slice": "batches are not remembered: to_table(name) keeps the last rows",
    "cache persist unpersist": (
        "there is nothing to keep: a stream is computed once a batch, however many streams and outputs read it"
    ),
    "unnest": (
        "structs are not taken apart into columns yet: explode() makes rows of lists, and map_batches(fn, adds=...) "
        "columns of structs"
    ),
    "coalesce coalescepartitions numpartitions rebalance shuffle": (
        "repartition(4) deals the rows to four shards, whatever partitions they come from, and key_by(...) brings the "
        "rows of a key together"
    ),
    "replace withreplacement": "a sample takes each row once at most, without replacement: leave it out",
    "limit orderby sort sortby tail take": (
        "a stream has no order over all its rows and no end: sort, or take, the rows of each batch in "
        "foreach_batch(fn) or map_batches(fn)"
    ),
    "checkpoint checkpointdir checkpointdirectory checkpointlocation getactive getactiveorcreate getorcreate": (
        'a checkpoint is said when the context is made: StreamingContext(checkpoint="./checkpoint"), in a script that '
        "makes the same streams at every start"
    ),
    "exactlyonce": 'a job with a checkpoint is exactly once: StreamingContext(checkpoint="./checkpoint")',
    "cluster numworkers ray": (
        "several machines are not offered yet: threads= and executors= share the work of this one"
    ),
    "binaryrecords binaryrecordsstream file files filestream http httpreceiver httpstream mqtt queue queuestream "
    "readcsv readjson readparquet receiver receiverstream scancsv scanparquet sockettext sockettextstream textfiles "
    "textfilestream": (
        "Kafka is the only source so far, ctx.kafka(...); in tests it is ctx.scripted(tm.testing.ScriptedSource(), ...)"
    ),
    "avro msgpack parquet protobuf xml": (
        "this format is not offered yet: read the payload as it is, format=tm.Raw(), and decode it in "
        "map_batches(fn, schema=...)"
    ),
    "halflife span com": ("the memory is told by alpha alone: it is about 2 / alpha values"),
    "adaptation hold ignore noveltyafter range seed stuckafter": (
        "this setting of detectors is not offered yet: filter() values that are not to be learnt before detect()"
    ),
    "auto halfspacetrees halfspacetree hst isolationforest knn kmeans loda mad mahalanobis oneclasssvm pca "
    "randomcutforest rcf robustzscore streamingkmeans streaminglinearregression streaminglogisticregression": (
        "this detector is not offered yet: Ewma() is there, and stream.score(model, ...) takes a model of "
        "scikit-learn, ONNX or PyTorch"
    ),
}
"""What other libraries have, or is to come, and what does its work today; the names of one thing have one answer."""

_TODAY: Mapping[str, str] = {name: today for names, today in _NOT_YET.items() for name in names.split()}


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
    if known or _bare(name) in _TODAY:
        return known
    return tuple(bare[near] for near in get_close_matches(_bare(name), bare, n=1, cutoff=0.8))


def no_attribute(owner: str, name: str, there: Mapping[str, str] | Iterable[str]) -> AttributeError:
    """The error for an attribute that is not there; a mapping says how each name is written in full.

    >>> from tidemill.hints import no_attribute
    >>> str(no_attribute("'DStream' object", "where", ["filter"]))
    "'DStream' object has no attribute 'where'; did you mean filter?"
    """
    written = there if isinstance(there, Mapping) else {one: one for one in there}
    hint = "" if name.startswith("_") else _hint(name, written)
    return AttributeError(f"{owner} has no attribute {name!r}{hint}", name=name)


def today(name: str) -> str:
    """What does the work of something that is not offered yet.

    >>> from tidemill.hints import today
    >>> today("cluster")
    'several machines are not offered yet: threads= and executors= share the work of this one'
    """
    return _TODAY[_bare(name)]


def hinted(cls: _Class) -> _Class:
    """The class, whose methods answer an argument that they do not know with what it is called here.

    >>> import tidemill as tm
    >>> tm.StreamingContext(batchDuration="1s")
    Traceback (most recent call last):
        ...
    TypeError: StreamingContext() takes no argument 'batchDuration'; did you mean batch_interval?
    """
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, _hinting(method, cls.__name__ if name == "__init__" else name))
    return cls


def _hinting(method: Callable[..., Any], shown: str) -> Callable[..., Any]:
    code = method.__code__
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return method  # it takes any name
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        unknown = [name for name in named if name not in known]
        if unknown:
            raise TypeError(no_arguments(shown, unknown, known))
        return method(*arguments, **named)

    return call


def no_arguments(function: str, names: Iterable[str], known: Sequence[str]) -> str:
    """What to say of arguments that a function does not have.

    >>> from tidemill.hints import no_arguments
    >>> no_arguments("Ewma", ["treshold"], ["alpha", "threshold"])
    "Ewma() takes no argument 'treshold'; did you mean threshold?"
    """
    return "; ".join(_no_argument(function, name, known) for name in names)


def _no_argument(function: str, name: str, known: Iterable[str]) -> str:
    hint = _hint(name, {one: one for one in known}) or f"; it takes {', '.join(known) or 'none'}"
    return f"{function}() takes no argument {name!r}{hint}"


def _hint(name: str, written: Mapping[str, str]) -> str:
    """What follows the error about a name that is not among those that are `written`; nothing where nothing is near."""
    found = meant(name, written)
    if found:
        return f"; did you mean {' or '.join(written[one] for one in found)}?"
    return f"; {_TODAY[_bare(name)]}" if _bare(name) in _TODAY else ""


def _bare(name: str) -> str:
    return name.replace("_", "").lower()
