"""The Rust benches: every `[[bench]]` of Cargo.toml prints its figures as lines of JSON.

They find the topic in TIDEMILL_BENCH_KAFKA, TIDEMILL_BENCH_TOPIC and TIDEMILL_BENCH_RECORDS.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator

from tests.bench.figure import Figure
from tests.bench.settings import Settings
from tests.places import ROOT, target_dir


def names() -> list[str]:
    """The benches that there are."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return [bench["name"] for bench in manifest.get("bench", [])]


def figures(name: str, settings: Settings) -> Iterator[Figure]:
    """The figures of one bench."""
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target_dir()),
        "TIDEMILL_BENCH_KAFKA": settings.bootstrap_servers,
        "TIDEMILL_BENCH_TOPIC": settings.topic,
        "TIDEMILL_BENCH_RECORDS": str(settings.records),
    }
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", name]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    yield from filter(None, map(Figure.from_json, done.stdout.splitlines()))
