"""Audit lines of refused requests: rate-limited, and written without delaying requests."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.worker.audit.refusals import Refusal, RefusalLog
from nfcli.worker.audit.trail import AuditTrail

SECRET = "s3cr3t-t0k3n/with+more~=="
KEY = bytes(32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the trail's file."""
    return tmp_path / "audit-w1.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a trail."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def fingerprint(token: str) -> str:
    """Return the fingerprint of a token."""
    return hmac.new(KEY, token.encode(), hashlib.sha256).hexdigest()[:12]


class Seldom(SimpleNamespace):
    """A trail whose clock the test sets."""

    seconds: float
    trail: AuditTrail


@pytest.fixture
def seldom(path: Path) -> Seldom:
    """Open a trail; the test closes it to see its lines."""
    seldom = Seldom(seconds=100.0)
    seldom.trail = AuditTrail(path, KEY, monotonic=lambda: seldom.seconds)
    return seldom


def test_refused_requests_leave_some_lines_and_the_rest_is_counted(seldom: Seldom, path: Path) -> None:
    """Ten at once, then one every six seconds; a last line counts the rest."""
    trail = seldom.trail
    told = [trail.refused("127.0.0.1", "the token is unknown", token=SECRET) for _ in range(15)]
    assert told == [True] * 10 + [False] * 5
    seldom.seconds += 5.9
    assert trail.refused("127.0.0.1", "the token is unknown") is False
    seldom.seconds += 0.1
    assert trail.refused("127.0.0.1", "the token is unknown") is True
    seldom.seconds += 3_600
    assert [trail.refused("::1", "Bearer abc") for _ in range(12)].count(True) == 10
    trail.close()
    seldom.seconds += 3_600
    assert trail.refused("127.0.0.1", "too late") is False
    found = [(line["actor"], line["reason"], line["suppressed"], line["count"], line["tokens"]) for line in lines(path)]
    known = ("127.0.0.1", "the token is unknown")
    assert found == [
        *[(*known, 0, 1, [fingerprint(SECRET)])] * 10,
        (*known, 6, 0, []),
        *[("::1", "Bearer ***", 0, 0, [])] * 10,
        ("worker", "the worker ended", 2, 0, []),
    ]
    assert list(lines(path)[0]) == [
        *("seq", "time", "actor", "authenticated", "origin", "address", "job", "operation", "username", "tokens"),
        *("count", "expire", "outcome", "reason", "suppressed", "previous"),
    ]
    assert {(line["operation"], line["outcome"]) for line in lines(path)} == {("refuse", "refused")}
    with AuditTrail(path, KEY) as again:
        assert again.verify().lines == 22


def test_refusing_never_waits_for_the_disk() -> None:
    """While a line is being written, thousands of refused requests are counted: callers are event loops."""
    disk = threading.Event()
    written: list[Refusal] = []

    def write(refusal: Refusal) -> None:
        assert disk.wait(20)
        written.append(refusal)

    refusals = RefusalLog(write, lambda: 0.0)
    recorded = [refusals.record("127.0.0.1", "no", lambda: None) for _ in range(1_000)]
    assert (recorded, written) == ([True] * 10 + [False] * 990, [])
    disk.set()
    assert (refusals.close(), len(written)) == (990, 10)


def test_a_flood_from_many_threads_is_counted_to_the_last_request(seldom: Seldom, path: Path) -> None:
    """And writes ten lines."""
    threads = [
        threading.Thread(target=lambda: [seldom.trail.refused("127.0.0.1", "no") for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seldom.trail.close()
    assert sum(line["suppressed"] for line in lines(path)) + 10 == 4_000
    assert len(lines(path)) == 11


def test_refusals_that_can_not_be_recorded_are_logged(
    seldom: Seldom, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread and the callers continue."""
    path.rename(path.with_name("moved"))
    for _ in range(11):
        seldom.trail.refused("127.0.0.1", "no")
    seldom.trail.close()
    starts = [message.split(": ")[0] for message in caplog.messages]
    assert starts == [
        *["cannot record a refused request"] * 10,
        "cannot record 1 refused requests",
        f"the audit trail {path} was moved or altered, nothing changed",
    ]
