"""Fixtures of the tests of admission."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.tokens.store import TokenStore
from support.admission_bench import AdmissionBench


@pytest.fixture
def bench(trail: AuditTrail, tmp_path: Path) -> Iterator[AdmissionBench]:
    """Provide a worker that requires signatures, behind a broker."""
    with TokenStore(tmp_path / "tokens") as store:
        bench = AdmissionBench(Environment(tmp_path / "environment", None), store, trail)
        yield bench
        bench.stop()
