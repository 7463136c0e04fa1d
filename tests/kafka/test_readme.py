"""The README's job works as printed: readings in, one alert for the one that is off."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.kafka.broker import Broker
from tests.kafka.clients import Clients
from tests.places import ROOT

LIMIT_S = 60.0
NORMAL = [20.0, 20.5, 19.5, 20.2] * 15


def test_the_job_of_the_readme_finds_the_reading_that_is_off(own_broker: Broker) -> None:
    kafka = Clients(own_broker.bootstrap_servers)
    for topic in ("readings", "alerts"):
        kafka.create_topic(name=topic)
    ctx = readme_job(own_broker.bootstrap_servers)
    ctx.start()
    try:
        (first, *_) = alerts_of(kafka, ctx)
    finally:
        ctx.stop()
    assert first["temperature"] == 95.0
    assert first["is_anomaly"] is True
    assert first["p_value"] < 1e-3


def readme_job(bootstrap_servers: str) -> Any:
    """The first Python block of the README, up to its start, for another address."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    job, run, rest = found[1].replace("localhost:9092", bootstrap_servers).partition("ctx.run()")
    assert (run, rest.strip()) == ("ctx.run()", "")
    names: dict[str, Any] = {}
    exec(compile(job, "README.md", "exec"), names)
    return names["ctx"]


def alerts_of(kafka: Clients, ctx: Any) -> list[dict[str, Any]]:
    """What the job wrote, once it has; each round a new device, as the job begins at the end of the topic."""
    deadline, device = time.monotonic() + LIMIT_S, 0
    while time.monotonic() < deadline:
        assert ctx.is_running, ctx.error
        device += 1
        kafka.produce("readings", [reading(device, t) for t in [*NORMAL, 95.0, None]])
        written = [json.loads(message.value() or b"") for message in kafka.consume("alerts")]
        off = [alert for alert in written if alert["temperature"] == 95.0]
        if off:
            return off
    raise AssertionError(f"no alert within {LIMIT_S:.0f} s; {ctx.progress}")


def reading(device: int, temperature: float | None) -> bytes:
    return json.dumps({"device": f"d{device}", "ts": 1_750_000_000_000, "temperature": temperature}).encode()
