"""The installed program in fabric mode, with a broker of our own: commands, exit status, progress, check."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.tasks.audit import AuditReport
from nfcli.models.tasks.health import StoreReport
from nfcli.shell.cli import main
from support.fabric.fake_broker import FakeBroker, Site, done, event, result
from support.programs import ProgramStarter, TerminalStarter
from support.workers import EnvironmentFactory, NfcliRunner

pytestmark = pytest.mark.slow

TRUE = '{\n    "w1": true\n}\n'
CHECK = ("fastmcp", "auth", "check-token", "token", "x")


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with one worker."""
    broker = FakeBroker()
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), done(ask, {"w1": result(True)})]
    yield broker
    broker.stop()


@pytest.fixture
def site(tmp_path: Path, broker: Any) -> Any:
    """An environment of that broker with no worker of its own."""
    return Site(tmp_path, broker)


class Slow:
    """A worker that sends progress and finishes its job on command."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self.asked = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, ask: Any) -> list[Any]:
        """Answer a POST or a GET."""
        self.asked.set()
        ends = [done(ask, {"w1": result(True)})] if self.may_end.is_set() else []
        said = event(ask, "w1", "half\x1b[2Jway")
        return [self._broker.dispatched(ask, ask.names), *(ends or [said])]


def test_commands_run_on_the_workers_of_the_broker(nfcli: NfcliRunner, site: Any) -> None:
    """Results, tables and what the broker reports about itself."""
    ran = nfcli(*CHECK, environment=site.environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, TRUE, "")
    ran = nfcli("show", "norfab", "workers", environment=site.environment)
    row = "w1 fastmcp alive 0:00:32 12.8 its statistics can't be read"
    assert ran.stdout.splitlines()[1].split() == row.split()
    shown_broker = json.loads(nfcli("show", "norfab", "broker", environment=site.environment).stdout)
    assert shown_broker == {"name": "NFPBroker", "versions": {"norfab": "0.25.0"}, "workers": 1, "services": 1}


def test_a_broker_that_is_away_ends_the_command_with_three(nfcli: NfcliRunner, broker: Any, site: Any) -> None:
    """One line says where it should be."""
    broker.stop()
    ran = nfcli(*CHECK, environment=site.environment)
    line = f"no broker answered at {broker.endpoint} within 2.5 s: start it, or correct endpoint\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", line)


def test_there_is_no_broker_to_show_in_direct_mode(nfcli: NfcliRunner, environment_factory: EnvironmentFactory) -> None:
    """That is a command that failed."""
    ran = nfcli("-c", "show", "norfab", "broker", environment=environment_factory())
    line = "this environment has no broker: its workers are reached directly, see show norfab workers\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", line)


def test_what_a_worker_says_is_a_line_on_stderr(broker: Any, site: Any, nfcli: NfcliRunner) -> None:
    """Where stderr is no terminal; stdout has the result alone."""
    broker.on_ask = lambda ask: [
        *(broker.dispatched(ask, ask.names), event(ask, "w1", "starting"), event(ask, "w1", "half\x1b[2Jway")),
        done(ask, {"w1": result(True)}),
    ]
    ran = nfcli(*CHECK, environment=site.environment)
    assert (ran.returncode, ran.stdout) == (0, TRUE)
    assert re.fullmatch(r"[0-9:]{8} INFO     w1: half\\x1b\[2Jway\n", ran.stderr)


def test_at_a_terminal_it_stays_above_a_line_that_is_gone_before_the_result(
    open_terminal: TerminalStarter, broker: Any, site: Any
) -> None:
    """The line with the elapsed seconds is cleared."""
    slow = broker.on_ask = Slow(broker)
    terminal = open_terminal(environment=site.environment)
    terminal.wait_for_prompt()
    terminal.child.sendline(" ".join(CHECK))
    terminal.child.expect_exact("INFO     w1: half\\x1b[2Jway\r\n")
    terminal.child.expect_exact(" s")
    slow.may_end.set()
    terminal.child.expect_exact("\r\x1b[K" + TRUE.replace("\n", "\r\n"))
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_ctrl_c_during_a_job_leaves_the_terminal_clean(open_terminal: TerminalStarter, broker: Any, site: Any) -> None:
    """The line is cleared, the prompt comes back, and the next job isn't disturbed by the first one's answer."""
    slow = broker.on_ask = Slow(broker)
    terminal = open_terminal(environment=site.environment)
    terminal.wait_for_prompt()
    terminal.child.sendline(" ".join(CHECK))
    terminal.child.expect_exact("INFO     w1: half")
    terminal.child.sendintr()
    terminal.child.expect_exact("\r\x1b[Kcancelled\r\n")
    terminal.wait_for_prompt()
    slow.may_end.set()
    assert terminal.run(" ".join(CHECK)) == TRUE
    assert terminal.leave() == 0


Check = Callable[[], tuple[int, list[str]]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Check:
    """Check the environment in this process; return exit status and the lines about broker and workers."""

    def run() -> tuple[int, list[str]]:
        status = main(["-i", str(tmp_path / "inventory.yaml"), "--check", "offline"])
        lines = capsys.readouterr().out.splitlines()
        return status, [line for line in lines if line[6:].startswith(("broker", "fleet:", "w9", "r1", "client key"))]

    return run


def test_check_asks_the_broker_and_looks_at_workers_that_do_not_run(tmp_path: Path, broker: Any, check: Check) -> None:
    """They are missing; what only matters in direct mode isn't looked at."""
    site = Site(tmp_path, broker, "w9", workers=["w9", "r1"])
    site.client().close()
    status, lines = check()
    assert (status, lines[:5]) == (
        1,
        [
            "ok    client key: a valid pair; the broker accepts any key",
            "ok    r1 key: none yet, the first start creates it",
            "ok    w9 key: none yet, the first start creates it",
            "ok    broker key: broker.shared_key",
            f"ok    broker: {broker.endpoint}, workers registered: 1",
        ],
    )
    assert [line.partition(" is not")[0] for line in lines[5:7]] == [
        "FAULT fleet: worker r1 of topology.workers",
        "FAULT fleet: worker w9 of topology.workers",
    ]
    assert {"ok    r1: not running; the broker has its inventory", "ok    w9: not running"} <= set(lines)
    assert not any("endpoint:" in line for line in lines)


def test_check_reports_that_the_broker_is_away_or_its_key_unknown(tmp_path: Path, broker: Any, check: Check) -> None:
    """A fault each, with the remedy."""
    Site(tmp_path, broker)
    broker.stop()
    line = f"FAULT broker: no broker answered at {broker.endpoint} within 2.5 s: start it, or correct endpoint"
    assert check() == (
        1,
        ["ok    client key: none yet, the first command creates it", "ok    broker key: broker.shared_key", line],
    )
    Site(tmp_path, broker, about={"shared_key": None})
    status, lines = check()
    assert (status, lines[1].split(": set")[0]) == (
        1,
        f"FAULT broker key: {tmp_path / 'inventory.yaml'}: broker: its public key is not known",
    )
    Site(tmp_path, broker, about={"zmq_auth": False})
    assert "ok    broker key: none, as zmq_auth is false: nothing is encrypted" in check()[1]


def test_check_asks_a_worker_that_runs_by_way_of_the_broker(tmp_path: Path, broker: Any, check: Check) -> None:
    """Its database and its audit trail, as in direct mode; one that isn't registered has a fault."""
    site = Site(tmp_path, broker, "w9")
    site.client().close()
    lock = WorkerLock.acquire(site.environment.lock_file("w9"))
    lock.publish(ready=True, endpoint=broker.endpoint, url="http://127.0.0.1:1")
    store = StoreReport(tokens=3, passed_over=0, clock_behind_seconds=0).model_dump()
    answers = {
        "get_status": {},
        "check_store": store,
        "verify_audit": AuditReport(file="f", lines=5, head="x").model_dump(),
    }
    broker.on_ask = lambda ask: (
        [broker.dispatched(ask, ["w9"]), done(ask, {"w9": result(answers[ask.data["task"]])})]
        if "w9" in broker.workers
        else None
    )
    pid, at = os.getpid(), f"the broker at {broker.endpoint}"
    missing = f"FAULT w9: pid {pid}: worker w9 is not registered at {at}: "
    assert [line for line in check()[1] if line.startswith(missing)]
    broker.workers["w9"] = "fastmcp"
    lines = check()[1]
    assert {
        f"ok    w9: running, pid {pid}, through {broker.endpoint}",
        "ok    w9 database: intact, tokens: 3",
        "ok    w9 audit trail: intact, lines: 5",
    } <= set(lines)
    lock.release()


def test_a_backup_needs_a_worker_to_take(nfcli: NfcliRunner, broker: Any, site: Any, tmp_path: Path) -> None:
    """Its name is looked up at the broker; without one the only worker is meant."""
    file = str(tmp_path / "b")
    ran = nfcli("-c", "--backup", file, "--worker", "nobody", environment=site.environment)
    assert (ran.returncode, ran.stderr) == (3, "nfcli: unknown worker 'nobody': there is w1\n")
    broker.workers = {"n1": "nornir"}
    ran = nfcli("-c", "--backup", file, environment=site.environment)
    assert (ran.returncode, ran.stderr.startswith("nfcli: worker w1, last seen ")) == (3, True)
    assert nfcli("fastmcp", "workers", "forget", "w1", environment=site.environment).stdout == TRUE
    ran = nfcli("-c", "--backup", file, environment=site.environment)
    assert (ran.returncode, ran.stderr) == (3, "nfcli: no worker serves 'fastmcp': start one with nfcli -w\n")
    broker.workers = {"w1": "fastmcp", "w2": "fastmcp"}
    ran = nfcli("-c", "--backup", file, environment=site.environment)
    assert (ran.returncode, ran.stderr) == (
        2,
        "nfcli: each worker has its own tokens: name one with --worker: w1, w2\n",
    )
    del broker.workers["w2"]
    ran = nfcli("-c", "--backup", file, environment=site.environment)
    assert (ran.returncode, ran.stderr) == (
        2,
        "nfcli: each worker has its own tokens: name one with --worker: w1, w2 (missing)\n",
    )
    assert not Path(file).exists()


def test_a_script_goes_on_when_its_broker_is_back(start_program: ProgramStarter, broker: Any, site: Any) -> None:
    """The error of a command belongs to its line."""
    program = start_program("-c", environment=site.environment)
    assert program.run_line(" ".join(CHECK)) == TRUE
    broker.stop()
    assert "no broker answered at" in program.run_line(" ".join(CHECK))
    broker.start()
    assert program.run_line(" ".join(CHECK)) == TRUE
    assert program.end() == 2  # of the line that marks the end of a command's output
