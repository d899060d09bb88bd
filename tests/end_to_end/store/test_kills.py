"""Kill -9: what was acknowledged is there behind it, what was deleted stays gone (200 rounds: tests/bench/kills.py)."""

from __future__ import annotations

import importlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

with pytest.MonkeyPatch.context() as _patch:
    _patch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    kills: Any = importlib.import_module("kills")
    ledger: Any = importlib.import_module("endurance.ledger")

ROUNDS = 10

# Workers that don't keep their word; put before the program that the rounds run.
WRITES_LATE = """
from nfcli.worker.tokens.database import TokenDatabase
waiting = []
def late(write):
    def write_an_earlier_one(*arguments, **options):
        waiting.append(lambda: write(*arguments, **options))
        if len(waiting) > 5:
            waiting.pop(0)()
    return write_an_earlier_one
TokenDatabase.put, TokenDatabase.remove = late(TokenDatabase.put), late(TokenDatabase.remove)
"""
DELETES_FROM_MEMORY_ONLY = """
from nfcli.worker.tokens.database import TokenDatabase
TokenDatabase.remove = lambda *_, **__: None
"""
LEAVES_NO_TRAIL = """
from nfcli.worker.audit.trail import AuditTrail
AuditTrail.before_commit = lambda *_, **__: lambda change: None
"""


@pytest.mark.slow
def test_twenty_kills_under_load_lose_nothing_and_bring_nothing_back(tmp_path: Path) -> None:
    """At acknowledgements, within writes, at folds of the log, in starts; four clients have changes in flight."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(kills.run, ROUNDS, seed, tmp_path) for seed in (1, 2)]
    for counts, findings in [run.result() for run in runs]:
        assert findings == []
        assert counts["rounds"] == ROUNDS
        assert counts["changes acknowledged"] >= ROUNDS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (WRITES_LATE, "is lost|is back|not as it was stored"),
        (DELETES_FROM_MEMORY_ONLY, "is back"),
        (LEAVES_NO_TRAIL, r"the audit trail has \d+ lines for \d+ changes"),
    ],
    ids=["writes late", "deletes from memory", "leaves no trail"],
)
def test_the_rounds_find_a_worker_that_acknowledges_what_is_not_on_disk(
    tmp_path: Path, code: str, expected: str
) -> None:
    """The test above can fail."""
    _, findings = kills.run(ROUNDS, 1, tmp_path, code + kills.WORKER)
    assert any(re.search(expected, line) for line in findings)


def row(username: str, expires: datetime | None = None) -> dict[str, str | None]:
    """Return a line of a listing, with the columns that ledgers compare."""
    return {"username": username, "expires": None if expires is None else expires.isoformat()}


STORED = {"t1": row("ann"), "t2": row("ann")}


@pytest.mark.parametrize(
    ("pending", "found", "expected"),
    [
        (None, STORED, None),
        (None, {"t1": row("ann")}, "token t2 was stored and is lost"),
        (None, {**STORED, "t2": row("bob")}, "token t2 is not as it was stored"),
        (None, {**STORED, "t2": row("ann", datetime.now(UTC))}, "token t2 is not as it was stored"),
        (None, {**STORED, "t3": row("ann")}, "token t3 was deleted and is back"),
        (ledger.Change.delete(["t1", "t2"], username="ann"), STORED, None),
        (ledger.Change.delete(["t1", "t2"], username="ann"), {}, None),
        (ledger.Change.delete(["t1", "t2"], username="ann"), {"t1": row("ann")}, "token t2 was stored and is lost"),
        (ledger.Change.store("bob", "t4", None), STORED, None),
        (ledger.Change.store("bob", "t4", None), {**STORED, "t4": row("bob")}, None),
        (ledger.Change.store("bob", "t4", None), {**STORED, "t4": row("ann")}, "token t4 was deleted and is back"),
        (ledger.Change.store("ann", "t1", 600), {"t2": row("ann")}, "token t1 was stored and is lost"),
        (
            ledger.Change.store("ann", "t1", 600),
            {**STORED, "t1": row("ann", datetime.now(UTC) + timedelta(seconds=500))},
            "token t1 is not as it was stored",
        ),
        (
            ledger.Change.store("ann", "t1", 600),
            {**STORED, "t1": row("ann", datetime.now(UTC) + timedelta(seconds=600.1))},
            None,
        ),
    ],
)
def test_a_ledger_takes_a_change_in_flight_as_done_or_not_but_wholly(
    pending: Any, found: dict[str, dict[str, str]], expected: str | None
) -> None:
    """What was acknowledged must be there exactly."""
    one = ledger.Ledger()
    one.state = {"t1": ledger.Stored("ann"), "t2": ledger.Stored("ann"), "t3": None}
    one.pending = pending
    findings = one.settle(found)
    assert [line[: len(expected or "")] for line in findings[:1]] == ([] if expected is None else [expected])
