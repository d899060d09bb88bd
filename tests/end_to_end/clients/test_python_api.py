"""The Python API as scripts use it, with real workers."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import nfcli
from nfcli import Client, InventoryError, NfcliError, NorFab, NoWorkersError, UsageError, WorkerStartError
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import ProgramStarter, Watch
from support.workers import EnvironmentFactory, RunningWorker

pytestmark = pytest.mark.slow

SAMPLE = """\
import pprint
from nfcli import NorFab

if __name__ == "__main__":
    nf = NorFab(inventory="inventory.yaml")
    nf.start()
    nfclient = nf.make_client()
    nfclient.run_job("fastmcp", "bearer_token_store",
                     kwargs={"username": "automation", "token": "secret-token", "expire": 3600}, workers="all")
    result = nfclient.run_job("fastmcp", "bearer_token_list", kwargs={"username": "automation"}, workers="all")
    pprint.pprint(result)
    nf.destroy()
"""
UNGUARDED = inspect.cleandoc(SAMPLE.replace('if __name__ == "__main__":\n', "")).replace("\n    ", "\n")
WITH_BLOCK = """\
from nfcli import NorFab
with NorFab(inventory="inventory.yaml") as nf:
    client = nf.make_client()
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "automation", "token": "secret-token"})
    print(client.run_job("fastmcp", "bearer_token_list", workers="all"))
"""
# Names of our folders and of the standard library, as a user's own modules may have them.
NEIGHBOURS = ("models", "worker", "shell", "man", "http", "errors", "client", "launcher", "tokens", "nfp", "result")


def is_stopped(environment: Environment) -> bool:
    """Whether no process runs the worker."""
    return read_owner(environment.lock_file(DEFAULT_WORKER)) is None


@pytest.mark.parametrize("text", [SAMPLE, UNGUARDED, WITH_BLOCK], ids=["sample", "no main guard", "with block"])
@pytest.mark.parametrize("has_neighbours", [False, True], ids=["alone", "beside models.py, worker.py and http.py"])
def test_the_owners_sample_runs_as_a_plain_script(
    environment_factory: EnvironmentFactory, text: str, *, has_neighbours: bool
) -> None:
    """It prints the token that it stored, says nothing else, ends by itself, and leaves no worker behind."""
    environment = environment_factory()
    (environment.folder / "sample.py").write_text(text)
    for name in NEIGHBOURS if has_neighbours else ():
        (environment.folder / f"{name}.py").write_text("raise SystemExit('a user module was imported')\n")
    done = subprocess.run(
        [sys.executable, "sample.py"],
        cwd=environment.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = ast.literal_eval(done.stdout)[DEFAULT_WORKER]
    (row,) = result.pop("result")
    assert (row["username"], row["token"]) == ("automation", "secret-token")
    assert set(row) == {"username", "token", "age", "creation", "expires"}
    assert {key: result[key] for key in ("failed", "errors", "messages", "task", "service", "status")} == {
        "failed": False,
        "errors": [],
        "messages": [],
        "task": f"{DEFAULT_WORKER}:bearer_token_list",
        "service": "fastmcp",
        "status": "completed",
    }
    assert is_stopped(environment)


def test_a_script_that_forgets_to_destroy_ends_and_leaves_no_worker(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """Nothing hangs and nothing is said; the worker notices."""
    environment = environment_factory()
    code = "import nfcli, sys; nf = nfcli.NorFab(sys.argv[1]); nf.start(); client = nf.make_client()\n"
    code += "print(*client.run_job('fastmcp', 'get_version'), flush=True); input()"
    program = start_program(command=[sys.executable, "-c", code, str(environment.inventory_file)])
    program.wait_for(f"{DEFAULT_WORKER}\n", stream="out")
    worker = watch(environment)
    program.write("\n")
    assert (program.end(), program.err) == (0, "")
    assert worker.is_gone_within(5)


def test_starting_and_destroying_twice_is_safe(environment_factory: EnvironmentFactory) -> None:
    """The second start finds the worker running, the second destroy nothing to do, and a new start works."""
    environment = environment_factory()
    norfab = NorFab(environment.inventory_file)
    try:
        assert norfab.start() == [DEFAULT_WORKER]
        owner = read_owner(environment.lock_file(DEFAULT_WORKER))
        assert norfab.start() == []
        assert read_owner(environment.lock_file(DEFAULT_WORKER)) == owner
        client = norfab.make_client()
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "a", "token": "t1"})
        norfab.destroy()
        norfab.destroy()
        assert is_stopped(environment)
        assert norfab.start() == [DEFAULT_WORKER]
        checked = norfab.make_client().run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})
        assert checked[DEFAULT_WORKER]["result"] is True
    finally:
        norfab.destroy()


def test_an_error_in_the_block_stops_the_workers(environment_factory: EnvironmentFactory) -> None:
    """The context manager cleans up and lets the error through."""
    environment = environment_factory()

    def fail_in_the_block() -> None:
        with NorFab(environment.inventory_file):
            assert not is_stopped(environment)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_block()
    assert is_stopped(environment)


def test_clients_of_one_environment_are_independent(environment: Environment, worker: RunningWorker) -> None:
    """One that is closed takes neither the other nor the worker along; a worker that runs already is left running."""
    with NorFab(environment.inventory_file) as norfab, norfab.make_client() as first, norfab.make_client() as second:
        for client in (first, second, first):
            assert client.run_job("fastmcp", "get_version", timeout=20)[DEFAULT_WORKER]["failed"] is False
        first.close()
        first.close()
        for use in (lambda: first.run_job("fastmcp", "get_version"), first.show_workers):
            with pytest.raises(UsageError, match="closed"):
                use()
        assert second.run_job("fastmcp", "get_version", timeout=20)[DEFAULT_WORKER]["failed"] is False
    assert worker.process.poll() is None


def test_threads_can_share_a_client(client: Client) -> None:
    """Every thread gets the answers to its own jobs."""
    names = [f"thread-{number}" for number in range(40)]
    barrier = threading.Barrier(4, timeout=20)

    def store_and_list(name: str) -> list[str]:
        if names.index(name) < barrier.parties:
            barrier.wait()
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": name, "token": f"{name}-token"})
        result = client.run_job("fastmcp", "bearer_token_list", kwargs={"username": name})[DEFAULT_WORKER]
        return [row["token"] for row in result["result"]]

    with ThreadPoolExecutor(barrier.parties) as pool:
        assert list(pool.map(store_and_list, names)) == [[f"{name}-token"] for name in names]


def test_a_job_sent_twice_under_one_name_is_run_once(client: Client) -> None:
    """A script that isn't sure whether its job arrived may send it again."""
    kwargs = {"username": "once", "token": "t-once"}
    first = client.run_job("fastmcp", "bearer_token_store", uuid="f00d", kwargs=kwargs)
    client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": "t-once"})
    assert client.run_job("fastmcp", "bearer_token_store", uuid="f00d", kwargs=kwargs) == first
    assert (
        client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t-once"})[DEFAULT_WORKER]["result"] is False
    )


def test_a_missing_answer_is_a_failed_result(client: Client) -> None:
    """It comes when the time is up, with the status `timeout`."""
    result = client.run_job("fastmcp", "echo", kwargs={"sleep": 30}, timeout=0.3)[DEFAULT_WORKER]
    (error,) = result["errors"]
    assert (result["failed"], result["status"], error.endswith(" 0.3 s")) == (True, "timeout", True)
    assert client.run_job("fastmcp", "get_version")[DEFAULT_WORKER]["failed"] is False


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({}, "username: field required"),
        ({"username": 7, "token": "t"}, "username: "),
        ({"username": "a", "token": "a b"}, "token: "),
        ({"username": "a", "token": "t", "expire": 0}, "expire: "),
        ({"username": "a", "token": "t", "expire": True}, "expire: "),
        ({"username": "a", "token": "t", "more": 1}, "more: no such field"),
    ],
)
def test_what_the_worker_refuses_is_one_sentence_a_field(client: Client, kwargs: dict[str, Any], sentence: str) -> None:
    """The result is failed; nothing is raised, as other workers may have succeeded."""
    result = client.run_job("fastmcp", "bearer_token_store", kwargs=kwargs)[DEFAULT_WORKER]
    assert (result["failed"], result["result"]) == (True, None)
    assert any(error.startswith(sentence) for error in result["errors"])
    assert all("\n" not in error for error in result["errors"])


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"service": "nonsense", "task": "echo"}, NoWorkersError),
        ({"service": "fastmcp", "task": "echo", "workers": "nobody"}, NoWorkersError),
        ({"service": "fastmcp", "task": "echo", "workers": []}, NoWorkersError),
        ({"service": "fastmcp", "task": "echo", "timeout": 0}, UsageError),
        ({"service": "fastmcp", "task": "echo", "timeout": float("nan")}, UsageError),
        ({"service": "fastmcp", "task": "echo", "kwargs": {"a": object()}}, UsageError),
    ],
)
def test_what_cannot_be_sent_is_an_error_of_its_class(client: Client, job: dict[str, Any], error: type) -> None:
    """Each is an `NfcliError` with a message of one line."""
    with pytest.raises(error, match=r"\A[^\n]+\Z") as raised:
        client.run_job(**job)
    assert isinstance(raised.value, NfcliError)


def test_what_cannot_start_is_an_error_of_its_class(
    environment_factory: EnvironmentFactory, tmp_path: Path, worker: RunningWorker
) -> None:
    """No inventory, a wrong one, a port that is taken; no worker is left running."""
    with pytest.raises(InventoryError, match=r"missing\.yaml: no such inventory file"):
        NorFab(tmp_path / "missing.yaml")
    with pytest.raises(InventoryError, match="prot"):
        NorFab(environment_factory(prot=1).inventory_file)
    port = int(worker.url.removesuffix("/mcp").rsplit(":", 1)[1])
    environment = environment_factory(port=port)
    norfab = NorFab(environment.inventory_file)
    with pytest.raises(WorkerStartError, match=f"port {port} on 127.0.0.1"):
        norfab.start()
    assert is_stopped(environment)
    norfab.destroy()


def test_one_worker_that_cannot_start_leaves_none_of_the_others_running(
    environment_factory: EnvironmentFactory, worker: RunningWorker
) -> None:
    """`start` is all or nothing."""
    environment = environment_factory("good", "bad")
    assert environment.inventory_file is not None
    text = json.loads(environment.inventory_file.read_text())
    text["workers"]["bad"][0]["port"] = int(worker.url.removesuffix("/mcp").rsplit(":", 1)[1])
    environment.inventory_file.write_text(json.dumps(text))
    with pytest.raises(WorkerStartError, match=r"worker bad .*port \d+ on 127\.0\.0\.1"):
        NorFab(environment.inventory_file).start()
    assert [read_owner(environment.lock_file(name)) for name in ("good", "bad")] == [None, None]


def public_functions() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and methods of the public classes, with their names."""
    for name in nfcli.__all__:
        value = getattr(nfcli, name)
        if inspect.isclass(value):
            yield from (
                (f"{name}.{each}", function)
                for each, function in inspect.getmembers(value, inspect.isfunction)
                if function.__module__.startswith("nfcli.") and (not each.startswith("_") or each == "__init__")
            )


def test_every_public_name_is_documented_and_typed() -> None:
    """Docstrings on classes and methods, annotations on each argument and result, and `py.typed`."""
    assert set(nfcli.__all__) >= {"NorFab", "Client", "Result", "NfcliError", "NoWorkersError", "__version__"}
    assert (nfcli.__version__.split(".")[0].isdigit(), (files("nfcli") / "py.typed").is_file()) == (True, True)
    for name in set(nfcli.__all__) - {"__version__"}:
        value = getattr(nfcli, name)
        # What a class inherits doesn't count.
        assert value.__doc__ if inspect.isfunction(value) else vars(value).get("__doc__"), f"{name} has no docstring"
    for name, function in public_functions():
        assert name.endswith("__init__") or function.__doc__, f"{name} has no docstring"
        signature = inspect.signature(function)
        parameters = [each for each in signature.parameters.values() if each.name != "self"]
        untyped = [each.name for each in parameters if each.annotation is inspect.Parameter.empty]
        assert not untyped, f"{name} doesn't type {untyped}"
        assert signature.return_annotation is not inspect.Signature.empty, f"{name} doesn't type its result"
    with pytest.raises(AttributeError, match="nothing"):
        _ = nfcli.nothing
