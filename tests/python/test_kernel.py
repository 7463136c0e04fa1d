"""A notebook's kernel: interrupting a cell ends its job and keeps the kernel; a cell that is run twice works.

It deliberately drives a kernel of Jupyter's own, since who hears an interrupt in a cell is the kernel's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

WAIT_S = 60

ENDLESS = """
import tidemill as tm
from tidemill.testing import ScriptedSource

source = ScriptedSource("readings", partitions=1)
source.push(0, [b'{"x": 1}', b'{"x": 2}'])
ctx = tm.StreamingContext("10ms")
numbers = ctx.scripted(source, format=tm.Json({"x": "int64"}))
"""


class Kernel:
    """One kernel, and what its cells print."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, interrupt_at: str | None = None) -> str:
        """What the cell printed; the cell is interrupted once it has printed `interrupt_at`."""
        said = ""

        def hear(message: dict[str, Any]) -> None:
            nonlocal said, interrupt_at
            said += message["content"].get("text", "") if message["msg_type"] == "stream" else ""
            if interrupt_at is not None and interrupt_at in said:
                interrupt_at = None
                self.manager.interrupt_kernel()

        reply = self.execute(code, hear)
        assert reply["status"] == "ok", reply
        assert interrupt_at is None, said
        return said

    def execute(self, code: str, hear: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The reply's content."""
        try:
            reply = self.client.execute_interactive(code, timeout=WAIT_S, output_hook=hear)
        except (TimeoutError, Empty) as error:
            raise AssertionError(f"the cell has not ended after {WAIT_S} s") from error
        content: dict[str, Any] = reply["content"]
        return content


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_job_is_called_as_the_notebook_where_the_kernel_knows_it(kernel: Kernel) -> None:
    name = "import os, tidemill as tm; print(tm.StreamingContext()._native.name)"
    assert kernel.run("import os; os.environ.pop('JPY_SESSION_NAME', None)\n" + name) == "notebook\n"
    told = 'os.environ["JPY_SESSION_NAME"] = "/home/ada/turbines.ipynb"\n'
    assert kernel.run(told + name) == "turbines.ipynb\n"
    by_editor = 'del os.environ["JPY_SESSION_NAME"]; __vsc_ipynb_file__ = "/home/ada/pumps.ipynb"\n'
    assert kernel.run(by_editor + name) == "pumps.ipynb\n"


def test_an_interrupted_run_ends_its_job_and_the_same_cell_runs_again(kernel: Kernel) -> None:
    cell = f"""{ENDLESS}
numbers.foreach_batch(lambda batch: print("rows", len(batch)), empty=False)
ctx.run()
print("ended", ctx.is_running)
"""
    for _ in range(2):
        said = kernel.run(cell, interrupt_at="rows 2")
        assert said.endswith("ended False\n"), said


def test_an_interrupted_loop_ends_its_job(kernel: Kernel) -> None:
    cell = f"""{ENDLESS}
for batch in numbers:
    print("rows", len(batch))
print("ended", ctx.is_running)
"""
    for _ in range(2):
        said = kernel.run(cell, interrupt_at="rows 2")
        assert said.endswith("ended False\n"), said


def test_a_job_goes_on_while_cells_come_and_go_until_it_is_stopped(kernel: Kernel) -> None:
    begun = kernel.run(
        f"""{ENDLESS}
import threading
seen, complete = [], threading.Event()

def keep(batch):
    seen.extend(batch["x"].tolist())
    if 3 in seen:
        complete.set()

numbers.foreach_batch(keep)
ctx.start()
print(ctx.is_running)
"""
    )
    assert begun == "True\n"
    later = kernel.run(
        f"source.push(0, [b'{{\"x\": 3}}']); complete.wait({WAIT_S}); ctx.stop(); print(seen, ctx.is_running)"
    )
    assert later == "[1, 2, 3] False\n"
