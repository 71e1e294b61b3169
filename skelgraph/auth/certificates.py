"""Certificates for TLS to NATS: a CA of one's own, the server's, and one for each client."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Clocks of the machines may differ by this much.
_SLACK: Final = timedelta(hours=1)
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Self:
        """Return what two PEM files hold.

        Raises:
            ValueError: they hold something else.
        """
        private = serialization.load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("not an elliptic-curve key")  # noqa: TRY004 - a file's content
        return cls(x509.load_pem_x509_certificate(certificate), private)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as a file holds it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as a file holds it, for its owner's eyes only."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def authority(name: str) -> Signed:
    """Return a CA that signs itself and may sign no other CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key, _name(name), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return Signed(builder.sign(key, hashes.SHA256()), key)


def server(ca: Signed, hosts: Sequence[str]) -> Signed:
    """Return the certificate of a server that is reached by `hosts`, names or addresses.

    NATS's servers are clients of each other in a cluster.
    """
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    return _leaf(
        ca, "nats", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], names
    )


def hosts_of(certificate: bytes) -> set[str]:
    """Return the names and addresses that a certificate (PEM) is for."""
    found = x509.load_pem_x509_certificate(certificate).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in names}


def days_left(certificate: bytes) -> int:
    """Return how many whole days a certificate (PEM) is valid for; negative once it is not."""
    return (
        x509.load_pem_x509_certificate(certificate).not_valid_after_utc - datetime.now(UTC)
    ).days


def client(ca: Signed, name: str) -> Signed:
    """Return the certificate that a client shows."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    return _leaf(ca, name, [ExtendedKeyUsageOID.CLIENT_AUTH], names)


def _leaf(
    ca: Signed,
    name: str,
    uses: Sequence[x509.ObjectIdentifier],
    names: x509.SubjectAlternativeName,
) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, key, ca.certificate.subject, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
    )
    return Signed(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
