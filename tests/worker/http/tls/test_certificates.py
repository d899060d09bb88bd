"""Certificate files: what is refused and with which words, and reloading while connections go on."""

from __future__ import annotations

import logging
import os
import re
import shutil
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from nfcli.models.certificates.authority import create_authority, renew_certificate
from nfcli.models.errors import CertificateError
from nfcli.models.inventory.sections.tls import TlsInventory
from nfcli.worker.http.tls.certificates import ServerCertificate
from support.mcp.certificates import NAMES, make_client_certificate
from support.mcp.served_worker import ServedWorker, read_response

Serve = Callable[..., ServedWorker]
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
def folder(certificates: Path, tmp_path: Path) -> Path:
    """Return a folder `tls` with a CA and a server certificate that the test may change."""
    return Path(shutil.copytree(certificates, tmp_path / "tls"))


def load(folder: Path, **files: str) -> ServerCertificate:
    """Load the certificate of `folder/tls` as an inventory in `folder` names it."""
    named = {"certfile": "tls/server.crt", "keyfile": "tls/server.key", **files}
    return ServerCertificate(TlsInventory.model_validate(named), folder.parent)


def inventory_of(folder: Path, **files: str) -> TlsInventory:
    """Return the section of an inventory whose files are in `folder`."""
    return TlsInventory.model_validate({key: str(folder / name) for key, name in files.items()})


def served_certificate(worker: ServedWorker) -> bytes:
    """Return the certificate that a new connection gets."""
    with worker.connect() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        return connection.getpeercert(binary_form=True) or b""


def test_files_are_found_beside_the_inventory(folder: Path) -> None:
    """The key may be in the certificate's file; absolute names work too."""
    loaded = load(folder)
    assert loaded.summary.names == NAMES
    both = folder / "both.pem"
    both.write_bytes((folder / "server.key").read_bytes() + (folder / "server.crt").read_bytes())
    both.chmod(0o600)
    alone = ServerCertificate(TlsInventory.model_validate({"certfile": str(both)}), Path("/"))
    assert alone.summary == loaded.summary
    assert loaded.warnings() == alone.warnings() == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"certfile": "none.crt"}, r"tls\.certfile: .*/none\.crt doesn't exist: set it to the file, or create that"),
        ({"keyfile": "none.key"}, r"tls\.keyfile: .*/none\.key doesn't exist: .*"),
        ({"client_ca": "none.crt"}, r"tls\.client_ca: .*/none\.crt doesn't exist: .*"),
        ({"certfile": "tls"}, r"tls\.certfile: .*/tls can't be read: Is a directory: check owner and mode"),
        ({"certfile": "tls/server.key"}, r"tls\.certfile: .*/server\.key has no certificate in PEM format .*"),
        ({"keyfile": "tls/server.crt"}, r"tls\.keyfile: .*/server\.crt has no private key in PEM format .*"),
        (
            {"keyfile": "tls/ca.key"},
            r"tls\.keyfile: .*/ca\.key is not the key of the certificate in .*/server\.crt: .*",
        ),
        ({"client_ca": "tls/ca.key"}, r"tls\.client_ca: .*/ca\.key has no CA certificates in PEM format .*"),
        ({"client_ca": "tls/server.crt"}, r"tls\.client_ca: .*/server\.crt has no CA certificate: .*"),
        ({"keyfile": "tls/locked.key"}, r"tls\.keyfile: .*/locked\.key has an encrypted key: decrypt it, .*"),
        ({"keyfile": "tls/old.key"}, r"tls\.keyfile: .*/old\.key has an encrypted key: decrypt it, .*"),
        ({"keyfile": "tls/half.key"}, r"tls\.keyfile: .*/half\.key has a private key without its last line: .*"),
        ({"client_ca": "tls/half.crt"}, r"tls\.client_ca: .*/half\.crt has a certificate without its last line: .*"),
        ({"certfile": "tls/broken.crt"}, r"tls\.certfile: .*/broken\.crt has a certificate that can't be read"),
        ({"keyfile": "tls/broken.key"}, r"tls: .*/server\.crt and .*/broken\.key can't be used: .*"),
        ({"certfile": "tls/large.crt"}, r"tls\.certfile: .*/large\.crt has more than 1048576 bytes: .*"),
    ],
)
def test_file_that_cannot_be_used_is_named_with_its_key(folder: Path, files: dict[str, str], message: str) -> None:
    """And what is wrong with it, on one line; OpenSSL itself says `[SSL] PEM lib`."""
    (folder / "locked.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    (folder / "old.key").write_text(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END EC PRIVATE KEY-----"
    )
    (folder / "half.key").write_bytes((folder / "server.key").read_bytes()[:-20])
    (folder / "half.crt").write_bytes((folder / "ca.crt").read_bytes() + (folder / "ca.crt").read_bytes()[:100])
    (folder / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (folder / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
    (folder / "large.crt").write_text("x" * 1_048_577)
    with pytest.raises(CertificateError) as caught:
        load(folder, **files)
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize("comment", ["# Société, ENCRYPTED\n".encode(), b"\xef\xbb\xbf", b"# \xe9\r\n"])
def test_comments_around_certificates_and_keys_are_ignored(folder: Path, comment: bytes) -> None:
    """As OpenSSL does: tools write names in them, in any encoding."""
    for name in ("server.crt", "server.key", "ca.crt"):
        (folder / name).write_bytes(comment + (folder / name).read_bytes() + comment)
    assert load(folder, client_ca="tls/ca.crt").summary.names == NAMES


def test_key_that_others_could_replace_is_refused(folder: Path) -> None:
    """As every file that decides where tokens go; one that they can read is a warning."""
    key = folder / "server.key"
    key.chmod(0o602)
    with pytest.raises(
        CertificateError, match=rf"^tls\.keyfile: {key} has mode 0602 and can be changed by other users"
    ):
        load(folder)
    key.chmod(0o604)
    warning = f"tls.keyfile: {key} can be read by all users of this machine: run chmod o-r {key}"
    assert load(folder).warnings() == [warning]


def test_end_of_a_certificate_is_a_warning(folder: Path) -> None:
    """Two weeks before it, and after it; clients then refuse it, so the line says what to do."""
    summary = load(folder).summary
    day = f"{summary.ends:%Y-%m-%d}"
    assert summary.problem(summary.ends - timedelta(days=15)) is None
    assert summary.problem(summary.ends - timedelta(days=13)) == f"expires on {day}: renew it"
    assert summary.problem(summary.ends) == f"expired on {day}: renew it"
    early = summary.begins - timedelta(seconds=1)
    assert summary.problem(early) == f"is not valid before {summary.begins:%Y-%m-%d}: check this machine's clock"


def test_replaced_certificate_serves_new_connections_and_open_ones_go_on(tls_worker: Serve, folder: Path) -> None:
    """Nothing is interrupted by a renewal."""
    worker = tls_worker(tls={"certfile": str(folder / "server.crt"), "keyfile": str(folder / "server.key")})
    assert worker.certificate is not None
    before = served_certificate(worker)
    with worker.connect() as connection:
        renewed = renew_certificate(folder)
        worker.certificate.reload_if_changed()
        connection.sendall(HEALTH)
        assert read_response(connection, "GET")[0] == 200
    assert served_certificate(worker) == renewed.der != before
    assert worker.certificate.summary == renewed


def test_files_that_a_changed_inventory_names_are_in_force_when_they_are_applied(
    tls_worker: Serve, folder: Path, tmp_path: Path
) -> None:
    """Not before, and not if one of them can't be used; what changes later is looked for in the new places."""
    worker = tls_worker(tls={"certfile": str(folder / "server.crt"), "keyfile": str(folder / "server.key")})
    certificate, first = worker.certificate, served_certificate(worker)
    assert certificate is not None
    create_authority(tmp_path / "other", NAMES)
    elsewhere = {"certfile": "other/server.crt", "keyfile": "other/server.key"}
    other = load(folder, **elsewhere).summary
    apply = certificate.prepare(inventory_of(tmp_path, **elsewhere))
    assert served_certificate(worker) == first != other.der
    apply()
    assert worker.certificate is certificate
    assert certificate.summary == other
    for wrong in ({"certfile": "none.crt"}, {"keyfile": "tls/server.key"}, {"client_ca": "tls/server.crt"}):
        with pytest.raises(CertificateError):
            certificate.prepare(inventory_of(tmp_path, **(elsewhere | wrong)))
    with pytest.raises(CertificateError, match=r"^tls: it can't be turned off while the worker runs: restart"):
        certificate.prepare(None)
    assert certificate.summary == other
    renewed = renew_certificate(tmp_path / "other")
    certificate.reload_if_changed()
    assert certificate.summary == renewed


@pytest.mark.parametrize("key", ["certfile", "keyfile", "client_ca"])
def test_pipe_in_place_of_a_file_is_refused_at_once(folder: Path, key: str) -> None:
    """Reading it would wait for somebody who writes; a certificate that is in use stays so."""
    loaded = load(folder, client_ca="tls/ca.crt")
    before, names = loaded.summary, {"certfile": "server.crt", "keyfile": "server.key", "client_ca": "ca.crt"}
    pipe = folder / names[key]
    pipe.unlink()
    os.mkfifo(pipe, 0o600)
    message = rf"^tls\.{key}: {pipe} must be a regular file: move away what is there$"
    with pytest.raises(CertificateError, match=message):
        load(folder, client_ca="tls/ca.crt")
    for _ in range(2):
        loaded.reload_if_changed()
    assert loaded.summary == before


def test_client_ca_is_replaced_as_a_whole(tls_worker: Serve, folder: Path, tmp_path: Path) -> None:
    """Clients of a CA that is no longer named are refused."""
    ca = tmp_path / "clients.crt"
    shutil.copy(folder / "ca.crt", ca)
    files = {"certfile": str(folder / "server.crt"), "keyfile": str(folder / "server.key"), "client_ca": str(ca)}
    worker = tls_worker(tls=files)
    assert worker.client_tls is not None
    assert worker.certificate is not None
    make_client_certificate(folder)
    worker.client_tls.load_cert_chain(folder / "client.crt", folder / "client.key")
    assert worker.get("/health")[0] == 200
    create_authority(tmp_path / "other", NAMES)
    shutil.copy(tmp_path / "other" / "ca.crt", ca)
    worker.certificate.reload_if_changed()
    with worker.connect() as connection, pytest.raises(ssl.SSLError, match=r"alert"):
        connection.recv(1)


def test_unusable_new_files_change_nothing_and_are_reported_once(
    tls_worker: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at once: programs that renew certificates replace certificate and key one after the other."""
    caplog.set_level(logging.INFO)
    worker = tls_worker(tls={"certfile": str(folder / "server.crt"), "keyfile": str(folder / "server.key")})
    assert worker.certificate is not None
    before, old_key = served_certificate(worker), (folder / "server.key").read_bytes()
    renewed = renew_certificate(folder)
    new_key = (folder / "server.key").read_bytes()
    (folder / "server.key").write_bytes(old_key)
    worker.certificate.reload_if_changed()
    assert [message for message in caplog.messages if message.startswith("TLS")] == []
    for _ in range(3):
        worker.certificate.reload_if_changed()
    (line,) = [message for message in caplog.messages if message.startswith("TLS")]
    assert line == (
        f"TLS: tls.keyfile: {folder}/server.key is not the key of the certificate in {folder}/server.crt: "
        "name the two that were made together; the certificate loaded before stays in use"
    )
    assert served_certificate(worker) == before
    (folder / "server.key").write_bytes(new_key)
    worker.certificate.reload_if_changed()
    assert served_certificate(worker) == renewed.der


@pytest.mark.parametrize("place", ["server.key", "."])
def test_new_files_are_used_once_their_modes_are_corrected(
    folder: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Nothing else about them changes then; what the line in the log says to run has to be enough."""
    loaded = load(folder)
    changed = folder / place
    mode = changed.stat().st_mode & 0o777
    renewed = renew_certificate(folder)
    changed.chmod(mode | 0o002)
    for _ in range(3):
        loaded.reload_if_changed()
    (line,) = [message for message in caplog.messages if message.startswith("TLS")]
    assert f"run chmod o-w {changed}" in line
    assert loaded.summary != renewed
    changed.chmod(mode)
    loaded.reload_if_changed()
    assert loaded.summary == renewed
