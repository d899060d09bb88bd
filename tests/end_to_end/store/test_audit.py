"""The audit trail of real workers: every change has its line before it is made, and whatever is done to it shows."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import re
import resource
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.fleet_key import read_fleet_key
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.errors import NfcliError
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

SECRET = "m4rked-t0ken-of-the-audit-tests"


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Iterator[Environment]:
    """Make an environment of the test's own, where no token may be left in the logs and the trail."""
    environment = environment_factory()
    yield environment
    assert [path for path in environment.logs_folder.iterdir() if SECRET.encode() in path.read_bytes()] == []


@pytest.fixture
def worker(environment: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run its worker."""
    with running_worker(environment) as worker:
        yield worker


@pytest.fixture
def connect(environment: Environment) -> Iterator[Callable[[], Client]]:
    """Make clients of the test's worker; all are closed at its end."""
    opened: list[NorFab] = []

    def make() -> Client:
        opened.append(NorFab(environment.inventory_file))
        return opened[-1].make_client()

    yield make
    for norfab in opened:
        norfab.destroy()


def run(client: Client, task: str, **kwargs: object) -> dict[str, Any]:
    """Run a job; return the worker's result."""
    (result,) = client.run_job("fastmcp", task, kwargs=kwargs).values()
    return dict(result)


def lines(environment: Environment) -> list[dict[str, Any]]:
    """Return the lines of the trail."""
    return [json.loads(line) for line in environment.audit_file(DEFAULT_WORKER).read_bytes().splitlines()]


def brief(environment: Environment) -> list[tuple[Any, ...]]:
    """Return who asked for what for whom, and what came of it."""
    keys = ("actor", "operation", "username", "outcome")
    return [tuple(line[key] for key in keys) for line in lines(environment)]


def fingerprint(environment: Environment, token: str) -> str:
    """Return what stands for a token."""
    key = read_fleet_key(environment).derive(b"audit-fingerprint")
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()[:12]


def shown(nfcli: NfcliRunner, environment: Environment, *words: str) -> tuple[int, str, str]:
    """Run `show fastmcp audit`; return exit status, stdout and stderr."""
    done = nfcli("-c", "show", "fastmcp", "audit", *words, environment=environment)
    return done.returncode, done.stdout, done.stderr


CHANGES = f"""
    fastmcp auth create-token username ann token {SECRET} expire 60
    fastmcp auth create-token username ann token {SECRET}
    fastmcp auth create-token username bob token {SECRET}
    fastmcp auth delete-token username nobody
    fastmcp auth delete-token username ann
"""


def test_the_changes_of_a_session_are_recorded_listed_and_verified(
    environment: Environment, worker: RunningWorker, nfcli: NfcliRunner
) -> None:
    """Made, renewed, failed, matching nothing, deleted; as a table, by user, as JSON."""
    nfcli("-c", stdin=CHANGES, environment=environment)
    audited = lines(environment)
    token = fingerprint(environment, SECRET)
    assert [(line["operation"], line["username"], line["expire"], line["outcome"]) for line in audited] == [
        ("create", "ann", 60, "done"),
        ("renew", "ann", None, "done"),
        ("create", "bob", None, "failed"),
        ("delete", "nobody", None, "nothing matched"),
        ("delete", "ann", None, "done"),
    ]
    assert {line["actor"] for line in audited} == {"client"}
    assert [line["tokens"] for line in audited] == [[token], [token], [token], [], [token]]
    status, table, _ = shown(nfcli, environment, "last", "3")
    reason = audited[2]["reason"]
    columns = ["username", "tokens", "outcome", "reason"]
    who = ["client", *audited[2]["origin"].split(), *audited[2]["address"].split()]
    assert (status, [line.split() for line in table.splitlines()]) == (
        0,
        [
            ["worker", "seq", "time", "actor", "origin", "address", "operation", *columns],
            [worker.name, "3", audited[2]["time"], *who, "create", "bob", token, "failed", *reason.split()],
            [worker.name, "4", audited[3]["time"], *who, "delete", "nobody", "nothing", "matched"],
            [worker.name, "5", audited[4]["time"], *who, "delete", "ann", token, "done"],
        ],
    )
    status, found, _ = shown(nfcli, environment, "username", "ann", "last", "2", "|", "json")
    assert (status, json.loads(found)) == (
        0,
        [{"worker": worker.name, "suppressed": None, "part": None, **audited[number]} for number in (1, 4)],
    )
    file = environment.audit_file(DEFAULT_WORKER)
    head = hashlib.sha256(file.read_bytes().splitlines()[-1]).hexdigest()
    status, verified, _ = shown(nfcli, environment, "verify")
    assert (status, json.loads(verified)) == (0, {worker.name: {"file": str(file), "lines": 5, "head": head}})
    assert shown(nfcli, environment, "verify", "last", "3") == (
        2,
        "",
        "audit: verify checks all records: omit the other fields but workers\n",
    )


def test_who_deleted_a_token_is_answered_from_the_token_alone(
    environment: Environment, worker: RunningWorker, nfcli: NfcliRunner
) -> None:
    """When, in which job, from where and by whom; the token is read from stdin and is in no file."""
    nfcli("-c", stdin=CHANGES, environment=environment)
    nfcli("-c", "fastmcp", "auth", "create-token", "username", "eve", "token", "another-token", environment=environment)
    words = ("show", "fastmcp", "audit", "token", "-", "operation", "delete", "since", "1h", "|", "json")
    done = nfcli("-c", *words, stdin=f"{SECRET}\n", environment=environment)
    (found,) = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["worker"], found["username"]) == (0, "", worker.name, "ann")
    assert (found["actor"], found["authenticated"]) == ("client", "curve")
    assert found["origin"].startswith(f"{getpass.getuser()}@{os.uname().nodename}")
    assert re.fullmatch(rf"uid {os.getuid()} pid [0-9]+", found["address"])
    assert re.fullmatch(r"[0-9a-f]{32}", found["job"])
    assert found["tokens"] == [fingerprint(environment, SECRET)]
    assert shown(nfcli, environment, "since", "yesterday")[0] == 2


CALLS: list[tuple[str, dict[str, object]]] = [
    ("bearer_token_store", {"username": "bob", "token": "new"}),
    ("bearer_token_store", {"username": "ann", "token": SECRET, "expire": 5}),
    ("bearer_token_delete", {"token": SECRET}),
    ("bearer_token_delete", {"username": "ann"}),
    ("bearer_token_delete", {"username": "nobody"}),
]


def refused(client: Client, reason: str) -> None:
    """Try every change in vain, and what shows tokens; all tokens are as they were, and can be checked."""
    for task, arguments in [*CALLS, ("bearer_token_list", {})]:
        result = run(client, task, **arguments)
        assert (result["failed"], result["result"]) == (True, None)
        assert reason in result["errors"][0]
    assert run(client, "bearer_token_check", token=SECRET)["result"] is True
    assert run(client, "bearer_token_check", token="new")["result"] is False


def test_without_its_trail_a_worker_changes_no_token_and_goes_on_checking_them(
    environment: Environment, worker: RunningWorker, connect: Callable[[], Client], nfcli: NfcliRunner
) -> None:
    """A folder is in its place; the shell's exit status is 1; with the file back changes are made again."""
    client, file = connect(), environment.audit_file(DEFAULT_WORKER)
    run(client, "bearer_token_store", username="ann", token=SECRET)
    moved = file.rename(file.with_name("moved"))
    file.mkdir(mode=0o700)
    refused(client, f"the audit trail {file} was moved or altered, nothing changed: run show fastmcp audit")
    assert run(client, "backup_begin")["failed"] is True
    assert status_of_request(worker.url, SECRET) == 200
    done = nfcli("-c", "fastmcp", "auth", "create-token", "username", "bob", environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "was moved or altered, nothing changed" in done.stderr
    assert shown(nfcli, environment, "verify")[::2] == (
        1,
        f"{worker.name}: the audit trail can't be read: {file} must be a regular file: move away what is there\n",
    )
    file.rmdir()
    moved.rename(file)
    (row,) = run(client, "bearer_token_list")["result"]
    assert (row["token"], row["expires"]) == (SECRET, None)
    assert [run(client, task, **arguments)["failed"] for task, arguments in CALLS] == [False] * 5
    assert run(client, "verify_audit")["result"]["lines"] == 7


def status_of_request(url: str, token: str) -> int:
    """Send an MCP request with a token; return the answer's status."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
    request = urllib.request.Request(url, body, headers)  # noqa: S310  the worker's own http address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@contextmanager
def no_room(pid: int, size: int) -> Iterator[None]:
    """Let no file of a process grow beyond a size: what it gets is a part of a line, and then an error."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_where_the_trail_can_not_grow_tokens_are_revoked_and_not_created_or_shown(
    environment: Environment, worker: RunningWorker, connect: Callable[[], Client]
) -> None:
    """Not even a part of a line stays; a revocation holds without its line; with room again the chain is intact."""
    client, file = connect(), environment.audit_file(DEFAULT_WORKER)
    run(client, "bearer_token_store", username="ann", token=SECRET)
    before = file.read_bytes()
    for more in (0, 100):
        with no_room(worker.process.pid, len(before) + more):
            for task, arguments in [*CALLS[:2], ("bearer_token_list", {})]:
                result = run(client, task, **arguments)
                assert (result["failed"], result["result"]) == (True, None)
                assert f"the audit trail {file} " in result["errors"][0]
        assert file.read_bytes() == before
    assert run(client, "bearer_token_check", token=SECRET)["result"] is True
    with no_room(worker.process.pid, len(before)):
        (error,) = run(client, "bearer_token_delete", username="ann")["errors"]
        assert error.startswith("revoked, also after a restart, ")
        assert run(client, "bearer_token_check", token=SECRET)["result"] is False
    assert run(client, "bearer_token_list")["result"] == []
    assert run(client, "verify_audit")["failed"] is False


def fault(client: Client) -> str:
    """Return what `verify_audit` finds wrong."""
    (error,) = run(client, "verify_audit")["errors"]
    found = error.partition(" was altered: ")[2]
    assert found.endswith("; see man page tokens"), error
    return str(found.partition(";")[0])


def cut(file: Path, start: int, end: int) -> None:
    """Take lines out of a file."""
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:start] + lines[end:]))


def test_tampering_is_found_by_the_worker_that_runs_and_by_all_later_ones(
    environment: Environment, running_worker: WorkerRunner, connect: Callable[[], Client]
) -> None:
    """A line altered while it runs, the last ones removed while it is stopped: later lines don't hide either."""
    file = environment.audit_file(DEFAULT_WORKER)
    with running_worker(environment):
        client = connect()
        for number in range(4):
            run(client, "bearer_token_store", username=f"u{number}", token=f"t{number}")
        assert run(client, "verify_audit")["result"]["lines"] == 4
        file.write_bytes(file.read_bytes().replace(b"u1", b"u9"))
        assert fault(client) == "line 2 is altered"
    with running_worker(environment):
        client = connect()
        assert fault(client) == "line 2 is altered"
        file.write_bytes(file.read_bytes().replace(b"u9", b"u1"))
        assert run(client, "verify_audit")["result"]["lines"] == 4
    cut(file, 2, 4)
    with running_worker(environment):
        client = connect()
        assert run(client, "bearer_token_delete", username="u3")["result"] is True
        assert fault(client) == "lines 3 to 4 are missing"
        assert brief(environment)[2:] == [("worker", "recover", None, "done"), ("client", "delete", "u3", "done")]
        assert lines(environment)[2]["reason"] == "lines 3 to 4 are missing"
    assert "lines 3 to 4 are missing" in environment.log_file(DEFAULT_WORKER).read_text()


def test_an_older_copy_that_is_put_back_with_its_head_is_found_and_stays_so(
    environment: Environment, running_worker: WorkerRunner, connect: Callable[[], Client]
) -> None:
    """While the worker runs; it takes no more lines, and what it leaves behind tells the next one."""
    file = environment.audit_file(DEFAULT_WORKER)
    older = {each: each.with_name(f"older{each.suffix}") for each in (file, file.with_suffix(".head"))}
    with running_worker(environment):
        client = connect()
        run(client, "bearer_token_store", username="ann", token="t1")
        for each, copy in older.items():
            shutil.copy2(each, copy)
        run(client, "bearer_token_store", username="ann", token="t2")
        for each, copy in older.items():
            copy.replace(each)
        assert fault(client) == "line 2 is missing"
        assert run(client, "bearer_token_delete", username="ann")["failed"] is True
    with running_worker(environment):
        client = connect()
        assert fault(client) == "line 2 is missing"
        assert len(run(client, "bearer_token_list")["result"]) == 2


def test_after_a_kill_every_change_that_was_acknowledged_has_its_line(
    environment: Environment, running_worker: WorkerRunner, connect: Callable[[], Client]
) -> None:
    """Four clients store tokens when the worker is killed; the chain is intact, each stored token has its line."""
    acknowledged: list[str] = []
    enough = threading.Semaphore(0)

    def store(client: Client, number: int) -> None:
        with suppress(NfcliError):
            for n in range(10_000):
                token = f"{SECRET}-{number}-{n}"
                if run(client, "bearer_token_store", username="ann", token=token)["failed"]:
                    return
                acknowledged.append(token)
                enough.release()

    with running_worker(environment) as worker:
        threads = [threading.Thread(target=store, args=(connect(), number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(60):
            assert enough.acquire(timeout=20)
        worker.process.kill()
        for thread in threads:
            thread.join()
    with running_worker(environment):
        client = connect()
        assert run(client, "verify_audit")["errors"] == []
        stored = {row["token"] for row in run(client, "bearer_token_list")["result"]}
    audited = {token for line in lines(environment) for token in line["tokens"]}
    assert set(acknowledged) <= stored
    assert {fingerprint(environment, token) for token in stored} <= audited
    assert len(acknowledged) >= 60


def test_refused_requests_leave_some_lines_with_who_it_was(
    environment: Environment, running_worker: WorkerRunner, connect: Callable[[], Client]
) -> None:
    """A client whose key was taken away, by the key's beginning; a wrong token, by its address and fingerprint."""
    with running_worker(environment) as worker:
        client = connect()
        run(client, "bearer_token_store", username="ann", token="t1")
        key_file = environment.clients_folder / "client.key"
        public = next(line for line in key_file.read_text().splitlines() if "public-key" in line).split('"')[1]
        key_file.unlink()
        for _ in range(3):
            assert run(client, "bearer_token_delete", username="ann")["failed"] is True
        for _ in range(20):
            assert status_of_request(worker.url, SECRET) in {401, 429}
    refusals = [line for line in lines(environment) if line["operation"] == "refuse"]
    assert [(line["actor"], line["reason"], line["tokens"]) for line in refusals[:4]] == [
        *[(public[:8], "this client's key is not allowed", [])] * 3,
        ("127.0.0.1", "wrong token", [fingerprint(environment, SECRET)]),
    ]
    assert len(refusals) + sum(line["suppressed"] for line in refusals) >= 23
    assert len(refusals) <= 13
    assert brief(environment)[0] == ("client", "create", "ann", "done")
