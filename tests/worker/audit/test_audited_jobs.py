"""Jobs and the audit trail: actor, outcome, and that no change is made without a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.inventory.sections.bearer import AuthBearer
from nfcli.models.protocol.jobs import JobRequest
from nfcli.models.tasks.audit import AuditEntry, AuditReport
from nfcli.worker.audit.actor import Actor, http_actor, peer_address
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tasks import audit as audit_tasks
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tasks import introspection as service_tasks
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.worker import TASK_MODULES
from support.task_context import task_context

WAIT_SECONDS = 10
SECRET = "s3cr3t-t0k3n-of-ann"
LONG = "1ong-t0k3n" * 100


class Desk:
    """An executor with a real store and trail, and a client whose key is stored in `ann-laptop.key`.

    `named` are the keys whose names the executor has looked up.
    """

    def __init__(self, folder: Path, store: TokenStore, trail: AuditTrail) -> None:
        self.clients_folder = folder / "clients"
        self.clients_folder.mkdir(mode=0o700)
        self.key = ensure_key_pair(self.clients_folder, "ann-laptop").public.decode()
        (self.clients_folder / "ann-laptop.key_secret").unlink()
        self.store, self.trail = store, trail
        self.worker = task_context(
            environment=Environment(folder, None),
            inventory=WorkerInventory(service="fastmcp", auth_bearer=AuthBearer(token_ttl=500)),
            registry=TaskRegistry(auth_tasks, audit_tasks, service_tasks),
            store=store,
            audit=trail,
        )
        self.clients, self.named = AuthorizedKeys(self.clients_folder), list[str]()
        self.executor = JobExecutor(self.worker, self._identify)
        self.executor.start()
        self._jobs = 0

    def _identify(self, key: str) -> Actor:
        self.named.append(key)
        return Actor(self.clients.name(key), authenticated="curve")

    def run(self, task: str, uuid: str = "", peer: str = "", **request: Any) -> dict[str, Any]:
        """Run a job; return its result."""
        self._jobs += 1
        answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.executor.submit(
            self.key,
            uuid or f"u{self._jobs}",
            JobRequest(task=task, **request),
            lambda payload: answers.put(json.loads(payload)["w1"]),
            peer=peer,
        )
        return answers.get(timeout=WAIT_SECONDS)

    def lines(self) -> list[tuple[Any, ...]]:
        """Return what the trail tells, without times, fingerprints and chain."""
        keys = ("actor", "operation", "username", "count", "expire", "outcome", "reason")
        return [tuple(getattr(entry, key) for key in keys) for entry in self.trail.entries(1_000)]


@pytest.fixture
def desk(trail: AuditTrail, clock: SimpleNamespace, tmp_path: Path) -> Iterator[Desk]:
    """Serve jobs for the length of a test."""
    with TokenStore(tmp_path / "tokens", clock=lambda: clock.now) as store:
        desk = Desk(tmp_path, store, trail)
        yield desk
        desk.executor.stop()


def store(**kwargs: object) -> dict[str, Any]:
    """Return a request's arguments."""
    return {"kwargs": {"username": "alice", "token": SECRET, **kwargs}}


def test_each_job_that_changes_tokens_leaves_a_line_with_its_client(desk: Desk) -> None:
    """Also a failed one; the lifetime is the effective one, or for a failed job the requested one."""
    desk.run("bearer_token_store", **store(expire=60))
    desk.run("bearer_token_store", **store())
    owner = desk.run("bearer_token_store", **store(username="bob", expire=7))
    expire = desk.run("bearer_token_store", **store(expire=0))
    desk.run("bearer_token_delete", kwargs={"username": "bob"})
    desk.run("bearer_token_delete", kwargs={"username": "alice"})
    selection = desk.run("bearer_token_delete")
    who = "ann-laptop"
    assert desk.lines() == [
        (who, "create", "alice", 1, 60, "done", None),
        (who, "renew", "alice", 1, 500, "done", None),
        (who, "create", "bob", 1, 7, "failed", *owner["errors"]),
        (who, "create", "alice", 1, None, "failed", *expire["errors"]),
        (who, "delete", "bob", 0, None, "nothing matched", None),
        (who, "delete", "alice", 1, None, "done", None),
        (who, "delete", None, 0, None, "failed", *selection["errors"]),
    ]
    assert desk.trail.verify().lines == 7


def shown_models(kind: Any) -> set[type[BaseModel]]:
    """Return the models in a type, those of their fields included."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {kind}.union(*(shown_models(field.annotation) for field in kind.model_fields.values()))
    return set().union(*map(shown_models, get_args(kind)))


def test_each_task_whose_result_has_tokens_leaves_a_line() -> None:
    """A field that is kept out of reprs is a secret; of a backup, the first step leaves the line."""
    showing = {
        spec.name: spec.audit
        for spec in TaskRegistry(*TASK_MODULES)
        if any(not field.repr for model in shown_models(spec.result_type) for field in model.model_fields.values())
    }
    assert "bearer_token_list" in showing
    assert [name for name, audit in showing.items() if audit is None] == []


def test_a_line_says_who_sent_the_job_and_how_far_that_is_known(desk: Desk) -> None:
    """The key's name, which the connection proves; the shell's own word; the peer of the socket; the job's uuid."""
    desk.run("bearer_token_store", uuid="job-1", peer="localhost:1000:1000:4711", origin="ann@laptop", **store())
    desk.run("bearer_token_delete", uuid="job-2", peer="::ffff:10.0.0.5", kwargs={"username": "nobody"})
    assert [
        (entry.actor, entry.authenticated, entry.origin, entry.address, entry.job) for entry in desk.trail.entries(9)
    ] == [
        ("ann-laptop", "curve", "ann@laptop", "uid 1000 pid 4711", "job-1"),
        ("ann-laptop", "curve", None, "10.0.0.5", "job-2"),
    ]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost:0:0:12", "uid 0 pid 12"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_what_the_operating_system_knows(peer: str, address: str) -> None:
    """Without SO_PEERCRED, libzmq knows no user of a local socket."""
    assert peer_address(peer) == address


@pytest.mark.parametrize(
    ("address", "actor", "shown"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2", "2001:db8::/64", "2001:db8::1:2"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("", "", ""),
    ],
)
def test_a_refused_request_is_recorded_with_its_full_address(address: str, actor: str, shown: str) -> None:
    """Limits count the network; the operator has to find the host."""
    assert http_actor(address) == Actor(actor, address=shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SECRET, "***"),
        (f"{SECRET}@laptop", "***@laptop"),
        ("x" * 120 + f" {LONG}", "x" * 120 + " ***"),
        ('a"}\n{"seq": 9', 'a"}?{"seq": 9'),
        ("a\nb\x1b[2J\u202e", "a?b?[2J?"),
        ("half \ud800", "half ?"),
        ("\U000e0041", "?"),
        ("u" * 5_000, "u" * 128),
    ],
)
def test_what_a_client_says_of_itself_is_recorded_safely(desk: Desk, text: str, shown: str) -> None:
    """Its shell and its uuid: neither starts another line, holds a stored token, nor grows beyond 128 characters."""
    for token in (SECRET, LONG):
        desk.run("bearer_token_store", **store(token=token))
    desk.run("bearer_token_delete", uuid=text.replace("\ud800", "?"), origin=text, kwargs={"username": "nobody"})
    entry = desk.trail.entries(1)[0]
    assert (entry.origin, entry.job) == (shown, shown)
    content = (desk.worker.environment.folder / "audit-w1.jsonl").read_bytes()
    assert SECRET.encode() not in content
    assert content.isascii()
    assert desk.trail.verify().lines == 3


def test_a_job_that_was_not_run_leaves_its_line(desk: Desk) -> None:
    """Positional arguments, a timeout in the queue, or a stopping worker keep it from running."""
    results = [
        desk.run("bearer_token_store", args=["alice", SECRET]),
        desk.run("bearer_token_store", timeout=0, **store()),
        desk.run("bearer_token_store", **store(token="")),
    ]
    assert [line[-1] for line in desk.lines()] == [error for result in results for error in result["errors"]]
    assert [len(result["errors"]) for result in results] == [1, 1, 1]


def test_a_listing_leaves_a_line_before_its_tokens_are_sent(desk: Desk) -> None:
    """It shows tokens in clear text: without the line there is no listing, and it names the user it was for."""
    desk.run("bearer_token_store", **store())
    desk.run("bearer_token_list")
    desk.run("bearer_token_list", kwargs={"username": "nobody"})
    wrong = desk.run("bearer_token_list", kwargs={"username": ""})
    assert desk.lines()[1:] == [
        ("ann-laptop", "list", None, 1, None, "done", None),
        ("ann-laptop", "list", "nobody", 0, None, "done", None),
        ("ann-laptop", "list", "", 0, None, "failed", *wrong["errors"]),
    ]
    file = desk.worker.environment.folder / "audit-w1.jsonl"
    file.rename(file.with_name("moved"))
    listed = desk.run("bearer_token_list")
    assert (listed["result"], listed["failed"]) == (None, True)
    assert "was moved or altered, nothing changed" in listed["errors"][0]


def test_jobs_that_show_no_tokens_leave_no_line(desk: Desk) -> None:
    """Reading anything else leaves no line, also when it fails."""
    for task in ("bearer_token_check", "get_audit", "verify_audit", "get_status", "echo", "none"):
        desk.run(task, kwargs={"token": SECRET} if "check" in task else {})
        desk.run(task, kwargs={"nonsense": SECRET})
    assert desk.lines() == []


def test_the_client_s_name_is_looked_up_for_audited_jobs_only(desk: Desk) -> None:
    """Checks, which take microseconds, don't pay for it."""
    desk.run("bearer_token_check", kwargs={"token": SECRET})
    assert desk.named == []
    desk.run("bearer_token_store", **store())
    assert (desk.named, desk.worker.client) == ([desk.key], "")


def test_a_stored_token_given_as_user_name_is_masked_in_the_trail(desk: Desk) -> None:
    """A user typed a live token in place of the user name."""
    desk.run("bearer_token_store", **store())
    desk.run("bearer_token_delete", kwargs={"username": SECRET})
    desk.run("bearer_token_delete", kwargs={"username": f"{SECRET} ", "token": "x"})
    assert [line[2] for line in desk.lines()] == ["alice", "***", "*** "]
    assert SECRET not in (desk.worker.environment.folder / "audit-w1.jsonl").read_text()


def test_without_a_trail_no_job_changes_anything(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Changes fail, also those that would match nothing; failing jobs keep their errors; reading works."""
    desk.run("bearer_token_store", **store())
    selection = desk.run("bearer_token_delete")["errors"]
    file = desk.worker.environment.folder / "audit-w1.jsonl"
    file.rename(file.with_name("moved"))
    results = [
        desk.run("bearer_token_store", **store(token="another")),
        desk.run("bearer_token_delete", kwargs={"username": "alice"}),
        desk.run("bearer_token_delete", kwargs={"username": "nobody"}),
        desk.run("bearer_token_delete"),
        desk.run("bearer_token_check", kwargs={"token": SECRET}),
    ]
    moved = (
        f"the audit trail {file} was moved or altered, nothing changed: run show fastmcp audit verify, "
        "then restart the worker"
    )
    assert [(result["result"], result["errors"]) for result in results] == [
        *[(None, [moved])] * 3,
        (None, selection),
        (True, []),
    ]
    assert [record.token for record in desk.store.records()] == [SECRET]
    written = "audit line of task {}, which changed nothing, not written: {}"
    assert caplog.messages == [
        written.format("bearer_token_store", moved),
        *[written.format("bearer_token_delete", moved)] * 3,
    ]


def test_a_job_is_answered_when_writing_its_line_raises(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception's class is logged, never its text."""
    selection = desk.run("bearer_token_delete")["errors"]

    def fail(**_values: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(desk.trail, "log_failed_change", fail)
    assert desk.run("bearer_token_delete")["errors"] == selection
    assert desk.run("bearer_token_delete", kwargs={"token": "x"})["errors"] == ["KeyError"]
    assert SECRET not in caplog.text


def test_a_commit_that_fails_after_its_line_leaves_a_second_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line records a change that wasn't made; the second one records the failure."""
    cache = desk.store.database.cache
    real = cache.writing

    def writing(*args: Any, **kwargs: Any) -> Any:
        cache.connection.execute("PRAGMA max_page_count = 1")
        return real(*args, **kwargs)

    monkeypatch.setattr(cache, "writing", writing)
    result = desk.run("bearer_token_store", **store(token="x" * 1_000, username="y" * 256))
    assert result["failed"] is True
    assert [line[5] for line in desk.lines()][-1] == "failed"
    assert desk.store.records() == []


def test_the_trail_is_read_by_tasks_that_are_no_tools(desk: Desk) -> None:
    """Their results match their models."""
    for username in ("alice", "bob", "bob"):
        desk.run("bearer_token_store", **store(username=username, token=f"{SECRET}-{username}"))
    listed = desk.run("get_audit", kwargs={"last": 1, "username": "bob"})["result"]
    entries = TypeAdapter(list[AuditEntry]).validate_python(listed)
    assert [(entry.seq, entry.operation, entry.actor) for entry in entries] == [(3, "renew", "ann-laptop")]
    assert len(desk.run("get_audit")["result"]) == 3
    file = desk.worker.environment.folder / "audit-w1.jsonl"
    report = AuditReport.model_validate(desk.run("verify_audit")["result"])
    head = hashlib.sha256(file.read_bytes().splitlines()[-1]).hexdigest()
    assert (report.file, report.lines, report.head) == (str(file), 3, head)
    file.write_bytes(file.read_bytes().replace(b"bob", b"eve", 1))
    assert desk.run("verify_audit")["errors"] == [
        f"the audit trail {file} was altered: line 2 is altered; see man page tokens"
    ]
    assert [spec.mcp for spec in TaskRegistry(audit_tasks)] == [None, None]


@pytest.mark.parametrize("last", [0, 1_001, "x", 1.5, True, None])
def test_a_wrong_number_of_lines_is_refused(desk: Desk, last: object) -> None:
    """The message names the rule."""
    (error,) = desk.run("get_audit", kwargs={"last": last})["errors"]
    assert error.startswith("last: must be a whole number, 1 to 1000")


Named = tuple[AuthorizedKeys, Callable[..., str]]


@pytest.fixture
def named(tmp_path: Path) -> Named:
    """Return the clients of a folder, and what puts keys into files of it."""

    def put(*names: str) -> str:
        pair = ensure_key_pair(tmp_path, names[0])
        for name in names[1:]:
            (tmp_path / f"{name}.key").write_bytes((tmp_path / f"{names[0]}.key").read_bytes())
            (tmp_path / f"{name}.key").chmod(0o600)
        return pair.public.decode()

    return AuthorizedKeys(tmp_path), put


def test_a_client_is_called_after_the_file_of_its_key(named: Named, tmp_path: Path) -> None:
    """The folder's current files count; a key without a file is named by its beginning."""
    clients, put = named
    ann, bob = put("ann.laptop"), put("robert", "bob")
    assert [clients.name(key) for key in (ann, bob, "x" * 40)] == ["ann.laptop", "bob", "x" * 8]
    (tmp_path / "bob.key").unlink()
    (tmp_path / "ann.laptop.key").unlink()
    assert [clients.name(key) for key in (bob, ann)] == ["robert", ann[:8]]
    (tmp_path / "robert.key").rename(tmp_path / "bob.key")
    assert clients.name(bob) == "bob"
