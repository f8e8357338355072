"""Certificates of a stack: one for its servers, and the authority that vouches for it."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from study.data_dir import write_private

AUTHORITY = "ca.crt"
CERTIFICATE = "server.crt"
KEY = "server.key"
VALID = timedelta(days=3650)
RENEWED = timedelta(days=60)  # before it ends


def ensure_certificate(folder: Path, hosts: Sequence[str]) -> bool:
    """Have a certificate for `hosts` (names or addresses) in `folder`; returns whether it is new.

    The authority's key is thrown away once it has signed: nobody can sign another. A new
    certificate thus has a new authority, which other nodes must be given.
    """
    if _is_good(folder / CERTIFICATE, hosts):
        return False
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("bnvit-study authority")
    authority = _authority(issuer, authority_key)
    certificate = (
        _builder(_name(hosts[0]), issuer, key, authority_key)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(folder / KEY, private)
    write_private(folder / AUTHORITY, authority.public_bytes(pem), 0o644)
    write_private(folder / CERTIFICATE, certificate.public_bytes(pem), 0o644)
    return True


def _is_good(path: Path, hosts: Sequence[str]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_long = found.not_valid_after_utc - datetime.now(UTC) > RENEWED
    return is_long and set(named) >= {_alternative(host) for host in hosts}


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(name, name, key, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of other nodes may be behind
        .not_valid_after(now + VALID)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
