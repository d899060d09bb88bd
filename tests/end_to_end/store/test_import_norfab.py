"""`nfcli --import-norfab` with a real worker, which MCP clients then reach with their old tokens."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import diskcache
import pytest

from nfcli import Client
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.programs import TerminalStarter, assert_one_line
from support.workers import NfcliRunner, RunningWorker

pytestmark = pytest.mark.slow

SECONDS = 20.0
CREATED = "2026-05-31 12:08:51.914919"
SHOWN = datetime.fromisoformat(CREATED).astimezone().isoformat(timespec="microseconds")
LARGEST = 150


def make_database(folder: Path, *tokens: tuple[str, str, float | None]) -> Path:
    """Write the database of a NorFab worker that was stopped: token, user, lifetime in seconds."""
    with closing(diskcache.FanoutCache(directory=str(folder), shards=4)) as cache:
        for token, username, expire in tokens:
            record = {"token": token, "username": username, "created": CREATED}
            cache.set(f"bearer_token::{token}", record, expire=expire, tag=username)
    return folder


def printed(**value: int) -> str:
    """Return how a result of the default worker is printed."""
    counts = {"imported": 0, "present": 0, "refused": 0, "expired": 0, "invalid": 0, "unreadable": 0}
    return json.dumps({DEFAULT_WORKER: {**counts, **value}}, indent=4) + "\n"


def status_of(url: str, token: str) -> int:
    """Return the status of an MCP request."""
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)) as connection:
        connection.request("POST", "/mcp", body, headers)
        return connection.getresponse().status


def job(client: Client, task: str, **kwargs: object) -> Any:
    """Run a task that has to succeed; return its value."""
    (result,) = client.run_job("fastmcp", task, kwargs=kwargs).values()
    assert (result["failed"], result["errors"]) == (False, [])
    return result["result"]


@pytest.mark.usefixtures("no_tokens")
def test_imported_tokens_are_accepted_and_a_second_import_changes_nothing(
    environment: Environment, worker: RunningWorker, client: Client, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """With the creation that NorFab had; each user has a line in the audit trail."""
    tokens = [("moved-token-1", "ann", None), ("moved-token-2", "bob", 3600), ("moved-token-3", "bob", None)]
    folder = make_database(tmp_path / "__norfab__" / "files" / "worker" / "w" / "cache", *tokens)
    assert [status_of(worker.url, token) for token, _, _ in tokens] == [401] * 3
    done = nfcli("--import-norfab", str(tmp_path), environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed(imported=3), "")
    assert [status_of(worker.url, token) for token, _, _ in tokens] == [200] * 3
    listed = job(client, "bearer_token_list")
    assert {(row["token"], row["username"], row["creation"]) for row in listed} == {
        (token, username, SHOWN) for token, username, _ in tokens
    }
    assert [row["token"] for row in listed if row["expires"] is not None] == ["moved-token-2"]
    again = nfcli("--import-norfab", str(folder), environment=environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, printed(present=3), "nothing was changed\n")
    assert job(client, "bearer_token_list", username="ann")[0]["creation"] == SHOWN
    lines = [line for line in job(client, "get_audit") if line["operation"] != "list"]
    assert [(line["operation"], line["username"], line["count"], line["outcome"]) for line in lines[-2:]] == [
        ("import", "ann", 1, "done"),
        ("import", "bob", 2, "done"),
    ]


@pytest.mark.usefixtures("no_tokens", "worker")
def test_a_token_of_another_users_fails_the_import_and_all_others_are_stored(
    environment: Environment, client: Client, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """Status 1; nothing of what was there has changed."""
    job(client, "bearer_token_store", username="eve", token="contested-token")
    folder = make_database(tmp_path / "cache", ("contested-token", "carol", None), ("plain-token-1", "carol", None))
    done = nfcli("--import-norfab", str(folder), "--worker", DEFAULT_WORKER, environment=environment)
    assert (done.returncode, done.stdout) == (1, printed(imported=1, refused=1))
    assert_one_line(done.stderr, DEFAULT_WORKER)
    listed = job(client, "bearer_token_list")
    assert [(row["username"], row["token"]) for row in listed] == [
        ("carol", "plain-token-1"),
        ("eve", "contested-token"),
    ]
    (line,) = [line for line in job(client, "get_audit", last=2) if line["operation"] != "list"]
    assert (line["operation"], line["outcome"]) == ("import", "refused")
    assert line["reason"]


@pytest.mark.usefixtures("no_tokens", "worker")
def test_the_longest_names_and_tokens_fit_into_messages(
    environment: Environment, client: Client, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """256 characters of four bytes each, 1,024 of a token, more than one message has."""
    tokens = [(f"{number:03}{'x' * 1021}", f"{number:03}{chr(0x1F600) * 253}", None) for number in range(LARGEST)]
    folder = make_database(tmp_path / "cache", *tokens)
    done = nfcli("--import-norfab", str(folder), environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed(imported=LARGEST), "")
    assert len(job(client, "bearer_token_list")) == LARGEST


@pytest.mark.usefixtures("worker")
def test_a_folder_without_a_database_is_reported_in_one_line(
    environment: Environment, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """Status 1, nothing on stdout."""
    done = nfcli("--import-norfab", str(tmp_path), environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr, tmp_path, "__norfab__/files/worker/NAME/cache")


@pytest.mark.usefixtures("worker")
def test_at_a_terminal_the_progress_is_shown_and_wiped(
    environment: Environment, open_terminal: TerminalStarter, tmp_path: Path
) -> None:
    """The result stands alone on its lines."""
    folder = make_database(tmp_path / "cache", ("watched-token", "dora", None))
    terminal = open_terminal("--import-norfab", str(folder), environment=environment)
    assert terminal.end() == 0
    screen = terminal.child.before
    assert f"{DEFAULT_WORKER}: 0 %" in screen
    assert screen.rpartition("\x1b[K")[2].replace("\r\n", "\n") == printed(imported=1)
