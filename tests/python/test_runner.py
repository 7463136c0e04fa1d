"""The suite's runner: a part that runs nothing or ends badly has failed, whatever it counted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import __main__ as runner
from tests.__main__ import CARGO_RESULT, Outcome
from tests.places import ROOT


@pytest.mark.parametrize(
    ("outcome", "exit_code", "judged"),
    [
        (Outcome(3), 0, Outcome(3)),
        (Outcome(3, 1), 1, Outcome(3, 1)),
        (Outcome(3), 101, Outcome(3, 1)),  # it did not compile, or a process died
        (Outcome(), 0, Outcome(0, 1)),  # nothing ran
        (Outcome(skipped=2), 0, Outcome(skipped=2)),
    ],
)
def test_a_part_is_judged_by_its_counts_and_its_exit_code(
    outcome: Outcome, exit_code: int, judged: Outcome
) -> None:
    assert outcome.judged(exit_code) == judged


def test_the_closing_line_names_skipped_tests_only_where_there_are_any() -> None:
    assert str(Outcome(1) + Outcome(2, 1)) == "3 passed, 1 failed"
    assert str(Outcome(1, 0, 4)) == "1 passed, 0 failed, 4 skipped"


def test_results_of_cargo_are_recognised() -> None:
    line = (
        "test result: FAILED. 10 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.16s\n"
    )
    found = CARGO_RESULT.match(line)
    assert found is not None
    assert found.groups() == ("10", "1", "2")


def test_reports_of_pytest_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 0\n"
        "def test_c(): pytest.skip()\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_d(broken): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    assert runner._read_report(report) == Outcome(passed=1, failed=2, skipped=1)
    assert runner._read_report(tmp_path / "none.xml") == Outcome()


def test_an_unknown_part_is_named_with_those_that_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests", "rsut"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.search(
        r"there is no part rsut; there are rust, examples, python, kafka, notebooks", done.stderr
    )
