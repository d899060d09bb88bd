"""Imports on the client's side: what is sent and reported, and workers with unexpected answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import NorfabDatabaseError, TaskError, UsageError
from nfcli.models.protocol.jobs import Result
from nfcli.shell.maintenance.import_norfab import import_norfab
from support.norfab.database import NorfabDatabase

AGAIN = "tokens imported before are kept, import again for the rest"


class Worker:
    """A client of one worker that has no tokens; `sent` is what it was sent, `answers` replace its answers."""

    def __init__(self) -> None:
        self.names = ["w1"]
        self.missing: dict[str, str] = {}
        self.answers: list[Any] = []
        self.sent: list[list[dict[str, Any]]] = []

    def worker_names(self, service: str) -> list[str]:
        """Return the worker's name."""
        assert service == "fastmcp"
        return self.names

    def missing_workers(self) -> dict[str, str]:
        """Return the workers that are expected and away."""
        return self.missing

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Import tokens."""
        assert (service, task, options["workers"]) == ("fastmcp", "bearer_token_import", ["w1"])
        tokens = options["kwargs"]["tokens"]
        self.sent.append(tokens)
        value = self.answers.pop(0) if self.answers else answer(imported=len(tokens))
        result = value if isinstance(value, Result) else Result(result=value)
        return {"w1": result.model_dump(mode="json")}


def answer(imported: int = 0, present: int = 0, refused: int = 0, expired: int = 0) -> dict[str, int]:
    """Return a worker's answer."""
    return {"imported": imported, "present": present, "refused": refused, "expired": expired}


@pytest.fixture
def worker() -> Any:
    """Provide a worker."""
    return Worker()


def test_tokens_are_sent_by_the_hundred_grouped_by_user(
    worker: Any, norfab: NorfabDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With creation and expiry; the counts of the answers are added up."""
    later = time.time() + 1000
    for number in range(250):
        norfab.store(f"t{number:03}", f"user {number % 2}", expires=later if number == 3 else None)
    worker.answers = [answer(100), answer(98, present=1, expired=1), answer(present=50)]
    assert import_norfab(worker, tmp_path, None) == 0
    assert list(map(len, worker.sent)) == [100, 100, 50]
    sent = [token for tokens in worker.sent for token in tokens]
    assert [token["username"] for token in sent] == ["user 0"] * 125 + ["user 1"] * 125
    assert {token["token"] for token in sent} == {f"t{number:03}" for number in range(250)}
    expiring = {token["token"]: token["expires"] for token in sent if token["expires"] is not None}
    assert expiring == {"t003": pytest.approx(later, abs=60)}
    output = capsys.readouterr()
    assert json.loads(output.out) == {"w1": {**answer(198, 51, 0, 1), "invalid": 0, "unreadable": 0}}
    assert output.err == ""


def test_skipped_records_are_reported_and_fail_the_import(
    worker: Any, norfab: NorfabDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each kind, without tokens."""
    norfab.store("good-token", "alice")
    norfab.store("other-token", "bob")
    norfab.store("wrong token", "alice")
    norfab.put("bearer_token::strange-token", ["strange-token"])
    worker.answers = [answer(1, refused=1)]
    assert import_norfab(worker, norfab.folder, "w1") == 1
    output = capsys.readouterr()
    assert json.loads(output.out) == {"w1": {**answer(1, refused=1), "invalid": 1, "unreadable": 1}}
    notes = output.err.splitlines()
    assert notes[0].startswith("invalid records were skipped: token: must be made of A-Z a-z 0-9 ")
    assert notes[1:] == [
        "records that nfcli doesn't read as tokens were skipped: 1",
        "tokens that w1 has stored for other users were not changed: delete them there first",
    ]
    assert "-token" not in output.out + output.err


REFUSED = "tokens that w1 has stored for other users were not changed: delete them there first\n"


@pytest.mark.parametrize(
    ("reply", "status", "notes"),
    [
        (answer(present=1), 0, "nothing was changed\n"),
        (answer(expired=1), 0, "nothing was changed\n"),
        (answer(refused=1), 1, f"{REFUSED}nothing was changed\n"),
    ],
)
def test_an_import_that_changed_nothing_is_reported(
    norfab: NorfabDatabase, capsys: pytest.CaptureFixture[str], reply: Any, status: int, notes: str
) -> None:
    """It fails only if a token was refused."""
    norfab.store("t1", "alice")
    worker: Any = Worker()
    worker.answers = [reply]
    assert import_norfab(worker, norfab.folder, None) == status
    assert capsys.readouterr().err == notes


def test_an_empty_database_sends_no_job(
    worker: Any, norfab: NorfabDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """All counts are zero."""
    assert import_norfab(worker, norfab.folder, None) == 0
    output = capsys.readouterr()
    assert (json.loads(output.out), output.err, worker.sent) == (
        {"w1": {**answer(), "invalid": 0, "unreadable": 0}},
        "nothing was changed\n",
        [],
    )


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Result(failed=True, errors=["the disk\x1b is full"]), r"^w1: the disk\\x1b is full: "),
        (Result(failed=True), r"^w1: failed without a reason, status None: "),
        (None, r"^w1: the result of bearer_token_import has not the form [^:]*: [^:]*: "),
        (
            {"imported": "all"},
            r"^w1: the result of bearer_token_import has not the form [^:]*: [^:]*: ",
        ),
    ],
)
def test_a_worker_that_fails_ends_the_import(worker: Any, norfab: NorfabDatabase, reply: object, error: str) -> None:
    """The message says that the tokens imported before are kept."""
    for number in range(250):
        norfab.store(f"t{number}", "alice")
    worker.answers = [answer(100), reply]
    with pytest.raises(TaskError, match=error + AGAIN + "$"):
        import_norfab(worker, norfab.folder, None)
    assert len(worker.sent) == 2


def test_nothing_is_sent_without_a_worker_or_a_database(worker: Any, norfab: NorfabDatabase, tmp_path: Path) -> None:
    """There are several workers and none is named; or the folder has no database."""
    norfab.store("t1", "alice")
    worker.names = ["w1", "w2"]
    with pytest.raises(UsageError, match=r"^each worker has its own tokens: name one with --worker: w1, w2$"):
        import_norfab(worker, norfab.folder, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NorfabDatabaseError, match="empty has no NorFab worker's database"):
        import_norfab(worker, tmp_path / "empty", "w1")
    assert worker.sent == []
