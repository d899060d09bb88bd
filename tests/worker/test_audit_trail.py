"""The audit trail: each change of tokens, and never a token."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.result import Result
from nfcli.worker.logs import AuditTrail

SECRET = "s3cr3t-t0k3n/with+more~=="


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the trail's file."""
    return tmp_path / "audit-worker.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def audit(
    path: Path, task: str = "bearer_token_store", result: Result | None = None, **kwargs: object
) -> dict[str, Any]:
    """Record one job and return its line, without the time."""
    AuditTrail(path).record(client="KEY", task=task, kwargs=kwargs, result=result or Result(result=True))
    line = lines(path)[-1]
    assert datetime.fromisoformat(line.pop("time")).utcoffset() == timedelta(0)
    return line


def test_a_stored_token_leaves_a_line_without_the_token(path: Path) -> None:
    """Who, what, for whom, how long, and what came of it."""
    assert audit(path, username="alice", token=SECRET, expire=60) == {
        "client": "KEY",
        "task": "bearer_token_store",
        "username": "alice",
        "expire": 60,
        "given": ["expire", "token", "username"],
        "outcome": "done",
        "errors": [],
    }
    assert SECRET not in path.read_text()


def test_deletions_and_refusals_leave_their_outcome(path: Path) -> None:
    """A deletion that found nothing is told from one that did and from one that failed."""
    delete = "bearer_token_delete"
    nothing = Result(result=False, messages=["no matching token"])
    refused = Result(failed=True, errors=["token store busy, nothing changed: another process holds its database"])
    outcomes = [audit(path, delete, result, username="alice") for result in (None, nothing, refused)]
    assert [(line["given"], line["outcome"], line["errors"]) for line in outcomes] == [
        (["username"], "done", []),
        (["username"], "nothing matched", []),
        (["username"], "failed", refused.errors),
    ]


@pytest.mark.parametrize("task", ["bearer_token_list", "bearer_token_check", "get_status", "echo"])
def test_tasks_that_change_no_token_leave_no_line(path: Path, task: str) -> None:
    """The trail is about changes."""
    AuditTrail(path).record(client="KEY", task=task, kwargs={"token": SECRET}, result=Result(result=True))
    assert not path.exists()


@pytest.mark.parametrize(
    ("username", "shown"),
    [
        (SECRET, "***"),
        (f"x{SECRET}x", "x***x"),
        ("a\nb\x1b", "a\nb\x1b"),
        ("u" * 5000, "u" * 256),
        ({"token": SECRET}, "<dict>"),
        ([SECRET], "<list>"),
        (12345, 12345),
        (True, "True"),
        (1.5, "1.5"),
        (None, None),
    ],
)
def test_arguments_that_broke_the_rules_are_recorded_safely(path: Path, username: object, shown: object) -> None:
    """They come from outside: any type, any length, and a token where the name belongs."""
    assert audit(path, username=username, token=SECRET)["username"] == shown
    assert SECRET not in path.read_text()
    assert len(path.read_bytes().splitlines()) == 1
    assert path.read_bytes().isascii()


def test_a_short_token_doesn_t_blank_out_the_name(path: Path) -> None:
    """Unless it is the name."""
    assert audit(path, username="alice", token="a")["username"] == "alice"
    assert audit(path, username="alice", token="alice")["username"] == "***"


def test_the_trail_is_private_and_may_be_moved_away(path: Path) -> None:
    """0600 whatever the umask; the next line makes a new file."""
    umask = os.umask(0)
    try:
        audit(path, username="alice")
        audit(path, username="bob")
        moved = path.rename(path.with_suffix(".old"))
        audit(path, username="carol")
    finally:
        os.umask(umask)
    assert [[line["username"] for line in lines(file)] for file in (moved, path)] == [["alice", "bob"], ["carol"]]
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_a_trail_that_can_t_be_written_is_logged_and_not_raised(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The job is done and its answer must go out; the log says what is missing, without the token."""
    path.mkdir()
    trail = AuditTrail(path)
    trail.record(client="KEY", task="bearer_token_store", kwargs={"token": SECRET}, result=Result(result=True))
    trail.record(client="KEY", task="bearer_token_store", kwargs=None, result=Result())  # type: ignore[arg-type]
    assert [message.split(": ")[0] for message in caplog.messages] == [
        f"an audit line of bearer_token_store was not written to {path}"
    ] * 2
    assert SECRET not in caplog.text
