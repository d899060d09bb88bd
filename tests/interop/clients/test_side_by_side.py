"""One service with a worker of ours and one of the reference's, on one broker, CURVE on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from support.workers import NfcliRunner

OURS, THEIRS = "fastmcp-worker-1", "norfab-worker-1"
BOTH = [OURS, THEIRS]
BOTH_TRUE = {OURS: True, THEIRS: True}

pytestmark = pytest.mark.usefixtures("our_worker")


@pytest.fixture(params=["their_peer", "our_peer"], ids=["reference client", "our client"])
def peer(request: pytest.FixtureRequest) -> Any:
    """Take each of the two clients."""
    return request.getfixturevalue(request.param)


def _values(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    assert [result["errors"] for result in results.values() if result["failed"]] == []
    return {name: result["result"] for name, result in results.items()}


@pytest.mark.parametrize("workers", ["all", BOTH, BOTH[::-1]], ids=str)
def test_a_token_for_both_is_stored_by_both(peer: Any, workers: str | list[str]) -> None:
    """Both answer the job, and each of them has the token."""
    record = {"username": "both", "token": "both-token"}
    assert _values(peer.run("bearer_token_store", workers, **record)) == BOTH_TRUE
    for name in BOTH:
        assert _values(peer.run("bearer_token_check", [name], token="both-token")) == {name: True}
    listed = _values(peer.run("bearer_token_list", workers, username="both"))
    assert {name: [row["token"] for row in rows] for name, rows in listed.items()} == {
        OURS: ["both-token"],
        THEIRS: ["both-token"],
    }
    assert _values(peer.run("bearer_token_delete", workers, username="both")) == BOTH_TRUE
    assert _values(peer.run("bearer_token_check", workers, token="both-token")) == {OURS: False, THEIRS: False}


def test_any_is_one_of_them(peer: Any) -> None:
    """One worker answers, and it alone has the token."""
    stored = _values(peer.run("bearer_token_store", "any", username="either", token="either-token"))
    assert len(stored) == 1
    assert stored.items() <= BOTH_TRUE.items()
    checked = _values(peer.run("bearer_token_check", "all", token="either-token"))
    assert checked == {name: name in stored for name in BOTH}
    assert _values(peer.run("bearer_token_delete", list(stored), token="either-token")) == stored


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("as_list", [False, True], ids=["a name", "a list of one"])
def test_a_name_is_that_one(peer: Any, name: str, *, as_list: bool) -> None:
    """The other one hears nothing."""
    target = [name] if as_list else name
    assert _values(peer.run("bearer_token_store", target, username="one", token="one-token")) == {name: True}
    checked = _values(peer.run("bearer_token_check", "all", token="one-token"))
    assert checked == {each: each == name for each in BOTH}
    assert _values(peer.run("bearer_token_delete", target, token="one-token")) == {name: True}


def test_a_failure_on_one_leaves_the_others_result(peer: Any) -> None:
    """Ours refuses to give a user's token to another one; the reference's, which has no such token, stores it."""
    assert _values(peer.run("bearer_token_store", OURS, username="first", token="split-token")) == {OURS: True}
    results = peer.run("bearer_token_store", "all", username="second", token="split-token")
    assert {name: result["failed"] for name, result in results.items()} == {OURS: True, THEIRS: False}
    assert results[THEIRS]["result"] is True
    assert _values(peer.run("bearer_token_delete", "all", token="split-token")) == BOTH_TRUE


def test_workers_of_all_services_answer_a_job_for_all(peer: Any) -> None:
    """The service `all` has every worker there is."""
    echoed = peer.run("list_tasks", "all", service="all", brief=True)
    assert echoed.keys() == {OURS, THEIRS, "demo-worker-1"}
    assert [name for name, result in echoed.items() if result["failed"] or "echo" not in result["result"]] == []


def test_the_shell_manages_tokens_on_both(nfcli: NfcliRunner, client_environment: Environment) -> None:
    """A machine with no workers of its own needs the key `broker` and nothing else."""
    script = (
        "fastmcp auth create-token username shell token shell-token\n"
        "fastmcp auth check-token token shell-token\n"
        f"fastmcp auth delete-token username shell workers {THEIRS}\n"
        "fastmcp auth check-token token shell-token\n"
        "fastmcp auth delete-token username shell workers all\n"
    )
    done = nfcli(stdin=script, environment=client_environment)
    assert (done.returncode, done.stderr) == (0, "")
    printed = [json.loads(f"{{{part}}}") for part in done.stdout.strip().strip("{}").split("}\n{")]
    assert printed == [BOTH_TRUE, BOTH_TRUE, {THEIRS: True}, {OURS: True, THEIRS: False}, BOTH_TRUE]


def test_the_shell_names_a_worker_that_is_not_there(nfcli: NfcliRunner, client_environment: Environment) -> None:
    """One line lists the workers, and the exit status is that of an unreachable worker."""
    done = nfcli("fastmcp", "auth", "list-tokens", "workers", "nobody", environment=client_environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "'nobody'" in done.stderr
    assert OURS in done.stderr
