"""`python -m tests.notebooks`: runs the notebooks and writes what they show into them, as they are committed.

It deliberately checks nothing: what a notebook claims is asserted by its own cells, and the suite runs them.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tests.places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_LIMIT_S = 120
PLOT_COLORS = 64
"""Enough for lines and letters, and a plot is a third of the size."""


def executed(path: Path, times: int = 1) -> Any:
    """The notebook with its outputs; each code cell is run so many times before the next one is."""
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            for _ in range(times if cell.cell_type == "code" else 1):
                client.execute_cell(cell, index)
    return notebook


def smaller(picture: str) -> str:
    """A PNG as a notebook keeps it, in fewer colours."""
    smaller = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        few = image.convert("RGB").quantize(PLOT_COLORS, method=Image.Quantize.MAXCOVERAGE)
        few.save(smaller, format="PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


def write(path: Path, notebook: Any) -> None:
    """Into the repository: with plots that are small."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def main() -> None:
    """Run those that are named, by default all, and write them."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks", description=summary)
    parser.add_argument("paths", nargs="*", type=Path, default=NOTEBOOKS, metavar="path")
    for path in parser.parse_args().paths:
        write(path, executed(path))
        print(f"{path.name}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
