"""Failures in a fabric: its broker is late, frozen, stopped or killed, workers freeze, die, lose their line or name.

All of them are lived through side by side, since most of their time is waiting for what brokers take 15 s to notice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli import NoWorkersError
from support.norfab.observers import BrokerView, log_lines, mcp_client, until
from support.norfab.scenario import CHECK, DEMO, JOB_SECONDS, REPORT_SECONDS, Member, Scenario, Thief, Walk, shells
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.norfab.tcp_forwarder import TO_BROKER, TO_WORKER, Forwarder
from support.workers import NfcliRunner, WorkerRunner

OURS = "fastmcp-worker-1"
ECHO_SECONDS = 3
FREEZE_SECONDS = 20.0
WAIT_SECONDS = 30.0
KEEPALIVES_AFTERWARDS = 2
POLL_SECONDS = 2.5
"""How often a client asks for a result that doesn't come."""


# The failures


def restarted_broker(scenario: Scenario) -> None:
    """Start the worker before the broker, then stop the broker, and kill it while a job runs, and start it again."""
    with scenario.new_fabric({}, tcp=True) as fabric, contextlib.ExitStack() as opened:
        ours = opened.enter_context(scenario.member(fabric, OURS))
        pool = opened.enter_context(ThreadPoolExecutor())
        all_ = opened.enter_context(shells(ours, scenario.nfcli))
        view = BrokerView(fabric.endpoint, fabric.shared_key)

        def come_back() -> None:
            kwargs = {"username": "nobody", "token": "token-of-a-refused-job"}
            refused = pool.submit(ours.value, "bearer_token_store", **kwargs)
            all_.assert_reported(f"no broker answered at {fabric.endpoint} ")
            with pytest.raises(NoWorkersError):
                refused.result()
            fabric.launch_broker()
            fabric.await_broker()
            ours.assert_back(view)
            ours.mcp.assert_served()
            all_.assert_answered()
            job = {"username": "somebody", "token": "token-of-a-repeated-job"}
            assert ours.value("bearer_token_store", uuid="repeated", **job) is True

        come_back()
        fabric.broker.stop()
        come_back()
        with running_echo(ours) as (job, notices):
            fabric.broker.kill()
            come_back()
            result = job.result(JOB_SECONDS)[OURS]
        assert (result["failed"], result["result"]["kwargs"]) == (False, {"mark": "one"})
        at = f"the broker at {fabric.endpoint}"
        assert [(notice.startswith(f"{at} "), "20 s" in notice) for notice in notices] == [(True, True), (True, False)]
        assert ours.value("bearer_token_check", token="token-of-a-refused-job") is False
        ours.assert_nothing_ran_twice(stored=1)


@contextlib.contextmanager
def running_echo(ours: Member) -> Iterator[tuple[Future[Any], list[str]]]:
    """Have a client wait for a job that takes some seconds on a worker of ours; yield it, and what the client says."""
    notices: list[str] = []
    client = ours.norfab.make_client(notice=notices.append)
    kwargs = {"sleep": ECHO_SECONDS, "mark": "one"}
    with ThreadPoolExecutor() as pool:
        job = pool.submit(client.run_job, "fastmcp", "echo", kwargs=kwargs, workers=ours.name, timeout=JOB_SECONDS)
        until(lambda: ours.value("get_stats")["running_jobs"] > 1, "the job runs")
        yield job, notices


def frozen_broker(scenario: Scenario) -> None:
    """Freeze the broker for 20 s, with a job under way on a worker of the reference's, and one sent meanwhile."""
    with scenario.new_fabric({DEMO: {"service": "demo"}}) as fabric, contextlib.ExitStack() as opened:
        fabric.start(DEMO)
        ours = opened.enter_context(scenario.member(fabric, OURS))
        pool = opened.enter_context(ThreadPoolExecutor())
        all_ = opened.enter_context(shells(ours, scenario.nfcli))
        view = BrokerView(fabric.endpoint, fabric.shared_key)
        ours.assert_back(view)
        job = {"username": "somebody", "token": "token-of-a-repeated-job"}
        assert ours.value("bearer_token_store", uuid="repeated", **job) is True
        all_.assert_answered()
        walk = Walk(ours, scenario.folder / "gate", pool)
        fabric.broker.freeze()
        frozen_at = time.monotonic()
        theirs = {"service": "fastmcp", "task": "bearer_token_store", "uuid": "theirs", "workers": [OURS]}
        kwargs = {"username": "somebody", "token": "token-of-their-job"}
        fabric.client.call("submit_job", **theirs, kwargs=kwargs, timeout=JOB_SECONDS)
        all_.assert_reported(f"the broker at {fabric.endpoint} (accepts connections but )?doesn't answer")
        until(lambda: walk.notices, "the client says what it waits for")
        at, notice = walk.notices[0]
        assert notice == f"the broker at {fabric.endpoint} doesn't answer: waiting for it, up to 20 s"
        assert at < frozen_at + POLL_SECONDS + REPORT_SECONDS
        while time.monotonic() < frozen_at + FREEZE_SECONDS:
            ours.mcp.assert_served()
        fabric.broker.thaw()
        ours.assert_back(view)
        ours.mcp.assert_served()
        all_.assert_answered()
        walk.assert_done(fabric.endpoint)
        done = fabric.client.call("end_job", uuid="theirs")
        assert done["state"] in {"COMPLETED", "FAILED"}, done
        assert ours.value("bearer_token_store", uuid="repeated", **job) is True
        ours.assert_nothing_ran_twice(stored=1)


def frozen_worker(scenario: Scenario) -> None:
    """Freeze a worker until the broker has dropped it."""
    with scenario.member(scenario.fabric, "frozen") as ours:
        ours.assert_back(scenario.view)
        ours.mcp.close()
        ours.worker.process.send_signal(signal.SIGSTOP)
        os.waitpid(ours.worker.process.pid, os.WUNTRACED)
        errors = ours.value("bearer_token_store", timeout=1.0, username="somebody", token="token-that-came-late")
        assert errors[0].startswith("no answer within 1 s, ")
        scenario.view.await_gone("frozen")
        with pytest.raises(NoWorkersError, match=r"^worker frozen "):
            ours.value("bearer_token_store", username="somebody", token="token-of-a-refused-job")
        ours.worker.process.send_signal(signal.SIGCONT)
        ours.assert_back(scenario.view)
        with mcp_client(ours.worker.url) as mcp:
            mcp.assert_served()
        assert ours.value("bearer_token_check", token="token-of-a-refused-job") is False
        assert ours.value("bearer_token_check", token="token-that-came-late") is False
        ours.assert_nothing_ran_twice(stored=0)


def killed_worker(scenario: Scenario) -> None:
    """Kill a worker and start it again at once, while the broker still lists it."""
    with scenario.member(scenario.fabric, "killed") as ours:
        ours.assert_back(scenario.view)
        ours.mcp.close()
        assert ours.value("bearer_token_store", username="somebody", token="token-of-the-first-life") is True
        ours.worker.process.kill()
        ours.worker.process.wait()
        assert "killed" in scenario.view.rows()
        with scenario.running_worker(ours.environment, "killed") as again, mcp_client(again.url) as mcp:
            ours.assert_back(scenario.view)
            mcp.assert_served()
            assert ours.value("bearer_token_check", token="token-of-the-first-life") is True
            ours.assert_nothing_ran_twice(stored=1)


def taken_name(scenario: Scenario) -> None:
    """Start another worker of the same name, on another machine as it were, by itself and by a shell."""
    with scenario.member(scenario.fabric, "original") as ours, socket.socket() as free:
        ours.assert_back(scenario.view)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        other = scenario.joined_environment(scenario.fabric, "original", port=port)
        command = [sys.executable, "-m", "nfcli.worker", "--environment", str(other.folder), "--name", "original"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
        said = json.loads(done.stdout)
        assert (done.returncode, done.stderr.count("\n"), said["event"]) == (1, 1, "failed")
        assert said["error"].startswith("worker original ")
        assert scenario.fabric.endpoint in said["error"]
        done = scenario.nfcli(*CHECK.split(), environment=other)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert said["error"] in done.stderr
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert ours.value("bearer_token_store", username="somebody", token="token-of-the-original") is True
        ours.mcp.assert_served()
        ours.assert_nothing_ran_twice(stored=1)


def stolen_name(scenario: Scenario) -> None:
    """Connect under a worker's name while it runs, serve as the reference does for a while, and go again."""
    with scenario.member(scenario.fabric, "stolen") as ours:
        ours.assert_back(scenario.view)
        with Thief(scenario.view.address, "stolen") as thief:
            said = r"another worker [^\n]* stolen "
            log_of_theft = partial(log_lines, ours.environment, "stolen", said)
            until(lambda: thief.carry_on() and log_of_theft(), "it is in the log")
            ours.mcp.assert_served()
            # Ours doesn't take it back: the broker goes on sending to the other one.
            wanted = thief.received + KEEPALIVES_AFTERWARDS
            until(lambda: thief.carry_on() >= wanted, "the thief is heard")
        ours.assert_back(scenario.view)
        ours.mcp.assert_served()
        assert len(log_of_theft()) == 1


def deaf_worker(scenario: Scenario) -> None:
    """Hold back what the broker says to a worker."""
    lost_line(scenario, "deaf", TO_WORKER)


def mute_worker(scenario: Scenario) -> None:
    """Hold back what a worker says to the broker."""
    lost_line(scenario, "mute", TO_BROKER)


def lost_line(scenario: Scenario, name: str, direction: int) -> None:
    """Hold one direction until the broker has dropped the worker."""
    with Forwarder(int(scenario.fabric.endpoint.rpartition(":")[2])) as forwarder:
        by_way = SimpleNamespace(join_inventory={**scenario.fabric.join_inventory, "endpoint": forwarder.endpoint})
        with scenario.member(by_way, name) as ours:
            ours.assert_back(scenario.view)
            forwarder.hold(direction)
            scenario.view.await_gone(name)
            ours.mcp.assert_served()
            forwarder.release(direction)
            ours.assert_back(scenario.view)
            ours.mcp.assert_served()


FAILURES = [
    *(restarted_broker, frozen_broker),
    *(frozen_worker, killed_worker, taken_name, stolen_name, deaf_worker, mute_worker),
]


@pytest.fixture(scope="module")
def failures(
    new_fabric: FabricMaker,
    joined_environment: EnvironmentJoiner,
    running_worker: WorkerRunner,
    nfcli: NfcliRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, Future[None]]]:
    """Begin all of the failures."""
    with new_fabric({}, tcp=True) as fabric:
        fabric.start()
        scenario = Scenario(
            new_fabric, joined_environment, running_worker, nfcli, fabric, tmp_path_factory.mktemp("gate")
        )
        with ThreadPoolExecutor(len(FAILURES)) as pool:
            yield {failure.__name__: pool.submit(failure, scenario) for failure in FAILURES}


Failures = Mapping[str, Future[None]]


def test_all_is_well_again_when_a_broker_is_back(failures: Failures) -> None:
    """It came late, was stopped or was killed: shells report that in a line within 3 s, workers are back in 20 s."""
    failures["restarted_broker"].result()


def test_all_is_well_again_when_a_broker_thaws(failures: Failures) -> None:
    """Within 3 s everybody says that it doesn't answer; the job under way ends well, none has run twice."""
    failures["frozen_broker"].result()


def test_a_worker_that_was_dropped_is_back_by_itself(failures: Failures) -> None:
    """Jobs that came meanwhile failed with no answer, or with no such worker."""
    failures["frozen_worker"].result()


def test_a_worker_that_was_killed_is_started_again_at_once(failures: Failures) -> None:
    """What the broker still has of its first life isn't taken for another worker."""
    failures["killed_worker"].result()


def test_a_second_worker_of_a_name_is_refused(failures: Failures) -> None:
    """One line says why, nothing listens on its port, and the first one goes on."""
    failures["taken_name"].result()


def test_a_worker_whose_name_is_taken_says_so_and_waits(failures: Failures) -> None:
    """It doesn't fight for it, serves MCP clients, and registers again when the other one has gone."""
    failures["stolen_name"].result()


@pytest.mark.parametrize("failure", ["deaf_worker", "mute_worker"])
def test_a_worker_is_back_when_its_line_is(failures: Failures, failure: str) -> None:
    """The line was open all the time, and nothing came through in one of its directions."""
    failures[failure].result()
