"""The benchmarks' table: what a Rust bench prints finds its place, and nothing that it says is lost."""

from __future__ import annotations

from itertools import accumulate, islice

import pytest

from tests.bench.__main__ import options
from tests.bench.figure import Figure, Measured, in_turn, table
from tests.bench.readings import LATE_SHARE, PARTITIONS, late, records


def test_a_line_of_a_rust_bench_becomes_a_row() -> None:
    line = (
        '{"figure": "produce", "unit": "records/s", "ours": 1500000, "theirs": 1700000, "against": "C", '
        '"reach": "≥ 0.8", "cpu_s": 1.25, "peak_mib": 40, "rounds": 5}'
    )
    figure = Figure.from_json(line)
    assert figure is not None
    assert (
        figure.row()
        == "| produce | 1,500,000 | records/s | 1,700,000 C | 0.882 | ≥ 0.8 | 1.25 | 40 | rounds 5 |"
    )


def test_a_figure_without_a_comparison_has_no_ratio() -> None:
    figure = Figure.from_json('{"figure": "a batch", "ours": 1.5, "unit": "ms"}')
    assert figure is not None
    assert figure.row() == "| a batch | 1.5 | ms |  |  |  |  |  |  |"


def test_a_ratio_that_a_bench_gives_is_kept() -> None:
    figure = Figure.from_json('{"figure": "f", "ours": 1, "theirs": 2, "ratio": 0.75}')
    assert figure is not None
    assert "| 0.75 |" in figure.row()


def test_other_lines_are_no_figures() -> None:
    assert Figure.from_json("running 3 benches") is None
    assert Figure.from_json("") is None


def test_the_table_has_a_column_for_each_cell() -> None:
    head, rule, row = table([Figure("f", "ms", Measured(1.0))]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")


def test_sides_are_measured_in_turn_and_the_median_counts() -> None:
    asked: list[str] = []
    values = iter([9.0, 1.0, 2.0, 3.0, 4.0])

    def ours() -> Measured:
        asked.append("ours")
        return Measured(next(values))

    def theirs() -> Measured:
        asked.append("theirs")
        return Measured(7.0)

    a, b = in_turn(ours, theirs)
    assert asked == ["ours", "theirs"] * 5
    assert (a.value, b.value) == (3.0, 7.0)


def test_the_readings_are_the_same_each_time_and_of_about_120_bytes() -> None:
    first = list(islice(records(30_000), 15_000))
    assert first == list(islice(records(30_000), 15_000))
    values = [record.value for record in first if record.value is not None]
    assert 110 < sum(map(len, values)) / len(first) < 130
    assert {record.partition for record in first} == set(range(PARTITIONS))


def test_late_readings_are_the_same_ones_and_none_is_later_than_was_said() -> None:
    in_order, late_ms = list(records(20_000)), 500
    given = list(late(in_order, late_ms))
    assert sorted(map(repr, given)) == sorted(map(repr, in_order))
    times = [record.timestamp_ms or 0 for record in given]
    behind = [latest - time for time, latest in zip(times, accumulate(times, max), strict=True)]
    assert late_ms - 10 < max(behind) <= late_ms
    assert LATE_SHARE - 0.02 < sum(by > 0 for by in behind) / len(given) < LATE_SHARE + 0.02


def test_help_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(["peers"], ["--help"])
    assert "30% of the records" in capsys.readouterr().out


def test_only_a_broker_that_is_started_here_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(["peers"], ["--restart", "--broker", "host:1"])
    assert "leave out --broker" in capsys.readouterr().err
