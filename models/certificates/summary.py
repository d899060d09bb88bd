"""What the certificate of a server says: its names, and how long it is valid."""

from __future__ import annotations

import contextlib
import shlex
import ssl
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CertificateError

if TYPE_CHECKING:
    from cryptography import x509

SOON = timedelta(days=14)
"""How long before its end a certificate is reported: automatic renewals come 30 days before it."""

_MAX_NAMES_SHOWN = 20
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


@dataclass(frozen=True)
class CertificateSummary:
    """A server's certificate: the host names and addresses that it is valid for, and from when to when, in UTC."""

    der: bytes
    names: tuple[str, ...]
    begins: datetime
    ends: datetime

    @classmethod
    def from_pem(cls, data: bytes) -> CertificateSummary:
        """Read the first certificate of PEM data, which is the server's own in a chain.

        Raises:
            CertificateError: there is none, or it can't be read; the message has no file name.
        """
        body, end, _ = data.partition(_BEGIN)[2].partition(_END)
        if not end:
            raise CertificateError(f"has no certificate in PEM format ({_BEGIN.decode()})")
        try:
            return cls.from_der(ssl.PEM_cert_to_DER_cert((_BEGIN + body + _END).decode("ascii")))
        except ValueError:
            raise CertificateError("has a certificate that can't be read") from None

    @classmethod
    def from_der(cls, data: bytes) -> CertificateSummary:
        """Read a certificate in DER format.

        Raises:
            ValueError: it can't be read.
        """
        from cryptography import x509  # noqa: PLC0415  takes 50 ms, which only TLS needs

        certificate = x509.load_der_x509_certificate(data)
        names = tuple(_names(certificate))
        return cls(data, names, certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def problem(self, now: datetime | None = None) -> str | None:
        """Return why clients refuse this certificate, or will within `SOON`; None if they don't."""
        now = now or datetime.now(UTC)
        if now < self.begins:
            return f"is not valid before {_day(self.begins)}: check this machine's clock"
        if now >= self.ends:
            return f"expired on {_day(self.ends)}: renew it"
        return f"expires on {_day(self.ends)}: renew it" if now >= self.ends - SOON else None

    def describe(self) -> str:
        """Return names and end on one line: `certificate of a.example.com, expires 2027-05-01`."""
        shown = ", ".join(self.names[:_MAX_NAMES_SHOWN]) or "no name"
        more = len(self.names) - _MAX_NAMES_SHOWN
        return f"certificate of {shown}{f' and {more} more' if more > 0 else ''}, expires {_day(self.ends)}"


def file_problems(files: Mapping[str, Path], summary: CertificateSummary) -> list[str]:
    """Return what is wrong with usable files, by their keys in the inventory's `tls`, and with the certificate."""
    found = []
    key = files.get("keyfile", files["certfile"])
    with contextlib.suppress(OSError):
        if key.stat().st_mode & stat.S_IROTH:
            remedy = f"run chmod o-r {shlex.quote(str(key))}"
            found.append(f"tls.keyfile: {key} can be read by all users of this machine: {remedy}")
    problem = summary.problem()
    if problem is not None:
        found.append(f"tls.certfile: the certificate in {files['certfile']} {problem}")
    return found


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _names(certificate: x509.Certificate) -> Iterator[str]:
    """Yield the names by which clients accept the certificate: those of its extension, never the subject's."""
    from cryptography import x509  # noqa: PLC0415  as above

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in found:
        if isinstance(name, (x509.DNSName, x509.IPAddress)):
            yield "".join(each if each.isprintable() else "?" for each in str(name.value))
