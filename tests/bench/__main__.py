"""`python -m tests.bench`: every figure, ours and what it is compared with, written as one table.

Without a broker it starts one and fills a topic. It deliberately goes on when one benchmark fails, says so, and exits
with 1 at the end: the others took their time.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.bench import (
    columns,
    growth,
    imports,
    jobs,
    latency,
    machine,
    memory,
    overload,
    rust,
    small_batches,
)
from tests.bench.figure import ROUNDS, Figure, table
from tests.bench.peers import comparison
from tests.bench.peers.sides import SIDES
from tests.bench.readings import LATE_SHARE
from tests.bench.settings import LIMIT_S, RECORDS, Settings
from tests.kafka.broker import Broker

Bench = Callable[[Settings], Iterable[Figure]]
PYTHON: dict[str, Bench] = {
    "imports": imports.figures,
    "small_batches": small_batches.figures,
    "columns": columns.figures,
    "jobs": jobs.figures,
    "memory": memory.figures,
    "overload": overload.figures,
    "peers": comparison.figures,
    "latency": latency.figures,
    "growth": growth.figures,
}


def main() -> int:
    """Measure, print each figure as it comes, and write the table."""
    benches: dict[str, Bench] = {**PYTHON, **{name: partial(rust.figures, name) for name in rust.names()}}
    asked = options(list(benches))
    chosen = {name: benches[name] for name in asked.only or benches}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends by the way of Ctrl-C
    found: list[Figure] = []
    failed: list[str] = []
    with _settings(asked) as settings:
        for name, bench in chosen.items():
            print(f"== {name}", flush=True)
            try:
                for figure in bench(settings):
                    print(figure.row(), flush=True)
                    found.append(figure)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{name} failed: {error}", flush=True)
                failed.append(name)
        topic = f"* topic of {settings.records:,} records, where a row names no other number"
        text = f"{machine.describe()}\n{topic}\n\n{table(found)}\n"
    asked.out.write_text(text)
    print(f"\n{text}\nwritten to {asked.out}")
    return 1 if failed else 0


def options(names: list[str], arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, by default this process's."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--broker", metavar="HOST:PORT", help="a broker that is there (default: one is started)"
    )
    parser.add_argument(
        "--topic", help="a topic of the broker that is there already (default: one is filled)"
    )
    parser.add_argument(
        "--records", type=int, metavar="N",
        help=f"records in the topic (default: {RECORDS:,}, and {comparison.RECORDS:,} for peers)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"runs of each side (default: {ROUNDS})"
    )
    parser.add_argument(
        "--peer", action="append", choices=(names_of_peers := [side.name for side in SIDES]), metavar="NAME",
        help=f"compare with this one only, of {', '.join(names_of_peers)}",
    )  # fmt: skip
    parser.add_argument(
        "--late", type=int, default=0, metavar="MS", dest="late_ms",
        help=f"{LATE_SHARE:.0%}% of the records come up to so late (with --topic: may come); all peers wait so long",
    )  # fmt: skip
    parser.add_argument(
        "--restart", action="store_true",
        help="peers: run tidemill once more, with the broker killed in the middle and started again",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, metavar="S", dest="limit_s",
        help=f"end a run of a peer after so many seconds (default: {LIMIT_S:.0f}), and run it no more",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("figures.md"), help="where the table goes (default: figures.md)"
    )
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    asked = parser.parse_args(arguments)
    if asked.topic and not asked.broker:
        parser.error("--topic is a topic of a broker that is there: name it with --broker")
    if asked.restart and asked.broker:
        parser.error("--restart kills the broker, and only one that is started here: leave out --broker")
    return asked


@contextmanager
def _settings(asked: argparse.Namespace) -> Iterator[Settings]:
    settings = Settings(
        asked.broker or "", asked.topic, asked.records, asked.rounds, tuple(asked.peer or ()), asked.out,
        late_ms=asked.late_ms, limit_s=asked.limit_s,
    )  # fmt: skip
    if asked.broker:
        yield settings
        return
    with Broker() as broker:
        yield replace(
            settings,
            bootstrap_servers=broker.bootstrap_servers,
            restarts=broker if asked.restart else None,
        )


if __name__ == "__main__":
    sys.exit(main())
