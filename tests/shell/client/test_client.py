"""The client with real workers: targets, partial failures, keys, lost connections."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.curve_keys import ensure_client_key, ensure_key_pair
from nfcli.models.errors import AccessDeniedError, NoWorkersError, UsageError
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.protocol import connection as link
from nfcli.shell.client.client import Client
from nfcli.shell.transport.base import not_running
from nfcli.shell.transport.direct import DirectTransport
from support.fabric.fake_broker import outcome
from support.shell.direct_workers import WAIT_SECONDS, Fabric

AGAIN = "put its .key file back into the worker's .nfcli/clients/ with nfcli --authorize"


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    """Return an environment of three workers."""
    fabric = Fabric(tmp_path)
    yield fabric
    for server in fabric.servers.values():
        server.stop()


@pytest.mark.parametrize(
    ("workers", "answered"), [("all", "abc"), ("b", "b"), (["c", "a"], "ac"), (["a", "a"], "a"), (("b",), "b")]
)
def test_each_target_answers_once(fabric: Fabric, client: Client, workers: str | list[str], answered: str) -> None:
    """`all`, a name, and lists with and without repeats."""
    fabric.run(*"abc")
    assert outcome(client.run_job("fastmcp", "who", workers=workers)) == {name: name for name in answered}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": "x"}, "timeout must be a positive number of seconds, got 'x'"),
        ({"timeout": True}, "timeout must be a positive number of seconds, got True"),
        ({"workers": 5}, "workers must be all, any, a name or a list of names, got 5"),
        ({"workers": ["a", 5]}, "workers must be all, any, a name or a list of names, got ['a', 5]"),
    ],
)
def test_arguments_of_another_type_are_usage_errors(client: Client, arguments: dict[str, Any], message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        client.run_job("fastmcp", "who", **arguments)


def test_the_start_of_workers_takes_nothing_of_the_jobs_time(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs is bounded by itself."""
    real, shift = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + shift)

    def start() -> None:
        nonlocal shift
        fabric.run("a")
        shift += 60.0

    with fabric.client(before_first_job=start) as client:
        assert outcome(client.run_job("fastmcp", "who", workers="a", timeout=30)) == {"a": "a"}


def test_any_is_one_that_runs(fabric: Fabric, client: Client) -> None:
    """Workers that are down are skipped."""
    fabric.run("b")
    assert outcome(client.run_job("fastmcp", "who", workers="any")) == {"b": "b"}


def test_a_worker_that_is_down_does_not_affect_the_others_results(fabric: Fabric, client: Client) -> None:
    """It has a failed result; no error is raised."""
    fabric.run("a", "c")
    assert outcome(client.run_job("fastmcp", "who")) == {
        "a": "a",
        "b": ("error", [not_running("b")]),
        "c": "c",
    }


def test_a_worker_that_fails_does_not_affect_the_others_results(fabric: Fabric, client: Client) -> None:
    """Its failure is one line in its own result."""
    fabric.run(*"abc")
    fabric.servers["b"].fails = True
    assert outcome(client.run_job("fastmcp", "who")) == {
        "a": "a",
        "b": ("error", ["internal error in task who: ZeroDivisionError"]),
        "c": "c",
    }


def test_a_job_that_reaches_no_worker_is_an_error_with_the_remedy(client: Client) -> None:
    """It is raised at once, not after the timeout."""
    with pytest.raises(NoWorkersError) as caught:
        client.run_job("fastmcp", "who", workers=["a", "b"])
    reason = "worker {} is not running: start it (nfcli -w, or a new shell without -c)"
    assert str(caught.value) == f"{reason.format('a')}; {reason.format('b')}"
    with pytest.raises(NoWorkersError, match="nfcli -w"):
        client.run_job("fastmcp", "who", workers="any")


@pytest.mark.parametrize(
    ("service", "workers", "message"),
    [
        ("nosuch", "all", "no worker serves 'nosuch': the inventory has fastmcp"),
        ("fastmcp", "x", "unknown worker 'x': there is a, b, c"),
        ("fastmcp", ["a", "x", "y"], "unknown worker 'x', 'y': there is a, b, c"),
        ("fastmcp", [], "the list of workers is empty: name at least one, or use all"),
    ],
)
def test_unknown_targets_are_refused_before_anything_is_sent(
    fabric: Fabric, client: Client, service: str, workers: str | list[str], message: str
) -> None:
    """A misspelt name among others changes nothing."""
    fabric.run("a")
    with pytest.raises(NoWorkersError) as caught:
        client.run_job(service, "who", workers=workers)
    assert (str(caught.value), fabric.servers["a"].runs) == (message, 0)
    with pytest.raises(NoWorkersError) as caught:
        client.check_workers([workers] if isinstance(workers, str) and workers != "all" else workers, service)
    assert str(caught.value) == message


def test_workers_that_exist_pass_the_check_whether_they_run_or_not(fabric: Fabric, client: Client) -> None:
    """Whether they can be reached is for the job to find out."""
    fabric.run("a")
    client.check_workers(["a", "b"])
    assert fabric.servers["a"].runs == 0


def test_a_missing_answer_is_a_timeout_and_its_late_reply_is_dropped(fabric: Fabric, client: Client) -> None:
    """The whole job has one deadline."""
    fabric.run("a", "b")
    fabric.servers["b"].gate.set()
    results = outcome(client.run_job("fastmcp", "hold", workers=["a", "b"], timeout=0.2))
    status, (error,) = results["a"]
    assert (status, error.startswith("no answer within 0.2 s, so"), results["b"]) == ("timeout", True, True)
    fabric.servers["a"].gate.set()
    assert outcome(client.run_job("fastmcp", "who", workers=["a"])) == {"a": "a"}


def test_a_uuid_sent_twice_is_run_once(fabric: Fabric, client: Client) -> None:
    """A job can be sent again by its uuid safely."""
    fabric.run("a")
    first = client.run_job("fastmcp", "who", uuid="same", workers="a")
    assert client.run_job("fastmcp", "who", uuid="same", workers="a") == first
    assert fabric.servers["a"].runs == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_not_positive_and_finite_is_refused(client: Client, timeout: float) -> None:
    """A job can't wait for ever."""
    with pytest.raises(UsageError, match="timeout must be a positive number of seconds"):
        client.run_job("fastmcp", "who", timeout=timeout)


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_arguments_that_json_cannot_encode_are_refused(client: Client, value: object) -> None:
    """The client raises the error before anything is sent."""
    with pytest.raises(UsageError, match="the arguments of who must be JSON values"):
        client.run_job("fastmcp", "who", kwargs={"x": value})


def test_a_client_whose_key_is_not_authorized_is_refused(fabric: Fabric) -> None:
    """The error is raised at once, and nothing runs."""
    fabric.run("a")
    ensure_client_key(fabric.environment)
    (fabric.environment.clients_folder / "client.key").unlink()
    with fabric.client() as client, pytest.raises(AccessDeniedError, match="doesn't know this client's key"):
        client.run_job("fastmcp", "who", workers="a")
    assert fabric.servers["a"].runs == 0


def test_a_revoked_key_fails_the_next_job_of_a_connected_client(fabric: Fabric, client: Client) -> None:
    """Over the connection that is already open."""
    fabric.run("a")
    client.run_job("fastmcp", "who", workers="a")
    (fabric.environment.clients_folder / "client.key").unlink()
    assert outcome(client.run_job("fastmcp", "who", workers="a")) == {
        "a": (
            "error",
            [f"this client's key is not allowed: {AGAIN}"],
        )
    }


def test_another_workers_key_is_not_trusted(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at the endpoint without the worker's secret key gets no job."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.5)
    fabric.run("a")
    other = ensure_key_pair(fabric.environment.keys_folder, "other")
    (fabric.environment.keys_folder / "other.key").replace(fabric.environment.keys_folder / "a.key")
    assert other.public != b""
    with fabric.client() as client, pytest.raises(NoWorkersError, match=r"a\.key is not the key of the worker there"):
        client.run_job("fastmcp", "who", workers="a")
    assert fabric.servers["a"].runs == 0


def test_a_missing_worker_key_is_named(fabric: Fabric, client: Client) -> None:
    """The message has the file to copy."""
    fabric.run("a")
    (fabric.environment.keys_folder / "a.key").unlink()
    with pytest.raises(NoWorkersError) as caught:
        client.run_job("fastmcp", "who", workers="a")
    assert str(caught.value) == (
        "worker a can't be reached without its public key: "
        f"{fabric.environment.keys_folder / 'a.key'} can't be read: No such file or directory: "
        "copy it from .nfcli/keys/ on the worker's machine"
    )


def test_a_worker_restarted_between_two_jobs_is_found_again(fabric: Fabric, client: Client) -> None:
    """The client replaces its dead connection."""
    fabric.run("a")
    client.run_job("fastmcp", "who", workers="a")
    fabric.servers["a"].stop()
    fabric.run("a")
    assert outcome(client.run_job("fastmcp", "who", workers="a")) == {"a": "a"}


def test_a_worker_restarted_during_a_job_is_reported_and_the_job_not_repeated(fabric: Fabric, client: Client) -> None:
    """It is unknown how far the first run came."""
    fabric.run("a")
    running = fabric.servers["a"]

    def restart() -> None:
        running.entered.wait(WAIT_SECONDS)
        running.direct.stop()
        running.stop()
        fabric.run("a")

    thread = threading.Thread(target=restart)
    thread.start()
    results = outcome(client.run_job("fastmcp", "hold", workers="a", timeout=WAIT_SECONDS))
    thread.join()
    status, (line,) = results["a"]
    assert (status, line.startswith("worker a was restarted while the job ran")) == ("error", True)


def test_a_worker_that_goes_away_during_a_job_is_reported(fabric: Fabric, client: Client) -> None:
    """The job ends at once, not after its timeout."""
    fabric.run("a", "b")
    fabric.servers["b"].gate.set()
    running = fabric.servers["a"]

    def stop() -> None:
        running.entered.wait(WAIT_SECONDS)
        running.direct.stop()
        running.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    results = outcome(client.run_job("fastmcp", "hold", workers=["a", "b"], timeout=WAIT_SECONDS))
    thread.join()
    assert results["b"] is True
    assert results["a"][0] == "error"
    assert re.search("worker a |nfcli -w", results["a"][1][0])


def test_show_workers_has_the_status_of_each(fabric: Fabric, client: Client) -> None:
    """Every worker of the inventory has a row, with the reason if it is dead."""
    fabric.run("a")
    rows = client.show_workers()
    assert [(row["name"], row["status"], row["note"]) for row in rows] == [
        ("a", "alive", ""),
        ("b", "dead", not_running("b")),
        ("c", "dead", not_running("c")),
    ]


def test_jobs_from_many_threads_all_end(fabric: Fabric, client: Client) -> None:
    """They run one after the other."""
    fabric.run("a")
    results: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: results.append(outcome(client.run_job("fastmcp", "who", workers="a"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert results == [{"a": "a"}] * 8


def test_a_closed_client_leaves_no_file_open(fabric: Fabric) -> None:
    """Connections and their monitors are closed."""
    fabric.run("a")
    counts = []
    for _ in range(4):
        with fabric.client() as client:
            client.run_job("fastmcp", "who", workers="a")
        counts.append(len(list(Path("/dev/fd").iterdir())))
    deadline = time.monotonic() + WAIT_SECONDS  # the other end is in this process too, and closes a moment later
    while len(list(Path("/dev/fd").iterdir())) > counts[0]:
        assert time.monotonic() < deadline, counts


def test_before_first_job_is_called_once_and_not_for_a_refused_job(fabric: Fabric) -> None:
    """So workers are started only when a job needs them."""
    calls: list[str] = []

    def hook() -> None:
        calls.append("called")
        fabric.run("a")

    keys, inventory = ensure_client_key(fabric.environment), load_inventory(fabric.environment)
    transport = DirectTransport(fabric.environment, inventory, keys)
    with Client(fabric.environment, inventory, keys, transport, before_first_job=hook) as client:
        with pytest.raises(NoWorkersError):
            client.run_job("fastmcp", "who", workers="nobody")
        assert calls == []
        client.run_job("fastmcp", "who", workers="a")
        client.run_job("fastmcp", "who", workers="a")
    assert calls == ["called"]
