"""The reference's own client, pointed at a worker of ours as if that were its broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

NAME = "fastmcp-worker-1"
REFUSED_SECONDS = 1
"""How long a client waits that gets no answer."""


class Site:
    """A running worker of ours and an authorized client of the reference: the fixture `direct_site`."""

    def __init__(self, direct_site: Any) -> None:
        self.inventory = direct_site.inventory
        self.client = direct_site.client
        self.key_file = direct_site.key_file

    def run(self, task: str, *, workers: str | list[str] = "all", **kwargs: Any) -> Any:
        """Run a job that has to complete; return the task's value."""
        done = self.client.call("run_job", service="fastmcp", task=task, workers=workers, kwargs=kwargs)
        assert done["state"] == "COMPLETED"
        assert list(done["result"]) == [NAME]
        return done["result"][NAME]["result"]


@pytest.fixture
def site(direct_site: Any) -> Site:
    """Take the worker that runs as long as the session."""
    return Site(direct_site)


@pytest.mark.parametrize("workers", ["all", "any", NAME, [NAME]], ids=str)
def test_tokens_are_managed_by_the_references_client(site: Site, workers: str | list[str]) -> None:
    """The four tasks do what they do for our own client, however the worker is targeted."""
    user, token = f"user {workers}", "secret-token"
    assert site.run("bearer_token_store", workers=workers, username=user, token=token, expire=3_600) is True
    [record] = site.run("bearer_token_list", workers=workers, username=user)
    assert {**record, "age": "", "creation": "", "expires": ""} == {
        "username": user,
        "token": token,
        "age": "",
        "creation": "",
        "expires": "",
    }
    assert record["expires"][-7:] == record["creation"][-7:]
    assert site.run("bearer_token_check", workers=workers, token=token) is True
    assert site.run("bearer_token_delete", workers=workers, username=user) is True
    assert site.run("bearer_token_check", workers=workers, token=token) is False
    assert site.run("bearer_token_list", workers=workers, username=user) == []


def test_a_job_ends_with_a_result_of_the_references_shape(site: Site) -> None:
    """All fourteen fields are there, for callers that use more than the value."""
    done = site.client.call("run_job", service="fastmcp", task="bearer_token_check", kwargs={"token": "x"}, uuid="r1")
    result = done["result"][NAME]
    times = {key: result.pop(key) for key in ("task_started", "task_completed")}
    assert all(isinstance(time, str) for time in times.values())
    assert result == {
        "result": False,
        "failed": False,
        "errors": [],
        "messages": [],
        "status": "completed",
        "task": f"{NAME}:bearer_token_check",
        "juuid": "r1",
        "service": "fastmcp",
        "resources": [],
        "resources_failed": [],
        "diff": None,
        "dry_run": False,
    }


def test_a_task_that_fails_does_so_inside_a_completed_job(site: Site) -> None:
    """An error status would make the reference's `run_job` return None and hide the reason."""
    done = site.client.call("run_job", service="fastmcp", task="bearer_token_store", kwargs={"token": "x"})
    result = done["result"][NAME]
    assert (done["state"], result["failed"], result["errors"]) == ("COMPLETED", True, ["username: field required"])


def test_a_worker_that_is_not_there_fails_the_job(site: Site) -> None:
    """The client gets an error at once, as from its own broker."""
    done = site.client.call("run_job", service="fastmcp", task="echo", workers="w2")
    reason = "worker fastmcp-worker-1 of service fastmcp is not what was asked for: service 'fastmcp', w2"
    assert done == {"result": None, "state": "FAILED", "errors": [reason], "events": []}


def test_start_and_end_of_a_job_are_events(site: Site) -> None:
    """The reference's futures yield them while the job runs."""
    done = site.client.call("run_job", service="fastmcp", task="bearer_token_list", uuid="e1")
    event, last = done["events"]
    assert (last["event_type"], last["message"], last["status"]) == ("result_ready", "completed", "completed")
    assert isinstance(event.pop("timestamp"), str)
    assert event == {
        "worker": NAME,
        "service": "fastmcp",
        "uuid": "e1",
        "task": "bearer_token_list",
        "event_type": "progress",
        "message": "starting",
        "status": "running",
        "severity": "INFO",
        "resource": [],
    }


def test_list_tasks_gives_entries_that_the_references_services_read(site: Site) -> None:
    """Its MCP, REST and agent services read these seven keys of every task; ours keeps tokens away from them."""
    entries = {entry["name"]: entry for entry in site.run("list_tasks")}
    keys = {"name", "description", "inputSchema", "outputSchema", "fastapi", "mcp", "agent"}
    assert [entry for entry in entries.values() if set(entry) != keys] == []
    auth = [f"bearer_token_{verb}" for verb in ("check", "delete", "list", "store")]
    assert [(entries[name]["mcp"], entries[name]["fastapi"]) for name in auth] == [(False, False)] * 4
    assert site.run("list_tasks", brief=True) == list(entries)


def test_show_workers_reports_that_the_worker_is_alive(site: Site) -> None:
    """What a broker's management service would say of its one worker."""
    answer = site.client.call("mmi", task="show_workers")
    [row] = answer["results"]
    assert row.pop("alive (s)").isdigit()
    about = {"name": NAME, "service": "fastmcp", "status": "alive", "holdtime": "", "keepalives tx/rx": ""}
    assert (answer["status"], row, answer["errors"]) == ("200", about, [])


def test_a_client_that_pulls_gets_the_result_again(site: Site) -> None:
    """A GET is answered with the result that was pushed; for a job that never was, with 404."""
    pushed = site.client.call("run_job", service="fastmcp", task="get_version", uuid="g1")
    accepted = {"workers": [NAME], "target": json.dumps([NAME]), "status": "DISPATCHED", "service": "fastmcp"}
    assert site.client.call("get", service="fastmcp", workers=[NAME], uuid="g1") == [
        ["202", {**accepted, "uuid": "g1"}],
        ["200", pushed["result"]],
    ]
    assert site.client.call("get", service="fastmcp", workers=[NAME], uuid="g2") == [
        ["202", {**accepted, "uuid": "g2"}],
        ["404", {"worker": NAME, "uuid": "g2", "service": "fastmcp", "status": "JOB NOT FOUND"}],
    ]


def test_a_client_that_ended_early_takes_its_job_up_again(site: Site) -> None:
    """The reference polls unfinished jobs, or sends them again, when a client of the same name starts."""
    job = {"task": "bearer_token_store", "kwargs": {"username": "late", "token": "late-token"}}
    before = site.run("get_stats")["jobs"]["total_jobs"]
    site.client.call("lose_result", service="fastmcp", uuid="l1", **job)
    site.client.call("reopen_client", name="script")
    done = site.client.call("take_up_job", uuid="l1")
    assert (done["state"], done["result"][NAME]["result"]) == ("COMPLETED", True)
    assert site.run("get_stats")["jobs"]["total_jobs"] == before + 2  # this job, once, and the question itself


def test_a_client_whose_key_is_not_listed_gets_nothing(site: Site, reference: Callable[..., Any]) -> None:
    """The worker's public key, all that a broker asks for, doesn't let anybody in."""
    stranger = reference(site.inventory)
    stranger.call("open_client", name="stranger")
    job = {"task": "bearer_token_store", "kwargs": {"username": "stranger", "token": "stranger-token"}}
    done = stranger.call("run_job", service="fastmcp", timeout=REFUSED_SECONDS, **job)
    assert (done["state"], done["events"], list(done["result"])) == ("STALE", [], ["all"])
    assert done["result"]["all"]["status"] == "timeout"
    assert site.run("bearer_token_check", token="stranger-token") is False


def test_a_client_whose_key_is_taken_away_is_refused_at_its_next_job(site: Site) -> None:
    """A broker of the reference's lets everybody stay who ever connected."""
    content = site.key_file.read_bytes()
    site.key_file.unlink()
    try:
        done = site.client.call("run_job", service="fastmcp", task="echo")
        assert done == {"result": None, "state": "FAILED", "errors": ["this client's key is not allowed"], "events": []}
    finally:
        site.key_file.touch(mode=0o600)
        site.key_file.write_bytes(content)
    assert site.run("bearer_token_check", token="x") is False
