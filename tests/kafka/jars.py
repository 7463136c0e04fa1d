"""Jars, of Apache Kafka above all: copied once by Maven from a `pom.xml` into the user's cache.

It deliberately starts nothing and knows no other version than the one that the `pom.xml` names.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.places import cache_folder

POM = Path(__file__).with_name("pom.xml")


class BrokerUnavailable(RuntimeError):
    """No broker can be had on this machine, and why."""


def resolve(pom: Path = POM, name: str = "kafka") -> Path:
    """The folder with a pom's jars, by default those of the broker, filled on the first call.

    Raises `BrokerUnavailable` where Java or Maven is missing, or the jars cannot be had.
    """
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise BrokerUnavailable(
                f"`{program}` is not on the PATH; the Kafka tests need it (Debian: apt install {package})"
            )
    return cached(name, [pom], partial(_copy_jars, pom))


def cached(name: str, sources: Iterable[Path], fill: Callable[[Path], None]) -> Path:
    """A folder in the user's cache that is made of some files, by `fill` on the first call."""
    # Changed files mean another folder: nothing in it is mixed with what was made of older ones.
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    with _locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _filled(folder, fill)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two suites started at once fill the cache one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _filled(folder: Path, fill: Callable[[Path], None]) -> None:
    """Renamed into place at the end, so that a download broken off is never taken for the whole."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        fill(unfinished)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    unfinished.rename(folder)


def _copy_jars(pom: Path, folder: Path) -> None:
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    done = subprocess.run(
        ["mvn", "--batch-mode", "--quiet", f"--file={pom}", *goal],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BrokerUnavailable(
            f"Maven could not fetch the jars of {pom}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
