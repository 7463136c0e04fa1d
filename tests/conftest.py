"""What all tests share: a Ctrl-C that is heard."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and so would be every script that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
