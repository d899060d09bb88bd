"""Jobs that nobody waits for: sent, recorded, and asked for later, also by another process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.models.errors import EnvironmentFolderError, NfcliError, NoWorkersError
from nfcli.shell.client.client import Client
from nfcli.shell.client.jobs.records import MAX_JOBS, JobRecord, JobRecords, utc_now
from support.fabric.fake_broker import (
    GET,
    POST,
    RESPONSE,
    Ask,
    FakeBroker,
    Site,
    done,
    frames,
    outcome,
    result,
    running,
    unknown,
)
from support.shell.direct_workers import WAIT_SECONDS, Fabric
from support.strangers import wait_until


def test_results_are_fetched_by_another_client(fabric: Fabric, client: Client) -> None:
    """While the task runs there are none; the client that sent the job may have ended."""
    server = fabric.servers["a"]
    assert client.run_job("fastmcp", "hold", workers="b", nowait=True).keys() == {"uuid", "service"}
    started = client.start_job("fastmcp", "hold", workers=["a"])
    client.close()
    assert server.entered.wait(WAIT_SECONDS)
    with fabric.client() as later:
        fetched = later.fetch_results(started.uuid[:8])
        assert (fetched.results, fetched.states) == ({}, {"a": "STARTED"})
        assert fetched.describe()["workers"] == {"a": "started"}
        server.gate.set()
        server.executor.stop()
        fetched = later.fetch_results(started.uuid)
        assert (outcome(fetched.results), fetched.states) == ({"a": True}, {})
        assert fetched.describe()["workers"] == {"a": "completed"}
        newest = later.list_jobs()[-1]
    assert (newest["uuid"], newest["service"], newest["task"], newest["workers"]) == (
        *(started.uuid, "fastmcp", "hold"),
        ["a"],
    )


def test_neither_arguments_nor_results_are_recorded(fabric: Fabric, client: Client) -> None:
    """The file is private, too."""
    client.start_job("fastmcp", "who", kwargs={"secret": "s3cr3t"}, workers="a")
    file = fabric.environment.jobs_file
    (record,) = json.loads(file.read_text())["jobs"]
    assert record.keys() == {"uuid", "service", "task", "workers", "submitted", "timeout", "identity"}
    assert ("s3cr3t" in file.read_text(), file.stat().st_mode & 0o777) == (False, 0o600)


def test_a_job_that_no_worker_takes_is_an_error(client: Client) -> None:
    """And not recorded; one that some take is, with the failures of the others."""
    with pytest.raises(NoWorkersError, match=r"^worker c is not running"):
        client.start_job("fastmcp", "who", workers="c")
    assert client.list_jobs() == []
    started = client.start_job("fastmcp", "who", workers=["a", "c"])
    assert (started.workers, list(started.failed)) == (["a"], ["c"])


def test_a_worker_that_was_restarted_does_not_know_the_job(fabric: Fabric, client: Client) -> None:
    """That is a failed result."""
    started = client.start_job("fastmcp", "who", workers="a")
    fabric.servers["a"].stop()
    fabric.run("a")
    fetched = client.fetch_results(started.uuid)
    (failed,) = fetched.results.values()
    assert failed["errors"] == ["worker a doesn't know the job: it was restarted, or keeps the result no longer"]
    assert fetched.describe()["workers"] == {"a": "unknown"}


def test_a_job_that_was_not_sent_here_is_named(client: Client) -> None:
    """A beginning that several have is no name."""
    with pytest.raises(NfcliError, match=r"^no job 'nothing' was submitted here with nowait"):
        client.fetch_results("nothing")
    for _ in range(17):
        client.start_job("fastmcp", "who", workers="a")
    first = {row["uuid"][0] for row in client.list_jobs()}
    shared = next(digit for digit in first if sum(row["uuid"][0] == digit for row in client.list_jobs()) > 1)
    with pytest.raises(NfcliError, match=rf"jobs begin with '{shared}': type more of the uuid"):
        client.fetch_results(shared)


def test_the_oldest_jobs_are_dropped(fabric: Fabric) -> None:
    """The file doesn't grow without end."""
    records = JobRecords(fabric.environment)
    template = JobRecord(uuid="", service="s", task="t", workers=["w"], submitted=utc_now(), timeout=1)
    many = [template.model_copy(update={"uuid": str(number)}).model_dump(mode="json") for number in range(MAX_JOBS)]
    fabric.environment.jobs_file.write_text(json.dumps({"version": 1, "jobs": many}))
    fabric.environment.jobs_file.chmod(0o600)
    records.add(template.model_copy(update={"uuid": "new"}))
    kept = [record.uuid for record in records.read()]
    assert (len(kept), kept[0], kept[-1]) == (MAX_JOBS, "1", "new")


@pytest.mark.parametrize("content", ["no json", "[]", '{"version": 2, "jobs": []}', '{"version": 1, "jobs": [{}]}'])
def test_a_file_of_another_form_is_refused_before_anything_is_sent(
    fabric: Fabric, client: Client, content: str
) -> None:
    """Its name and the remedy are in the message."""
    file = fabric.environment.jobs_file
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(EnvironmentFolderError, match=r"jobs\.json is not a list of jobs .*: move it away$"):
        client.start_job("fastmcp", "who", workers="a")
    assert fabric.servers["a"].runs == 0


def test_a_job_that_was_sent_and_cannot_be_recorded_is_named(fabric: Fabric, client: Client) -> None:
    """Whoever sends it again would run it twice."""
    fabric.environment.jobs_file.with_suffix(".lock").mkdir(mode=0o700)
    expected = r"^job [0-9a-f]{32} was sent to a: don't repeat it, but it can't be asked for later: .*jobs\.\w+ .*"
    with pytest.raises(EnvironmentFolderError, match=expected):
        client.start_job("fastmcp", "who", workers="a")
    wait_until(lambda: fabric.servers["a"].runs == 1)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """Run a broker with a worker."""
    broker = FakeBroker()
    yield broker
    broker.stop()


def test_through_a_broker_the_identity_of_the_sender_is_taken_again(broker: FakeBroker, tmp_path: Path) -> None:
    """Workers give a result to the client that sent the job alone."""
    site, is_over = Site(tmp_path, broker), threading.Event()

    def answer(ask: Ask) -> list[list[bytes]]:
        accepted = frames(RESPONSE, ask.uuid, "201", {"worker": "w1", "uuid": ask.uuid, "status": "ACCEPTED"})
        ends = done(ask, {"w1": result(7)}) if is_over.is_set() else running(ask, "w1")
        return [broker.dispatched(ask, ask.names), accepted if ask.command == POST else ends]

    broker.on_ask = answer
    with site.client() as client:
        started = client.start_job("fastmcp", "x", workers="w1")
    with site.client() as later:
        assert later.fetch_results(started.uuid).states == {"w1": "STARTED"}
        is_over.set()
        assert outcome(later.fetch_results(started.uuid).results) == {"w1": 7}
        broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), unknown(ask, "w1")]
        (reason,) = outcome(later.fetch_results(started.uuid).results)["w1"][1]
        assert reason.startswith("worker w1 doesn't know the job")
        broker.workers["w1"] = "other"
        broker.on_ask = lambda ask: [broker.refused(ask)]
        (reason,) = outcome(later.fetch_results(started.uuid).results)["w1"][1]
        assert reason.startswith("worker w1 is not registered at the broker")
        del broker.workers["w1"]
        (reason,) = outcome(later.fetch_results(started.uuid).results)["w1"][1]
        assert reason == "worker w1 is not known to the broker any more"
    assert [ask.command for ask in broker.asked] == [POST, *[GET] * 4]
    assert len(set(broker.identities)) == 1


def test_a_job_through_a_broker_that_no_worker_takes_is_an_error(broker: FakeBroker, tmp_path: Path) -> None:
    """As one that is waited for."""
    with Site(tmp_path, broker).client() as client:
        broker.on_ask = lambda ask: [broker.refused(ask)]
        with pytest.raises(NoWorkersError, match=r"^worker w1 is not registered at the broker"):
            client.start_job("fastmcp", "x", workers="w1")
        assert client.list_jobs() == []


def test_a_cancelled_job_is_cancelled_at_its_workers(broker: FakeBroker, tmp_path: Path) -> None:
    """By a PUT without the id of a question; NorFab's workers ignore it."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names)] if ask.command == POST else []
    with Site(tmp_path, broker).client() as client:
        job = client.submit_job("fastmcp", "x", workers="w1")
        broker.heard.get(timeout=WAIT_SECONDS)
        assert job.cancel()
        put = broker.heard.get(timeout=WAIT_SECONDS)
        assert (put.command, put.names, put.uuid, put.data) == (
            *(b"0x10", ["w1"], job.uuid),
            {"input_id": "", "cancel": True},
        )
