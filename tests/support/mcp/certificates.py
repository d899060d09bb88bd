"""Certificates of the tests, and clients that trust them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from nfcli.models.certificates.authority import create_authority

NAMES = ("localhost", "127.0.0.1")


def make_certificates(folder: Path, *names: str) -> dict[str, str]:
    """Make a CA and a server certificate in `folder`; return them as the inventory's `tls`."""
    create_authority(folder, names or NAMES)
    return {"certfile": str(folder / "server.crt"), "keyfile": str(folder / "server.key")}


def make_client_certificate(folder: Path) -> None:
    """Have the CA of `folder` sign a client's certificate: `client.crt`, `client.key`."""
    issuer = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    issuer_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer.subject, x509.Name([]), key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1)
    ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    (folder / "client.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "client.key").write_bytes(text)


def trusting(folder: Path) -> ssl.SSLContext:
    """Return the TLS context of a client that trusts the CA of `folder` alone."""
    return ssl.create_default_context(cafile=str(folder / "ca.crt"))
