"""Workers that serve HTTPS, with certificates of a private CA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.mcp.certificates import make_certificates, trusting
from support.mcp.served_worker import Serve, ServedWorker


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a CA and a server certificate, which no test changes."""
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    make_certificates(folder)
    return folder


@pytest.fixture
def tls_worker(served_worker: Serve, certificates: Path) -> Callable[..., ServedWorker]:
    """Serve workers over HTTPS; the tests' requests trust the CA. `tls` replaces the certificates."""

    def serve(*tasks: ModuleType, tls: dict[str, str] | None = None, **settings: Any) -> ServedWorker:
        usual = {"certfile": str(certificates / "server.crt"), "keyfile": str(certificates / "server.key")}
        worker = served_worker(*tasks, tls=tls or usual, **settings)
        worker.client_tls = trusting(certificates)
        return worker

    return serve
