"""The job that cannot keep up: `python -m tests.bench.overload_side SERVERS TOPIC SLOW FAST SECONDS`.

Its function works off SLOW records a second for so many seconds and FAST ones after that, by sleeping: so it takes no
core from what feeds it. It deliberately reads a topic that is full, which offers far more than either. It prints a JSON
line for each batch that is done.
"""

from __future__ import annotations

import json
import sys
import time

import psutil

import tidemill as tm

INTERVAL_S = 1.0


def main() -> None:
    """Run the job for twice the time."""
    servers, topic, *numbers = sys.argv[1:]
    slow, fast, seconds = map(float, numbers)
    ctx = tm.StreamingContext(f"{INTERVAL_S}s", name="overload")
    stream = ctx.kafka(topic, bootstrap_servers=servers, format=tm.Raw(), starting="earliest")
    begin = time.monotonic()

    def work(batch: tm.Batch) -> None:
        rate = slow if time.monotonic() - begin < seconds else fast
        time.sleep(batch.num_rows / rate)

    def tell(event: tm.Event) -> None:
        done = event.progress
        if done is None:
            return
        resident = psutil.Process().memory_info().rss / 2**20
        at = time.monotonic() - begin
        print(json.dumps({"at": at, "records": done.records, "rate_limit": done.rate_limit,
                          "delay": done.total_delay, "scheduling": done.scheduling_delay, "lag": done.total_lag,
                          "mib": resident}), flush=True)  # fmt: skip
        if at > 2 * seconds or done.total_lag == 0:
            ctx.stop(graceful=False)

    stream.foreach_batch(work)
    ctx.listeners.append(tell)
    ctx.run()


if __name__ == "__main__":
    main()
