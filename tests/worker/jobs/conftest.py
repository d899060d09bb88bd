"""Fixtures of the tests of jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.tokens.store import TokenStore
from support.job_bench import JobBench


@pytest.fixture
def bench(trail: AuditTrail, tmp_path: Path) -> Iterator[JobBench]:
    """Provide an executor with a real store and a real audit trail."""
    with TokenStore(tmp_path / "tokens") as store:
        bench = JobBench(store, trail, tmp_path)
        yield bench
        bench.gate.set()
        bench.executor.stop()
