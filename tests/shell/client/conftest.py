"""A client of workers that run in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nfcli.shell.client.client import Client
from support.shell.direct_workers import Fabric


@pytest.fixture
def client(fabric: Fabric) -> Iterator[Client]:
    """Return a client whose key is authorized."""
    with fabric.client() as client:
        yield client
