"""Which lines of an audit trail are listed: those of a user, a token, an operation, a time; also older ones."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.environment.private_files import write_private
from nfcli.worker.audit.actor import Actor
from nfcli.worker.audit.trail import AuditTrail

SECRET = "s3cr3t-t0k3n/with+more~=="
KEY = bytes(32)
TIME = "2026-05-28T20:26:40.250+00:00"


def fingerprint(token: str, key: bytes = KEY) -> str:
    """Return the fingerprint of a token."""
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()[:12]


def test_the_last_lines_are_listed_the_newest_one_last(trail: AuditTrail) -> None:
    """All, or those of one user, whose name may be part of another's."""
    for number, username in enumerate(["bob", "bobby", None, 'b"ob', "bob", "żółw"]):
        trail.write(operation="delete", actor=f"a{number}", username=username)
    assert [entry.seq for entry in trail.entries(3)] == [4, 5, 6]
    assert [entry.seq for entry in trail.entries(100)] == [1, 2, 3, 4, 5, 6]
    assert [entry.seq for entry in trail.entries(100, "bob")] == [1, 5]
    assert [entry.seq for entry in trail.entries(1, "bob")] == [5]
    assert [entry.seq for entry in trail.entries(9, 'b"ob')] == [4]
    assert [entry.seq for entry in trail.entries(9, "żółw")] == [6]
    assert trail.entries(9, "carol") == []


def test_lines_are_found_by_token_operation_and_time(trail: AuditTrail, clock: SimpleNamespace) -> None:
    """What a client wrote into its name, its uuid or a reason passes for none of them."""
    text = fingerprint("t1")
    impostor = Actor("x", origin=text, job=text)
    trail.write(operation="create", actor="a", username="ann", tokens=["t1"])
    clock.now += 10
    trail.write(
        operation="delete", actor=impostor, username=text, tokens=["t2"], reason=f'"{text}", "operation": "create"'
    )
    clock.now += 10
    trail.write(operation="delete", actor="a", username="bob", tokens=["t2", "t1"])
    assert [entry.seq for entry in trail.entries(9, token="t1")] == [1, 3]
    assert [entry.seq for entry in trail.entries(1, token="t1")] == [3]
    assert [entry.seq for entry in trail.entries(9, operation="delete")] == [2, 3]
    assert [entry.seq for entry in trail.entries(9, token="t2", username="bob", operation="delete")] == [3]
    assert [entry.seq for entry in trail.entries(9, since="2026-05-28T20:26:50.250+00:00")] == [2, 3]
    assert [entry.seq for entry in trail.entries(9, since="2026-05-28T20:26:50.251+00:00")] == [3]
    assert trail.entries(9, token="\ud800") == []
    assert trail.entries(9, token="t3") == trail.entries(9, operation="restore") == []


@pytest.mark.parametrize(
    "line",
    [
        '{{"tokens": ["{}"]',
        '{{"seq": 2, "actor": "{}"}}',
        '{{"seq": 2, "tokens": "{}"}}',
        '{{"seq": 2, "tokens": [["{}"]]}}',
        '["{}"]',
        '"{}"',
        "[" * 200_000 + "{}",
    ],
    ids=lambda line: line[:30],
)
def test_a_damaged_line_is_none_of_a_token(trail: AuditTrail, tmp_path: Path, line: str) -> None:
    """Also with its fingerprint in it: the search goes on to the lines before."""
    trail.write(operation="create", actor="a", username="ann", tokens=["t1"])
    with (tmp_path / "audit-w1.jsonl").open("a", encoding="ascii") as stream:
        stream.write(line.format(fingerprint("t1")) + "\n")
    assert [entry.seq for entry in trail.entries(9, token="t1")] == [1]


def test_a_trail_of_an_earlier_version_is_continued_searched_and_verified(tmp_path: Path) -> None:
    """Its lines have no job and no address, and fingerprints of another key."""
    path, older = tmp_path / "audit-w1.jsonl", b"k" * 32
    digest = fingerprint(SECRET, older)
    line = (
        f'{{"seq": 1, "time": "{TIME}", "actor": "client", "operation": "create", "username": "ann", '
        f'"tokens": ["{digest}"], "count": 1, "expire": null, "outcome": "done", "reason": null, '
        f'"previous": "{"0" * 64}"}}'
    )
    write_private(path, f"{line}\n".encode())
    write_private(path.with_suffix(".head"), f"{1:020} {hashlib.sha256(line.encode()).hexdigest()}\n".encode())
    with AuditTrail(path, KEY, older) as trail:
        trail.write(operation="delete", actor=Actor("ann", "curve", job="j1"), tokens=[SECRET])
        assert trail.verify().lines == 2
        found = trail.entries(9, token=SECRET)
    assert [(entry.seq, entry.operation, entry.job) for entry in found] == [(1, "create", None), (2, "delete", "j1")]
    assert path.read_text().startswith(f"{line}\n")
    assert found[1].tokens == [fingerprint(SECRET)]
