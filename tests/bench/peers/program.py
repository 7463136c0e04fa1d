"""A side that is a Java program: compiled once into the user's cache, with the jars that its `pom.xml` names.

It deliberately imports next to nothing: the side's own script asks it, and its start is part of a figure.
"""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from tests.bench.peers.task import LEAST, WINDOW_MS, Task
from tests.kafka import jars

JVM = Path(__file__).with_name("jvm")
COMMON = JVM / "common"
VERSION = "{*}properties/{*}peer.version"
# The compiler comes with every Java that has its modules, its command only with a development kit.
COMPILER = ["java", "--module", "jdk.compiler/com.sun.tools.javac.Main", "-proc:none"]


@dataclass(frozen=True)
class Program:
    """A folder of `jvm` with a `pom.xml` and Java sources, and the class that is run."""

    name: str
    main: str

    def version(self) -> str:
        """The one that `pom.xml` names."""
        return ElementTree.parse(self._pom).findtext(VERSION, "")

    def why_not(self) -> str | None:
        """What it needs is fetched; where that fails, `prepare` says so."""
        return None

    def prepare(self) -> None:
        """Fetch the jars and compile, on the first call."""
        self._classes()

    def reads_by(self) -> list[str]:
        """With what it reads Kafka, where that is no part of it."""
        return [jar.stem for jar in self._jars().glob("*-connector-kafka-*.jar")]

    def run(self, task: Task) -> NoReturn:
        """Become the program, so that it is the one that is watched."""
        settings = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        numbers = [str(task.records), str(task.late_ms), str(task.out), str(WINDOW_MS), str(LEAST)]
        classes = f"{self._classes()}{os.pathsep}{self._jars()}/*"
        os.execvp("java", ["java", *settings, "-cp", classes, self.main, task.broker, task.topic, *numbers])

    @property
    def _pom(self) -> Path:
        return JVM / self.name / "pom.xml"

    def _jars(self) -> Path:
        return jars.resolve(self._pom, self.name)

    def _classes(self) -> Path:
        sources = sorted([*COMMON.glob("*.java"), *self._pom.parent.glob("*.java")])
        compile_into = partial(_compile, sources, self._jars())
        return jars.cached(f"{self.name}-classes", [*sources, self._pom], compile_into)


def _compile(sources: list[Path], libraries: Path, folder: Path) -> None:
    path = os.pathsep.join(map(str, libraries.glob("*.jar")))  # no launcher expands a star for the module
    done = subprocess.run(
        [*COMPILER, "-d", str(folder), "-cp", path, *map(str, sources)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"it does not compile: {(done.stdout + done.stderr)[:1000]}")


FLINK = Program("flink", "peers.FlinkSql")
KAFKA_STREAMS = Program("kafka_streams", "peers.KafkaStreamsDsl")
