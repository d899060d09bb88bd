"""The server's certificate, its key and the CA of its clients: loaded, verified, and loaded again when they change."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ....models.certificates.summary import CertificateSummary, file_problems
from ....models.environment.trusted_files import open_trusted
from ....models.errors import CertificateError, EnvironmentFolderError
from ....models.inventory.schema import WorkerInventory
from ....models.inventory.sections.tls import TlsInventory
from .alerts import ServerContext

log = logging.getLogger(__name__)

_MAX_BYTES = 1024 * 1024
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----(.*?)(-----END \1PRIVATE KEY-----|\Z)", re.DOTALL)
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile(_BEGIN_CERTIFICATE + rb"[^-]*-----END CERTIFICATE-----")

# What identifies a file's content: the device, the inode, the size and the time of the last change.
_Identity = tuple[int, int, int, int] | None


class ServerCertificate:
    """A certificate in use: the TLS `context` of new connections, and its `summary`.

    `prepare` and `reload_if_changed` replace them, from any thread; open connections keep what they began with.

    Raises:
        CertificateError: a file can't be used; the message names its key in the inventory, and what to do.
    """

    def __init__(self, tls: TlsInventory, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._use(_Loaded.load(tls.files(folder)))

    def _use(self, loaded: _Loaded) -> None:
        self._files, self._identities = loaded.files, loaded.identities
        self.context, self.summary = loaded.context, loaded.summary
        self._refused: tuple[_Identity, ...] | None = None
        self._reported = ""

    @classmethod
    def of(cls, inventory: WorkerInventory, folder: Path) -> Self | None:
        """Load what a worker's inventory in `folder` names, nothing where it has no TLS."""
        return None if inventory.tls is None else cls(inventory.tls, folder)

    def warnings(self) -> list[str]:
        """Return what is wrong with files that can be used nevertheless, a line each."""
        return file_problems(self._files, self.summary)

    def prepare(self, tls: TlsInventory | None) -> Callable[[], None]:
        """Load the files that a changed inventory names; return what puts them in force for new connections.

        Raises:
            CertificateError: a file can't be used, or TLS is to be turned off, for which the worker has to stop.
        """
        if tls is None:
            raise CertificateError("tls: it can't be turned off while the worker runs: restart the worker")
        loaded = _Loaded.load(tls.files(self._folder))

        def apply() -> None:
            with self._lock:
                self._use(loaded)
            log.info("TLS: loaded the %s", loaded.summary.describe())

        return apply

    def reload_if_changed(self) -> None:
        """Load the files again if one of them was replaced; log what can't be used, and keep what was loaded before.

        A program that renews certificates replaces certificate and key one after the other: files that can't be used
        are reported when they are found unchanged by the next call. They are tried again by each call, since what is
        wrong need not be in the files: a mode, or a folder above them.
        """
        with self._lock:
            identities = _identify(self._files)
            if identities == self._identities:
                return
            try:
                self._use(_Loaded.load(self._files))
            except CertificateError as error:
                if self._refused == identities and str(error) != self._reported:
                    log.warning("TLS: %s; the certificate loaded before stays in use", error)
                    self._reported = str(error)
                self._refused = identities
            else:
                log.info("TLS: loaded the %s", self.summary.describe())


@dataclass(frozen=True)
class _Loaded:
    """What was loaded, and what identifies the files that it was loaded from."""

    files: Mapping[str, Path]
    identities: tuple[_Identity, ...]
    context: ssl.SSLContext
    summary: CertificateSummary

    @classmethod
    def load(cls, files: Mapping[str, Path]) -> _Loaded:
        identities = _identify(files)  # before: a file that is replaced meanwhile is loaded again
        return cls(files, identities, *_load(files))


def _identify(files: Mapping[str, Path]) -> tuple[_Identity, ...]:
    return tuple(_identity(path) for path in files.values())


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _load(files: Mapping[str, Path]) -> tuple[ssl.SSLContext, CertificateSummary]:
    certificate_file = files["certfile"]
    key_name = "keyfile" if "keyfile" in files else "certfile"
    key_file = files[key_name]
    with _refusing("certfile", certificate_file):
        summary = CertificateSummary.from_pem(_read(certificate_file))
    with _refusing(key_name, key_file):
        _verify_key(_read(key_file))
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                f"tls.{key_name}: {key_file} is not the key of the certificate in {certificate_file}: "
                "name the two that were made together"
            ) from None
        reason = (error.reason or "no reason given").replace("_", " ").lower()
        raise CertificateError(f"tls: {certificate_file} and {key_file} can't be used: {reason}") from None
    except OSError as error:
        raise CertificateError(f"tls: {certificate_file} and {key_file} can't be read: {error.strerror}") from None
    if "client_ca" in files:
        with _refusing("client_ca", files["client_ca"]):
            _require_client_certificates(context, _read(files["client_ca"]))
    return context, summary


@contextlib.contextmanager
def _refusing(key: str, path: Path) -> Iterator[None]:
    """Add the inventory's key and the file to errors."""
    try:
        yield
    except CertificateError as error:
        raise CertificateError(f"tls.{key}: {path} {error}") from None
    except EnvironmentFolderError as error:
        raise CertificateError(f"tls.{key}: {error}") from None
    except FileNotFoundError:
        raise CertificateError(f"tls.{key}: {path} doesn't exist: set it to the file, or create that") from None
    except OSError as error:
        raise CertificateError(f"tls.{key}: {path} can't be read: {error.strerror}: check owner and mode") from None


def _read(path: Path) -> bytes:
    """Return a file's content, at most `_MAX_BYTES`; only root and this user may be able to change it."""
    with open_trusted(path) as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise CertificateError(f"has more than {_MAX_BYTES} bytes: set it to a file in PEM format")
    return data


def _verify_key(data: bytes) -> None:
    found = _PRIVATE_KEY.search(data)
    if found is None:
        raise CertificateError("has no private key in PEM format (-----BEGIN PRIVATE KEY-----)")
    if b"ENCRYPTED" in found[1] + found[2]:  # PKCS #8 has it in the first line, older formats below it
        raise CertificateError("has an encrypted key: decrypt it, for instance with openssl pkey -in FILE -out FILE2")
    if not found[3]:
        raise CertificateError("has a private key without its last line: write the whole file")


def _no_password() -> str:
    """Prevent OpenSSL from asking for a password on the terminal."""
    return ""


def _require_client_certificates(context: ssl.SSLContext, data: bytes) -> None:
    certificates = _CERTIFICATE.findall(data)  # without the comments, which may be in any encoding
    try:
        if len(certificates) != data.count(_BEGIN_CERTIFICATE):
            raise CertificateError("has a certificate without its last line: write the whole file")
        context.load_verify_locations(cadata=b"\n".join(certificates).decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise CertificateError("has no CA certificates in PEM format (-----BEGIN CERTIFICATE-----)") from None
    if not context.get_ca_certs():
        raise CertificateError("has no CA certificate: name that of the CA that has signed the clients' certificates")
    context.verify_mode = ssl.CERT_REQUIRED
