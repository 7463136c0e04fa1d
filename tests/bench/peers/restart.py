"""tidemill's job with the broker killed in the middle and started again: its answer is the one expected all the same.

It deliberately measures no speed: how long the job takes is up to the broker.
"""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import answer, watched
from tests.bench.peers.answer import Expected
from tests.bench.peers.sides import command
from tests.bench.peers.task import HALFWAY
from tests.bench.settings import Settings
from tests.kafka.broker import Broker

SCRIPT = "tests.bench.peers.through_restart"
LOOK_EVERY_S = 0.005
GONE_S = 2.5
"""At least; within it the job would read its second half, had it no need of the broker."""


@dataclass(frozen=True)
class Survived:
    """After how many records the broker was killed, for how long it was gone, and how many windows were right."""

    records: int
    gone_s: float
    windows: int


def run(settings: Settings, expected: Expected, broker: Broker) -> Survived:
    """Once; RuntimeError where the job fails, its answer is wrong, or it did not need the broker any more."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        out = Path(folder) / "answer"
        restarted = pool.submit(restart, broker, out.with_name(HALFWAY), ended)
        try:
            watched.run(command(SCRIPT, settings, expected, out), settings.limit_s)
        finally:
            ended.set()
        records, gone_s = restarted.result()
        return Survived(records, gone_s, expected.check(answer.read(out), None))


def restart(broker: Broker, halfway: Path, ended: threading.Event) -> tuple[int, float]:
    """Kill and start the broker once the job writes that it is in the middle: at how many records, for how long."""
    while not halfway.exists():
        if ended.wait(LOOK_EVERY_S):
            raise RuntimeError("the job ended before it was in the middle")
    begin = time.monotonic()
    broker.kill()
    needless = ended.wait(GONE_S)
    broker.start()
    if needless:
        raise RuntimeError("the job ended without the broker: it had read too far ahead")
    return int(halfway.read_text()), time.monotonic() - begin
