"""The job whose keys are weighed: `python -m tests.bench.memory_side KEYS`.

It needs no broker: what is weighed is state. As many records as there are keys come first with one key, so that what
batches need is there before keys are. It deliberately leaves the windows open. It prints one JSON line.
"""

from __future__ import annotations

import json
import sys

import psutil

import tidemill as tm
from tidemill import col

BATCH = 10_000


def main() -> None:
    """Run the job; print the bytes of its state, and by how many the process grew while the keys came."""
    keys = int(sys.argv[1])
    source = tm.testing.ScriptedSource()
    for values in (b'{"k":0,"ts":1,"v":%d}', b'{"k":%d,"ts":1,"v":7}'):
        for first in range(0, keys, BATCH):
            source.push(0, [values % number for number in range(first, min(first + BATCH, keys))])
    ctx = tm.StreamingContext(trigger=tm.available_now(close_windows=False, max_records=BATCH))
    columns = tm.Json({"k": "int64", "ts": "timestamp[ms]", "v": "int64"})
    stream = ctx.scripted(source, format=columns, event_time="ts")
    windows = stream.window("1h", on="ts").group_by("k")
    windows.agg(n=tm.count(), sum=col("v").sum(), high=col("v").max()).foreach_batch(lambda batch: None)
    weighed = Weighed()
    ctx.listeners.append(weighed)
    ctx.run()
    if weighed.keys != keys:
        raise RuntimeError(f"there were {weighed.keys} keys, expected {keys}")
    print(json.dumps({"state": weighed.state, "grown": weighed.grown}))


class Weighed:
    """Keeps what the state takes after each batch, and what the process does."""

    def __init__(self) -> None:
        self.keys = self.state = 0
        self._resident = {1: 0, 2: 0}

    @property
    def grown(self) -> int:
        """By how many bytes the process grew from the last batch of one key to the last of all."""
        return self._resident[2] - self._resident[1]

    def on_event(self, event: tm.Event) -> None:
        """Hears of what happens."""
        if event.progress is not None:
            self.keys, self.state = event.progress.state_entries, event.progress.state_bytes
            self._resident[min(self.keys, 2)] = psutil.Process().memory_info().rss


if __name__ == "__main__":
    main()
