"""`nfcli --renew-tls`: a new certificate of the private CA that `--create-env --tls` has made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...models.environment.locations import find_environment
from ...models.errors import CertificateError


def renew(inventory: Path | None, names: Sequence[str]) -> str:
    """Replace the server certificate of an environment, with further `names`; return what was done.

    Raises:
        NfcliError: there is no environment, it has no CA, or a file can't be written.
    """
    from ...models.certificates import authority  # noqa: PLC0415  takes 0.1 s, which only TLS needs

    folder = find_environment(inventory).folder / authority.TLS_FOLDER
    if not (folder / authority.CA_CERTIFICATE).is_file():
        raise CertificateError(
            f"{folder} has no CA of nfcli's: renew the certificate where you got it, "
            "or make an environment with nfcli --create-env DIR --tls"
        )
    try:
        renewed = authority.renew_certificate(folder, names)
    except OSError as error:
        raise CertificateError(f"{error.filename or folder} can't be written: {error.strerror}") from error
    return f"{renewed.describe()}: workers that run use it within seconds"
