"""The answer of the job, computed by another way than any side's, and whether a side's is the same.

It reads the topic by confluent-kafka, parses with pyarrow and sums with NumPy, so that the expected answer is known for
a topic of any origin. It deliberately keeps nothing of a record but the three fields of the job.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from tests.bench.peers.task import COLUMNS, LEAST, WINDOW_MS

MEANS_WITHIN = 1e-9
KEYS = ["window_start", "device"]
TYPES = pa.schema(
    [("window_start", pa.int64()), ("device", pa.string()), ("mean", pa.float64()), ("n", pa.int64())]
)
FIELDS = pa.schema([("device", pa.string()), ("ts", pa.int64()), ("temp", pa.float64())])
PARSE = pyarrow.json.ParseOptions(explicit_schema=FIELDS, unexpected_field_behavior="ignore")
Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Device, time, temperature."""
BATCH, SILENCE_S = 50_000, 30.0


class WrongAnswer(RuntimeError):
    """A side's windows are not those expected."""


@dataclass(frozen=True)
class Expected:
    """All windows, how many records they are of, and the event time that every partition has reached."""

    windows: pa.Table
    records: int
    reached_ms: int

    def check(self, answer: pa.Table, lateness_ms: int | None) -> int:
        """How many windows were compared; raises `WrongAnswer` where one differs.

        A side with a lateness need not give windows that are still open for it at the topic's end; what it gives must
        be right. One without (None) flushes, and must give all.
        """
        if not answer.num_rows:
            raise WrongAnswer("it closed no window: the topic is too short for it")
        if answer.group_by(KEYS).aggregate([]).num_rows != answer.num_rows:
            raise WrongAnswer("a window was given twice")
        both = self.windows.join(answer, KEYS, join_type="full outer", right_suffix=" given")
        extra = pc.is_null(both["n"])
        missing = pc.and_(pc.is_null(both["n given"]), self._closed(both["window_start"], lateness_ms))
        other_n = pc.not_equal(both["n"], both["n given"])
        close = pc.less_equal(pc.abs(pc.subtract(both["mean"], both["mean given"])), MEANS_WITHIN)
        # Neither a NaN nor a null is close to anything.
        other_mean = pc.and_(pc.is_valid(other_n), pc.invert(pc.fill_null(close, False)))
        faults = {
            "not expected": extra,
            "missing": missing,
            "another count": other_n,
            "another mean": other_mean,
        }
        for name, rows in faults.items():
            _refuse(name, both.filter(rows))
        return int(answer.num_rows)

    def _closed(self, starts: pa.ChunkedArray, lateness_ms: int | None) -> pa.ChunkedArray:
        if lateness_ms is None:
            return pc.is_valid(starts)
        return pc.less_equal(pc.add(starts, WINDOW_MS + lateness_ms), self.reached_ms)


def expected(bootstrap_servers: str, topic: str) -> Expected:
    """The answer for the whole topic as it is now."""
    index: dict[str, int] = {}
    columns: list[Columns] = []
    records, reached = 0, dict[int, int]()
    for partition, values in _batches(bootstrap_servers, topic):
        read = pyarrow.json.read_json(io.BytesIO(b"\n".join(values)), parse_options=PARSE)
        records += read.num_rows
        kept = read.filter(pc.greater_equal(read["temp"], LEAST))
        if kept.num_rows:
            columns.append(_numbers(kept, index))
            reached[partition] = max(reached.get(partition, 0), int(columns[-1][1].max()))
    return Expected(_windows(columns, list(index)), records, min(reached.values()))


def read(out: Path) -> pa.Table:
    """What a side left: Parquet or CSV, one file or a folder of them.

    Where there is a column `diff`, of 1 for a row and -1 for one taken back, what is left in the end is the answer.
    """
    suffix = {".csv": "csv", ".parquet": "parquet", "": "parquet"}
    (found,) = (path for path in out.parent.iterdir() if path.stem == out.name)
    files = sorted(found.glob("*.parquet")) if found.is_dir() else [found]
    given = pyarrow.dataset.dataset(files, format=suffix[found.suffix]).to_table()
    if "diff" in given.column_names:
        given = given.group_by(list(COLUMNS)).aggregate([("diff", "sum")])
        given = given.filter(pc.greater(given["diff_sum"], 0))
    return given.select(COLUMNS).cast(TYPES)


def _batches(bootstrap_servers: str, topic: str) -> Iterator[tuple[int, list[bytes]]]:
    """The topic's payloads, a partition at a time within a batch; tombstones are left out."""
    settings = {"group.id": "bench-expected", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "fetch.queue.backoff.ms": 5, **settings})
    try:
        open_ = set(consumer.list_topics(topic, timeout=SILENCE_S).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_])
        while open_:
            messages = consumer.consume(BATCH, 1.0)
            open_ -= {m.partition() for m in messages if _is_end(m)}
            yield from _by_partition(messages)
    finally:
        consumer.close()


def _is_end(message: Message) -> bool:
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    raise KafkaException(error)


def _by_partition(messages: list[Message]) -> Iterator[tuple[int, list[bytes]]]:
    values: dict[int, list[bytes]] = {}
    for message in messages:
        partition, value = message.partition(), message.value()
        if message.error() is None and partition is not None and value is not None:
            values.setdefault(partition, []).append(value)
    yield from values.items()


def _numbers(kept: pa.Table, index: dict[str, int]) -> Columns:
    """Devices as numbers, given in the order of their first reading; times; temperatures."""
    encoded = kept["device"].combine_chunks().dictionary_encode()
    numbers = np.array(
        [index.setdefault(name, len(index)) for name in encoded.dictionary.to_pylist()], np.int64
    )
    return numbers[encoded.indices.to_numpy()], kept["ts"].to_numpy(), kept["temp"].to_numpy()


def _windows(columns: list[Columns], names: list[str]) -> pa.Table:
    device, ts, temp = (np.concatenate(column) for column in zip(*columns, strict=True))
    groups, row = np.unique((ts // WINDOW_MS) * len(names) + device, return_inverse=True)
    counts = np.bincount(row)
    return pa.table(
        {
            "window_start": groups // len(names) * WINDOW_MS,
            "device": np.array(names, np.object_)[groups % len(names)],
            "mean": np.bincount(row, weights=temp) / counts,
            "n": counts,
        },
        schema=TYPES,
    )


def _refuse(name: str, rows: pa.Table) -> None:
    if rows.num_rows:
        raise WrongAnswer(f"{rows.num_rows} windows {name}, the first: {rows.slice(0, 1).to_pylist()[0]}")
