"""A context's life: settings, start, end, signals, failures, and what it gives back."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

import tidemill as tm
from tests.python.conftest import Numbers
from tidemill.testing import ManualClock, ScriptedSource

FORMAT = tm.Json({"x": "float64"})


def running(source: ScriptedSource, fn: Callable[[tm.Batch], object], **settings: Any) -> tm.StreamingContext:
    """A context that runs on and gives each batch to `fn`."""
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible(), **settings)
    ctx.scripted(source, format=FORMAT).foreach_batch(fn)
    return ctx


def eventually(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does soon; the watch over hanging tests ends it."""
    while not condition():
        threading.Event().wait(0.001)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_interval": "0s"}, "positive"),
        ({"batch_interval": "0.5ms"}, "whole number of milliseconds"),
        ({"batch_interval": "5 parsecs"}, 'a duration is expected, found "5 parsecs"'),
        ({"batch_interval": -1}, "a duration is expected, found -1"),
        ({"batch_interval": []}, r"found \[\]"),
        ({"batch_interval": True}, "found True"),
        ({"batch_interval": "2s", "trigger": tm.as_soon_as_possible()}, "either batch_interval or trigger"),
        ({"checkpoint": []}, r"checkpoint is a directory, or a list of several, found \[\]"),
        ({"checkpoint": [3]}, r"a list of several, found \[3\]"),
        (
            {"checkpoint": "./here", "on_state_change": "forget"},
            'on_state_change is "fail" or "reset", found "forget"',
        ),
        ({"checkpoint": "./here", "guarantee": "at_least_once"}, "not offered yet with a checkpoint"),
        (
            {"checkpoint": "./here", "trigger": tm.available_now(close_windows=True)},
            "close_windows=True is not offered yet",
        ),
        ({"guarantee": "exactly_once"}, 'needs a checkpoint, found none: pass checkpoint="./checkpoint"'),
        ({"guarantee": "twice"}, "guarantee is .*, found 'twice'"),
        ({"executors": 0}, "executors is a whole number from 1 to 1,024, found 0"),
        ({"executors": -1}, "executors is a whole number from 1 to 1,024, found -1"),
        ({"threads": 0}, "threads is a whole number from 1 to 1,024, found 0"),
        ({"threads": -1}, "threads is a whole number from 1 to 1,024, found -1"),
        ({"trigger": "asap"}, r"trigger is .*tm\.as_soon_as_possible\(\).*, found 'asap'"),
        ({"max_memory": "150%"}, 'a size is expected, found "150%"'),
        ({"max_memory": 0}, "found 0"),
        ({"max_memory": "0%"}, 'found "0%"'),
        ({"max_memory": "0B"}, 'found "0B"'),
        ({"max_memory": "12"}, 'found "12"'),
        ({"max_state_bytes": "101%"}, 'found "101%"'),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(tm.ConfigError, match=message):
        tm.StreamingContext(**settings)


def test_durations_may_be_text_timedeltas_and_seconds() -> None:
    from datetime import timedelta

    assert tm.interval("500ms") == tm.interval(0.5) == tm.interval(timedelta(milliseconds=500))
    assert repr(tm.interval("1m")) == 'interval("60000ms")'
    assert tm.interval(" 1.5 h ") == tm.interval("90min")
    assert tm.interval(0.1) == tm.interval("100ms") == tm.interval("100000us")
    assert tm.testing.ManualClock("0s").now == 0.0


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 week", "1.2.3s", "5 s s"])
def test_what_is_no_duration_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(tm.ConfigError, match=f'a duration is expected, found "{text}"'):
        tm.interval(text)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, 1e11])
def test_seconds_without_sense_are_refused(seconds: float) -> None:
    with pytest.raises(tm.ConfigError, match=r"a duration .*is expected, found (nan|-1.0|100000000000.0)"):
        tm.interval(seconds)


@pytest.mark.parametrize("size", ["25%", "2 GiB", "512MB"])
def test_sizes_may_be_parts_and_have_units(size: str) -> None:
    assert not tm.StreamingContext(max_memory=size, max_state_bytes=size).is_running


def test_available_now_takes_a_positive_number_of_records() -> None:
    with pytest.raises(tm.ConfigError, match="max_records must be positive"):
        tm.available_now(max_records=0)
    with pytest.raises(tm.ConfigError, match="max_records must be positive, found -1"):
        tm.available_now(max_records=-1)


def test_a_bounded_job_ends_by_itself_and_may_be_run_again(
    drained: tm.StreamingContext, source: ScriptedSource
) -> None:
    seen: list[float] = []
    drained.scripted(source, format=FORMAT).foreach_batch(lambda batch: seen.extend(batch["x"].tolist()))
    source.push(0, [b'{"x": 1}'])
    drained.run()
    source.push(1, [b'{"x": 2}'])
    drained.run()
    assert seen == [1.0, 1.0, 2.0]
    assert not drained.is_running


def test_max_records_bounds_a_batch(source: ScriptedSource) -> None:
    source.push(0, [b'{"x": 1}'] * 10)
    ctx = tm.StreamingContext(trigger=tm.available_now(max_records=3))
    assert [batch.num_rows for batch in ctx.scripted(source, format=FORMAT)] == [3, 3, 3, 1]


def test_batches_come_at_the_ticks_of_a_manual_clock(source: ScriptedSource, clock: ManualClock) -> None:
    times: list[float] = []
    done = threading.Semaphore(0)

    def take(batch: tm.Batch) -> None:
        times.append(batch.time.timestamp())
        done.release()

    def advanced() -> bool:
        clock.advance("100ms")
        return done.acquire(blocking=False)

    ctx = tm.StreamingContext("2s", clock=clock)
    ctx.scripted(source, format=FORMAT).foreach_batch(take, empty=True)
    with ctx:
        ctx.start()
        for _ in range(3):
            eventually(advanced)
    assert times[0] % 2 == 0
    assert all(later - earlier >= 2 for earlier, later in pairwise(times))


def test_a_context_without_source_or_output_does_not_start(
    drained: tm.StreamingContext, source: ScriptedSource
) -> None:
    with pytest.raises(tm.ConfigError, match="has no source"):
        drained.run()
    drained.scripted(source, format=FORMAT)
    with pytest.raises(tm.ConfigError, match="has an output"):
        drained.run()


def test_the_plan_may_not_change_while_it_runs(source: ScriptedSource) -> None:
    ctx = running(source, print)
    with ctx:
        ctx.start()
        with pytest.raises(tm.ConfigError, match="is running"):
            ctx.scripted(source, format=FORMAT)
        with pytest.raises(tm.ConfigError, match="is running"):
            ctx.start()


def test_two_contexts_run_side_by_side() -> None:
    sources = [ScriptedSource(), ScriptedSource()]
    seen = [threading.Event(), threading.Event()]

    def saw(event: threading.Event, _: tm.Batch) -> None:
        event.set()

    contexts = [running(one, partial(saw, event)) for one, event in zip(sources, seen, strict=True)]
    for ctx in contexts:
        ctx.start()
    for one in sources:
        one.push(0, [b'{"x": 1}'])
    assert all(event.wait() for event in seen)
    for ctx in contexts:
        ctx.stop()


def test_await_termination_says_whether_it_has_ended(source: ScriptedSource) -> None:
    ctx = running(source, print)
    ctx.start()
    assert ctx.await_termination("10ms") is False
    assert ctx.is_running
    ctx.stop()
    assert ctx.await_termination() is True
    assert ctx.await_termination(0) is True
    ctx.stop()


def test_stop_within_a_function_takes_effect_after_the_batch(source: ScriptedSource) -> None:
    finished: list[bool] = []

    def take(batch: tm.Batch) -> None:
        ctx.stop()
        finished.append(True)

    ctx = running(source, take)
    source.push(0, [b'{"x": 1}'])
    ctx.run()
    assert finished == [True]


def test_waiting_within_a_function_is_refused(source: ScriptedSource) -> None:
    ctx = running(source, lambda _: ctx.await_termination())
    source.push(0, [b'{"x": 1}'])
    with pytest.raises(tm.ConfigError, match="cannot wait for the stream's end"):
        ctx.run()


def test_a_loop_starts_and_stops_the_context(source: ScriptedSource) -> None:
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    stream = ctx.scripted(source, format=FORMAT)
    source.push(0, [b'{"x": 1}'])
    for batch in stream:
        assert ctx.is_running
        assert batch["x"].tolist() == [1.0]
        break
    assert not ctx.is_running
    for _ in stream:
        ctx.stop()
    assert not ctx.is_running


def test_an_exception_in_a_loop_stops_the_context(source: ScriptedSource) -> None:
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    source.push(0, [b'{"x": 1}'])
    stream = ctx.scripted(source, format=FORMAT)
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in stream]
    eventually(lambda: not ctx.is_running)


def test_the_with_block_stops_and_raises_what_failed(source: ScriptedSource) -> None:
    mine = ValueError("mine")

    def fail(batch: tm.Batch) -> None:
        raise mine

    def job() -> None:
        with running(source, fail) as ctx:
            ctx.start()
            eventually(lambda: not ctx.is_running)

    source.push(0, [b'{"x": 1}'])
    with pytest.raises(ValueError, match="mine") as caught:
        job()
    assert caught.value is mine


def test_a_failure_that_nobody_waits_for_is_logged_once(
    source: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(batch: tm.Batch) -> None:
        raise ValueError("mine")

    ctx = running(source, fail)
    source.push(0, [b'{"x": 1}'])
    with caplog.at_level(logging.ERROR, "tidemill"):
        ctx.start()
        eventually(lambda: len(caplog.records) > 0 and not ctx.is_running)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert isinstance(ctx.error, ValueError)


def test_progress_and_listeners_tell_what_happened(numbers: Numbers, drained: tm.StreamingContext) -> None:
    events: list[tm.Event] = []

    class Ear:
        def on_event(self, event: tm.Event) -> None:
            events.append(event)

    kinds: list[str] = []
    drained.listeners.extend([Ear(), lambda event: kinds.append(event.kind)])
    numbers(1, 2, 3).foreach_batch(lambda batch: None)
    assert drained.progress is None
    drained.run()
    progress = drained.progress
    assert progress is not None
    assert (progress.batch_id, progress.records, progress.output_rows, progress.total_lag) == (0, 3, 3, 0)
    assert progress.lag == {("readings", 0): 0, ("readings", 1): 0}
    assert progress.watermark is None
    assert progress.total_delay >= 0
    eventually(lambda: "stopped" in kinds)
    assert kinds[0] == "started"
    assert {"planned", "completed"} <= set(kinds)
    completed = next(event for event in events if event.kind == "completed")
    assert completed.progress is not None
    assert completed.progress.records == 3
    assert completed.error is None


def test_a_listener_that_fails_is_logged_and_harms_nobody(
    numbers: Numbers, drained: tm.StreamingContext, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: list[str] = []
    drained.listeners.extend([lambda event: 1 / 0, lambda event: kinds.append(event.kind)])
    numbers(1).foreach_batch(lambda batch: None)
    drained.run()
    eventually(lambda: "stopped" in kinds)
    assert "a listener failed" in caplog.text


def test_the_watermark_is_shown(source: ScriptedSource, drained: tm.StreamingContext) -> None:
    source.push(0, [b'{"ts": 10000}'])
    source.push(1, [b'{"ts": 20000}'])
    stream = drained.scripted(
        source, format=tm.Json({"ts": "timestamp[ms]"}), event_time="ts", watermark="2s"
    )
    stream.foreach_batch(lambda batch: None)
    drained.run()
    assert drained.progress is not None
    assert drained.progress.watermark is not None
    assert drained.progress.watermark.timestamp() == 8.0
    assert drained.progress.watermark_holder == ("readings", 0)


def test_a_collected_context_stops_and_gives_its_threads_back(source: ScriptedSource) -> None:
    before = threads()
    ctx = running(source, lambda _: None)
    ctx.start()
    assert threads() > before
    gone = weakref.ref(ctx)
    del ctx
    assert gone() is None
    eventually(lambda: threads() <= before)


def test_a_circle_through_a_function_is_collected(source: ScriptedSource) -> None:
    def job() -> weakref.ref[tm.StreamingContext]:
        ctx = running(source, lambda _: ctx.stop())
        return weakref.ref(ctx)

    gone = job()
    gc.collect()
    assert gone() is None


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else threading.active_count()


def test_running_contexts_that_are_forgotten_one_after_the_other_hold_nobody(source: ScriptedSource) -> None:
    source.push(0, [b"a"] * 50)

    def cell() -> None:
        ctx = tm.StreamingContext("10ms")
        ctx.scripted(source, format=tm.Raw(), starting="earliest").foreach_batch(
            lambda batch: None, empty=True
        )
        ctx.start()

    for _ in range(60):
        cell()


def test_use_after_fork_is_refused(source: ScriptedSource) -> None:
    ctx = running(source, print)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            ctx.start()
        except tm.ConfigError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"another process" in os.read(read, 1_000)


def run_script(body: str, *signals: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Runs a script; sends a signal for each line `ready` that it prints."""
    script = textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    said = ""
    for number in signals:
        while (line := process.stdout.readline()) and line.strip() != "ready":
            said += line
        process.send_signal(number)
    out, err = process.communicate(timeout=50)
    return subprocess.CompletedProcess(process.args, process.returncode, said + out, err)


RUNNING = """
    import threading, time
    import tidemill as tm
    source = tm.testing.ScriptedSource()
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    go_on = threading.Event()
    def take(batch):
        print("ready", flush=True)
        {in_batch}
        print("batch done", flush=True)
    ctx.scripted(source, format=tm.Json({{"x": "float64"}})).foreach_batch(take)
    source.push(0, [b'{{"x": 1}}'])
    ctx.run()
    print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_gracefully(number: signal.Signals) -> None:
    script = RUNNING.format(in_batch="while not ctx._stop_asked: time.sleep(0.01)")
    done = run_script(script, number)
    assert done.returncode == 0, done.stderr
    assert "batch done\nreturned" in done.stdout


def test_a_second_ctrl_c_interrupts(tmp_path: Any) -> None:
    in_batch = (
        'exec("while not ctx._stop_asked: time.sleep(0.01)"); print("ready", flush=True); go_on.wait(20)'
    )
    done = run_script(RUNNING.format(in_batch=in_batch), signal.SIGINT, signal.SIGINT)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert "returned" not in done.stdout


LOOP = """
    import signal, time
    import tidemill as tm
    source = tm.testing.ScriptedSource()
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    source.push(0, [b'{{"x": 1}}'])
    try:
        for batch in ctx.scripted(source, format=tm.Json({{"x": "float64"}})):
            print("ready", flush=True)
            {in_batch}
            print("batch done", flush=True)
        print("left", ctx.is_running, flush=True)
    except KeyboardInterrupt:
        print("interrupted", ctx.is_running, flush=True)
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("in_batch", ["pass", "while not ctx._stop_asked: time.sleep(0.01)"])
def test_a_signal_ends_a_loop_after_its_batch(number: signal.Signals, in_batch: str) -> None:
    done = run_script(LOOP.format(in_batch=in_batch), number)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("left False\nTrue\nTrue\n"), done.stdout
    assert "batch done" in done.stdout or in_batch == "pass"


def test_a_second_ctrl_c_leaves_a_loop_at_once() -> None:
    in_batch = (
        'exec("while not ctx._stop_asked: time.sleep(0.01)"); print("ready", flush=True); time.sleep(60)'
    )
    done = run_script(LOOP.format(in_batch=in_batch), signal.SIGINT, signal.SIGINT)
    assert done.stdout.endswith("interrupted False\nTrue\nTrue\n"), done.stderr


def test_a_loop_leaves_alone_what_the_script_does_at_a_signal() -> None:
    script = """
        import signal
        import tidemill as tm
        def own(number, frame):
            print("own", flush=True)
            raise SystemExit(7)
        signal.signal(signal.SIGINT, own)
        source = tm.testing.ScriptedSource()
        ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
        source.push(0, [b"1"])
        for batch in ctx.scripted(source, format=tm.Raw()):
            print("ready", flush=True)
    """
    done = run_script(script, signal.SIGINT)
    assert (done.returncode, done.stdout) == (7, "own\n"), done.stderr


@pytest.mark.parametrize(
    ("last", "is_warned"),
    [("", True), ("ctx.stop()", False), ("ctx.await_termination('10ms')", True), ("del ctx, s", False)],
)
def test_a_script_that_ends_before_its_job_says_so(last: str, is_warned: bool) -> None:
    script = f"""
        import tidemill as tm
        ctx = tm.StreamingContext("10ms", name="hasty")
        s = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Raw())
        s.foreach_batch(print)
        print("ready", flush=True)
        ctx.start()
        {last}
    """
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    assert ("hasty: the script has ended, and the job with it" in done.stderr) is is_warned, done.stderr
    assert ("call ctx.await_termination() at the end" in done.stderr) is is_warned


def test_who_waits_for_a_job_without_rows_is_told_once_what_it_waits_for(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidemill.context._QUIET_S", 0.01)
    caplog.set_level(logging.INFO, "tidemill")
    ctx = tm.StreamingContext("10ms", name="quiet")
    rows = ctx.scripted(source, format=FORMAT).filter("x > 1")
    rows.foreach_batch(print)

    def lines() -> list[str]:
        return [text for text in caplog.messages if text.startswith("quiet is running")]

    with ctx:
        ctx.start()
        while not lines():
            ctx.await_termination("50ms")
        assert "nothing has come to an output yet: what is written from now on is read" in lines()[-1]
        source.push(0, [b'{"x": 1}'])
        while "1 records read, and none has come to an output yet" not in lines()[-1]:
            ctx.await_termination("50ms")
        source.push(0, [b'{"x": 2}'])
        eventually(lambda: ctx.progress is not None and ctx.progress.totals.output_rows == 1)
        count = len(lines())
        ctx.await_termination("100ms")
        assert len(lines()) == count


SILENT_BROKER = """
    import signal, socket, threading, time
    import tidemill as tm
    silent = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % silent.getsockname()[1]
    ctx = tm.StreamingContext()
    {job}
    def interrupt():
        connection = silent.accept()
        signal.raise_signal(signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    try:
        ctx.{call}()
        print("returned", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(ctx.await_termination("4s"), time.monotonic() - begin < 5)
"""


READS_FROM_IT = 'ctx.kafka("t", bootstrap_servers=address, format=tm.Raw()).foreach_batch(print)'
WRITES_TO_IT = """
    source = tm.testing.ScriptedSource()
    ctx.scripted(source, format=tm.Json({"x": "int64"})).to_kafka("t", bootstrap_servers=address)
"""


@pytest.mark.parametrize("job", [READS_FROM_IT, WRITES_TO_IT], ids=["reads from it", "writes to it"])
@pytest.mark.parametrize(("call", "outcome"), [("run", "returned"), ("start", "interrupted")])
def test_ctrl_c_calls_off_a_start_that_waits_for_a_broker(job: str, call: str, outcome: str) -> None:
    done = run_script(SILENT_BROKER.format(job=job, call=call))
    assert done.stdout == f"{outcome}\nTrue True\n", done.stderr


def test_a_context_can_be_asked_and_stopped_while_it_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ctx = tm.StreamingContext(name="slow")
        stream = ctx.kafka("t", bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}", format=tm.Raw())
        stream.foreach_batch(print)
        starting = threading.Thread(target=ctx.start)
        starting.start()
        eventually(lambda: ctx.is_running)
        assert (ctx.progress, ctx.error) == (None, None)
        assert ctx.await_termination("10ms") is False
        with pytest.raises(tm.ConfigError, match='the context "slow" is starting'):
            ctx.start()
        ctx.stop()
        starting.join()
        assert not ctx.is_running


def test_start_returns_once_it_is_known_where_reading_starts(source: ScriptedSource) -> None:
    seen: list[float] = []
    source.push(0, [b'{"x": 1}'])
    ctx = tm.StreamingContext(trigger=tm.as_soon_as_possible())
    stream = ctx.scripted(source, format=FORMAT, starting="latest")
    stream.foreach_batch(lambda batch: seen.extend(batch["x"].tolist()))
    for later in (2.0, 3.0, 4.0):
        seen.clear()
        ctx.start()
        source.push(0, [f'{{"x": {later}}}'.encode()])
        eventually(lambda: len(seen) > 0)
        ctx.stop()
        assert seen == [later]


def test_start_raises_what_is_wrong_with_a_position(source: ScriptedSource) -> None:
    ctx = tm.StreamingContext()
    ctx.scripted(source, format=FORMAT, starting={0: 0}).foreach_batch(print)
    with pytest.raises(tm.TidemillError):
        ctx.start()
    assert not ctx.is_running


def test_a_start_beyond_the_end_is_data_loss_that_names_the_offsets(source: ScriptedSource) -> None:
    source.push(0, [b'{"x": 1}'] * 10)
    ctx = tm.StreamingContext()
    ctx.scripted(source, format=FORMAT, starting={0: 1000, 1: 0}).foreach_batch(print)
    with pytest.raises(
        tm.DataLossError, match="readings partition 0: wanted offset 1000, but the log ends at 10"
    ):
        ctx.start()


def test_signals_are_handled_as_before_afterwards(numbers: Numbers, drained: tm.StreamingContext) -> None:
    before = signal.getsignal(signal.SIGINT)
    numbers(1).foreach_batch(lambda batch: None)
    drained.run()
    assert signal.getsignal(signal.SIGINT) is before


def test_run_works_in_another_thread(numbers: Numbers, drained: tm.StreamingContext) -> None:
    seen: list[int] = []
    numbers(1, 2).foreach_batch(lambda batch: seen.append(batch.num_rows))
    thread = threading.Thread(target=drained.run)
    thread.start()
    thread.join()
    assert seen == [2]


def test_a_script_that_ends_while_a_stream_runs_ends() -> None:
    script = """
        import tidemill as tm
        source = tm.testing.ScriptedSource()
        ctx = tm.StreamingContext("10ms")
        ctx.scripted(source, format=tm.Raw()).foreach_batch(lambda batch: None, empty=True)
        ctx.start()
        print("end")
    """
    done = run_script(script)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_the_gil_is_free_while_the_script_waits(source: ScriptedSource) -> None:
    ctx = running(source, print)
    counted = threading.Event()
    ctx.start()
    threading.Thread(target=counted.set).start()
    assert ctx.await_termination("50ms") is False
    assert counted.is_set()
    ctx.stop()


def test_import_loads_no_library() -> None:
    script = """
        import sys, tidemill
        print([name for name in ("numpy", "pandas", "polars", "pyarrow", "rich") if name in sys.modules])
    """
    assert run_script(script).stdout.strip() == "[]"
