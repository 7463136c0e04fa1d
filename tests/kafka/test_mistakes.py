"""The mistakes of a new user, made on purpose in scripts of their own: what they are told, and that Ctrl-C works.

Pinned are the essential parts of each text: what was expected and found, where, and what to do.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from tests.kafka.clients import Clients

LIMIT_S = 60.0
PROMPTLY_S = 5.0  # for a machine with much else to do
SCHEMA = '{"device": "string", "temperature": "float64"}'
UNUSED = "127.0.0.1:1"


@pytest.fixture
def readings(kafka: Clients, topic: str) -> str:
    """A topic with two readings."""
    kafka.produce(topic, [b'{"device":"a","temperature":20.5}', b'{"device":"b","temperature":95.0}'])
    return topic


def test_a_wrong_broker_is_named_with_what_to_check(tmp_path: Path) -> None:
    said = failure(tmp_path, job("readings", UNUSED, "readings.pprint()"))
    assert "tidemill.SourceError: readings: the cluster cannot be reached" in said
    assert UNUSED in said
    assert "check bootstrap_servers" in said
    assert "job.py:4" in said


def test_a_wrong_topic_is_named_with_those_there_are(tmp_path: Path, kafka: Clients, readings: str) -> None:
    said = failure(tmp_path, job(readings[:-1], kafka.bootstrap_servers, "readings.pprint()"))
    expected = rf'SourceError: topic "{readings[:-1]}" does not exist at .*; there are: .*; did you mean "{readings}"'
    assert re.search(expected, said), said
    assert "job.py:4" in said


def test_a_wrong_output_topic_is_named_with_the_line(tmp_path: Path, kafka: Clients, readings: str) -> None:
    said = failure(tmp_path, job(readings, kafka.bootstrap_servers, f'readings.to_kafka("{readings[:-1]}")'))
    assert re.search(rf'SinkError: topic "{readings[:-1]}" does not exist at .*did you mean', said), said
    assert "job.py:6" in said


def test_wrong_columns_are_named_all_at_once_with_the_nearest(tmp_path: Path) -> None:
    said = failure(
        tmp_path,
        job(
            "readings",
            UNUSED,
            """
            hot = readings.filter(col("temprature") > 80)
            hot.key_by("devise").detect("temperatur", tm.ml.Ewma()).pprint()
            """,
        ),
    )
    assert "SchemaError: 3 mistakes, found before start:" in said
    for wrong, right, place in (
        ("temprature", "temperature", "in filter, .*job.py:6"),
        ("devise", "device", "in key_by, .*job.py:7"),
        ("temperatur", "temperature", "in detect, .*job.py:7"),
    ):
        text = (
            rf'no column "{wrong}"; the columns are device, temperature; did you mean "{right}"\? \({place}\)'
        )
        assert re.search(text, said), said


def test_a_wrong_type_is_named_with_the_expression(tmp_path: Path) -> None:
    said = failure(tmp_path, job("readings", UNUSED, 'readings.filter(col("device") > 80).pprint()'))
    assert re.search(r"SchemaError: string and int64 cannot be compared in device > 80; .*cast", said), said
    assert "job.py:6" in said


def test_an_unknown_type_is_refused_where_it_stands(tmp_path: Path) -> None:
    said = failure(tmp_path, job("readings", UNUSED, "readings.pprint()").replace('"string"', '"str"'))
    assert re.search(r'SchemaError: .*found "str"; use "string"', said), said


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"device":"b","temperature":9x}', "byte 29 of 31"),
        (b'{"device":"b","temperature":"high"}', 'column "temperature", found `"high"'),
    ],
)
def test_a_bad_record_is_named_by_topic_partition_offset_and_byte(
    tmp_path: Path, kafka: Clients, readings: str, record: bytes, reason: str
) -> None:
    kafka.produce(readings, [record])
    said = failure(tmp_path, job(readings, kafka.bootstrap_servers, "readings.pprint()"))
    assert "tidemill.DataError: bad record: expected" in said
    assert reason in said
    assert f'topic "{readings}", partition 0, offset 2' in said
    assert 'on_bad="drop"' in said


def test_an_exception_of_the_users_keeps_its_traceback_and_names_the_operator(
    tmp_path: Path, kafka: Clients, readings: str
) -> None:
    body = """
    def store(batch):
        raise ConnectionError("the database is down")


    readings.map_batches(store).pprint()
    """
    said = failure(tmp_path, job(readings, kafka.bootstrap_servers, body))
    assert 'job.py", line 7, in store' in said
    error, note = said.strip().splitlines()[-2:]
    assert error == "ConnectionError: the database is down"
    assert re.fullmatch(
        rf"tidemill: partition {readings}\[0\], in map_batches\(store\), .*job.py:10, batch 0", note
    )


def test_a_context_started_twice_says_that_it_runs(tmp_path: Path, kafka: Clients, readings: str) -> None:
    body = "readings.pprint()\nctx.start()"
    said = failure(tmp_path, job(readings, kafka.bootstrap_servers, body))
    assert re.search(r"ConfigError: the context .* is running; .*stop it first", said), said


def test_streams_of_two_contexts_are_told_apart(tmp_path: Path) -> None:
    body = f"""
    other = tm.StreamingContext()
    more = other.kafka("more", bootstrap_servers="{UNUSED}", format=tm.Json({SCHEMA}))
    readings.union(more).pprint()
    """
    said = failure(tmp_path, job("readings", UNUSED, body))
    assert "ConfigError: streams of two contexts cannot be joined" in said


SLOW = """
def slow(batch):
    print("ready", flush=True)
    time.sleep(0.5)
    return batch


def deliver(batch):
    print("delivered", batch.num_rows, flush=True)


"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("phase", "body", "prints"),
    [
        ("idle", 'readings.foreach_batch(lambda b: print("ready", flush=True))', ""),
        ("in a function", SLOW + "readings.map_batches(slow).foreach_batch(deliver)", "delivered 2\n"),
        ("in delivery", SLOW + "readings.foreach_batch(lambda b: deliver(slow(b)))", "delivered 2\n"),
    ],
)
def test_a_signal_finishes_what_was_begun_and_run_returns(
    tmp_path: Path,
    kafka: Clients,
    readings: str,
    phase: str,
    body: str,
    prints: str,
    number: signal.Signals,
) -> None:
    text = job(readings, kafka.bootstrap_servers, body) + 'print("after", ctx.error, flush=True)\n'
    code, took, out, said = interrupted(tmp_path, text, number)
    assert (code, out, said) == (0, f"{prints}after None\n", ""), phase
    assert took < PROMPTLY_S


def test_ctrl_c_is_heard_while_the_broker_does_not_answer(tmp_path: Path) -> None:
    text = job("readings", UNUSED, 'readings.pprint()\nprint("ready", flush=True)')
    code, took, _, said = interrupted(tmp_path, text, signal.SIGINT)
    assert (code, said) == (0, "")  # as at any other time: the run is called off, and `run()` returns
    assert took < PROMPTLY_S


def job(topic: str, bootstrap_servers: str, body: str) -> str:
    """A script whose source is on line 4, and whose body begins on line 6."""
    return (
        "import time\nimport tidemill as tm; from tidemill import col\n"
        'ctx = tm.StreamingContext("200ms")\n'
        f'readings = ctx.kafka("{topic}", bootstrap_servers="{bootstrap_servers}", starting="earliest",\n'
        f"    format=tm.Json({SCHEMA}))\n{dedent(body).lstrip()}\nctx.run()\n"
    )


def failure(folder: Path, text: str) -> str:
    """What a script that must fail writes to its standard error."""
    script = folder / "job.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 1, done
    return done.stderr


def interrupted(folder: Path, text: str, number: signal.Signals) -> tuple[int, float, str, str]:
    """Exit code, seconds after the signal, and the rest of both outputs; signalled where the script is ready."""
    script = folder / "job.py"
    script.write_text(text)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    begin = time.monotonic()
    process.send_signal(number)
    out, said = process.communicate(timeout=LIMIT_S)
    return process.returncode, time.monotonic() - begin, out, said
