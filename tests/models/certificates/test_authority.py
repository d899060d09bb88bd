"""The private CA: what clients accept, renewal, and what is refused."""

from __future__ import annotations

import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nfcli.models.certificates.authority import create_authority, local_names, renew_certificate
from nfcli.models.certificates.summary import CertificateSummary
from nfcli.models.errors import CertificateError, EnvironmentFolderError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a CA, which no test changes."""
    folder = tmp_path_factory.mktemp("made") / "tls"
    create_authority(folder, ["mcp.example.com", "*.example.com", "192.0.2.1", "::1"])
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a folder with a CA that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "tls"))


def accepts(folder: Path, name: str) -> bool:
    """Whether a client that trusts the CA accepts the server by a name; the handshake is made in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    sides = (
        context.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return sides[0].version() is not None


@pytest.mark.parametrize("name", ["mcp.example.com", "a.example.com", "192.0.2.1", "::1"])
def test_clients_that_trust_the_ca_accept_each_name(made: Path, name: str) -> None:
    """By the strict rules of RFC 5280, which Python applies by default from 3.13 on."""
    assert accepts(made, name)


@pytest.mark.parametrize("name", ["example.com", "192.0.2.2", "mcp.example.org"])
def test_clients_refuse_other_names(made: Path, name: str) -> None:
    """A CA of one's own doesn't make clients careless."""
    assert not accepts(made, name)


def test_files_are_private_and_the_lifetime_is_what_systems_accept(made: Path) -> None:
    """825 days is the longest that Apple's accept."""
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o600}
    summary = CertificateSummary.from_pem((made / "server.crt").read_bytes())
    assert summary.ends - summary.begins < timedelta(days=826)
    assert summary.problem(datetime.now(UTC)) is None
    assert summary.describe().startswith("certificate of mcp.example.com, *.example.com, 192.0.2.1, ::1, expires 20")


def test_renewed_certificate_has_a_new_key_and_the_old_names(folder: Path, made: Path) -> None:
    """And further ones; clients trust it already."""
    renewed = renew_certificate(folder, ["10.0.0.5"])
    assert renewed.names == ("mcp.example.com", "*.example.com", "192.0.2.1", "::1", "10.0.0.5")
    assert accepts(folder, "10.0.0.5")
    assert (folder / "server.key").read_bytes() != (made / "server.key").read_bytes()
    assert (folder / "ca.crt").read_bytes() == (made / "ca.crt").read_bytes()


def test_lost_certificate_is_made_again_for_this_machine(folder: Path) -> None:
    """The CA is what matters."""
    (folder / "server.crt").unlink()
    assert renew_certificate(folder).names == tuple(local_names())


@pytest.mark.parametrize("name", ["", "a b", "a..b", "-a", "a" * 300, "*", "a.*.b", "ä", "a:b", "https://a"])
def test_name_that_no_certificate_can_have_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """Before anything is written."""
    before = (folder / "server.crt").read_bytes()
    for act in (lambda: create_authority(tmp_path / "new", [name]), lambda: renew_certificate(folder, [name])):
        with pytest.raises(CertificateError, match=r"must be a host name or an IP address$"):
            act()
    assert not (tmp_path / "new").exists()
    assert (folder / "server.crt").read_bytes() == before


def test_ca_that_cannot_sign_is_refused(folder: Path, tmp_path: Path) -> None:
    """Without its key, with another one, or with one that others can read."""
    create_authority(tmp_path / "other", ["a"])
    key = folder / "ca.key"
    key.chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match=r"chmod 600"):
        renew_certificate(folder)
    key.chmod(0o600)
    key.write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match=rf"^{key} is not the key of {folder}/ca\.crt: "):
        renew_certificate(folder)
    key.write_text("x")
    with pytest.raises(CertificateError, match=r" can't be read as a CA: "):
        renew_certificate(folder)
    key.unlink()
    with pytest.raises(CertificateError, match=rf"^{key} doesn't exist: "):
        renew_certificate(folder)
