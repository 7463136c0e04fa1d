"""Certificates for a broker and its clients, made on the spot: good ones, and one for each way of being wrong.

Keys are of elliptic curves, which are made in a millisecond. It deliberately keeps nothing: each run has its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


class Authority:
    """Who issues certificates, into files of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key, NOW - DAY, NOW + DAY)
        is_authority = x509.BasicConstraints(ca=True, path_length=None)
        certificate = builder.add_extension(is_authority, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self, name: str, *hosts: str, expired: bool = False, password: str | None = None
    ) -> tuple[Path, Path]:
        """The files of a certificate and of its key; the key in the form that Java reads too."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = NOW - timedelta(hours=1) if expired else NOW + DAY
        builder = _builder(_name(name), self._name, key, NOW - DAY, until)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        locked: KeySerializationEncryption = NoEncryption()
        if password is not None:
            locked = BestAvailableEncryption(password.encode())
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate)
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    numbered = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return numbered.not_valid_before(begin).not_valid_after(end)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
