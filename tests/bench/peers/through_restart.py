"""tidemill's job as a job that runs on: a batch ten times a second, at a pace that leaves time to kill the broker.

It deliberately fetches little ahead: for what a client holds already it needs no broker.
"""

from __future__ import annotations

import tidemill as tm
from tests.bench.peers.task import HALFWAY, Task, begin
from tests.bench.peers.with_tidemill import means, run
from tests.bench.readings import PARTITIONS

INTERVAL = "100ms"
LASTS_S = 4.0
"""A batch after a pause makes up for one second of it, which must be less than half of the job."""
LITTLE_AHEAD = {"queued.max.messages.kbytes": 256, "fetch.message.max.bytes": 65_536}


def main() -> None:
    task = begin()
    ctx = tm.StreamingContext(INTERVAL)
    ctx.listeners.append(Halfway(task))
    pace = task.records / PARTITIONS / LASTS_S
    source = {"ending": "latest", "max_rate_per_partition": pace, "config": LITTLE_AHEAD}
    run(ctx, task, means(ctx, task, **source))


class Halfway:
    """Writes how many records were read to a file, once it is half of them."""

    def __init__(self, task: Task) -> None:
        self._half = task.records / 2
        self._file = task.out.with_name(HALFWAY)
        self._records = 0

    def on_event(self, event: tm.Event) -> None:
        before = self._records
        self._records += event.progress.records if event.progress else 0
        if before < self._half <= self._records:
            self._file.write_text(str(self._records))


if __name__ == "__main__":
    main()
