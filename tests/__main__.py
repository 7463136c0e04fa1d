"""`python -m tests`: the whole suite, the Rust and the Python half, against a real Kafka that it starts itself.

It deliberately checks no style: that is `.ci/run`'s. Parts can be named; without a name all run. Everything else on
the command line goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kafka.broker import Broker
from tests.kafka.jars import BrokerUnavailable
from tests.places import ROOT, cache_folder, target_dir

KAFKA_ADDRESS = "TIDEMILL_TEST_KAFKA"
NO_TESTS_COLLECTED = 5  # pytest's exit code
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
CARGO_SKIPPED = re.compile(r"\bSKIPPED (\S+): ")  # cargo counts these as passed


@dataclass(frozen=True)
class Outcome:
    """How many tests of a part passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        """The two together."""
        return Outcome(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        """The line that closes a run."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"

    def judged(self, exit_code: int) -> Outcome:
        """A part that ended badly without naming a test, or that ran none, has failed all the same."""
        ended_badly = exit_code != 0 or self.passed + self.skipped == 0
        return self + Outcome(failed=1) if ended_badly and self.failed == 0 else self


def run_rust(_arguments: list[str]) -> Outcome:
    """The core without Python: unit tests, the engine's tests, who imports whom, and the examples in the docs."""
    total, skipped = Outcome(), set[str]()

    def count(line: str) -> None:
        nonlocal total
        skipped.update(CARGO_SKIPPED.findall(line))
        found = CARGO_RESULT.match(line)
        if found:
            total += Outcome(*map(int, found.groups()))

    exit_code = _run(["cargo", "test", "--locked", "--no-fail-fast"], count)
    total += Outcome(passed=-len(skipped), skipped=len(skipped))
    return total.judged(exit_code)


def run_pytest(*paths: str) -> Callable[[list[str]], Outcome]:
    """A part that pytest runs; paths that are not there are left out."""

    def run(arguments: list[str]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *paths, *arguments]
            exit_code = _run(command, lambda _line: None)
            if exit_code == NO_TESTS_COLLECTED and arguments:
                return Outcome()  # a choice such as `-k` may leave a part without tests
            return _read_report(report).judged(exit_code)

    return run


NOTEBOOKS = "tests/python/test_notebooks.py"
PARTS: dict[str, Callable[[list[str]], Outcome]] = {
    "rust": run_rust,
    "examples": run_pytest("--doctest-modules", "python/tidemill"),
    "python": run_pytest("tests/python", f"--ignore={NOTEBOOKS}"),
    "kafka": run_pytest("tests/kafka"),
    "notebooks": run_pytest(NOTEBOOKS),
}


def main() -> int:
    """Run the parts, print what came of each, and close with one line."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of: {', '.join(PARTS)} (default: all)")
    chosen, for_pytest = parser.parse_known_args()
    unknown = [name for name in chosen.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the broker ends by the way of Ctrl-C
    try:
        with _kafka():
            outcomes = [_timed(name, for_pytest) for name in chosen.parts or PARTS]
            total = sum(outcomes, Outcome())
            if total.failed:
                raise SuiteFailed(total)
    except KeyboardInterrupt:
        print("\nstopped before the end", flush=True)
        return 130
    except SuiteFailed as failed:
        total = failed.total
    print(f"\n{total}", flush=True)
    return 1 if total.failed else 0


class SuiteFailed(Exception):
    """Some test failed; raised through the broker's block so that its log is kept."""

    def __init__(self, total: Outcome) -> None:
        super().__init__(str(total))
        self.total = total


def _timed(name: str, arguments: list[str]) -> Outcome:
    print(f"\n== {name}", flush=True)
    begin = time.monotonic()
    outcome = PARTS[name](arguments)
    print(f"-- {name}: {outcome} in {time.monotonic() - begin:.0f} s", flush=True)
    return outcome


@contextmanager
def _kafka() -> Iterator[None]:
    """A broker for all parts, unless one is given; where none can be had, the tests that need it say so themselves."""
    if os.environ.get(KAFKA_ADDRESS):
        yield
        return
    try:
        broker = Broker()
    except BrokerUnavailable as reason:
        print(f"no Kafka: {reason}", flush=True)
        yield
        return
    with broker:
        os.environ[KAFKA_ADDRESS] = broker.bootstrap_servers
        print(f"Kafka at {broker.bootstrap_servers}", flush=True)
        try:
            yield
        except SuiteFailed:
            print(f"the broker's log: {broker.save_log(cache_folder())}", flush=True)
            raise


def _run(command: list[str], see: Callable[[str], None]) -> int:
    """Run a command in the clone, print its lines as they come, and show each to `see`."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target_dir()), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            see(line)
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def _read_report(path: Path) -> Outcome:
    """What pytest counted, from its JUnit report; nothing where it did not come so far as to write one."""
    if not path.exists():
        return Outcome()
    suites = ElementTree.parse(path).getroot().iter("testsuite")
    return sum((_of_suite({k: int(v) for k, v in s.items() if v.isdigit()}) for s in suites), Outcome())


def _of_suite(counts: dict[str, int]) -> Outcome:
    failed = counts["failures"] + counts["errors"]
    return Outcome(counts["tests"] - failed - counts["skipped"], failed, counts["skipped"])


if __name__ == "__main__":
    sys.exit(main())
