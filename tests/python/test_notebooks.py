"""The notebooks run from the first cell to the last, and are committed with what they show.

What each claims is asserted by its own cells.
"""

from __future__ import annotations

import faulthandler
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import tidemill as tm
from tests.notebooks import NOTEBOOKS, executed
from tests.places import ROOT

HANGING = 240.0
"""Seconds, as in `conftest`; a notebook takes longer than a test."""
SIZE_LIMIT = 300_000
"""Bytes of a notebook with its outputs: a page that opens at once, and a history that does not swell."""
PRIVATE = (str(ROOT), str(Path.home()), "site-packages", "ipykernel")
OWN_TOPIC = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RECORDS = {
    "01_first_stream": ("readings", {"device": "pump", "ts": 1, "temperature": 20.5}),
    "02_windows": ("boardings", {"bus": "12", "ts": 1, "boarded": 4}),
}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANGING, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def cells(path: Path, kind: str) -> list[Any]:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in notebook.cells if cell.cell_type == kind]


@every_notebook
def test_a_notebook_runs_to_its_end_also_when_each_cell_is_run_twice(path: Path) -> None:
    notebook = executed(path, times=2)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(2, 2 * len(counts) + 1, 2))
    assert counts


@every_notebook
def test_a_notebook_is_committed_as_it_was_run_from_the_first_cell_to_the_last(path: Path) -> None:
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.get("name", output.output_type) for cell in code for output in cell.outputs}
    assert "display_data" in kinds  # a plot
    assert "error" not in kinds
    shown = json.dumps([cell.outputs for cell in code])
    assert [place for place in PRIVATE if place in shown] == []
    assert path.stat().st_size < SIZE_LIMIT


@every_notebook
def test_the_job_for_a_topic_of_ones_own_reads_a_topic(path: Path) -> None:
    (job,) = OWN_TOPIC.findall("\n".join(cell.source for cell in cells(path, "markdown")))
    topic, record = RECORDS[path.stem]
    with tm.testing.Broker({topic: 1}) as broker:
        ours = job.replace("localhost:9092", broker.bootstrap_servers).replace("ctx.run()", "ctx.start()")
        assert ours.count("ctx.start()") == ours.count(broker.bootstrap_servers) == 1
        names: dict[str, Any] = {}
        exec(ours, names)
        ctx: tm.StreamingContext = names["ctx"]
        with ctx:
            broker.send(topic, [("key", json.dumps(record))])
            while ctx.is_running and (ctx.progress is None or ctx.progress.totals.records < 1):
                ctx.await_termination("10ms")
        assert ctx.progress is not None
        assert ctx.progress.totals.bad == 0
