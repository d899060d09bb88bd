"""Fixtures of the tests of jobs: workers in this process, and a client of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shell.direct_workers import Fabric


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    """Return an environment of three workers, of which `a` and `b` run."""
    fabric = Fabric(tmp_path)
    fabric.run("a", "b")
    yield fabric
    for server in fabric.servers.values():
        server.stop()
