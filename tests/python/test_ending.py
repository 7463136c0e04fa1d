"""A script that ends while a function of the user's runs ends as it says: it neither aborts nor hangs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

LIMIT_S = 120.0
SCRIPT = """
import os
import signal
import sys
import threading

import tidemill as tm

begun = threading.Event()


def work(batch):
    begun.set()
    while True:
        pass


def interrupt_twice():
    begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
    while not ctx._stop_asked:
        pass
    os.kill(os.getpid(), signal.SIGINT)


source = tm.testing.ScriptedSource()
source.push(0, [b"1"])
ctx = tm.StreamingContext("50ms", name="job")
ctx.scripted(source, format=tm.Raw()).{output}
"""
STARTED = "ctx.start()\nassert begun.wait(60)\n"
OUTPUTS = ["foreach_batch(work)", "map_batches(work).to_table('rows')"]


def ended(output: str, end: str) -> subprocess.CompletedProcess[str]:
    """What comes of a script whose function never returns."""
    script = SCRIPT.format(output=output) + end
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_script_may_end_while_a_function_runs(output: str) -> None:
    done = ended(output, STARTED)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "job: the script has ended, and the job with it" in done.stderr
    assert "Fatal" not in done.stderr


@pytest.mark.parametrize("output", OUTPUTS)
def test_its_exit_code_is_its_own(output: str) -> None:
    assert ended(output, STARTED + "sys.exit(3)").returncode == 3


def test_so_is_its_exception() -> None:
    done = ended(OUTPUTS[0], STARTED + "raise ValueError('mine')")
    assert done.returncode == 1, done.stderr
    assert "ValueError: mine" in done.stderr
    assert "SystemExit" not in done.stderr


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_second_interrupt_ends_it_as_an_interrupt(output: str) -> None:
    done = ended(output, "threading.Thread(target=interrupt_twice).start()\nctx.run()")
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert "ctx.run() in place of start()" not in done.stderr
