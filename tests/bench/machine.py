"""The machine and the versions that figures belong to.

It deliberately names no host and no user: a table is published.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path


def describe() -> str:
    """A short list, for above a table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"* {datetime.now(UTC):%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
            f"{platform.system()} {platform.release()}",
            f"* tidemill {version('tidemill')}{_kind_of_build()}, {_rust()}, Python {platform.python_version()}, "
            + ", ".join([*_versions("numpy", "pyarrow", "confluent-kafka"), *_java()]),
        ]
    )


def is_development_build() -> bool:
    """Whether the installed package is an editable one, which is built without optimisation across crates."""
    said = distribution("tidemill").read_text("direct_url.json")
    return bool(said and json.loads(said).get("dir_info", {}).get("editable"))


def _kind_of_build() -> str:
    return " (**development build: figures of Python jobs are too low**)" if is_development_build() else ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _rust() -> str:
    return (
        subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
        .stdout.split("(")[0]
        .strip()
    )


def _java() -> list[str]:
    """The Java of the broker and of some peers, where there is one."""
    if shutil.which("java") is None:
        return []
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    _, number, _ = said.split('"', 2)  # openjdk version "17.0.15" 2025-04-15
    return [f"Java {number}"]


def _versions(*packages: str) -> list[str]:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
