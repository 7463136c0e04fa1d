"""No secret is written anywhere: jobs with passwords that stand nowhere else, and a look at every byte they write."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

from tests.kafka.clients import Clients
from tests.kafka.secured import KEY_PASSWORD, USERS, SecuredBroker, unsigned_token

LIMIT_S = 240.0
WRONG = "canary-wrong-9Kq4hm"

# Everything that shows something shows it, and each ending that a login can have is had: right, wrong, and refused.
# What is secret comes from the environment, since Python itself shows the line of a script that fails.
JOB = """
import gc, logging, os, sys, traceback
import tidemill as tm

logging.basicConfig(level=logging.DEBUG, filename="job.log")
env = os.environ
topic, ca = env["TOPIC"], env["CA"]
tls = tm.Tls(ca=ca)


def show(*things):
    for thing in things:
        print(thing, repr(thing), getattr(thing, "__dict__", None), file=sys.stderr)


def attempt(name, listener, **options):
    print("==", name, file=sys.stderr)
    ctx = tm.StreamingContext(trigger=tm.available_now(), name=name)
    ctx.listeners.append(lambda event: show(event, event.progress, event.error))
    options.setdefault("config", {})
    options["config"] = {"debug": "all", **options["config"]}
    try:
        stream = ctx.kafka(topic, bootstrap_servers=env[listener], format=tm.Raw(), **options)
        stream.to_kafka(topic + "-out", config={"debug": "all"})
        show(ctx, stream, ctx.explain(), stream.explain())
        ctx.run()
        show(ctx.progress)
    except Exception as error:
        traceback.print_exc()
        show(error, error.args, getattr(error, "__notes__", None), ctx.error)


def logins(name, password):
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        login = tm.Sasl(mechanism, username="alice", password=password, tls=tls)
        show(login)
        attempt(f"{name} {mechanism}", "LOGIN", security=login)


def token():
    return env["TOKEN"], "1h"


own = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "alice", "ssl.ca.location": ca}
logins("right", env["PASSWORD"])
logins("wrong", env["WRONG"])
attempt("token", "LOGIN", security=tm.Sasl.oauth(token, tls=tls))
attempt("key", "MTLS", security=tm.Tls(
    ca=ca, certificate=env["CERTIFICATE"], key=open(env["KEY"]).read(), key_password=env["KEY_PASSWORD"]))
attempt("wrong key", "MTLS", security=tm.Tls(
    ca=ca, certificate=env["CERTIFICATE"], key=env["KEY"], key_password=env["WRONG"]))
attempt("own", "LOGIN", config={**own, "sasl.password": env["PASSWORD"]})
attempt("own wrong", "LOGIN", config={**own, "sasl.password": env["WRONG"]})
attempt("own mistyped", "LOGIN", config={**own, "sasl.pasword": env["PASSWORD"]})
attempt("own open", "LOGIN", config={"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN",
                                     "sasl.password": env["PASSWORD"]})
attempt("both", "LOGIN", security=tm.Sasl("PLAIN", username="alice", password=env["PASSWORD"]),
        config={"sasl.password": env["WRONG"]})
attempt("nul", "LOGIN", config={**own, "sasl.password": env["PASSWORD"] + chr(0)})
attempt("elsewhere", "PLAINTEXT", security=tm.Sasl("PLAIN", username="alice", password=env["PASSWORD"]))
for kind, secret in (("mechanism", "PLAIN "), ("password", "")):
    try:
        tm.Sasl(secret if kind == "mechanism" else "PLAIN", username="alice",
                password="" if kind == "password" else env["PASSWORD"])
    except tm.ConfigError:
        traceback.print_exc()
gc.collect()
print("finished")
"""


def test_no_byte_that_a_run_writes_holds_a_secret(tmp_path: Path, secured: SecuredBroker) -> None:
    kafka = Clients(secured.bootstrap_servers)
    topic = kafka.create_topic()
    kafka.create_topic(name=f"{topic}-out")
    kafka.produce(topic, [b"1", b"2"])
    token = unsigned_token("alice", 3_600)
    certificate, key = secured.client("locked")
    secrets = {"PASSWORD": USERS["alice"], "WRONG": WRONG, "TOKEN": token, "KEY_PASSWORD": KEY_PASSWORD}
    addresses = {name: secured.address(name) for name in secured.listeners}
    places = {"TOPIC": topic, "CA": secured.ca, "CERTIFICATE": certificate, "KEY": key}
    (tmp_path / "work").mkdir()
    script = tmp_path / "job.py"
    script.write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-X", "dev", str(script)], cwd=tmp_path / "work", env={**secrets, **addresses, **places},
        capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    assert done.stdout.endswith(b"finished\n"), said[-4_000:]
    written = {"stdout": done.stdout, "stderr": done.stderr}
    written |= {path.name: path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert b"SASL" in written["job.log"], "librdkafka's own lines are looked at too"
    assert len(written["job.log"]) > 100_000
    assert "check the user name" in said
    assert "nobody else is on the line" in said
    assert "and so does security=" in said
    body = Path(key).read_text().splitlines()[1]
    for name, secret in {**secrets, "KEY": body}.items():
        for form in forms(secret):
            found = [place for place, text in written.items() if form in text]
            assert not found, f"{name} is in {found}: {context(written[found[0]], form)!r}"


def forms(secret: str) -> list[bytes]:
    """As it is, and as base64 wherever it may begin in a longer text."""
    plain = secret.encode()
    shifted = []
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + plain)
        shifted.append(encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4])
    return [plain, plain.hex().encode(), *shifted]


def context(text: bytes, found: bytes) -> bytes:
    place = text.index(found)
    return text[max(0, place - 200) : place] + b"<here>"


def test_the_look_finds_a_secret_however_it_is_hidden_in_base64() -> None:
    for before in (b"", b"a", b"ab", b"abc"):
        text = base64.b64encode(before + b"canary-alice" + b"after")
        assert any(form in text for form in forms("canary-alice")), before
    assert not any(form in base64.b64encode(b"something else altogether") for form in forms("canary-alice"))
