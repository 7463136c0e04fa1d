"""A side that pip installs: its version, and why it is not there.

It deliberately installs nothing: what the extra `bench` names is for the user to install.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

NOT_INSTALLABLE = "not installable here"


@dataclass(frozen=True)
class Package:
    """A distribution; `connector` fetches the jars with which it reads Kafka, where it has none of its own."""

    name: str
    connector: Callable[[], list[Path]] = list

    def version(self) -> str:
        """The one that is installed."""
        return version(self.name)

    def why_not(self) -> str | None:
        """Why it cannot be run here; None where it can."""
        try:
            version(self.name)
        except PackageNotFoundError:
            return _why_missing(self.name)
        return None

    def prepare(self) -> None:
        """Fetch what is fetched at first use."""
        self.connector()

    def reads_by(self) -> list[str]:
        """With what it reads Kafka, where that is no part of it."""
        return [jar.stem for jar in self.connector()]


def _is_for_this_python(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": "bench"})


def _why_missing(package: str) -> str:
    """Whether the extra `bench` leaves it out for this Python, or it was not installed."""
    for text in requires("tidemill") or []:
        requirement = Requirement(text)
        if requirement.name == package and not _is_for_this_python(requirement):
            return f"{NOT_INSTALLABLE}: {package} has no wheel for Python {platform.python_version()}"
    return "not installed: pip install -e '.[bench]'"
