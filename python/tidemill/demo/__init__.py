"""`tidemill demo`: a fleet of machines with injected faults, a real streaming job over it, and an honest score.

The broker is librdkafka's mock cluster in this process, unless a real one is named. It deliberately has no
short cut to the engine: readings go through Kafka as JSON, and alarms come back as any user's would.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import tidemill as tm
import tidemill._native as _native
from tidemill import col
from tidemill.demo.feed import Feed
from tidemill.demo.fleet import Fleet
from tidemill.demo.score import Alarm, Score
from tidemill.demo.screen import Figures, Screen, open_screen

PARTITIONS = 4
THRESHOLD = 1e-6
"""Accepted false alarms a reading: one in a million is one in eight minutes at 2,000 readings a second."""
EMBEDDED_UNREAD_LIMIT = 40_000
"""Readings that the embedded broker may hold unread: 4 MB, where it drops what is more than 5 MiB in a partition."""
TOPIC = "tidemill-demo"
"""What begins with this is the demonstration's own, and may be there already."""
DRAIN_LIMIT_S = 10.0
"""How long, after the last reading was sent, the job may take to catch up."""
REFRESH_S = 0.25


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    seconds: float = 30.0
    rate: int = 2000
    bootstrap_servers: str | None = None
    """A real Kafka; None starts the embedded broker."""
    topic: str = TOPIC
    seed: int = 0


def run(options: Options) -> int:
    """Run the demonstration, print its score, and give the exit code: 0 where a fault was found, else 1."""
    with _broker(options) as bootstrap_servers:
        fleet = Fleet.simulate(options.rate, options.seconds, options.seed)
        unread_limit = None if options.bootstrap_servers else EMBEDDED_UNREAD_LIMIT
        feed = Feed(fleet, _native.DemoProducer(bootstrap_servers), options.topic, unread_limit)
        watch = _Watch(fleet, feed)
        ctx = build_job(bootstrap_servers, options.topic, watch)
        with open_screen(_title(options, bootstrap_servers, fleet)) as screen:
            watch.screen = screen
            _stream(ctx, feed, watch, options.seconds)
    score = watch.score.within(feed.sent_ms)
    print(score.summary(feed.sent))
    if feed.behind:
        print(_beyond(options, feed))
    return 0 if score.found else 1


def build_job(bootstrap_servers: str, topic: str, watch: _Watch) -> tm.StreamingContext:
    """The job of the README, with a number for each reading, so that it can be said how late an alarm was."""
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible(), name="demo")
    readings = ctx.kafka(
        topic, bootstrap_servers=bootstrap_servers,
        format=tm.Json({"device": "string", "ts": "timestamp[ms]", "seq": "int64", "temperature": "float64"}),
        event_time="ts", watermark="5s",
    )  # fmt: skip
    alerts = (
        readings.filter(col("temperature").is_not_null())
        .key_by("device")
        .detect("temperature", tm.ml.Ewma(), threshold=THRESHOLD)
        .filter(col("is_anomaly"))
    )
    alerts.to_kafka(_alerts_of(topic), format=tm.Json())
    alerts.foreach_batch(watch.hear)
    ctx.listeners.append(watch.see)
    return ctx


class _Watch:
    """Hears the alarms and the job's progress; both come from the job's threads, each from one."""

    def __init__(self, fleet: Fleet, feed: Feed) -> None:
        self.score = Score(fleet.faults)
        self.figures = Figures()
        self.screen: Screen | None = None
        self._feed = feed

    def hear(self, batch: tm.Batch) -> None:
        """Book the alarms of a batch."""
        heard_ms = time.time() * 1000
        rows = zip(batch["device"], batch["seq"], batch["temperature"], strict=True)
        for device, seq, temperature in rows:
            machine = self._feed.machine(str(device))
            if machine is None:
                continue  # of a topic that others write to as well
            alarm = Alarm(machine, int(seq), heard_ms, float(temperature))
            fault = self.score.hear(alarm, self._feed.sent_ms)
            self.figures.alarms += 1
            if self.screen is not None:
                self.screen.alarm(alarm, fault)

    def see(self, event: tm.Event) -> None:
        """Keep the figures of each batch for the screen and for the feed's pace."""
        progress = event.progress
        if event.kind == "completed" and progress is not None:
            self.figures.add(progress)
            self._feed.read = self.figures.records


@contextmanager
def _broker(options: Options) -> Iterator[str]:
    """The address of a broker that has the topics: the one that was named, or one in this process."""
    topics = {options.topic: PARTITIONS, _alerts_of(options.topic): 1}
    if options.bootstrap_servers is not None:
        producer = _native.DemoProducer(options.bootstrap_servers)
        for name, partitions in topics.items():
            if not producer.create_topic(name, partitions):
                _ours(name)
        yield options.bootstrap_servers
        return
    broker = _native.MockBroker()
    try:
        for name, partitions in topics.items():
            broker.create_topic(name, partitions)
        yield broker.bootstrap_servers
    finally:
        broker.close()


def _alerts_of(topic: str) -> str:
    """The topic of the alarms: one of the demonstration's own, on a broker that has others."""
    return f"{topic}-alerts"


def _ours(there: str) -> None:
    """Refuses to write made-up readings into a topic of the user's own."""
    if not there.startswith(TOPIC):
        raise tm.ConfigError(
            f"the demonstration writes made-up readings and alarms, and found the topic {there!r} there already; give "
            f"--topic a name that is not taken, or one that begins with {TOPIC}"
        )


def _beyond(options: Options, feed: Feed) -> str:
    reached = round(feed.sent / options.seconds)
    return (
        f"{options.rate:,} readings a second were asked for, and {reached:,} made: this machine does no more"
    )


def _title(options: Options, bootstrap_servers: str, fleet: Fleet) -> str:
    where = "the embedded broker" if options.bootstrap_servers is None else "Kafka"
    return (
        f"{fleet.machines} machines, {fleet.rate:,} readings a second, {len(fleet.faults)} faults to come, "
        f"{options.seconds:g} s over {where} at {bootstrap_servers}"
    )


def _stream(ctx: tm.StreamingContext, feed: Feed, watch: _Watch, seconds: float) -> None:
    """Run the job while the fleet reports, then let it catch up; Ctrl-C ends the report early."""
    ended = threading.Event()
    with ExitStack() as stack:
        stack.callback(ctx.stop)
        ctx.start()
        stack.callback(feed.stop)
        feed.start(seconds)
        stack.enter_context(_ends_on_signal(ended))
        while feed.is_running and not ended.is_set():
            _refresh(ctx, watch)
        feed.stop()
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while watch.figures.records < feed.sent and time.monotonic() < deadline and not ended.is_set():
            _refresh(ctx, watch)


def _refresh(ctx: tm.StreamingContext, watch: _Watch) -> None:
    """Show the newest figures; an error of the job is raised here."""
    if watch.screen is not None:
        watch.screen.figures(watch.figures)
    time.sleep(REFRESH_S)
    if not ctx.is_running:
        ctx.await_termination(0)


@contextmanager
def _ends_on_signal(ended: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the demonstration with its score; a second Ctrl-C ends it at once."""

    def on_signal(number: int, _frame: object) -> None:
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
