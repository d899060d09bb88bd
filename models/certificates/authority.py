"""A private certificate authority, and the server certificates that it signs.

Its key is kept beside them, so that further certificates can be made which clients trust already.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..environment.private_files import make_private_folder, open_private, write_private
from ..errors import CertificateError
from .summary import CertificateSummary

TLS_FOLDER = "tls"
CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
SERVER_CERTIFICATE, SERVER_KEY = "server.crt", "server.key"

_CA_LIFETIME = timedelta(days=3650)
_SERVER_LIFETIME = timedelta(days=825)  # Apple's systems accept no longer one, not even of a private CA
_CLOCK_SLACK = timedelta(hours=1)  # for clients whose clocks are behind
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(\*\.)?[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_][a-z0-9_-]{0,62})*", re.IGNORECASE)
_MAX_COMMON_NAME = 64  # X.520


@dataclass(frozen=True)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def local_names() -> list[str]:
    """Return the names and addresses that clients on this machine, and perhaps on others, reach it by."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()]
    return list(dict.fromkeys(name for name in names if _general_name(name) is not None))


def verify_names(names: Iterable[str]) -> None:
    """Raise CertificateError unless all are host names or IP addresses."""
    for name in names:
        if _general_name(name) is None:
            raise CertificateError(
                f"a certificate can't have the name {name!r}: it must be a host name or an IP address"
            )


def create_authority(folder: Path, names: Sequence[str]) -> None:
    """Make a CA in the new folder `folder`, and a server certificate for `names`; all files are private.

    Raises:
        CertificateError: a name is not valid; nothing is written then.
        EnvironmentFolderError: the folder can't be created.
        OSError: a file exists or can't be written.
    """
    verify_names(names)
    make_private_folder(folder)
    issuer = _make_issuer()
    for name, data in ((CA_KEY, _key_pem(issuer.key)), (CA_CERTIFICATE, _pem(issuer.certificate))):
        with open_private(folder / name, "xb") as stream:
            stream.write(data)
    _write_server(folder, issuer, names)


def renew_certificate(folder: Path, names: Iterable[str] = ()) -> CertificateSummary:
    """Replace the server certificate in a folder of `create_authority`; return the new one.

    It has a new key, and the names of the old one besides `names`. Clients that trust the CA accept it.

    Raises:
        CertificateError: the CA or the old certificate can't be read, the CA has expired, or a name is not valid.
        EnvironmentFolderError: the CA's key is open to other users.
        OSError: a file can't be written.
    """
    given = list(names)
    verify_names(given)
    issuer = _load_issuer(folder)
    certificate = folder / SERVER_CERTIFICATE
    try:
        old: Sequence[str] = CertificateSummary.from_pem(certificate.read_bytes()).names
    except FileNotFoundError:
        old = local_names()
    except CertificateError as error:
        raise CertificateError(f"{certificate} {error}: remove it") from None
    _write_server(folder, issuer, list(dict.fromkeys([*old, *given])))
    return CertificateSummary.from_pem(certificate.read_bytes())


def _make_issuer() -> _Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _distinguished_name(f"nfcli CA of {socket.gethostname()}")
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(name, name, key, _CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return _Issuer(builder.sign(key, hashes.SHA256()), key)


def _load_issuer(folder: Path) -> _Issuer:
    certificate_file, key_file = folder / CA_CERTIFICATE, folder / CA_KEY
    remedy = "renew the certificate where its CA is, or make both again with nfcli --create-env DIR --tls"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        with open_private(key_file, "rb") as stream:
            key = serialization.load_pem_private_key(stream.read(), password=None)
    except FileNotFoundError as error:
        raise CertificateError(f"{error.filename} doesn't exist: {remedy}") from None
    except (ValueError, TypeError):
        raise CertificateError(f"{certificate_file} and {key_file} can't be read as a CA: {remedy}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"{key_file} is not the key of {certificate_file}: {remedy}")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise CertificateError(
            f"the CA in {certificate_file} has expired: make another with nfcli --create-env DIR --tls"
        )
    return _Issuer(certificate, key)


def _write_server(folder: Path, issuer: _Issuer, names: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    ends = min(now + _SERVER_LIFETIME, issuer.certificate.not_valid_after_utc)
    builder = _builder(_distinguished_name(names[0]), issuer.certificate.subject, key, ends - now)
    alternative = x509.SubjectAlternativeName([found for name in names if (found := _general_name(name)) is not None])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    for extension, is_critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (alternative, False),
        (authority, False),
    ):
        builder = builder.add_extension(extension, critical=is_critical)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    write_private(folder / SERVER_KEY, _key_pem(key))
    write_private(folder / SERVER_CERTIFICATE, _pem(certificate))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _distinguished_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_COMMON_NAME])])


def _general_name(name: str) -> x509.GeneralName | None:
    """Return a name of a certificate, None where it is not valid."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name) if _HOST_NAME.fullmatch(name) else None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
