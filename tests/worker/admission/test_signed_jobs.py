"""Workers that require signed jobs, from the seat of whoever can send any message: a broker, or its other clients."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType

import pytest

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.protocol.jobs import JobRequest
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.admission import replay_memory
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import specs_of, task
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from support.admission_bench import FABRIC_CLIENT, AdmissionBench

STORE = {"username": "ann", "token": "secret-token"}
OPEN_TASKS = {
    *("check_store", "discover", "echo", "get_inventory", "get_prompts", "get_stats"),
    *("get_status", "get_tools", "get_version", "get_worker_status", "list_tasks"),
    "get_watchdog_configuration",
}


def test_signed_job_runs_and_its_signer_is_the_actor(bench: AdmissionBench) -> None:
    """By the name of the key's file, whatever the client calls itself."""
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    assert bench.run(data, "u1", client="somebody")["result"] is True
    (line,) = bench.trail.entries(9)
    assert (line.actor, line.authenticated, line.outcome) == ("client", "signature", "done")


@pytest.mark.parametrize("task", ["bearer_token_list", "bearer_token_check", "get_audit", "backup_begin"])
def test_unsigned_job_is_refused(bench: AdmissionBench, task: str) -> None:
    """Tasks that only read are, too."""
    reason = bench.refusal(bench.request(task, token="secret-token"), "u1")
    assert reason.startswith("it takes signed jobs only (signed_jobs: required), and this one isn't")


def test_every_other_task_is_open(bench: AdmissionBench) -> None:
    """A task that shows or changes tokens, backups or the trail says so where it is declared; a new one has to."""
    assert {spec.name for spec in bench.context.registry if not spec.restricted} == OPEN_TASKS
    assert bench.run(bench.request("get_status"), "u1")["failed"] is False


@pytest.mark.parametrize("allowed", [(), ("wf-1",)])
def test_relaying_workers_see_no_rules(bench: AdmissionBench, allowed: tuple[str, ...]) -> None:
    """Whoever their clients are; they get what MCP clients do. The shell sees all."""
    bench.restart(required=False, allowed=allowed)
    inventory = bench.request("get_inventory")
    for number, relay in enumerate(("wf-1-NFPClient", "wf-1-nfcli-0123456789abcdef")):
        shown = bench.run(inventory, f"r{number}", client=relay)["result"]
        assert sorted(shown) == [
            *("allow_unauthenticated", "allowed_hosts", "allowed_origins", "auth_bearer", "authentication_enabled"),
            *("endpoint", "host", "plugins", "port", "service"),
        ]
    assert {"tools", "fastmcp", "logging"} <= set(bench.run(inventory, "u1")["result"])


def _altered(bench: AdmissionBench) -> bytes:
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1").replace(b"secret-token", b"chosen-token")


def _other_task(bench: AdmissionBench) -> bytes:
    data = bench.sign(bench.request("bearer_token_check", token="secret-token"), "u1")
    return data.replace(b'"task":"bearer_token_check"', b'"task":"bearer_token_delete"')


def _repeated_key(bench: AdmissionBench) -> bytes:
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    return data.replace(b',"signed":', b',"kwargs":{"username":"eve","token":"chosen-token"},"signed":')


def _other_worker(bench: AdmissionBench) -> bytes:
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", workers=["w2", "w3"])


def _wider_workers(bench: AdmissionBench) -> bytes:
    return _other_worker(bench).replace(b'["w2","w3"]', b'["w1","w3"]')


def _other_service(bench: AdmissionBench) -> bytes:
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", service="nornir")


def _other_uuid(bench: AdmissionBench) -> bytes:
    return bench.sign(bench.request("bearer_token_store", **STORE), "u2")


def _unknown_key(bench: AdmissionBench) -> bytes:
    stranger = ensure_key_pair(bench.environment.keys_folder, "stranger")
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", pair=stranger)


def _claimed_key(bench: AdmissionBench) -> bytes:
    stranger = ensure_key_pair(bench.environment.keys_folder, "stranger")
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", pair=stranger, client=bench.pair.public)


def _removed_key(bench: AdmissionBench) -> bytes:
    pair = bench.authorize("ann")
    first = bench.sign(bench.request("bearer_token_check", token="t"), "u0", pair=pair)
    assert bench.run(first, "u0")["failed"] is False
    (bench.environment.clients_folder / "ann.key").unlink()
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", pair=pair)


def _old_key_file(bench: AdmissionBench) -> bytes:
    pair = bench.authorize("ann", has_signing_key=False)
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1", pair=pair)


def _past(bench: AdmissionBench) -> bytes:
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    bench.now += 120.5
    return data


def _future(bench: AdmissionBench) -> bytes:
    bench.client_now += 121
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1")


def _later_by_hand(bench: AdmissionBench) -> bytes:
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    bench.now += 120.5
    return data.replace(b'"time":1780000001', b'"time":1780000101')


def _not_a_statement(bench: AdmissionBench) -> bytes:
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    return data.replace(b'"time":1780000001000', b'"time":1780000001000.0')


def _before_the_record(bench: AdmissionBench) -> bytes:
    bench.client_now -= 2
    return bench.sign(bench.request("bearer_token_store", **STORE), "u1")


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (_altered, "its signature is wrong"),
        (_other_task, "its signature is wrong"),
        (_repeated_key, "its signature is wrong"),
        (_other_worker, "it was signed for other workers"),
        (_wider_workers, "its signature is wrong"),
        (_other_service, "it was signed for another job"),
        (_other_uuid, "it was signed for another job"),
        (_unknown_key, "it was signed by a client whose key is not authorized here"),
        (_claimed_key, "its signature is wrong"),
        (_removed_key, "it was signed by a client whose key is not authorized here"),
        (_old_key_file, "client ann is authorized, but its key file here has no signing key: run nfcli on"),
        (_past, "it was signed 120.5 s ago by this worker's clock, more than 120 s"),
        (_future, "it was signed 121.0 s ahead by this worker's clock, more than 120 s"),
        (_later_by_hand, "its signature is wrong"),
        (_not_a_statement, "what the job says about its signature is not valid"),
        (_before_the_record, "it was signed before this worker's record of signed jobs begins"),
    ],
)
def test_attacks_are_refused(
    bench: AdmissionBench,
    tmp_path: Path,
    attack: Callable[[AdmissionBench], bytes],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is changed, and log and audit trail have the refusal."""
    data = attack(bench)
    assert bench.refusal(data, "u1").startswith(reason)
    (message,) = (each for each in caplog.messages if each.startswith("job refused: "))
    assert reason in message
    assert bench.tokens == []
    bench.trail.close()
    last = json.loads((tmp_path / "audit-w1.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (last["operation"], last["job"]) == ("refuse", "u1")
    assert reason[:20] in last["reason"]


def test_error_while_a_signature_is_verified_refuses_the_job(
    bench: AdmissionBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an answer, and nothing is changed."""

    def fail(_clients: AuthorizedKeys, key: str) -> str:
        raise OSError(f"a disk that fails while {key} is sought")

    monkeypatch.setattr(AuthorizedKeys, "signing_key", fail)
    result = bench.run(bench.sign(bench.request("bearer_token_store", **STORE), "u1"), "u1")
    assert result["errors"] == ["internal error in the admission of task bearer_token_store: OSError"]
    assert bench.tokens == []
    assert "job refused: OSError" in caplog.messages


def test_repetition_by_another_client_is_refused(bench: AdmissionBench) -> None:
    """Whoever has seen a signed job gets neither its effect nor its result."""
    bench.run(bench.sign(bench.request("bearer_token_store", **STORE), "u1"), "u1")
    listing = bench.sign(bench.request("bearer_token_list"), "u2")
    assert len(bench.run(listing, "u2")["result"]) == 1
    assert bench.refusal(listing, "u2", client="stranger").startswith("it was run before")


def test_repetition_does_not_revive_a_deleted_token(bench: AdmissionBench) -> None:
    """Not even by a name that the broker has forgotten, and after a restart of the worker."""
    storing = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    bench.run(storing, "u1")
    bench.run(bench.sign(bench.request("bearer_token_delete", token="secret-token"), "u2"), "u2")
    bench.stop()
    bench.replays = bench.open_replays()
    bench.restart()
    assert bench.refusal(storing, "u1").startswith("it was run before")
    assert bench.tokens == []


def test_only_deletions_run_where_signed_jobs_cannot_be_recorded(
    bench: AdmissionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart any other could be run again; a token that leaked must be revoked nevertheless."""
    assert bench.run(bench.sign(bench.request("bearer_token_store", **STORE), "u1"), "u1")["result"] is True

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(replay_memory, "write_private", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    bench.replays = bench.open_replays()
    bench.restart()
    for number, name in enumerate(("bearer_token_store", "bearer_token_list", "bearer_token_check")):
        data = bench.sign(bench.request(name, username="bob", token="another-token"), f"r{number}")
        assert bench.refusal(data, f"r{number}").startswith("this worker can't record it (")
    assert bench.run(bench.sign(bench.request("bearer_token_delete", username="ann"), "d1"), "d1")["result"] is True
    assert bench.tokens == []


def test_job_that_is_sent_again_has_the_first_result(bench: AdmissionBench) -> None:
    """The same client, the same uuid, signed again: the task runs once."""
    first = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    bench.client_now += 1
    second = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    assert first != second
    assert [bench.run(data, "u1")["result"] for data in (first, second)] == [True, True]
    assert len(bench.trail.entries(9)) == 1


def test_refused_job_may_be_signed_again(bench: AdmissionBench) -> None:
    """A wrong signature uses up neither the uuid nor the right one."""
    data = bench.sign(bench.request("bearer_token_store", **STORE), "u1")
    assert bench.refusal(data.replace(b"ann", b"eve"), "u1").startswith("its signature is wrong")
    assert bench.run(data, "u1")["result"] is True


@pytest.mark.parametrize("skew", [-119, 119])
def test_clocks_may_differ_by_two_minutes(bench: AdmissionBench, skew: float) -> None:
    """In both directions."""
    bench.now += 200
    bench.client_now = bench.now + skew
    assert bench.run(bench.sign(bench.request("bearer_token_list"), "u1"), "u1")["failed"] is False


def test_direct_client_signs_by_the_key_of_its_connection(bench: AdmissionBench) -> None:
    """Another authorized client can't send its jobs."""
    bench.restart(direct=True)
    own, ann = bench.pair, bench.authorize("ann")
    data = bench.sign(bench.request("bearer_token_list"), "u1", pair=ann)
    assert bench.refusal(data, "u1", client=own.public.decode()) == (
        "it was signed by another client than the one that sent it"
    )
    assert bench.run(data, "u1", client=ann.public.decode())["failed"] is False
    unsigned = bench.request("bearer_token_list")
    assert bench.refusal(unsigned, "u2", client=own.public.decode()).startswith("it takes signed jobs only")


def test_job_may_be_signed_for_all_services(bench: AdmissionBench) -> None:
    """A client of NorFab's doesn't know each worker's service; that of another one is refused."""
    for service, uuid in (("all", "u1"), ("fastmcp", "u2")):
        data = bench.sign(bench.request("bearer_token_list"), uuid, service=service, workers=("w0", "w1"))
        assert bench.run(data, uuid)["failed"] is False
    data = bench.sign(bench.request("bearer_token_list"), "u3", service="any")
    assert bench.refusal(data, "u3") == "it was signed for another job"


def test_direct_client_is_known_by_its_connection(bench: AdmissionBench) -> None:
    """Where no signature is required, none is verified: it would say no more."""
    bench.restart(required=False, direct=True)
    ann, client = bench.authorize("ann"), bench.pair.public.decode()
    for uuid, pair in (("u1", bench.pair), ("u2", ann)):
        data = bench.sign(bench.request("bearer_token_store", **STORE), uuid, pair=pair)
        assert bench.run(data, uuid, client=client)["result"] is True
    actors = [(line.actor, line.authenticated) for line in bench.trail.entries(9)]
    assert actors == [("client", "curve"), ("client", "curve")]


def test_no_signature_is_needed_by_default(bench: AdmissionBench) -> None:
    """One that is valid names the actor nevertheless, in a fabric; one that isn't proves nothing."""
    bench.restart(required=False)
    assert bench.run(bench.request("bearer_token_store", **STORE), "u1")["result"] is True
    for uuid, data in (
        ("u2", bench.sign(bench.request("bearer_token_delete", username="ann"), "u2")),
        ("u3", bench.sign(bench.request("bearer_token_store", **STORE), "another")),
        ("u2", bench.sign(bench.request("bearer_token_delete", username="ann"), "u2")),
    ):
        assert bench.run(data, uuid, client=f"{FABRIC_CLIENT}-{len(bench.trail.entries(9))}")["result"] is True
    actors = [(str(line.actor).split("-")[0], line.authenticated) for line in bench.trail.entries(9)]
    unproven = ("fabric:client", None)
    assert actors == [unproven, ("client", "signature"), unproven, unproven]


@pytest.mark.parametrize(
    ("client", "worker"),
    [
        ("workflow-worker-1-NFPClient", "workflow-worker-1"),
        ("fastmcp-worker-2-nfcli-0123456789abcdef", "fastmcp-worker-2"),
        ("client-1-nfcli-0123456789abcdef", "client-1"),
        ("a\nb-NFPClient", "a\nb"),
        ("client-NFPClient", "client"),
    ],
)
def test_jobs_of_other_workers_are_refused(bench: AdmissionBench, client: str, worker: str) -> None:
    """NorFab's and nfcli's, unless the inventory names them; other tasks are theirs to run."""
    bench.restart(required=False)
    reason = bench.refusal(bench.request("bearer_token_list"), "u1", client=client)
    assert reason.startswith(f"jobs of worker {worker} are refused here")
    assert bench.run(bench.request("get_status"), "u2", client=client)["failed"] is False
    bench.restart(required=False, allowed=["other"])
    assert "allowed_relays" in bench.refusal(bench.request("bearer_token_list"), "u3", client=client)
    bench.restart(required=False, allowed=[worker])
    assert bench.run(bench.request("bearer_token_list"), "u4", client=client)["failed"] is False


@pytest.mark.parametrize("task", ["bearer_token_list", "get_audit", "bearer_token_check"])
def test_signed_job_may_come_under_any_name(bench: AdmissionBench, task: str) -> None:
    """A valid signature says more than a name: no worker has made it."""
    bench.restart(required=False)
    client = "workflow-worker-1-NFPClient"
    data = bench.sign(bench.request(task, **({"token": "t1"} if task == "bearer_token_check" else {})), "u1")
    assert bench.run(data, "u1", client=client)["failed"] is False
    assert bench.refusal(data, "u1", client=f"x-{client}").startswith("jobs of worker x-workflow-worker-1 are refused")


@pytest.mark.parametrize("client", [FABRIC_CLIENT, "script_0a1b2c_NFPClient", "stranger", "x-NFPClient-y", ""])
def test_jobs_of_clients_are_accepted_by_default(bench: AdmissionBench, client: str) -> None:
    """NorFab's name theirs otherwise than its workers do."""
    bench.restart(required=False)
    assert bench.run(bench.request("bearer_token_list"), "u1", client=client)["failed"] is False


def test_allowed_relay_needs_a_signature_where_one_is_required(bench: AdmissionBench) -> None:
    """It has no key that it could sign with."""
    bench.restart(allowed=["workflow-worker-1"])
    reason = bench.refusal(bench.request("bearer_token_list"), "u1", client="workflow-worker-1-NFPClient")
    assert reason.startswith("it takes signed jobs only")


@pytest.mark.parametrize("required", [False, True])
def test_signature_is_not_verified_by_the_thread_that_receives_jobs(bench: AdmissionBench, required: bool) -> None:
    """It takes as long as twenty checks of a token, which that thread runs itself otherwise."""
    bench.restart(required=required)
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    data = bench.sign(bench.request("bearer_token_check", token="t1"), "u1")
    assert bench.executor is not None
    bench.executor.submit(
        FABRIC_CLIENT, "u1", JobRequest.parse(data), lambda _: threads.put(threading.current_thread())
    )
    assert (threads.get(timeout=10) is threading.current_thread()) is not required


def test_unsigned_requests_cost_no_proof() -> None:
    """Most workers' jobs have none."""
    assert JobRequest.parse(b'{"task":"echo","signed":{}}').proof is None


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_task_that_takes_signed_jobs_asks_only_clients_that_are_known(bench: AdmissionBench, is_direct: bool) -> None:
    """At a broker whoever takes over the client's name could answer in its place."""

    def change(worker: WorkerContext, _arguments: TaskInput) -> object:
        return worker.request_input("Change it?", timeout=1)

    tasks = ModuleType("tasks")
    vars(tasks)["change"] = task(restricted=True)(change)
    bench.context.registry.add(specs_of(tasks)[0])
    bench.restart(direct=is_direct)
    client = bench.pair.public.decode() if is_direct else FABRIC_CLIENT
    result = bench.run(bench.sign(bench.request("change"), "u1"), "u1", client)
    unsigned = "answers to questions aren't signed, and the task takes signed jobs only: it can't ask"
    assert (result["result"], result["errors"]) == ((False, []) if is_direct else (None, [unsigned]))
