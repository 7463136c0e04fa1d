"""With what Spark reads Kafka, which is no part of it: jars that Maven fetches as `pom.xml` says.

It deliberately imports next to nothing: Spark's own script asks it, and its start is part of a figure.
"""

from __future__ import annotations

from pathlib import Path

from tests.kafka import jars

POM = Path(__file__).with_name("pom.xml")


def spark_connector() -> list[Path]:
    """The jars, fetched on the first call."""
    return sorted(jars.resolve(POM, "spark-kafka").iterdir())
