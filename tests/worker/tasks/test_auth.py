"""The four auth tasks, run through the registry on a real store."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import TokenOwnerError, TokenStoreError
from nfcli.models.fields import MAX_EXPIRE_SECONDS
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.inventory.sections.bearer import AuthBearer
from nfcli.models.protocol.jobs import Result
from nfcli.models.tasks.auth import BearerTokenEntry
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context
from support.tokens.token_store import store_token

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def worker(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> TaskContext:
    """Return a worker with a default lifetime of tokens and no sockets."""
    inventory = WorkerInventory(service="fastmcp", auth_bearer=AuthBearer(token_ttl=500))
    registry = TaskRegistry(auth_tasks)
    return task_context(
        Environment(tmp_path, None), registry, open_store(), trail, inventory=inventory, client="ann-laptop"
    )


@pytest.fixture
def run(worker: TaskContext) -> Run:
    """Run a task; return the fields of its result that differ from the defaults."""

    def run_task(task: str, **kwargs: object) -> dict[str, Any]:
        result = worker.registry.run(worker, task, kwargs)
        assert isinstance(result, Result)
        same = {"task", "service", "task_started", "task_completed"}
        shown = result.model_dump(exclude=same, exclude_defaults=True)
        return {"result": result.result, **shown}

    return run_task


def ok(value: object) -> dict[str, Any]:
    """Return the result of a task that succeeded."""
    return {"result": value, "status": "completed"}


def failed(*errors: str) -> dict[str, Any]:
    """Return the result of a task that failed."""
    return {"result": None, "failed": True, "errors": list(errors), "status": "error"}


def test_the_tasks_exist_and_none_is_a_tool() -> None:
    """Credentials can't be managed through the endpoint that they protect, whatever the configuration."""
    specs = list(TaskRegistry(auth_tasks))
    assert [spec.name for spec in specs] == [
        "bearer_token_check",
        "bearer_token_delete",
        "bearer_token_introspect",
        "bearer_token_list",
        "bearer_token_store",
    ]
    assert [spec.mcp for spec in specs] == [None] * 5
    assert all(spec.entry()["mcp"] is False for spec in specs)


def local_text(instant: float) -> str:
    """Return an instant as lists show it: local time with microseconds."""
    return f"{datetime.fromtimestamp(instant, UTC).astimezone():%Y-%m-%d %H:%M:%S.%f}"


def test_a_token_s_life(run: Run, clock: SimpleNamespace) -> None:
    """A token is stored, checked, listed with every field, and deleted."""
    assert run("bearer_token_store", username="automation", token="secret-token", expire=3600) == ok(True)
    created = clock.now
    clock.now += 89.5
    assert run("bearer_token_check", token="secret-token") == ok(True)
    entry = {
        "username": "automation",
        "token": "secret-token",
        "age": "0:01:29.500000",
        "creation": local_text(created),
        "expires": local_text(created + 3600),
    }
    assert run("bearer_token_list") == ok([entry])
    assert run("bearer_token_list", username="automation") == ok([entry])
    assert run("bearer_token_list", username="vscode") == ok([])
    assert run("bearer_token_delete", token="secret-token") == ok(True)
    assert run("bearer_token_check", token="secret-token") == ok(False)
    assert run("bearer_token_list") == ok([])


def test_without_expire_the_inventory_s_lifetime_applies(run: Run, worker: TaskContext, clock: SimpleNamespace) -> None:
    """An explicit `expire` has precedence, and null in the inventory means no expiry."""
    run("bearer_token_store", username="alice", token="a")
    run("bearer_token_store", username="alice", token="b", expire=5)
    worker.inventory = WorkerInventory(service="fastmcp")
    run("bearer_token_store", username="alice", token="c")
    run("bearer_token_store", username="alice", token="d", expire=None)
    assert {record.token: record.expires for record in worker.store.records()} == {
        "a": clock.now + 500,
        "b": clock.now + 5,
        "c": None,
        "d": None,
    }


def test_a_token_without_expiry_is_listed_with_the_word_none(run: Run, worker: TaskContext) -> None:
    """The documented table shows it."""
    store_token(worker.store, "alice", "a", None)
    [entry] = run("bearer_token_list")["result"]
    assert (entry["expires"], entry["age"]) == ("None", "0:00:00")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alice", "not a token", 5), "token: must be made of "),
        (("alice", "", 5), "token: must be 1 to 1024 characters, got 0"),
        (("al\nice", "t", 5), "username: must not hold control characters, character 3 is U+000A"),
        ((" alice", "t", 5), "username: "),
        (("alice", "t", 0), "expire: must be 1 to "),
        (("alice", "t", -1), "expire: must be 1 to "),
        (("alice", "t", math.nan), "expire: must be 1 to "),
        (("alice", "t", math.inf), "expire: must be 1 to "),
        (("alice", "t", MAX_EXPIRE_SECONDS + 1), "expire: must be 1 to "),
        ((None, b"t", 5), "token: must be text; username: "),
    ],
)
def test_invalid_arguments_of_a_token_are_refused_in_one_line_each(
    run: Run, worker: TaskContext, arguments: tuple[Any, Any, Any], message: str
) -> None:
    """The next start would skip such a row."""
    username, token, expire = arguments
    result = run("bearer_token_store", username=username, token=token, expire=expire)
    errors = "; ".join(result["errors"])
    assert errors.startswith(message)
    assert "\n" not in errors
    assert len(worker.store.index) == 0


def test_another_user_s_token_is_refused_in_one_line(run: Run, worker: TaskContext) -> None:
    """The token keeps its owner."""
    run("bearer_token_store", username="alice", token="secret-token")
    with pytest.raises(TokenOwnerError) as refused:
        store_token(worker.store, "bob", "secret-token", None)
    assert run("bearer_token_store", username="bob", token="secret-token") == failed(str(refused.value))
    assert run("bearer_token_list", username="bob") == ok([])


@pytest.mark.parametrize(
    "kwargs", [{"username": "bob"}, {"token": "nope"}, {"username": "bob", "token": "secret-token"}], ids=str
)
def test_a_deletion_that_matches_nothing_reports_it(run: Run, kwargs: dict[str, str]) -> None:
    """The task succeeds and removes nothing."""
    run("bearer_token_store", username="alice", token="secret-token")
    assert run("bearer_token_delete", **kwargs) == ok(False) | {"messages": ["no matching token"]}
    assert run("bearer_token_check", token="secret-token") == ok(True)


def test_all_tokens_of_a_user_are_deleted_together(run: Run, worker: TaskContext) -> None:
    """Other users' tokens remain."""
    for username, token in (("alice", "a1"), ("alice", "a2"), ("bob", "b1")):
        run("bearer_token_store", username=username, token=token)
    assert run("bearer_token_delete", username="alice") == ok(True)
    assert [record.token for record in worker.store.records()] == ["b1"]


def test_a_token_may_never_expire_where_there_is_a_default_lifetime(run: Run, worker: TaskContext) -> None:
    """Its audit line has no lifetime; units are the shell's."""
    for token, expire in (("t1", None), ("t2", "never"), ("t3", 60)):
        assert run("bearer_token_store", username="ann", token=token, expire=expire) == ok(True)
    assert [record.expires is None for record in worker.store.records()] == [False, True, False]
    assert [line.expire for line in worker.audit.entries(3)] == [500, None, 60]
    assert run("bearer_token_store", username="ann", token="t4", expire="30d")["failed"] is True


@pytest.mark.parametrize(
    ("task", "kwargs", "errors"),
    [
        ("bearer_token_delete", {}, ["either username or token must be provided"]),
        ("bearer_token_delete", {"username": None, "token": None}, ["either username or token must be provided"]),
        ("bearer_token_store", {}, ["token: field required", "username: field required"]),
        ("bearer_token_check", {}, ["token: field required"]),
        ("bearer_token_list", {"user": "alice"}, ["user: no such field"]),
        (
            "bearer_token_store",
            {"username": "alice", "token": "a", "expire": 0},
            ["expire: must be 1 to 3155760000 whole seconds, got 0"],
        ),
    ],
)
def test_bad_arguments_fail_with_one_line_each(
    run: Run, task: str, kwargs: dict[str, object], errors: list[str]
) -> None:
    """They are refused before anything changes."""
    assert run(task, **kwargs) == failed(*errors)


def test_a_failing_store_is_reported_in_one_line(run: Run, worker: TaskContext) -> None:
    """The task never returns true for a change that isn't on disk."""
    worker.store.close()
    with pytest.raises(TokenStoreError) as closed:
        store_token(worker.store, "alice", "a", None)
    assert run("bearer_token_store", username="alice", token="a") == failed(str(closed.value))


def test_a_listed_token_is_what_the_entry_model_describes(run: Run, worker: TaskContext) -> None:
    """The task returns dicts because they are faster; they have exactly the model's fields."""
    store_token(worker.store, "alice", "a", 60)
    [entry] = run("bearer_token_list")["result"]
    assert BearerTokenEntry.model_validate(entry, strict=True).model_dump() == entry
    assert worker.registry.get("bearer_token_list").result_type == list[BearerTokenEntry]


def test_introspection_says_whose_a_token_is_while_it_is_active(
    worker: TaskContext, run: Run, clock: SimpleNamespace
) -> None:
    """With its times and scopes; nothing of one that isn't, to the moment of its expiry."""
    worker.inventory = WorkerInventory(service="fastmcp", auth_bearer=AuthBearer(token_scopes=("mcp",)))
    begin = clock.now
    run("bearer_token_store", username="ann", token="t1", expire=60)
    active = {"active": True, "username": "ann", "scopes": ["mcp"], "created": begin, "expires": begin + 60}
    assert run("bearer_token_introspect", token="t1")["result"] == active
    inactive = {"active": False}
    assert run("bearer_token_introspect", token="t2")["result"] == inactive
    clock.now += 60
    assert run("bearer_token_introspect", token="t1")["result"] == inactive
