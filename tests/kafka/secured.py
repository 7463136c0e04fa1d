"""A broker that listens in every way a client may have to come: TLS, client certificates, logins, wrong certificates.

It deliberately trusts whoever comes without a login, so that the suite's own helpers can make topics and rights.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import ClassVar

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.kafka.broker import HOST, Broker, Place
from tests.kafka.certificates import Authority

# Passwords that stand nowhere else, for who looks for them in what a run writes.
USERS = {"alice": "canary-alice-5nJ0qv", "bob": "canary-bob-8Zr2xk"}
KEY_PASSWORD = "canary-key-3Wd7pt"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

RIGHTS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:alice;User:CN=client;User:CN=locked
connections.max.reauth.ms=3600000
"""
PACKAGE = "org.apache.kafka.common.security"


class SecuredBroker(Broker):
    """Beside the open one, a listener for each kind of protection. `alice` may do all, `bob` what is granted."""

    listeners: ClassVar[dict[str, str]] = {
        "PLAINTEXT": "PLAINTEXT",
        "TLS": "SSL",
        "MTLS": "SSL",
        "EXPIRED": "SSL",
        "ELSEWHERE": "SSL",
        "LOGIN": "SASL_SSL",
        "OPEN_LOGIN": "SASL_PLAINTEXT",
    }

    def __init__(self, place: Place | None = None, authority: Authority | None = None) -> None:
        """With certificates of `authority`, or of one of its own."""
        self._authority = authority
        super().__init__(place)

    @property
    def authority(self) -> Authority:
        """That all its certificates come from."""
        if self._authority is None:
            self._authority = Authority(self._home, "Test CA")
        return self._authority

    @property
    def ca(self) -> str:
        """The file of its authority."""
        return str(self.authority.file)

    @property
    def other_ca(self) -> str:
        """The file of an authority that it does not know."""
        return str(self._home / "Other-CA.pem")

    def client(self, name: str = "client") -> tuple[str, str]:
        """The files of a client's certificate and key: `client`, `stranger` or `locked`."""
        return str(self._home / f"{name}.pem"), str(self._home / f"{name}.key")

    def grant(self, user: str, topic: str, operation: AclOperation) -> None:
        """Lets `user` do one thing with a topic."""
        binding = AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        for done in admin.create_acls([binding]).values():
            done.result(30.0)

    def revoke(self, user: str, topic: str, operation: AclOperation) -> None:
        """Takes it from him again."""
        binding = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        for done in admin.delete_acls([binding]).values():
            done.result(30.0)

    def more_settings(self) -> str:
        """Certificates, logins and rights."""
        ca, other = self.authority, Authority(self._home, "Other CA")
        good = ca.issue("broker", HOST, "localhost")
        wrong = {
            "EXPIRED": ca.issue("expired", HOST, expired=True),
            "ELSEWHERE": ca.issue("elsewhere", "kafka.example.org"),
        }
        ca.issue("client")
        ca.issue("locked", password=KEY_PASSWORD)
        other.issue("stranger")
        lines = [RIGHTS]
        for name, protocol in self.listeners.items():
            if "SSL" in protocol:
                lines += self._tls(name, *wrong.get(name, good))
            if "SASL" in protocol:
                lines += _logins(name)
        return "\n".join([*lines, "listener.name.mtls.ssl.client.auth=required", _trust("mtls", ca.file), ""])

    def more_users(self) -> list[str]:
        """Those that log in by SCRAM."""
        users = [
            f"{mechanism}=[name={name},password={password}]"
            for name, password in USERS.items()
            for mechanism in MECHANISMS
            if mechanism.startswith("SCRAM")
        ]
        return [argument for user in users for argument in ("--add-scram", user)]

    def _tls(self, listener: str, certificate: Path, key: Path) -> list[str]:
        """Kafka wants both in one file."""
        file = self._home / f"{listener}.keystore.pem"
        file.write_bytes(key.read_bytes() + certificate.read_bytes())
        prefix = f"listener.name.{listener.lower()}.ssl.keystore"
        return [f"{prefix}.type=PEM", f"{prefix}.location={file}"]


def _trust(listener: str, file: Path) -> str:
    prefix = f"listener.name.{listener}.ssl.truststore"
    return f"{prefix}.type=PEM\n{prefix}.location={file}"


def _logins(listener: str) -> list[str]:
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    modules = {
        "plain": f"{PACKAGE}.plain.PlainLoginModule required {users}",
        "scram-sha-256": f"{PACKAGE}.scram.ScramLoginModule required",
        "scram-sha-512": f"{PACKAGE}.scram.ScramLoginModule required",
        "oauthbearer": f"{PACKAGE}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker"',
    }
    prefix = f"listener.name.{listener.lower()}"
    enabled = f"{prefix}.sasl.enabled.mechanisms={','.join(MECHANISMS)}"
    return [enabled, *(f"{prefix}.{name}.sasl.jaas.config={module};" for name, module in modules.items())]


def unsigned_token(user: str, lifetime_s: float) -> str:
    """A token as Kafka's own validator for development takes it: a name, times, and no signature."""
    now = time.time()

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now, 'exp': now + lifetime_s})}."
