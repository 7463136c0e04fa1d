"""A process and what it starts, watched from outside: how long it took, its CPU time, its peak of memory.

It deliberately reads /proc through psutil every few hundredths of a second, for the whole tree: a side may start a JVM
that outlives it. What ended between two looks is known by what its parent waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from tests.places import ROOT

EVERY_S = 0.05
CHILDREN_EVERY = 5
"""Looks between two searches for new processes, which read all of /proc."""
END_S = 30.0


@dataclass(frozen=True)
class Watched:
    """One run."""

    seconds: float
    cpu_s: float
    peak_mib: float
    said: list[dict[str, Any]]
    """The lines of JSON that it printed."""


def run(command: list[str], limit_s: float) -> Watched:
    """Run a command to its end; RuntimeError with the end of what it printed where it fails or takes too long."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        with _limited(process, limit_s), Tree(process.pid) as tree:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - begin
            tree.await_end()
        if process.wait() != 0:
            raise RuntimeError(_why(process.returncode, seconds, limit_s, _text(out) + _text(err)))
        return Watched(seconds, tree.cpu_s, tree.peak_mib, list(_json_lines(_text(out))))


class Tree:
    """A thread that looks at a process and its descendants until all are gone."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._root = psutil.Process(pid)
        self._others: dict[int, psutil.Process] = {}
        self._cpu: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all, until now."""
        return sum(self._cpu.values())

    def await_end(self) -> None:
        """Call when the root has ended and was not waited for, so that what it used can still be read."""
        self._ended.set()
        self._thread.join()
        used = self._root.cpu_times()
        waited_for = used.children_user + used.children_system
        seen = sum(cpu for pid, cpu in self._cpu.items() if pid != self._root.pid)
        self._cpu = {self._root.pid: used.user + used.system, 0: max(waited_for, seen)}

    def __enter__(self) -> Tree:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        look = 0
        while not self._ended.wait(EVERY_S):
            if look % CHILDREN_EVERY == 0:
                self._find()
            look += 1
            self._look([self._root, *self._others.values()])
        self._outlive()

    def _find(self) -> None:
        with suppress(psutil.Error):
            self._others |= {child.pid: child for child in self._root.children(recursive=True)}

    def _look(self, processes: list[psutil.Process]) -> None:
        resident = 0
        for process in processes:
            with suppress(psutil.Error):
                used = process.cpu_times()
                self._cpu[process.pid] = used.user + used.system
                resident += process.memory_info().rss
        self.peak_mib = max(self.peak_mib, resident / 2**20)

    def _outlive(self) -> None:
        """What the root left behind ends by itself, or is ended: the next side is to have the machine for itself."""
        deadline = time.monotonic() + END_S
        left = list(self._others.values())
        while (left := [p for p in left if _runs(p)]) and time.monotonic() < deadline:
            self._look(left)
            time.sleep(EVERY_S)
        for process in left:
            with suppress(psutil.Error):
                process.kill()


def _runs(process: psutil.Process) -> bool:
    """Whether it still does; a zombie that nobody waits for does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@contextmanager
def _limited(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[None]:
    """Kills the process's group after a time; the process is not waited for within, so that the number is its own."""
    timer = threading.Timer(limit_s, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    except BaseException:  # of a session of its own, it does not hear a Ctrl-C that ends this one
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            with suppress(json.JSONDecodeError):
                yield json.loads(line)


def _why(code: int, seconds: float, limit_s: float, text: str) -> str:
    if seconds >= limit_s:
        return f"did not end within {limit_s:.0f} s"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return f"ended with {code} after {seconds:.1f} s: " + (lines[-1].strip() if lines else "it said nothing")
