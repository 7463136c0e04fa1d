"""The job in Spark Structured Streaming on two threads, its windows appended to Parquet.

The first of its four micro-batches is taken for its start: until then it loads, plans and compiles. Its last
windows stay open, since its watermark is the latest time of all partitions less a lateness. It deliberately sets little
else: what a user gets.
"""

from __future__ import annotations

import tempfile
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming.query import StreamingQuery

from tests.bench.peers.connector import spark_connector
from tests.bench.peers.task import LATENESS_MS, LEAST, WINDOW_MS, Task, begin, tell

BATCHES = 4
WINDOW = f"{WINDOW_MS} milliseconds"


def main() -> None:
    task = begin()
    spark = _session()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as checkpoint:
        query = _start(_means(spark, task), task, checkpoint)
        query.awaitTermination()
    _tell(query)
    spark.stop()


def _session() -> SparkSession:
    settings: dict[str, bool | float | int | str | None] = {
        "spark.jars": ",".join(map(str, spark_connector())),
        "spark.sql.shuffle.partitions": "2",  # as many as threads; the default of 200 would be unfair
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    return SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()


def _means(spark: SparkSession, task: Task) -> DataFrame:
    source = {
        "kafka.bootstrap.servers": task.broker,
        "subscribe": task.topic,
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(-(-task.records // BATCHES)),
    }
    raw = spark.readStream.format("kafka").options(**source).load()
    fields = f.from_json(raw.value.cast("string"), "device STRING, ts BIGINT, temp DOUBLE").alias("fields")
    readings = raw.select(fields).select(
        "fields.device", f.timestamp_millis("fields.ts").alias("ts"), "fields.temp"
    )
    lateness = f"{LATENESS_MS + task.late_ms} milliseconds"
    windows = readings.filter(f.col("temp") >= LEAST).withWatermark("ts", lateness)
    means = windows.groupBy(f.window("ts", WINDOW), "device").agg(
        f.mean("temp").alias("mean"), f.count("*").alias("n")
    )
    return means.select(f.unix_millis("window.start").alias("window_start"), "device", "mean", "n")


def _start(means: DataFrame, task: Task, checkpoint: str) -> StreamingQuery:
    writer = means.writeStream.format("parquet").option("path", str(task.out))
    return writer.option("checkpointLocation", checkpoint).trigger(availableNow=True).start()


def _tell(query: StreamingQuery) -> None:
    """From what the query reports, since nothing of it runs in Python."""
    first, second = query.recentProgress[:2]
    tell("first", first["numInputRows"], at=datetime.fromisoformat(second["timestamp"]).timestamp())
    tell("last", sum(batch["numInputRows"] for batch in query.recentProgress))


if __name__ == "__main__":
    main()
