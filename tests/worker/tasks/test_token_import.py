"""The task that imports tokens of another program, run through the registry on a real store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import AuditError, TokenStoreBusyError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import token_import as import_tasks
from nfcli.worker.tokens.changes import ImportResult, TokenChange
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import store_token

Rows = list[tuple[str, str, float, float | None]]
OpenStore = Callable[[], TokenStore]


class Desk:
    """A worker without sockets, and a client that imports tokens there."""

    def __init__(self, worker: TaskContext, trail_file: Path) -> None:
        self.worker = worker
        self._trail_file = trail_file

    def send(self, *tokens: tuple[object, ...]) -> dict[str, int]:
        """Import tokens (token, user, creation, expiry); return the report."""
        result = self._run(
            [dict(zip(("token", "username", "created", "expires"), each, strict=False)) for each in tokens]
        )
        assert (result.failed, result.errors) == (False, [])
        return dict(result.result)

    def errors(self, tokens: Any) -> list[str]:
        """Send what has to be refused; return the errors."""
        result = self._run(tokens)
        assert (result.failed, result.result) == (True, None)
        return list(result.errors)

    def _run(self, tokens: Any) -> Any:
        return self.worker.registry.run(self.worker, "bearer_token_import", {"tokens": tokens})

    def rows(self) -> Rows:
        """Return all live tokens."""
        return rows(self.worker.store)

    def lines(self) -> list[tuple[Any, ...]]:
        """Return what the audit trail tells."""
        found = map(json.loads, self._trail_file.read_text().splitlines())
        return [
            (line["operation"], line["username"], line["count"], len(line["tokens"]), line["outcome"]) for line in found
        ]


def rows(store: TokenStore) -> Rows:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def report(imported: int = 0, present: int = 0, refused: int = 0, expired: int = 0) -> dict[str, int]:
    """Return the task's report."""
    return {"imported": imported, "present": present, "refused": refused, "expired": expired, "deleted": 0}


@pytest.fixture
def desk(open_store: OpenStore, trail: AuditTrail, tmp_path: Path) -> Desk:
    """Provide a worker with a token of alice's."""
    worker = task_context(
        Environment(tmp_path, None),
        TaskRegistry(import_tasks),
        open_store(),
        trail,
        client="ann-laptop",
    )
    store_token(worker.store, "alice", "a1", None)
    return Desk(worker, tmp_path / "audit-w1.jsonl")


def test_the_task_is_no_tool(desk: Desk) -> None:
    """Credentials can't be managed through the endpoint that they protect."""
    assert [(spec.name, spec.mcp) for spec in desk.worker.registry] == [("bearer_token_import", None)]


def test_imported_tokens_keep_their_creation_and_expiry(
    desk: Desk, clock: SimpleNamespace, open_store: OpenStore
) -> None:
    """In memory and on disk, next to the stored ones; an integer is a valid instant."""
    now = clock.now
    new = [
        ("b1", "bob", now - 5000.123456, now + 7.5),
        ("b2", "bob", 0, None),
        ("c1", "carol", now + 60, int(now) + 99),
    ]
    before = desk.rows()
    assert desk.send(*new) == report(imported=3)
    assert desk.rows() == [*before, ("b2", "bob", 0.0, None), new[0], new[2]]
    desk.worker.store.close()
    assert rows(open_store()) == [*before, ("b2", "bob", 0.0, None), new[0], new[2]]


def test_importing_again_changes_nothing(desk: Desk, clock: SimpleNamespace) -> None:
    """Neither tokens nor the audit trail change, also if a token was renewed meanwhile."""
    tokens = [("b1", "bob", 1.0, clock.now + 50), ("b2", "bob", 2.0, None)]
    desk.send(*tokens)
    store_token(desk.worker.store, "bob", "b1", 900)
    before, lines = desk.rows(), desk.lines()
    assert desk.send(*tokens) == report(present=2)
    assert (desk.rows(), desk.lines()) == (before, lines)


def test_a_token_of_another_users_is_refused_and_the_others_are_stored(desk: Desk) -> None:
    """A token that comes twice belongs to the first user; one audit line records the refused ones."""
    before = desk.rows()
    given = [
        ("a1", "mallory", 1.0, None),
        ("m1", "mallory", 1.0, None),
        ("m1", "alice", 1.0, None),
        ("m1", "mallory", 3.0),
    ]
    assert desk.send(*given) == report(imported=1, present=1, refused=2)
    assert desk.rows() == [*before, ("m1", "mallory", 1.0, None)]
    assert desk.lines() == [("import", "mallory", 1, 1, "done"), ("import", None, 2, 2, "refused")]


def test_expired_tokens_are_skipped(desk: Desk, clock: SimpleNamespace) -> None:
    """A token that expires at this very moment is expired."""
    before = desk.rows()
    assert desk.send(("b1", "bob", 1.0, clock.now), ("b2", "bob", 1.0, 2.0)) == report(expired=2)
    assert (desk.rows(), desk.lines()) == (before, [])


def test_a_token_that_has_expired_here_is_free(desk: Desk, clock: SimpleNamespace) -> None:
    """It is reported as revoked, as when it is stored again."""
    store_token(desk.worker.store, "alice", "a2", 10)
    clock.now += 10
    revoked: list[Sequence[str]] = []
    desk.worker.store.on_revoked.append(revoked.append)
    assert desk.send(("a2", "bob", 1.0, None)) == report(imported=1)
    record = desk.worker.store.lookup("a2")
    assert record is not None
    assert (record.username, revoked) == ("bob", [["a2"]])


def test_each_user_has_a_line_in_the_audit_trail(desk: Desk) -> None:
    """With the fingerprints of all that were imported."""
    desk.send(*[(f"t{number}", f"user {number % 3}", 1.0, None) for number in range(100)])
    assert desk.lines() == [
        ("import", f"user {number}", count, count, "done") for number, count in enumerate((34, 33, 33))
    ]


def test_tokens_whose_line_can_not_be_written_are_not_imported(
    desk: Desk, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch, raw_database: RawDatabase
) -> None:
    """Not even the tokens of users whose line was written."""
    before, keys = desk.rows(), raw_database.keys()
    write = trail.write

    def fail_for_carol(**fields: Any) -> None:
        if fields["username"] == "carol":
            raise AuditError("the disk is full")
        write(**fields)

    monkeypatch.setattr(trail, "write", fail_for_carol)
    tokens = [{"token": f"new-{user}", "username": user, "created": 1.0} for user in ("bob", "carol")]
    assert desk.errors(tokens) == ["the disk is full"]
    assert (desk.rows(), raw_database.keys()) == (before, keys)
    monkeypatch.undo()
    assert desk.send(("new-carol", "carol", 1.0, None)) == report(imported=1)


def test_the_hook_is_not_called_when_nothing_is_stored(desk: Desk, clock: SimpleNamespace) -> None:
    """The database isn't touched either: commit hooks get changes only."""
    heard: list[TokenChange] = []
    given = [BearerTokenRecord("a1", "alice", 1.0, None), BearerTokenRecord("b1", "bob", 1.0, clock.now)]
    assert desk.worker.store.import_tokens(given, before_commit=heard.append) == ImportResult(
        stored=0, present=1, refused=(), expired=1
    )
    assert heard == []


def test_an_import_that_the_disk_refuses_changes_nothing(desk: Desk, raw_database: RawDatabase) -> None:
    """All or none are stored, in memory too."""
    before = desk.rows()
    records = [BearerTokenRecord(f"b{number}", "bob", 1.0, None) for number in range(3)]
    with raw_database.connect() as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TokenStoreBusyError):
            desk.worker.store.import_tokens(records, before_commit=None)
        connection.execute("ROLLBACK")
    raw_database.run(
        "CREATE TRIGGER stop BEFORE INSERT ON Cache WHEN NEW.key LIKE '%b2' BEGIN SELECT RAISE(ABORT, ''); END"
    )
    assert (
        len(
            desk.errors(
                [{"token": "b1", "username": "bob", "created": 1}, {"token": "b2", "username": "bob", "created": 1}]
            )
        )
        == 1
    )
    assert (desk.rows(), raw_database.keys()) == (before, ["bearer_token::a1"])
    raw_database.run("DROP TRIGGER stop")
    assert desk.worker.store.import_tokens(records, before_commit=None) == ImportResult(
        stored=3, present=0, refused=(), expired=0
    )


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ({"username": "bob"}, "tokens.0.token: field required"),
        ({"username": " bob", "token": "b"}, "tokens.0.username: "),
        ({"token": "b\u00e4"}, "tokens.0.token: must be made of A-Z a-z 0-9"),
        ({"token": "b", "created": "1"}, "tokens.0.created: must be an instant in seconds since the epoch"),
        ({"token": "b", "created": True}, "tokens.0.created: must be an instant in seconds since the epoch"),
        ({"token": "b", "created": -1}, "tokens.0.created: must be an instant in seconds since the epoch"),
        ({"token": "b", "created": math.nan}, "tokens.0.created: must be an instant in seconds since the epoch"),
        ({"token": "b", "expires": 1e12}, "tokens.0.expires: must be an instant in seconds since the epoch"),
        ({"token": "b", "value": "x"}, "tokens.0.value: no such field"),
    ],
)
def test_an_import_with_an_invalid_token_is_refused(desk: Desk, token: dict[str, object], error: str) -> None:
    """There is one sentence for each field, without the token."""
    before = desk.rows()
    good = {"token": "good", "username": "bob", "created": 1.0}
    (said,) = desk.errors([{"username": "bob", "created": 1.0, **token}, good])
    assert said.startswith(error)
    assert desk.rows() == before


@pytest.mark.parametrize("count", [0, 101])
def test_an_import_has_1_to_100_tokens(desk: Desk, count: int) -> None:
    """More would exceed the size limit of a message."""
    (said,) = desk.errors([{"token": f"t{number}", "username": "bob", "created": 1.0} for number in range(count)])
    assert said.startswith("tokens: must have ")
