"""Services of the reference's that our worker finds: at the start and later, whatever others say, until they go.

The long waits of three fabrics are side by side: services of one go, and the broker of another one is started again,
while the third is looked at.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.protocol.jobs import CHECK_BEFORE_RETRY
from support.mcp.served_worker import HANDSHAKE_ERA
from support.norfab.mcp_site import ERAS, WAIT_SECONDS
from support.norfab.sites import FabricMaker, ToolSiteMaker
from support.own_tools import OWN_TASKS
from support.workers import NfcliRunner

TOOLS_CHANGED, PROMPTS_CHANGED = (f"notifications/{kind}/list_changed" for kind in ("tools", "prompts"))
OURS, THEIRS, DEMO, LATE = "fastmcp-worker-1", "norfab-worker-1", "demo-worker-1", "second-worker-1"
MUTE, MUMBLING = "mute-worker-1", "mumble-worker-1"
SERVICES = {
    DEMO: {"service": "demo"},
    MUTE: {"service": "mute"},
    MUMBLING: {"service": "mumble", "answer": ["mm"]},
    THEIRS: {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True},
    LATE: {"service": "second"},
}
NO_TASKS = "the answer to list_tasks is not a list of at most 1000 tasks"
NO_ANSWER = "no answer within 3 s"
GONE = f"worker {DEMO} has gone away while the job ran: {CHECK_BEFORE_RETRY}"
VANISH_SECONDS = 20.0


def _await_reader(pipe: Path) -> int:
    """Wait until somebody has opened the pipe to read from it; return a descriptor that keeps him waiting."""
    opened: queue.SimpleQueue[int] = queue.SimpleQueue()
    # A thread of its own, since it would wait for ever without a connection.
    threading.Thread(target=lambda: opened.put(os.open(pipe, os.O_WRONLY)), daemon=True).start()
    return opened.get(timeout=WAIT_SECONDS)


@dataclass
class Departure:
    """A service whose worker was killed in the middle of a call, and one that was stopped.

    `seconds` is how long their tools were listed after that, `notified` the notifications that a client of each era had
    received by then, `failure` the outcome of the call.
    """

    worker: Any
    failure: Future[str]
    seconds: float = 0.0
    notified: list[set[str]] = field(default_factory=list)
    has_begun: threading.Event = field(default_factory=threading.Event)
    has_happened: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Wait until the tools are gone."""
        with ExitStack() as opened:
            streams = [opened.enter_context(self.worker.stream(era)) for era in ERAS]
            self.has_begun.set()
            assert self.has_happened.wait(WAIT_SECONDS)
            began = time.monotonic()
            self.worker.await_services({"fastmcp"})
            self.seconds = time.monotonic() - began
            self.notified = [{stream.next()["method"], stream.next()["method"]} for stream in streams]


@pytest.fixture(scope="module")
def departure(
    new_fabric: FabricMaker, new_tool_site: ToolSiteMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Departure]]:
    """Begin with two services that go, and let their tools go while other tests run; return what waits for the end."""
    workers = {DEMO: {"service": "demo"}, LATE: {"service": "second"}}
    pipe = tmp_path_factory.mktemp("gate") / "pipe"
    os.mkfifo(pipe)
    with new_fabric(workers, services={"second": "demo"}) as fabric, ThreadPoolExecutor() as threads:
        fabric.start(*workers)
        with new_tool_site(fabric, {OURS: {}}) as site:
            worker = site.workers[OURS]
            worker.await_services({"fastmcp", "demo", "second"})
            call = threads.submit(worker.failure, "demo", "walk", steps=1, gate=str(pipe))
            walking = _await_reader(pipe)
            departure = Departure(worker, call)
            watched = threads.submit(departure.watch)
            assert departure.has_begun.wait(WAIT_SECONDS)
            fabric.workers[DEMO].kill()
            fabric.workers[LATE].stop()
            departure.has_happened.set()

            def end() -> Departure:
                watched.result(WAIT_SECONDS)
                return departure

            yield end
        os.close(walking)


@pytest.fixture(scope="module")
def restarted(new_fabric: FabricMaker, new_tool_site: ToolSiteMaker) -> Iterator[Any]:
    """Run a fabric whose broker was stopped, asked in vain and started again: all have to join again."""
    with new_fabric({DEMO: {"service": "demo"}}) as fabric:
        fabric.start(DEMO)
        with new_tool_site(fabric, {OURS: {}}) as site:
            worker = site.workers[OURS]
            worker.await_services({"fastmcp", "demo"})
            with worker.stream(HANDSHAKE_ERA) as stream:
                fabric.broker.stop()
                failure = worker.failure("demo", "say", text="x")
                fabric.launch_broker()
                yield site, stream, failure


@pytest.fixture(scope="module")
def site(new_fabric: FabricMaker, new_tool_site: ToolSiteMaker) -> Iterator[Any]:
    """Run the fabric that services come to and go from; the one named `second` comes later."""
    with new_fabric(SERVICES, services={"second": "demo", "mumble": "mute"}) as fabric:
        fabric.start(*(name for name in SERVICES if name != LATE))
        with new_tool_site(fabric, {OURS: {}}) as site:
            yield site


@pytest.fixture(scope="module")
def worker(site: Any) -> Any:
    """Take our worker on it, which has found the service `demo`."""
    worker = site.workers[OURS]
    worker.await_services({"fastmcp", "demo"})
    return worker


@pytest.fixture(scope="module")
def newcomer(site: Any, worker: Any) -> list[str]:
    """Start the second service; return the notifications that a client of each era received."""
    with ExitStack() as opened:
        streams = [opened.enter_context(worker.stream(era)) for era in ERAS]
        site.fabric.launch_worker(LATE)
        worker.await_services({"fastmcp", "demo", "second"})
        return [stream.next()["method"] for stream in streams]


@pytest.mark.usefixtures("departure", "restarted")
def test_services_are_found_at_the_start_whatever_others_say(worker: Any) -> None:
    """One says nothing, one says nonsense; and what has the name of the worker's own service is not taken."""
    assert worker.services() == {"fastmcp", "demo"}
    assert {"say", "stumble", "refuse", "walk", "advise", "get_version"} <= worker.tools("demo").keys()
    assert worker.tools("fastmcp").keys() == set(OWN_TASKS)
    assert worker.values("fastmcp", "get_status").keys() == {OURS}


def test_a_service_that_registers_later_is_found_and_clients_are_notified(worker: Any, newcomer: list[str]) -> None:
    """With a GET's stream and with subscriptions/listen; its tools can be called at once."""
    assert newcomer == [TOOLS_CHANGED] * 2
    assert worker.values("second", "say", text="hi") == {LATE: {"text": "hi", "worker": LATE}}


def _said(text: str) -> list[str]:
    """Return the lines of stderr, of events the worker and the message alone."""
    return [re.sub(r"^[0-9:.]{12} INFO +(\S+) running: ", r"\1: ", line) for line in text.splitlines()]


@pytest.mark.usefixtures("worker", "newcomer")
def test_the_program_discovers_all_services(nfcli: NfcliRunner, site: Any) -> None:
    """What was found is the result, what wasn't is a line each; that is no failure."""
    ran = nfcli("fastmcp", "discover", "workers", OURS, environment=site.environment)
    found = json.loads(ran.stdout)[OURS]
    assert {service: len(tools) for service, tools in found.items()} == {"demo": 15, "second": 15}
    assert (ran.returncode, sorted(_said(ran.stderr))) == (
        0,
        [
            f"{OURS}: service demo: tools found: 15",
            f"{OURS}: service mumble: {NO_TASKS}",
            f"{OURS}: service mute: {NO_ANSWER}",
            f"{OURS}: service second: tools found: 15",
        ],
    )


@pytest.mark.usefixtures("worker", "newcomer")
def test_the_program_discovers_one_service(nfcli: NfcliRunner, site: Any, worker: Any) -> None:
    """Its tools are named, as MCP clients see them."""
    ran = nfcli("fastmcp", "discover", "service", "second", "workers", OURS, environment=site.environment)
    names = sorted(tool["name"] for tool in worker.tools("second").values())
    assert json.loads(ran.stdout) == {OURS: {"second": names}}
    assert (ran.returncode, _said(ran.stderr)) == (0, [f"{OURS}: service second: tools found: 15"])


@pytest.mark.usefixtures("worker", "newcomer")
@pytest.mark.parametrize(
    ("service", "notified"),
    [
        ("mumble", f"service mumble: {NO_TASKS}"),
        ("nosuch", "unknown service 'nosuch': known are demo, mumble, mute, second"),
        ("fastmcp", "service fastmcp is this worker's own: its tools are always published"),
    ],
)
def test_a_service_that_is_not_discovered_is_reported_in_one_line(
    nfcli: NfcliRunner, site: Any, service: str, notified: str
) -> None:
    """Asked for by name, it is a failure."""
    ran = nfcli("fastmcp", "discover", "service", service, "workers", OURS, environment=site.environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"{OURS}: {notified}\n")


def test_tools_of_services_that_go_are_removed_and_clients_are_notified(departure: Callable[[], Departure]) -> None:
    """Within 20 s, of which NorFab's broker takes 15; a call that was in progress fails too."""
    gone = departure()
    assert gone.seconds < VANISH_SECONDS
    assert gone.notified == [{TOOLS_CHANGED, PROMPTS_CHANGED}] * 2
    assert gone.failure.result(WAIT_SECONDS) == f"{DEMO}: {GONE}"
    params = {"name": "service_demo__task_say", "arguments": {"text": "x"}}
    for era in ERAS:
        refusal = gone.worker.refusal("tools/call", params, era)
        assert refusal["message"].startswith("unknown tool 'service_demo__task_say'")


def test_a_broker_that_is_started_again_costs_no_tools(restarted: Any) -> None:
    """Calls meanwhile fail in one line, later ones work; clients hear of no change, since there was none."""
    site, stream, failure = restarted
    site.fabric.await_broker()
    site.fabric.await_workers(OURS, DEMO)
    worker = site.workers[OURS]
    assert failure.startswith(f"the broker at {site.fabric.endpoint} ")
    assert worker.values("demo", "say", text="again") == {DEMO: {"text": "again", "worker": DEMO}}
    assert worker.services() == {"fastmcp", "demo"}
    site.client.run_job("fastmcp", "discover", workers=[OURS])
    assert _received(stream) == set()


def _received(stream: Any) -> set[str]:
    """Return the methods of the messages that a stream has brought so far."""
    stream.cut()
    return set(stream.methods())
