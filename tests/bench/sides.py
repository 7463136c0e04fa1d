"""What a benchmark runs, each side in a process of its own: `python -m tests.bench.sides NAME TOPIC SERVERS`.

A process of its own gives each side its own peak of memory and its own CPU time, and leaves nothing behind for the
next. It deliberately leaves out the start of Python: a side takes its own time, and prints it as one JSON line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.bench.figure import Measured
from tests.bench.readings import FORMAT
from tests.places import ROOT

if TYPE_CHECKING:
    import tidemill as tm


def measure(side: str, topic: str, bootstrap_servers: str) -> Measured:
    """Run a side; records a second, CPU seconds, and the peak of its memory in MiB."""
    command = [sys.executable, "-m", "tests.bench.sides", side, topic, bootstrap_servers]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def job(topic: str, bootstrap_servers: str) -> int:
    """Decode, filter, detect by device, and hand the alarms to Python."""
    ctx, readings = _readings(topic, bootstrap_servers)
    return _run(ctx, _detected(readings))


def job_with_map_batches(topic: str, bootstrap_servers: str) -> int:
    """The same, with a Python function on the way that does nothing."""
    ctx, readings = _readings(topic, bootstrap_servers)
    return _run(ctx, _detected(readings.map_batches(lambda batch: batch)))


SIDES: dict[str, Callable[[str, str], int]] = {side.__name__: side for side in (job, job_with_map_batches)}


def _readings(topic: str, bootstrap_servers: str) -> tuple[tm.StreamingContext, tm.DStream]:
    import tidemill as tm

    ctx = tm.StreamingContext(trigger=tm.available_now())
    columns = {name: FORMAT[name] for name in ("device", "ts", "temp")}
    readings = ctx.kafka(topic, bootstrap_servers=bootstrap_servers, format=tm.Json(columns), event_time="ts")
    return ctx, readings.filter("temp >= 20")


def _detected(readings: tm.DStream) -> tm.DStream:
    import tidemill as tm

    return readings.key_by("device").detect("temp", tm.ml.Ewma()).filter("is_anomaly")


def _run(ctx: tm.StreamingContext, alarms: tm.DStream) -> int:
    """To the end of the topic; how many records were read."""
    read: list[int] = []
    ctx.listeners.append(lambda event: read.append(event.progress.records) if event.progress else None)
    alarms.foreach_batch(lambda _batch: None)
    ctx.run()
    return sum(read)


def main() -> None:
    """Run the side that is named, and print what it took."""
    name, topic, bootstrap_servers = sys.argv[1:]
    begin = time.perf_counter()
    records = SIDES[name](topic, bootstrap_servers)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    measured = {
        "value": records / seconds,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
