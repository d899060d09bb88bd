"""Workers in the foreground (`nfcli -w`): restarted when they end or hang, each by itself, and ended with it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nfcli import NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import Program, ProgramStarter, TerminalStarter, Watch
from support.strangers import wait_until
from support.workers import EnvironmentFactory

pytestmark = pytest.mark.slow

STOP_SECONDS = 5.0
READY_SECONDS = 40.0


def ready(supervisor: Program) -> tuple[int, str]:
    """Wait until the foreground says that a worker is ready; return its pid and URL."""
    said = supervisor.wait_for(rf"nfcli: worker {DEFAULT_WORKER} is ready \(pid (\d+)\): MCP at (http://\S+/mcp)\n")
    return int(said[1]), said[2]


def test_the_foreground_restarts_a_worker_that_dies(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """It says what happens; tokens are kept, and clients that were connected go on. SIGTERM ends it cleanly."""
    environment = environment_factory()
    supervisor = start_program("-w", environment=environment)
    ready(supervisor)
    norfab = NorFab(environment.inventory_file)
    with contextlib.closing(norfab.make_client()) as client:
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "a", "token": "t1"})
        watch(environment).kill()
        supervisor.wait_for(rf"nfcli: worker {DEFAULT_WORKER} was killed by SIGKILL: restart in 1 s\n")
        said = ready(supervisor)
        checked = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})
        assert checked[DEFAULT_WORKER]["result"] is True
    worker = watch(environment)
    assert (worker.pid, worker.url) == said
    supervisor.process.terminate()
    supervisor.wait_for(r"\Anfcli: stopped\n\Z", seconds=STOP_SECONDS + 1)
    assert (supervisor.end(), supervisor.out, worker.is_gone_within(0)) == (0, "", True)


def test_the_foreground_goes_on_trying_with_growing_pauses(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """It reports why it can't restart a worker; a corrected inventory is enough, and a stop doesn't wait for a try."""
    environment = environment_factory()
    file = environment.inventory_file
    assert file is not None
    good = file.read_text()
    supervisor = start_program("-w", environment=environment)
    ready(supervisor)
    file.write_text(good.replace('"port"', '"prot"'))
    watch(environment).kill()
    supervisor.wait_for(r"could not be restarted \([^\n]*prot: no such key[^\n]*\): restart in 2 s\n")
    file.write_text(good)
    ready(supervisor)
    watch(environment).kill()
    supervisor.wait_for("restart in 4 s\n")
    supervisor.process.terminate()
    supervisor.wait_for("stopped\n", seconds=3)
    assert supervisor.end() == 0


def test_the_service_manager_learns_what_happens(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch, tmp_path: Path
) -> None:
    """Ready once the workers are, pings for the watchdog, restarts in the status, stopping; workers send nothing."""
    environment = environment_factory()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(READY_SECONDS)
        manager.bind(str(tmp_path / "notify"))
        variables = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        supervisor = start_program("-w", environment=environment, env=variables)

        def wait_for(beginning: str) -> str:
            while not (text := manager.recv(4096).decode()).startswith(beginning):
                pass
            return text

        assert wait_for("READY=1") == f"READY=1\nSTATUS=workers are ready: {DEFAULT_WORKER}"
        for _ in range(3):
            wait_for("WATCHDOG=1")
        worker = watch(environment)
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        worker.kill()
        assert wait_for("STATUS=") == f"STATUS=worker {DEFAULT_WORKER} was killed by SIGKILL: restart in 1 s"
        assert wait_for("STATUS=").startswith(f"STATUS=worker {DEFAULT_WORKER} is ready")
        supervisor.process.terminate()
        wait_for("STOPPING=1")
    assert supervisor.end() == 0


def test_ctrl_c_ends_the_foreground(
    environment_factory: EnvironmentFactory, open_terminal: TerminalStarter, watch: Watch
) -> None:
    """At a terminal: one line, status 0, no worker left."""
    environment = environment_factory()
    terminal = open_terminal("-w", environment=environment)
    terminal.child.expect(r"is ready \(pid \d+\): MCP at \S+\r\n")
    worker = watch(environment)
    terminal.child.sendintr()
    terminal.child.expect(r"nfcli: stopped\r\n")
    assert terminal.end() == 0
    assert worker.is_gone_within(0)


def test_workers_end_with_a_foreground_that_is_killed(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """A service manager that kills it can start it again."""
    environment = environment_factory("one", "two")
    supervisor = start_program("-w", environment=environment)
    for name in ("one", "two"):
        supervisor.wait_for(rf"worker {name} is ready")
    workers = [watch(environment, name) for name in ("one", "two")]
    supervisor.process.kill()
    assert [worker.is_gone_within(STOP_SECONDS) for worker in workers] == [True, True]


def test_only_one_of_two_foregrounds_runs_a_worker(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter
) -> None:
    """Also when both start at the same moment: the other one ends and says who has it."""
    environment = environment_factory()
    both = [start_program("-w", environment=environment) for _ in range(2)]
    pipes = {program.process.stderr: program for program in both}
    for _ in both:
        (heard, *_), _, _ = select.select(list(pipes), [], [], 30)
        program = pipes.pop(heard)
        if " is ready " in program.wait_for(r"[^\n]*\n")[0]:
            winner = program
        else:
            assert program.end() == 1
    assert winner.process.poll() is None
    loser = next(program for program in both if program is not winner)
    assert loser.process.returncode == 1
    winner.process.terminate()
    assert winner.end() == 0


# Workers that hang

IMPATIENT = """
import sys
from nfcli import NorFab
from nfcli.shell.processes.supervisor import Supervisor

norfab = NorFab(sys.argv[1])
notice = lambda text: print(text, file=sys.stderr, flush=True)
names = norfab.inventory.topology.workers
supervisor = Supervisor(
    norfab.environment, names, log_level="INFO", notice=notice, first_backoff=0.01, question_seconds=0.1, hang_seconds=2
)
sys.exit(supervisor.run())
"""
HANGING_TASK = """
import ctypes

from nfcli import TaskInput, WorkerContext, task


class HangInput(TaskInput):
    pass


@task(arguments=HangInput)
def hang(worker: WorkerContext, arguments: HangInput) -> None:
    \"\"\"Hold the interpreter's lock for good, as a deadlock in an extension module does.\"\"\"
    ctypes.PyDLL(None).pause()
"""


@contextlib.contextmanager
def impatient(environment: Environment) -> Iterator[Program]:
    """Run the supervisor with short times; its workers are ready."""
    program = Program([sys.executable, "-c", IMPATIENT, str(environment.inventory_file)])
    try:
        yield program
        program.process.terminate()
        assert program.end() == 0
    finally:
        program.kill()


def pid_of(supervisor: Program, name: str) -> int:
    """Wait until a worker is reported as ready; return its pid."""
    return int(supervisor.wait_for(rf"worker {name} is ready \(pid (\d+)\)[^\n]*\n")[1])


def hang_by_signal(environment: Environment, pid: int) -> None:
    """Stop all threads of a worker."""
    assert environment.inventory_file is not None
    os.kill(pid, signal.SIGSTOP)


def hang_by_deadlock(environment: Environment, _pid: int) -> None:
    """Have a task of the worker `one` keep the interpreter's lock."""
    with NorFab(environment.inventory_file) as norfab:
        norfab.make_client().run_job("fastmcp", "hang", workers="one", timeout=0.5)


@pytest.mark.parametrize("hang", [hang_by_signal, hang_by_deadlock])
def test_a_worker_that_hangs_is_restarted(
    environment_factory: EnvironmentFactory, hang: Callable[[Environment, int], None]
) -> None:
    """The other one goes on untouched."""
    environment = environment_factory("one", "two", plugins=["hanging"])
    (environment.folder / "hanging.py").write_text(HANGING_TASK)
    with impatient(environment) as supervisor:
        pids = {name: pid_of(supervisor, name) for name in ("one", "two")}
        hang(environment, pids["one"])
        supervisor.wait_for("worker one has not answered for 2 s and was killed: restart in 0.01 s\n")
        assert pid_of(supervisor, "one") != pids["one"]
        owner = read_owner(environment.lock_file("two"))
        assert owner is not None
        assert owner.pid == pids["two"]
    assert "two" not in supervisor.err


def has_reader(fifo: Path) -> bool:
    """Whether a process waits for a named pipe's writer; lets it go on."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_a_slow_start_delays_no_other_worker(environment_factory: EnvironmentFactory) -> None:
    """One worker's plugin waits while it is imported, for a file that is written at the end."""
    environment = environment_factory("one", "two", plugins=["slow_plugin"])
    gate = environment.folder / "gate"
    plugin = environment.folder / "slow_plugin.py"
    plugin.write_text(HANGING_TASK)
    with impatient(environment) as supervisor:
        pids = {name: pid_of(supervisor, name) for name in ("one", "two")}
        os.mkfifo(gate)
        plugin.write_text(f"{HANGING_TASK}\nimport sys\nif 'one' in sys.argv:\n    open({str(gate)!r}).read()\n")
        os.kill(pids["one"], signal.SIGKILL)
        supervisor.wait_for("worker one was killed by SIGKILL[^\n]*\n")
        os.kill(pids["two"], signal.SIGKILL)
        pid_of(supervisor, "two")
        wait_until(lambda: has_reader(gate))
        pid_of(supervisor, "one")


def test_a_process_that_can_not_be_started_is_tried_again(environment_factory: EnvironmentFactory) -> None:
    """The supervisor has no file descriptor left for a while; the other worker goes on."""
    environment = environment_factory("one", "two")
    with impatient(environment) as supervisor:
        pids = {name: pid_of(supervisor, name) for name in ("one", "two")}
        number = supervisor.process.pid
        limits = resource.prlimit(number, resource.RLIMIT_NOFILE)
        resource.prlimit(
            number, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{number}/fd").iterdir())) - 2, limits[1])
        )
        os.kill(pids["one"], signal.SIGKILL)
        refused = r"worker one could not be restarted \(worker one can't start: no new process: Too many open files\)"
        supervisor.wait_for(rf"{refused}: restart in [\d.]+ s\n")
        resource.prlimit(number, resource.RLIMIT_NOFILE, limits)
        pid_of(supervisor, "one")
    assert "Traceback" not in supervisor.err
    assert "two" not in supervisor.err
