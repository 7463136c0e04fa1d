"""The command line: its help, its mistakes, and a short demonstration from end to end on the embedded broker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from tidemill import cli


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidemill.cli", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_help_names_the_commands_and_shows_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "demo" in said
    assert "StreamingContext(" in said


def test_the_command_alone_is_a_wish_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "tidemill demo --seconds 10" in capsys.readouterr().out


def test_it_runs_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tidemill ")


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tidemill {version('tidemill')}\n"


def test_help_does_not_load_the_engine() -> None:
    script = "import sys, tidemill.cli as c; c._parser(); print('tidemill.demo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--seconds", "0"], "a number above 0 is expected, found '0'"),
        (["demo", "--seconds", "inf"], "a number above 0 is expected, found 'inf'"),
        (["demo", "--rate", "0"], "a whole number from 1 to 1,000,000 is expected, found '0'"),
        (["demo", "--rate", "fast"], "invalid rate value: 'fast'"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_short_demonstration_finds_injected_faults() -> None:
    done = run("demo", "--seconds", "6", "--rate", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) of (\d+) injected faults found", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    assert 0 < int(found[1]) <= int(found[2])
    assert re.search(r"^\d+ false alarms? in 6,000 readings$", done.stdout, re.MULTILINE)


def test_a_broker_that_is_not_there_is_named_without_a_traceback() -> None:
    done = run("demo", "--seconds", "1", "--bootstrap-servers", "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
