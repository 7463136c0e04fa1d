"""How long `import tidemill` takes, beside `import numpy`, each in a new interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.bench.figure import Figure, Measured, in_turn
from tests.bench.settings import Settings

SCRIPT = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"


def figures(_settings: Settings) -> Iterator[Figure]:
    """The figures of this file."""
    ours, theirs = in_turn(lambda: _import("tidemill"), lambda: _import("numpy"))
    yield Figure("import tidemill", "ms", ours, theirs, against="import numpy", reach="≤ 2")


def _import(module: str) -> Measured:
    command = [sys.executable, "-c", SCRIPT.format(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(float(done.stdout) * 1000)
