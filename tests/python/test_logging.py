"""What the engine logs reaches Python's `logging`, from any thread, and never holds a job or the interpreter's end."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import tidemill as tm
from tests.python.conftest import Numbers
from tidemill._native import MockBroker
from tidemill.testing import ScriptedSource

NOBODY = "127.0.0.1:1"
"""An address where no broker listens."""


class Heard(logging.Handler):
    """Keeps records, and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[logging.LogRecord], bool]) -> logging.LogRecord:
        """The first such record; the watch over hanging tests ends a wait in vain."""
        with self._changed:
            self._changed.wait_for(lambda: any(map(wanted, self.records)))
            return next(filter(wanted, self.records))


@contextmanager
def hearing(name: str, level: int) -> Iterator[Heard]:
    heard, logger = Heard(), logging.getLogger(name)
    before = logger.level
    logger.addHandler(heard)
    logger.setLevel(level)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(before)


def script(text: str) -> subprocess.CompletedProcess[str]:
    """Runs a script; one that does not end within the watch over hanging tests fails."""
    command = [sys.executable, "-c", textwrap.dedent(text)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_each_batch_is_a_line_at_debug(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1, 2, 3).foreach_batch(lambda batch: None)
    with hearing("tidemill", logging.DEBUG) as heard:
        drained.run()
        line = heard.wait_for(lambda record: record.getMessage().startswith("batch 0: "))
    assert line.getMessage().startswith("batch 0: 3 records in, 3 rows out, ")
    assert (line.name, line.levelno) == ("tidemill", logging.DEBUG)
    assert line.threadName == "tidemill-driver"
    assert line.pathname == "src/driver/run.rs"
    assert line.lineno > 0


def test_what_nobody_wants_is_not_handed_on(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1, 2, 3).foreach_batch(lambda batch: None)
    with hearing("tidemill", logging.WARNING) as heard:
        drained.run()
    assert heard.records == []


def test_where_reading_starts_is_a_line_at_info(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1, 2, 3).foreach_batch(lambda batch: None)
    with hearing("tidemill", logging.INFO) as heard:
        drained.run()
        line = heard.wait_for(lambda record: "is read from" in record.getMessage())
    assert (
        line.getMessage()
        == "readings is read from the earliest record on: readings[0] at 0, readings[1] at 0"
    )
    assert [record.levelno for record in heard.records] == [logging.INFO]


def test_a_warning_is_one_line(source: ScriptedSource, drained: tm.StreamingContext) -> None:
    ended = threading.Event()
    source.push(0, [b"a"])
    source.fail_next("acknowledge", OSError("mine"))
    drained.listeners.append(lambda event: ended.set() if event.kind == "stopped" else None)
    drained.scripted(source, format=tm.Raw()).foreach_batch(lambda one: None)
    with hearing("tidemill", logging.WARNING) as heard:
        drained.run()
        heard.wait_for(lambda record: "mine" in record.getMessage())
        ended.wait()  # the listeners have heard all
    assert len(heard.records) == 1


def test_a_level_that_is_set_while_a_job_runs_holds_from_its_next_event(source: ScriptedSource) -> None:
    seen = threading.Semaphore(0)
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    ctx.listeners.append(lambda event: seen.release() if event.kind == "completed" else None)
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
    with ctx, hearing("tidemill", logging.INFO) as heard:
        ctx.start()
        source.push(0, [b"quiet"])
        seen.acquire()
        logging.getLogger("tidemill").setLevel(logging.DEBUG)
        source.push(0, [b"told by its first event that the level has changed"])
        seen.acquire()
        source.push(0, [b"heard"])
        heard.wait_for(lambda record: record.getMessage().startswith("batch 2: "))
    assert not any(record.getMessage().startswith("batch 0: ") for record in heard.records)


def test_what_librdkafka_logs_has_a_logger_of_its_own() -> None:
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    ctx.kafka("readings", bootstrap_servers=NOBODY, format=tm.Raw()).foreach_batch(lambda batch: None)

    def start() -> None:
        with suppress(
            tm.SourceError
        ):  # once it has waited long enough for the broker, which nobody waits for here
            ctx.start()

    with hearing("tidemill", logging.DEBUG) as heard:
        threading.Thread(target=start, daemon=True).start()
        line = heard.wait_for(lambda record: "Connection refused" in record.getMessage())
    assert line.name == "tidemill.kafka"


def test_kafka_alone_can_be_asked_for_more(numbers: Numbers, drained: tm.StreamingContext) -> None:
    numbers(1).foreach_batch(lambda batch: None)
    with hearing("tidemill", logging.WARNING) as heard, hearing("tidemill.kafka", logging.DEBUG):
        drained.run()
    assert not any(record.name == "tidemill" for record in heard.records)


def test_a_line_that_comes_last_arrives_before_the_interpreter_ends() -> None:
    done = script("""
        import logging, tidemill as tm
        logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
        source = tm.testing.ScriptedSource()
        source.push(0, [b"x"])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
        ctx.run()
    """)
    assert done.returncode == 0, done.stderr
    assert "tidemill DEBUG batch 0: 1 records in, 1 rows out" in done.stderr


def test_lines_without_room_are_counted_and_hold_nobody() -> None:
    """The handler waits until the job has ended: had a line waited for it, the job never would."""
    done = script("""
        import logging, threading, tidemill as tm
        batches, ended = 1_500, threading.Event()
        class Stuck(logging.Handler):
            def emit(self, record):
                ended.wait()
                if record.levelno != logging.INFO:  # the line at the start is no batch's
                    texts.append(record.getMessage())
        texts = []
        logging.getLogger("tidemill").addHandler(Stuck())
        logging.getLogger("tidemill").setLevel(logging.DEBUG)
        source = tm.testing.ScriptedSource()
        source.push(0, [b"x"] * batches)
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
        ctx.run()
        ended.set()
        while not any("left out" in text for text in texts):
            threading.Event().wait(0.001)
        (told,) = [text for text in texts if "left out" in text]
        left_out = int(told.split()[0])
        while len(texts) - 1 + left_out < batches:
            threading.Event().wait(0.001)
        print(left_out, len(texts) - 1 + left_out)
    """)
    assert done.returncode == 0, done.stderr
    left_out, all_lines = map(int, done.stdout.split())
    assert 0 < left_out < 1_500
    assert all_lines == 1_500


def test_a_handler_that_hangs_does_not_hold_the_interpreters_end() -> None:
    done = script("""
        import logging, threading, tidemill as tm
        class Stuck(logging.Handler):
            def handle(self, record):  # not in `emit`: the handler's lock would hold Python's own end of logging
                threading.Event().wait()
        logging.getLogger("tidemill").addHandler(Stuck())
        logging.getLogger("tidemill").setLevel(logging.DEBUG)
        source = tm.testing.ScriptedSource()
        source.push(0, [b"x"])
        ctx = tm.StreamingContext(trigger=tm.available_now())
        ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
        ctx.run()
        print("ended")
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended\n"


def test_a_handler_that_stops_the_job_is_not_waited_for(source: ScriptedSource) -> None:
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)

    class Stopping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ctx.stop()

    handler = Stopping()
    with hearing("tidemill", logging.DEBUG):
        logging.getLogger("tidemill").addHandler(handler)
        source.push(0, [b"x"])
        ctx.run()
        logging.getLogger("tidemill").removeHandler(handler)


def test_what_a_handler_raises_is_shown_and_later_lines_arrive() -> None:
    done = script("""
        import logging, sys, threading, tidemill as tm
        shown, heard = [], threading.Event()
        sys.unraisablehook = lambda what: shown.append(what.exc_value)
        class Broken(logging.Handler):
            def handle(self, record):
                if record.getMessage().startswith("batch 0"):
                    raise ValueError("mine")
                heard.set()
        logging.getLogger("tidemill").addHandler(Broken())
        logging.getLogger("tidemill").setLevel(logging.DEBUG)
        source = tm.testing.ScriptedSource()
        source.push(0, [b"x", b"y"])
        ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
        ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None)
        ctx.run()
        heard.wait()
        print(repr(shown))
    """)
    assert done.stdout == "[ValueError('mine')]\n", done.stderr


def test_who_waits_for_a_broker_hears_what_is_tried_before_the_patience_is_at_its_end() -> None:
    ctx = tm.StreamingContext(name="unheard")
    ctx.kafka("readings", bootstrap_servers=NOBODY, format=tm.Raw()).foreach_batch(print)
    with hearing("tidemill.kafka", logging.WARNING) as heard:
        starting = threading.Thread(target=ctx.start)
        starting.start()
        line = heard.wait_for(lambda record: "has not answered" in record.getMessage()).getMessage()
        ctx.stop()
        starting.join()
    assert line.startswith(f"Kafka at {NOBODY} has not answered for 2.5 s (")
    assert "Connection refused" in line
    assert line.endswith("it is tried for 7.5 s more")


def test_where_reading_starts_is_one_line_whatever_the_partitions() -> None:
    broker = MockBroker()
    broker.create_topic("many", 8)
    ctx = tm.StreamingContext("10ms")
    stream = ctx.kafka(
        "many",
        bootstrap_servers=broker.bootstrap_servers,
        format=tm.Raw(),
        group_id="g",
        starting="committed",
    )
    stream.foreach_batch(print)
    with hearing("tidemill", logging.INFO) as heard:
        ctx.start()
        heard.wait_for(lambda record: "is read from" in record.getMessage())
        ctx.stop()
    broker.close()
    assert len([record for record in heard.records if "many[" in record.getMessage()]) == 1
