"""NorFab's REST service: its tokens, managed by the commands that manage those of `fastmcp`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import NfcliRunner

REST = "fastapi-worker-1"
SETTINGS = {"service": "fastapi", "uvicorn": {"host": "127.0.0.1", "port": 0}, "database_password": "hunter2"}
Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def environment(new_fabric: FabricMaker, joined_environment: EnvironmentJoiner) -> Iterator[Environment]:
    """Run a broker and the REST service; make an environment without workers beside them."""
    with new_fabric({REST: SETTINGS}) as fabric:
        fabric.start(REST)
        yield joined_environment(fabric)


@pytest.fixture
def run(environment: Environment, nfcli: NfcliRunner) -> Run:
    """Return what runs one command."""
    return lambda *words: nfcli(*words, environment=environment)


def _result(done: CompletedProcess[str]) -> Any:
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_token_lives_from_its_creation_to_its_deletion(run: Run) -> None:
    """Each command answers as it does for `fastmcp`."""
    created = run("fastapi", "auth", "create-token", "username", "ann", "expire", "1h")
    assert json.loads(created.stdout) == {REST: True}
    token = created.stderr.removeprefix("generated token for ann: ").strip()
    assert _result(run("fastapi", "auth", "check-token", "token", token)) == {REST: True}
    [row] = _result(run("fastapi", "auth", "list-tokens", "username", "ann", "|", "json"))
    assert (row["worker"], row["username"], row["token"]) == (REST, "ann", token)
    assert _result(run("fastapi", "auth", "delete-token", "username", "ann")) == {REST: True}
    assert _result(run("fastapi", "auth", "check-token", "token", token)) == {REST: False}
    assert _result(run("fastapi", "auth", "list-tokens", "username", "ann", "|", "json")) == []


def test_the_service_is_shown_without_its_secrets(run: Run) -> None:
    """Inventory, versions, and what the endpoints are."""
    inventory = _result(run("show", "fastapi", "inventory"))[REST]
    assert inventory["database_password"] == "***"
    assert inventory["uvicorn"]["host"] == "127.0.0.1"
    assert "norfab" in _result(run("show", "fastapi", "version"))[REST]
    assert "/api/bearer_token_check" not in (paths := _result(run("show", "fastapi", "openapi-schema", "paths"))[REST])
    assert all(path.startswith("/") for path in paths)
    assert "openapi" in _result(run("show", "fastapi", "openapi-schema"))[REST]


def test_without_the_service_the_line_names_it(client_environment: Environment, nfcli: NfcliRunner) -> None:
    """Nothing of `fastmcp` answers in its place."""
    done = nfcli("fastapi", "auth", "list-tokens", environment=client_environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("no worker serves 'fastapi': the broker has ")
    assert len(done.stderr.splitlines()) == 1
