"""How a Kafka cluster is reached safely, as a user writes it: TLS, and a login by password or token.

Only the words are here, and no secret: a password goes to the engine at once, which shows it to nobody but the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from os import PathLike
from typing import Literal

import tidemill._native as _native

ConfigError = _native.ConfigError

Pem = str | bytes | PathLike[str]
"""Certificates or a key in PEM: a file's path, or the text itself (``-----BEGIN ...``), as some keep it in the
environment."""

Lifetime = str | float | timedelta | datetime
"""How long a token is good for: ``"5m"``, seconds or a ``timedelta`` from now on, or the ``datetime`` of its end."""


class Tls:
    """TLS: what is read and written is hidden from others on the way, and the broker shows who it is.

    Its certificate must come from an authority that is trusted, must not have expired, and must be for the host that is
    connected to. All three are always checked.

    Args:
        ca: the authorities that may vouch for a broker: a file, or the PEM text itself; by default those that this
            system trusts.
        certificate: this client's own certificate, for a cluster that asks for one (mTLS).
        key: its private key; left out where it is in `certificate` too.
        key_password: what the key is encrypted with.
        allow_insecure: lets librdkafka's settings that turn the checks off be given in ``config``. Anyone on the way
            can then take the broker's place.

    Raises:
        ConfigError: when a stream is made with it: a file is missing, or is no PEM.

    >>> import tidemill as tm
    >>> ctx = tm.StreamingContext()
    >>> readings = ctx.kafka(
    ...     "readings", bootstrap_servers="kafka.example.org:9093", security=tm.Tls(), format=tm.Raw()
    ... )
    >>> tm.Tls(ca="ca.pem", certificate="client.pem", key="client.key", key_password="swordfish")
    Tls(ca="ca.pem", certificate="client.pem", key="client.key", key_password='***')
    """

    __slots__ = ("_native",)

    def __init__(
        self,
        *,
        ca: Pem | None = None,
        certificate: Pem | None = None,
        key: Pem | None = None,
        key_password: str | None = None,
        allow_insecure: bool = False,
    ) -> None:
        self._native = _native.Security.tls(ca, certificate, key, key_password, allow_insecure)

    def __repr__(self) -> str:
        return repr(self._native)


_TLS = Tls()


class Sasl:
    """A login by name and password; over TLS, unless you insist. `Sasl.oauth` logs in by tokens.

    Args:
        mechanism: ``"PLAIN"``, ``"SCRAM-SHA-256"`` or ``"SCRAM-SHA-512"``, as the cluster has it.
        username: the name.
        password: the password, which is never shown again. Better not written in the script: take it from the
            environment, or from wherever you keep such things.
        tls: what protects the line; None for none, which needs `allow_insecure`.
        allow_insecure: allows a login over a line that is open: whoever listens has the password (with PLAIN), or can
            guess it at leisure (with SCRAM).

    Raises:
        ConfigError: there is no such mechanism, the name or password is missing, or the line is open.

    >>> import os
    >>> import tidemill as tm
    >>> os.environ["KAFKA_PASSWORD"] = "swordfish"  # only here: otherwise it is there already
    >>> security = tm.Sasl("SCRAM-SHA-512", username="alice", password=os.environ["KAFKA_PASSWORD"])
    >>> security
    Sasl("SCRAM-SHA-512", username="alice", password='***', tls=Tls())
    >>> ctx = tm.StreamingContext()
    >>> readings = ctx.kafka(
    ...     "readings", bootstrap_servers="kafka.example.org:9093", security=security, format=tm.Raw()
    ... )
    >>> readings.to_kafka("copies")  # the same cluster, and the same login
    """

    __slots__ = ("_native",)

    def __init__(
        self,
        mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        *,
        username: str,
        password: str,
        tls: Tls | None = _TLS,
        allow_insecure: bool = False,
    ) -> None:
        self._native = _native.Security.password(mechanism, username, password, _line(tls), allow_insecure)

    @classmethod
    def oauth(
        cls,
        token: Callable[[], tuple[str, Lifetime] | Token],
        *,
        tls: Tls | None = _TLS,
        allow_insecure: bool = False,
    ) -> Sasl:
        """A login by tokens (OAUTHBEARER) that a function of yours gets from wherever they are given.

        The function is called when the job starts, on a thread of its own, and again once four fifths of the token's
        life are over. What it raises at the start ends the start, with its traceback. Later it is logged and the
        function is called again; where the token expires meanwhile, the job ends with what it raised.

        Args:
            token: a function without arguments; it returns a token and how long that is good for, or a `Token`.
            tls: what protects the line; None for none, which needs `allow_insecure`.
            allow_insecure: allows a line that is open: whoever listens has the token.

        >>> import tidemill as tm
        >>> def token():
        ...     return "eyJhbGciOi...", "15m"  # from your identity provider
        >>> tm.Sasl.oauth(token)
        Sasl.oauth(token, tls=Tls())

        Amazon's MSK, with its package ``aws-msk-iam-sasl-signer-python``::

            def token():
                value, expires_ms = MSKAuthTokenProvider.generate_auth_token("eu-south-1")
                return value, datetime.fromtimestamp(expires_ms / 1000, timezone.utc)
        """
        made = cls.__new__(cls)
        made._native = _native.Security.oauth(token, _line(tls), allow_insecure)
        return made

    def __repr__(self) -> str:
        return repr(self._native)


@dataclass(frozen=True, slots=True)
class Token:
    """A token for `Sasl.oauth`, where the cluster wants to know more than the token itself.

    Args:
        value: the token; it is not shown.
        lifetime: how long it is good for: ``"5m"``, seconds, a ``timedelta``, or the ``datetime`` at which it ends.
        principal: whose it is, for librdkafka's log.
        extensions: what is sent beside it, as ``{"logicalCluster": "lkc-1", "identityPoolId": "pool-1"}``.

    >>> import tidemill as tm
    >>> def token():
    ...     return tm.Token("eyJhbGciOi...", "15m", extensions={"logicalCluster": "lkc-1"})
    >>> security = tm.Sasl.oauth(token)
    >>> token()
    Token(lifetime='15m', principal='', extensions={'logicalCluster': 'lkc-1'})
    """

    value: str = field(repr=False)
    lifetime: Lifetime
    principal: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)


def _line(tls: object) -> _native.Security | None:
    if tls is None:
        return None
    if not isinstance(tls, Tls):
        raise ConfigError(f"tls is tm.Tls(...) or None, found a value of type {type(tls).__name__}")
    return tls._native


def _protection(security: object) -> _native.Security | None:
    """What was given as `security=`. The value is not shown: it may hold a password."""
    if security is None:
        return None
    if not isinstance(security, Tls | Sasl):
        raise ConfigError(
            f"security is tm.Tls(...) or tm.Sasl(...), found a value of type {type(security).__name__}; librdkafka's "
            "own settings go into config={...}"
        )
    return security._native
