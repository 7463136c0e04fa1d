"""The `tidemill` command: its words and options.

It deliberately does nothing itself, and imports what a command needs only when that command runs, so that
`--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

DESCRIPTION = """\
Micro-batches from Kafka as Arrow tables: transformed in parallel by Rust,
scored by streaming detectors and by your own Python models.
"""

EXAMPLES = """\
examples:
  tidemill demo                       a simulated fleet, an embedded broker, nothing else needed
  tidemill demo --seconds 10 --rate 20000
  tidemill demo --bootstrap-servers localhost:9092 --topic fleet

A job of your own is a Python script:

  import tidemill as tm
  ctx = tm.StreamingContext(batch_interval="500ms")
  ctx.kafka("readings", bootstrap_servers="localhost:9092",
            format=tm.Json({"device": "string", "temperature": "float64"})).pprint()
  ctx.run()

help(tidemill.StreamingContext) and help(tidemill.DStream) say the rest.
"""

MOST = 1_000_000
"""Readings a second: a fleet of fifty thousand machines, and more than any one machine sends."""

DEMO = """\
A simulated fleet of machines reports temperatures to a Kafka topic, and some of
the machines fail on purpose. The job of the README reads the topic, finds the
anomalies by machine, writes them to another topic, and shows them as they come.
At the end: how many of the injected faults were found, how late, and how many
alarms were false. The exit code is 0 when any fault was found, else 1. Ctrl-C
ends it early, with the score so far.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give the exit code; errors of tidemill are told without a traceback."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "seconds"):
        parser.print_help()
        return 0
    try:
        return _demo(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"tidemill: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidemill",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tidemill {version('tidemill')}")
    commands = parser.add_subparsers(title="commands", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="watch a job find injected faults",
        description=DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--seconds", type=seconds, default=30.0, help="how long the fleet reports (default: 30)"
    )
    demo.add_argument(
        "--rate",
        type=rate,
        default=2000,
        help="readings a second, of the whole fleet (default: 2000, at most 1,000,000); where this machine makes "
        "fewer, it is said at the end",
    )
    demo.add_argument(
        "--bootstrap-servers", metavar="HOST:PORT", help="a real Kafka instead of the embedded broker"
    )
    demo.add_argument(
        "--topic",
        default="tidemill-demo",
        help="where the made-up readings are written to (default: tidemill-demo); the alarms go to TOPIC-alerts. Both "
        "are created; topics that are there already are refused, but for those that begin with tidemill-demo",
    )
    demo.add_argument("--seed", type=int, default=0, help="another fleet with other faults (default: 0)")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from tidemill import demo

    return demo.run(demo.Options(**vars(options)))


def _is_ours(error: Exception) -> bool:
    from tidemill import TidemillError

    return isinstance(error, TidemillError)


def seconds(text: str) -> float:
    """How long, from the command line; argparse names the function where the text is no number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0 is expected, found {text!r}")
    return value


def rate(text: str) -> int:
    """How many a second, from the command line."""
    value = int(text)
    if not 0 < value <= MOST:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MOST:,} is expected, found {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
