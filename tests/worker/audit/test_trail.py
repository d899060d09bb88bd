"""The audit trail: a line for each change before it is made, and never a token."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import AuditError
from nfcli.models.protocol.jobs import Result
from nfcli.models.tasks.audit import AuditEntry, Operation
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.tokens.changes import TokenChange
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

SECRET = "s3cr3t-t0k3n/with+more~=="
KEY = bytes(32)
TIME = "2026-05-28T20:26:40.250+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of the fixture `trail`."""
    return tmp_path / "audit-w1.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a trail."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def fingerprint(token: str) -> str:
    """Return the fingerprint of a token."""
    return hmac.new(KEY, token.encode(), hashlib.sha256).hexdigest()[:12]


def brief(path: Path) -> list[tuple[Any, ...]]:
    """Return the fields that differ most from line to line."""
    return [
        tuple(line[key] for key in ("seq", "operation", "username", "count", "expire", "outcome"))
        for line in lines(path)
    ]


def test_a_stored_token_leaves_a_line_without_the_token(
    trail: AuditTrail, open_store: Callable[[], TokenStore], path: Path
) -> None:
    """Number, time, actor, operation, owner, fingerprint, lifetime, outcome and hash."""
    store_token(open_store(), "alice", SECRET, 60, before_commit=trail.before_commit("client", expire=60))
    expected = {
        "seq": 1,
        "time": TIME,
        "actor": "client",
        "authenticated": None,
        "origin": None,
        "address": None,
        "job": None,
        "operation": "create",
        "username": "alice",
        "tokens": [fingerprint(SECRET)],
        "count": 1,
        "expire": 60,
        "outcome": "done",
        "reason": None,
        "previous": "0" * 64,
    }
    assert path.read_text() == json.dumps(expected) + "\n"
    assert SECRET not in path.read_text()


def test_each_change_leaves_one_line_and_other_calls_none(
    trail: AuditTrail, open_store: Callable[[], TokenStore], path: Path
) -> None:
    """Creation, renewal, deletion by token and by user leave one; calls that match nothing or only read leave none."""
    store = open_store()
    for token, expire in (("a1", 60), ("a1", None), ("a2", 5), ("a3", None)):
        store_token(store, "alice", token, expire, before_commit=trail.before_commit("client", expire=expire))
    delete_tokens(store, token="a2", before_commit=trail.before_commit("client"))
    delete_tokens(store, token="a2", before_commit=trail.before_commit("client"))
    delete_tokens(store, username="alice", before_commit=trail.before_commit("client"))
    store.lookup("a1")
    store.records()
    assert brief(path) == [
        (1, "create", "alice", 1, 60, "done"),
        (2, "renew", "alice", 1, None, "done"),
        (3, "create", "alice", 1, 5, "done"),
        (4, "create", "alice", 1, None, "done"),
        (5, "delete", "alice", 1, None, "done"),
        (6, "delete", "alice", 2, None, "done"),
    ]
    assert [line["tokens"] for line in lines(path)[4:]] == [[fingerprint("a2")], [fingerprint("a1"), fingerprint("a3")]]
    assert trail.verify().lines == 6


def test_a_change_of_many_tokens_has_a_line_for_each_hundred(trail: AuditTrail, path: Path) -> None:
    """None is left out, so that each can be found; a listing has the first line, a search the one with the token."""
    records = tuple(BearerTokenRecord(f"t{n}", f"u{n % 2}", 0.0, None) for n in range(250))
    trail.before_commit("client")(TokenChange("delete", records))
    trail.before_commit("client")(TokenChange("restore", ()))
    trail.write(operation="delete", actor="client", tokens=["a", "b"], username="ann")
    fingerprints = [fingerprint(f"t{n}") for n in range(250)]
    assert [(line["username"], line["count"], line["tokens"], line.get("part")) for line in lines(path)] == [
        (None, 250, fingerprints[:100], None),
        (None, 250, fingerprints[100:200], 2),
        (None, 250, fingerprints[200:], 3),
        (None, 0, [], None),
        ("ann", 2, [fingerprint("a"), fingerprint("b")], None),
    ]
    assert [entry.seq for entry in trail.entries(9)] == [1, 4, 5]
    assert [entry.seq for entry in trail.entries(9, operation="delete")] == [1, 5]
    assert [(entry.seq, entry.part) for entry in trail.entries(9, token="t201")] == [(3, 3)]
    assert trail.verify().lines == 5


def test_a_restore_names_the_tokens_that_it_adds_and_those_that_it_removes(
    trail: AuditTrail, open_store: Callable[[], TokenStore], path: Path
) -> None:
    """Who deleted a token is answered by its fingerprint, also where a restore did; unchanged tokens aren't listed."""
    store = open_store()
    for username, token in (("ann", "kept"), ("ann", "gone"), ("bob", "moved")):
        store_token(store, username, token, None)
    given = [BearerTokenRecord(token, "ann", 0.0, None) for token in ("kept", "moved", "new")]
    store.replace(given, before_commit=trail.before_commit("client"))
    assert [
        (line["operation"], line["username"], line["count"], line["tokens"], line["reason"]) for line in lines(path)
    ] == [
        ("restore", "ann", 3, [fingerprint("moved"), fingerprint("new")], None),
        ("delete", None, 2, [fingerprint("gone"), fingerprint("moved")], "not in the backup that was restored"),
    ]


@pytest.mark.parametrize("change", ["create", "renew", "delete a token", "delete a user"])
def test_a_change_whose_line_can_not_be_written_is_not_made(
    trail: AuditTrail, open_store: Callable[[], TokenStore], raw_database: RawDatabase, path: Path, change: str
) -> None:
    """The caller gets the reason, memory and disk are unchanged, and with the file back changes work."""
    store = open_store()
    store_token(store, "alice", "a1", 60)
    before, rows = [(each.token, each.expires) for each in store.records()], raw_database.keys()
    changes: dict[str, Callable[[], object]] = {
        "create": lambda: store_token(store, "alice", "a2", None, before_commit=trail.before_commit("client")),
        "renew": lambda: store_token(store, "alice", "a1", 90, before_commit=trail.before_commit("client")),
        "delete a token": lambda: delete_tokens(store, token="a1", before_commit=trail.before_commit("client")),
        "delete a user": lambda: delete_tokens(store, username="alice", before_commit=trail.before_commit("client")),
    }
    moved = path.rename(path.with_name("moved"))
    path.mkdir()
    with pytest.raises(AuditError, match="was moved or altered, nothing changed: run show fastmcp audit verify"):
        changes[change]()
    assert ([(each.token, each.expires) for each in store.records()], raw_database.keys()) == (before, rows)
    path.rmdir()
    moved.rename(path)
    changes[change]()
    assert [line["operation"] for line in lines(path)] == [change.split(maxsplit=1)[0]]
    assert [(each.token, each.expires) for each in store.records()] != before


def test_eight_threads_of_changes_leave_a_line_for_each(
    trail: AuditTrail, open_store: Callable[[], TokenStore], path: Path
) -> None:
    """The chain is valid, and replaying the lines gives the stored tokens."""
    store = open_store()

    def change(number: int) -> None:
        for n in range(12):
            token = f"t{(number + n) % 10}"
            if n % 3 == 2:
                delete_tokens(store, token=token, before_commit=trail.before_commit(f"client-{number}"))
            else:
                store_token(store, "alice", token, None, before_commit=trail.before_commit(f"client-{number}"))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there: set[str] = set()
    for line in lines(path):
        (token,) = line["tokens"]
        assert (line["operation"] == "create") == (token not in there)
        there.symmetric_difference_update([] if line["operation"] == "renew" else [token])
    assert there == {fingerprint(record.token) for record in store.records()}
    assert trail.verify().lines == len(lines(path)) >= 8 * 8


def undone(trail: AuditTrail, operation: Operation, result: Result, *known: str, **arguments: object) -> dict[str, Any]:
    """Record that a task changed nothing; return the line in the file."""
    trail.log_failed_change(
        operation=operation, actor="client", arguments=arguments, result=result, is_token=known.__contains__
    )
    line: dict[str, Any] = json.loads(Path(trail.verify().file).read_bytes().splitlines()[-1])
    return line


FAILED = Result(failed=True, errors=["first reason", "second reason"])


def test_failed_changes_leave_their_outcome_and_reason(trail: AuditTrail, path: Path) -> None:
    """A deletion that matched nothing differs from one that failed."""
    undone(trail, "create", FAILED, username="alice", token="a1", expire=60)
    undone(trail, "delete", FAILED, username="alice")
    undone(trail, "delete", Result(result=False, messages=["no matching token"]), token="a1")
    undone(trail, "restore", FAILED, id="x")
    assert brief(path) == [
        (1, "create", "alice", 1, 60, "failed"),
        (2, "delete", "alice", 0, None, "failed"),
        (3, "delete", None, 1, None, "nothing matched"),
        (4, "restore", None, 0, None, "failed"),
    ]
    assert [line["reason"] for line in lines(path)] == [
        *["first reason; second reason"] * 2,
        None,
        "first reason; second reason",
    ]
    assert [line["tokens"] for line in lines(path)] == [[fingerprint("a1")], [], [fingerprint("a1")], []]


@pytest.mark.parametrize(
    ("username", "shown"),
    [
        (SECRET, "***"),
        (f"x{SECRET}x", "x***x"),
        ("of-somebody-else-a-token", "***"),
        ("by mistake: of-somebody-else-a-token", "by mistake: ***"),
        ("short", "***"),
        ("shorter", "shorter"),
        ("Bearer abc", "Bearer ***"),
        ("a\nb\x1b", "a\nb\x1b"),
        ("half \ud800", "half ?"),
        ("u" * 5000, "u" * 256),
        ({"token": SECRET}, "<dict>"),
        ([SECRET], "<list>"),
        (12345, "<int>"),
        (True, "True"),
        (1.5, "1.5"),
        (None, None),
    ],
)
def test_arguments_that_broke_the_rules_are_recorded_safely(trail: AuditTrail, username: object, shown: object) -> None:
    """Unvalidated arguments have any type and length, and a token, even a stored one, in place of the user name."""
    known = ("of-somebody-else-a-token", "short")
    line = undone(trail, "create", FAILED, *known, username=username, token=SECRET)
    assert line["username"] == shown
    content = Path(trail.verify().file).read_bytes()
    assert SECRET.encode() not in content
    assert content.isascii()
    assert content.count(b"\n") == 1
    assert trail.entries(1)[0].username == shown


@pytest.mark.parametrize("value", [0, -1, 10**12, 10**400, True, 1.5, "60", "s3cr3t-t0k3n", None, [60]])
def test_an_invalid_lifetime_is_not_recorded(trail: AuditTrail, value: object) -> None:
    """The reason may quote it."""
    assert undone(trail, "create", FAILED, username="a", expire=value)["expire"] is None


def test_a_reason_holds_no_token(trail: AuditTrail) -> None:
    """Error messages quote values, long ones in part, and so a token that was typed in place of another value."""
    long = "t0k3n-" * 20
    reasons = [
        f"expire: must be 1 to 9 whole seconds, got {SECRET}",
        f"expire: must be 1 to 9 whole seconds, got {long[:40]}",
        "expire: must be 1 to 9 whole seconds, got of-somebody-else-a-token",
        "Authorization: Bearer abc",
    ]
    for token in (SECRET, long):
        result = Result(failed=True, errors=reasons)
        line = undone(trail, "create", result, "of-somebody-else-a-token", username="a", token=token)
        assert token[:40] not in line["reason"]
        assert "somebody" not in line["reason"]
        assert "abc" not in line["reason"]
        assert len(line["reason"]) <= 256


def test_a_name_that_is_the_token_is_not_recorded(
    trail: AuditTrail, open_store: Callable[[], TokenStore], path: Path
) -> None:
    """This holds for successful changes too; a short token doesn't mask other names."""
    store = open_store()
    for username, token in (("alice", "alice"), (f"x{SECRET}", SECRET), ("alice", "a")):
        store_token(store, username, token, None, before_commit=trail.before_commit("client"))
    assert [line["username"] for line in lines(path)] == ["***", "x***", "alice"]


def test_fingerprints_need_the_key(tmp_path: Path) -> None:
    """Without the key tokens can't be tried against a trail; with it equal tokens are recognized."""
    found = []
    for number, key in enumerate((bytes(32), b"k" * 32)):
        with AuditTrail(tmp_path / f"audit-{number}.jsonl", key) as trail:
            for _ in range(2):
                trail.write(operation="delete", actor="client", tokens=[SECRET])
            found.append([entry.tokens for entry in trail.entries(2)])
    assert found[0][0] == found[0][1] == [fingerprint(SECRET)]
    assert found[1][0] == found[1][1] != found[0][0]


def test_lines_that_can_not_be_read_are_listed_as_such(trail: AuditTrail, path: Path) -> None:
    """Damaged lines are listed without fields; half a line isn't listed."""
    trail.write(operation="delete", actor="ann")
    bad = [b"nonsense", b"{}x", b'{"seq": 2, "actor": "\\ud800"}', b'{"seq": "x"}', b'{"no": 1}', b"\xff", b""]
    with path.open("ab") as stream:
        stream.write(b"".join(line + b"\n" for line in bad) + b'{"seq')
    damaged = AuditEntry(reason="this line is damaged: run show fastmcp audit verify")
    assert trail.entries(100) == [trail.entries(100)[0], *[damaged] * len(bad)]
    assert trail.entries(100)[0].actor == "ann"
    with pytest.raises(AuditError, match="line 2 is altered"):
        trail.verify()


def test_problems_met_while_opening_are_logged_and_recorded(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker starts on a full disk as well, because it has tokens to verify."""
    with AuditTrail(path, KEY) as trail:
        trail.write(operation="delete", actor="ann")
    with path.open("ab") as stream:
        stream.write(b"{")
    with AuditTrail(path, KEY) as trail:
        assert trail.verify().lines == 2
        (entry,) = trail.entries(1)
        assert (entry.operation, entry.actor, entry.outcome) == ("recover", "worker", "done")
        assert entry.reason == "an unfinished line was removed (bytes: 1)"
    assert caplog.messages == [f"problems in the audit trail {path}: {entry.reason}; run show fastmcp audit verify"]
    with path.open("ab") as stream:
        stream.write(b"{")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 0)
        AuditTrail(path, KEY).close()
    assert caplog.messages[-1].startswith(
        f"cannot record the problems in the audit trail: the audit trail {path} can't be wri"
    )
    with AuditTrail(path, KEY) as trail:
        assert trail.verify().lines == 2


def test_a_change_without_an_actor_has_no_commit_hook(trail: AuditTrail) -> None:
    """The client is empty in jobs of a task that doesn't declare `audit=`: it can't change tokens by accident."""
    with pytest.raises(ValueError, match="declare `audit=`"):
        trail.before_commit("")
