"""What protects a connection, as far as it is seen before one is made: what is refused, and what is never shown."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tidemill as tm

PASSWORD = "canary-5nJ0qv"
NOWHERE = "127.0.0.1:1"
LOGIN: dict[str, Any] = {"username": "alice", "password": PASSWORD}


def kafka(**options: Any) -> tm.DStream:
    return tm.StreamingContext().kafka("readings", bootstrap_servers=NOWHERE, format=tm.Raw(), **options)


def token() -> tuple[str, str]:
    return PASSWORD, "1h"


def given(value: str) -> tuple[str, str]:
    return value, "1h"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_a_login_over_an_open_line_is_refused_at_once_unless_it_is_insisted_on(mechanism: Any) -> None:
    def login(**more: Any) -> tm.Sasl:
        if mechanism == "OAUTHBEARER":
            return tm.Sasl.oauth(token, tls=None, **more)
        return tm.Sasl(mechanism, **LOGIN, tls=None, **more)

    with pytest.raises(
        tm.ConfigError, match=rf"{mechanism} over an open line .*tls=None, allow_insecure=True"
    ):
        login()
    kafka(security=login(allow_insecure=True))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "oauthbearer"])
def test_so_it_is_through_librdkafkas_own_settings_of_a_source_and_of_an_output(mechanism: str) -> None:
    config = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.password": PASSWORD}
    with pytest.raises(tm.ConfigError, match="over an open line") as refused:
        kafka(config=config)
    assert PASSWORD not in str(refused.value)
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.scripted(tm.testing.ScriptedSource(), format=tm.Raw())
    stream.to_kafka("alerts", bootstrap_servers=NOWHERE, config=config)
    with pytest.raises(tm.ConfigError, match="over an open line"):
        ctx.run()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (f"plugin.{'library'}.paths", "evil.so", "it loads any library"),
        ("ssl.engine.location", "evil.so", "it loads any library"),
        ("ssl.engine.id", "evil", "it loads any library"),
        ("ssl.providers", "evil", "it loads any library"),
        ("sasl.kerberos.kinit.cmd", "rm -rf /", "a command that a shell runs"),
        ("enable.ssl.certificate.verification", False, "take the broker's place"),
        ("ssl.endpoint.identification.algorithm", "none", "take the broker's place"),
    ],
)
def test_a_dangerous_setting_is_refused_with_the_reason(name: str, value: object, why: str) -> None:
    with pytest.raises(tm.ConfigError, match=rf"config sets {name}.*{why}"):
        kafka(config={name: value})


def test_what_config_and_security_both_say_names_both() -> None:
    both = r"config sets sasl\.password, and so does security=tm\.Sasl\(\.\.\.\)"
    with pytest.raises(tm.ConfigError, match=both):
        kafka(security=tm.Sasl("PLAIN", **LOGIN), config={"sasl.password": PASSWORD})
    with pytest.raises(tm.ConfigError, match=r"config sets security\.protocol, and so does security=tm\.Tls"):
        kafka(security=tm.Tls(), config={"security.protocol": "plaintext"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tm.Sasl("SCRAM-SHA-521", **LOGIN), 'found "SCRAM-SHA-521"; did you mean "SCRAM-SHA-512"?'),  # type: ignore[arg-type]
        (lambda: tm.Sasl("OAUTHBEARER", **LOGIN), "tm.Sasl.oauth"),  # type: ignore[arg-type]
        (lambda: tm.Sasl("GSSAPI", **LOGIN), "Kerberos is not built in"),  # type: ignore[arg-type]
        (lambda: tm.Sasl("PLAIN", username="alice", password=None), "password is text, found NoneType; .* set there"),  # type: ignore[arg-type]
        (lambda: tm.Sasl("PLAIN", username="alice", password=""), "needs a password, found an empty one"),
        (lambda: tm.Sasl("PLAIN", username="", password=PASSWORD), "needs a username, found an empty one"),
        (lambda: tm.Sasl("PLAIN", username="alice", password=PASSWORD.encode()), "password is text, found bytes"),  # type: ignore[arg-type]
        (lambda: tm.Sasl("PLAIN", **LOGIN, tls=True), "tls is tm.Tls"),  # type: ignore[arg-type]
        (lambda: tm.Sasl.oauth(PASSWORD), "takes a function that gives a token, found str"),  # type: ignore[arg-type]
        (lambda: tm.Tls(ca=7), "a file's path or PEM text, found int"),  # type: ignore[arg-type]
        (lambda: kafka(security={"sasl.password": PASSWORD}), "found a value of type dict; .* config="),
        (lambda: kafka(security=tm.Tls(ca="/nowhere/ca.pem")), '"/nowhere/ca.pem" cannot be read'),
        (lambda: kafka(config={"sasl.password": None}), "found a value of type NoneType for sasl.password"),
        (lambda: kafka(config={"sasl.password": PASSWORD.encode()}), "found a value of type bytes for sasl.password"),
        (lambda: kafka(security=tm.Tls(ca="-----BEGIN CERTIFICATE-----\\nMII")), r"are written as .n"),
        (lambda: kafka(security=tm.Tls(key="client.key")), "needs a certificate, found a key alone"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_is_made_and_shows_no_secret(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(tm.ConfigError, match=message) as refused:
        make()
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PASSWORD, "returns a token and its lifetime, found a text alone"),
        (7, "returns a token and its lifetime, found int"),
        ((None, "1h"), "a token is text, found NoneType"),
        ((PASSWORD, 1.75e9), "looks like a time of day; pass datetime.fromtimestamp"),
        ((PASSWORD, datetime(2030, 1, 1)), "a datetime with a time zone"),
        ((PASSWORD, datetime(2020, 1, 1, tzinfo=UTC)), "found one that has expired"),
        ((PASSWORD, 0.0), "found one that has expired"),
        ((PASSWORD + "\n", "1h"), "found one with other characters"),
        (("", "1h"), "found an empty one"),
        (tm.Token(PASSWORD, "1h", extensions={"auth": "x"}), 'found "auth"'),
    ],
)
def test_what_is_no_token_is_told_at_the_start_without_showing_it(given: object, message: str) -> None:
    security = tm.Sasl.oauth(lambda: given)  # type: ignore[arg-type, return-value]
    ctx = tm.StreamingContext()
    ctx.kafka("readings", bootstrap_servers=NOWHERE, security=security, format=tm.Raw()).pprint()
    with pytest.raises(tm.ConfigError, match=message) as refused:
        ctx.run()
    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


def test_nothing_that_is_shown_of_a_login_shows_its_secret(tmp_path: Path) -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{PASSWORD}"
    things: list[object] = [
        tm.Tls(certificate="client.pem", key=pem, key_password=PASSWORD),
        tm.Tls(certificate=pem.encode(), key=tmp_path / "client.key"),
        tm.Sasl("PLAIN", **LOGIN),
        tm.Sasl.oauth(partial(given, PASSWORD)),
        tm.Token(PASSWORD, "1h"),
    ]
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}", repr([thing])):
            assert PASSWORD not in text
    assert repr(things[2]) == 'Sasl("PLAIN", username="alice", password=\'***\', tls=Tls())'
    assert repr(things[3]) == "Sasl.oauth(partial, tls=Tls())"


def test_a_login_is_not_written_into_a_file_by_accident() -> None:
    login = tm.Sasl("PLAIN", **LOGIN)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            way(login)
    assert not hasattr(login, "__dict__")


def test_two_sources_with_one_login_are_of_one_cluster() -> None:
    ctx = tm.StreamingContext()
    for security in (tm.Sasl("PLAIN", **LOGIN), tm.Sasl.oauth(token)):
        one, two = (
            ctx.kafka(name, bootstrap_servers=NOWHERE, security=security, format=tm.Raw()) for name in "ab"
        )
        one.union(two).to_kafka("out")
