"""`python -m tests.kafka`: a broker for work by hand, until Ctrl-C; it prints its address and nothing else."""

from __future__ import annotations

import signal

from tests.kafka.broker import Broker


def main() -> None:
    """Start a broker, print its address, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Broker() as broker:
            print(broker.bootstrap_servers, flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
