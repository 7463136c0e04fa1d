"""Clusters that are protected: each way in works, and each way of not getting in says why and what to do, in seconds.

Pinned are the essential parts of each text: what was expected and found, where, and what to do.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin._acl import AclOperation

import tidemill as tm
from tests.kafka.clients import Clients
from tests.kafka.secured import KEY_PASSWORD, USERS, SecuredBroker, unsigned_token

SOON_S = 9.0  # below the ten seconds that a cluster is waited for, with much else to do on the machine


@pytest.fixture
def broker(secured: SecuredBroker) -> SecuredBroker:
    return secured


@pytest.fixture
def kafka(broker: SecuredBroker) -> Clients:
    """By the listener without protection: for what surrounds a test."""
    return Clients(broker.bootstrap_servers)


@pytest.fixture
def topic(kafka: Clients) -> str:
    """A topic with two records."""
    name = kafka.create_topic()
    kafka.produce(name, [b"1", b"2"])
    return name


@pytest.fixture
def tls(broker: SecuredBroker) -> tm.Tls:
    return tm.Tls(ca=broker.ca)


def alice(mechanism: Any = "SCRAM-SHA-512", **more: Any) -> tm.Sasl:
    return tm.Sasl(mechanism, username="alice", **{"password": USERS["alice"], **more})


WAYS_IN: dict[str, tuple[str, Callable[[SecuredBroker, tm.Tls], tm.Tls | tm.Sasl]]] = {
    "TLS": ("TLS", lambda broker, tls: tls),
    "an authority as text": ("TLS", lambda broker, tls: tm.Tls(ca=Path(broker.ca).read_text())),
    "a client certificate": (
        "MTLS",
        lambda broker, tls: tm.Tls(ca=broker.ca, certificate=broker.client()[0], key=broker.client()[1]),
    ),
    "a client's key with a password": (
        "MTLS",
        lambda broker, tls: tm.Tls(
            ca=broker.ca, certificate=broker.client("locked")[0], key=broker.client("locked")[1],
            key_password=KEY_PASSWORD,
        ),
    ),
    "PLAIN": ("LOGIN", lambda broker, tls: alice("PLAIN", tls=tls)),
    "SCRAM-SHA-256": ("LOGIN", lambda broker, tls: alice("SCRAM-SHA-256", tls=tls)),
    "SCRAM-SHA-512": ("LOGIN", lambda broker, tls: alice("SCRAM-SHA-512", tls=tls)),
    "a token": ("LOGIN", lambda broker, tls: tm.Sasl.oauth(lambda: (unsigned_token("alice", 600), "10m"), tls=tls)),
    "an open line": ("OPEN_LOGIN", lambda broker, tls: alice(tls=None, allow_insecure=True)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN)
def test_each_way_in_reads_and_writes(
    broker: SecuredBroker, kafka: Clients, tls: tm.Tls, topic: str, way: str
) -> None:
    listener, security = WAYS_IN[way]
    out = kafka.create_topic()
    job(broker, listener, topic, security(broker, tls), out)
    assert [message.value() for message in kafka.consume(out)] == [b"1", b"2"]


def test_librdkafkas_own_settings_go_on_working(broker: SecuredBroker, kafka: Clients, topic: str) -> None:
    config = {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "alice",
        "sasl.password": USERS["alice"], "ssl.ca.location": broker.ca,
    }  # fmt: skip
    out = kafka.create_topic()
    job(broker, "LOGIN", topic, None, out, config=config)
    assert len(kafka.consume(out)) == 2


def test_librdkafka_gets_tokens_by_itself_from_an_identity_provider(
    broker: SecuredBroker, kafka: Clients, topic: str
) -> None:
    with identity_provider(broker) as address:
        config = {
            "security.protocol": "SASL_SSL", "ssl.ca.location": broker.ca, "https.ca.location": broker.ca,
            "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": "job",
            "sasl.oauthbearer.client.secret": "secret", "sasl.oauthbearer.token.endpoint.url": address,
        }  # fmt: skip
        out = kafka.create_topic()
        job(broker, "LOGIN", topic, None, out, config=config)
    assert len(kafka.consume(out)) == 2
    with pytest.raises(tm.SourceError, match=r"no token can be had: .*check the token endpoint"):
        job(broker, "LOGIN", topic, None, config=config)  # the identity provider is gone


def test_a_host_that_is_not_in_the_certificate_can_be_insisted_on(
    broker: SecuredBroker, kafka: Clients, topic: str
) -> None:
    config = {"ssl.endpoint.identification.algorithm": "none"}
    out, security = kafka.create_topic(), tm.Tls(ca=broker.ca, allow_insecure=True)
    job(broker, "ELSEWHERE", topic, security, out, config=config)
    assert len(kafka.consume(out)) == 2


REFUSED: dict[str, tuple[str, Callable[[SecuredBroker, tm.Tls], tm.Tls | tm.Sasl | None], str]] = {
    "wrong password, PLAIN": (
        "LOGIN", lambda broker, tls: alice("PLAIN", password="wrong", tls=tls),
        r'the cluster refuses the login of user "alice" by PLAIN: .*; check the user name, the password',
    ),
    "wrong password, SCRAM": (
        "LOGIN", lambda broker, tls: alice(password="wrong", tls=tls),
        r'the cluster refuses the login of user "alice" by SCRAM-SHA-512: .*invalid credentials.*check the user name',
    ),
    "another authority": (
        "TLS", lambda broker, tls: tm.Tls(ca=broker.other_ca),
        r'expected a certificate that ca= vouches for, found one for 127.0.0.1, localhost, issued by "Test CA"'
        r'.*tm.Tls\(ca="ca.pem"\)',
    ),
    "the system's authorities": (
        "TLS", lambda broker, tls: tm.Tls(),
        r"expected a certificate that this system's authorities vouch for, found .*issued by \"Test CA\"",
    ),
    "an expired certificate": (
        "EXPIRED", lambda broker, tls: tls,
        r"expected a certificate that has not expired, found one for 127.0.0.1, .* good from .*; have the .* renewed",
    ),
    "another host": (
        "ELSEWHERE", lambda broker, tls: tls,
        r'expected a certificate for the host "127.0.0.1", found one for kafka.example.org, .*; name the broker in',
    ),
    "no client certificate": (
        "MTLS", lambda broker, tls: tls, r"the cluster wants a certificate of this client.*certificate=\.\.\., key=",
    ),
    "a stranger's certificate": (
        "MTLS",
        lambda broker, tls: tm.Tls(
            ca=broker.ca, certificate=broker.client("stranger")[0], key=broker.client("stranger")[1]
        ),
        r"does not take what it was shown.*whose authority the cluster knows",
    ),
    "no TLS where it is spoken": (
        "TLS", lambda broker, tls: None, r"found one that seems to speak TLS at this port.*pass security=tm.Tls\(\)",
    ),
    "TLS where none is spoken": (
        "PLAINTEXT", lambda broker, tls: tls, r"expected a broker that speaks TLS, found none .*leave TLS out",
    ),
    "no login where one is wanted": (
        "LOGIN", lambda broker, tls: tls, r"hangs up on a client without a login.*pass security=tm.Sasl\(\.\.\.\)",
    ),
    "a login where none is wanted": (
        "TLS", lambda broker, tls: alice(tls=tls), r"does not take this kind of login .*check the mechanism",
    ),
    "a token that is none": (
        "LOGIN", lambda broker, tls: tm.Sasl.oauth(lambda: ("rubbish", 600.0), tls=tls),
        r"refuses the login of this user by OAUTHBEARER: .*invalid_token.*\(or token\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_who_does_not_get_in_is_told_why_and_what_to_do_within_seconds(
    broker: SecuredBroker, tls: tm.Tls, topic: str, case: str
) -> None:
    listener, security, expected = REFUSED[case]
    begin = time.monotonic()
    with pytest.raises(tm.SourceError) as refused:
        job(broker, listener, topic, security(broker, tls))
    assert time.monotonic() - begin < SOON_S
    said = str(refused.value)
    assert re.search(expected, said), said
    assert f"{topic}: the cluster cannot be reached" in said
    assert f"Kafka at {broker.address(listener)}" in said


@pytest.mark.parametrize("case", ["wrong password, SCRAM", "another host", "no TLS where it is spoken"])
def test_an_output_that_does_not_get_in_is_told_the_same(
    broker: SecuredBroker, tls: tm.Tls, topic: str, case: str
) -> None:
    listener, security, expected = REFUSED[case]
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.kafka(topic, bootstrap_servers=broker.bootstrap_servers, format=tm.Raw())
    stream.to_kafka(
        topic, format=tm.Raw(), bootstrap_servers=broker.address(listener), security=security(broker, tls)
    )
    with pytest.raises(tm.SinkError, match=expected):
        ctx.run()


def test_a_key_that_does_not_open_is_told_before_anything_is_connected(
    broker: SecuredBroker, topic: str
) -> None:
    (certificate, key), stranger = broker.client("locked"), broker.client("stranger")[1]
    for wrong in (
        tm.Tls(ca=broker.ca, certificate=certificate, key=key, key_password="wrong"),
        tm.Tls(ca=broker.ca, certificate=certificate, key=stranger),
    ):
        with pytest.raises(tm.ConfigError, match=r"ssl.key.location failed.*the key's password"):
            job(broker, "MTLS", topic, wrong)


def test_who_may_not_see_read_or_write_a_topic_is_told_which_right_is_missing(
    broker: SecuredBroker, kafka: Clients, tls: tm.Tls, topic: str
) -> None:
    bob = tm.Sasl("SCRAM-SHA-256", username="bob", password=USERS["bob"], tls=tls)
    out = kafka.create_topic()
    with pytest.raises(tm.SourceError, match=r'cannot be seen: .*have user "bob" granted the right to read'):
        job(broker, "LOGIN", topic, bob)
    broker.grant("bob", topic, AclOperation.DESCRIBE)
    with pytest.raises(tm.SourceError, match=r'\[0\] at offset 0 cannot be read: .*have user "bob" granted'):
        job(broker, "LOGIN", topic, bob)
    broker.grant("bob", topic, AclOperation.READ)
    job(broker, "LOGIN", topic, bob)
    with pytest.raises(tm.SinkError, match=r'does not exist .*or have user "bob" granted the right to write'):
        job(broker, "LOGIN", topic, bob, out)
    broker.grant("bob", out, AclOperation.DESCRIBE)
    with pytest.raises(
        tm.SinkError, match=r'rows are not written: .*have user "bob" granted the right to write'
    ):
        job(broker, "LOGIN", topic, bob, out)
    broker.grant("bob", out, AclOperation.WRITE)
    job(broker, "LOGIN", topic, bob, out)
    assert len(kafka.consume(out)) == 2


def test_an_output_has_the_login_of_its_source_where_it_goes_to_the_same_brokers(
    broker: SecuredBroker, kafka: Clients, tls: tm.Tls, topic: str
) -> None:
    out, address = kafka.create_topic(), broker.address("LOGIN")
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.kafka(topic, bootstrap_servers=address, security=alice(tls=tls), format=tm.Raw())
    stream.to_kafka(out, format=tm.Raw())
    stream.to_kafka(out, format=tm.Raw(), bootstrap_servers=address)
    stream.to_kafka(out, format=tm.Raw(), bootstrap_servers=broker.bootstrap_servers)
    stream.to_kafka(out, format=tm.Raw(), security=alice("PLAIN", tls=tls))
    ctx.run()
    assert len(kafka.consume(out)) == 8


def test_a_token_is_renewed_before_it_expires(
    broker: SecuredBroker, tls: tm.Tls, topic: str, kafka: Clients
) -> None:
    given: list[float] = []

    def token() -> tm.Token:
        given.append(time.monotonic())
        return tm.Token(
            unsigned_token("alice", 3.0), datetime.now(UTC) + timedelta(seconds=3), principal="alice"
        )

    batches: list[int] = []
    ctx = tm.StreamingContext("100ms")
    security = tm.Sasl.oauth(token, tls=tls)
    stream = ctx.kafka(
        topic,
        bootstrap_servers=broker.address("LOGIN"),
        security=security,
        format=tm.Raw(),
        starting="earliest",
    )
    stream.foreach_batch(lambda batch: batches.append(batch.num_rows))
    with ctx:
        ctx.start()
        until(lambda: len(given) >= 4)  # so that the first has expired, and the broker has asked for another
        kafka.produce(topic, [b"3"])
        until(lambda: sum(batches) == 3)
    assert ctx.error is None


def test_what_the_giver_of_tokens_raises_reaches_the_user_with_its_traceback(
    broker: SecuredBroker, tls: tm.Tls, topic: str
) -> None:
    def token() -> tuple[str, str]:
        raise ConnectionError("the identity provider is down")

    with pytest.raises(ConnectionError, match="the identity provider is down") as raised:
        job(broker, "LOGIN", topic, tm.Sasl.oauth(token, tls=tls))
    assert raised.traceback[-1].name == "token"
    assert "given to tm.Sasl.oauth()" in raised.value.__notes__[0]


def test_a_giver_that_fails_later_ends_the_job_when_its_token_has_expired(
    broker: SecuredBroker, tls: tm.Tls, topic: str
) -> None:
    given: list[str] = []

    def token() -> tuple[str, float]:
        if given:
            raise ConnectionError("the identity provider is down")
        given.append(unsigned_token("alice", 2.0))
        return given[0], 2.0

    ctx = tm.StreamingContext("100ms")
    security = tm.Sasl.oauth(token, tls=tls)
    stream = ctx.kafka(topic, bootstrap_servers=broker.address("LOGIN"), security=security, format=tm.Raw())
    stream.foreach_batch(lambda batch: None)
    with pytest.raises(ConnectionError, match="the identity provider is down"):
        ctx.run()


def job(
    broker: SecuredBroker,
    listener: str,
    topic: str,
    security: tm.Tls | tm.Sasl | None,
    out: str | None = None,
    **source: Any,
) -> None:
    """Reads what is there, and writes it to `out`."""
    ctx = tm.StreamingContext(trigger=tm.available_now())
    stream = ctx.kafka(
        topic, bootstrap_servers=broker.address(listener), security=security, format=tm.Raw(), **source
    )
    if out is None:
        stream.foreach_batch(lambda batch: None)
    else:
        stream.to_kafka(out, format=tm.Raw())
    ctx.run()


@contextmanager
def identity_provider(broker: SecuredBroker) -> Iterator[str]:
    """An address where a POST gets a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"access_token": unsigned_token("alice", 600), "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*broker.client("broker"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()
            thread.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
