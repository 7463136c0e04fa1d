"""The Rust benches: every `[[bench]]` of Cargo.toml prints its figures as lines of JSON.

They find the topic in TIDEMILL_BENCH_KAFKA, TIDEMILL_BENCH_TOPIC and TIDEMILL_BENCH_RECORDS.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator

from tests.bench.figure import Figure, Measured
from tests.bench.settings import Settings
from tests.places import ROOT, target_dir


def names() -> list[str]:
    """The benches that there are."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return [bench["name"] for bench in manifest.get("bench", [])]


def figures(name: str, settings: Settings) -> Iterator[Figure]:
    """The figures of one bench."""
    yield from filter(None, map(Figure.from_json, _lines(name, settings)))


def librdkafka(settings: Settings) -> Measured:
    """One handle of librdkafka, called from Rust in a process of its own: it reads the topic and throws it away."""
    (figure,) = filter(None, map(Figure.from_json, _lines("ingest", settings, "theirs")))
    return figure.ours


def _lines(name: str, settings: Settings, *arguments: str) -> list[str]:
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target_dir("release")),
        "TIDEMILL_BENCH_KAFKA": settings.bootstrap_servers,
        "TIDEMILL_BENCH_TOPIC": settings.topic,
        "TIDEMILL_BENCH_RECORDS": str(settings.records),
    }
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", name, "--", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()
