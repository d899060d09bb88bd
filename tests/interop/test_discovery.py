"""Services of the reference's that our worker finds: at the start and later, whatever others say, until they go.

Long waits of two fabrics are side by side: the broker of the second is started again while services of the first go.
"""

from __future__ import annotations

import json
import os
import runpy
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import FabricMaker, NfcliRunner, ToolSiteMaker

_site = runpy.run_path(str(Path(__file__).with_name("mcp_site.py")))
ERAS, HANDSHAKE_ERA, SINGLE_POST_ERA = _site["ERAS"], _site["HANDSHAKE_ERA"], _site["SINGLE_POST_ERA"]
WAIT_SECONDS = _site["WAIT_SECONDS"]
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
NO_TASKS = "the answer to list_tasks is no list of at most 1000 tasks"
NO_ANSWER = "no answer within 3 s"


@pytest.fixture(scope="module")
def restarted(new_fabric: FabricMaker, new_tool_site: ToolSiteMaker) -> Iterator[Any]:
    """Run a second fabric whose broker was stopped, asked in vain and started again: all have to join anew."""
    with new_fabric({DEMO: {"service": "demo"}}) as fabric:
        fabric.start(DEMO)
        with new_tool_site(fabric, {OURS: {}}) as site, site.workers[OURS].stream(HANDSHAKE_ERA) as stream:
            site.workers[OURS].await_services({"fastmcp", "demo"})
            fabric.broker.stop()
            failure = site.workers[OURS].failure("demo", "say", text="x")
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
    """Let the second service come; return what a client of each era was told."""
    with ExitStack() as opened:
        streams = [opened.enter_context(worker.stream(era)) for era in ERAS]
        site.fabric.launch_worker(LATE)
        worker.await_services({"fastmcp", "demo", "second"})
        return [stream.next()["method"] for stream in streams]


@pytest.mark.usefixtures("restarted")
def test_services_are_found_at_the_start_whatever_others_say(worker: Any) -> None:
    """One says nothing, one says nonsense; and what has the name of the worker's own service is not taken."""
    assert worker.services() == {"fastmcp", "demo"}
    assert {"say", "stumble", "refuse", "walk", "advise", "get_version"} <= worker.tools("demo").keys()
    own = {"get_inventory", "get_status", "get_tools", "get_version"}
    assert worker.tools("fastmcp").keys() == own
    assert worker.values("fastmcp", "get_status").keys() == {OURS}


def test_a_service_that_shows_up_later_is_found_and_clients_are_told(worker: Any, newcomer: list[str]) -> None:
    """With a GET's stream and with subscriptions/listen; its tools can be called at once."""
    assert newcomer == [TOOLS_CHANGED] * 2
    assert worker.values("second", "say", text="hi") == {LATE: {"text": "hi", "worker": LATE}}


@pytest.mark.usefixtures("worker", "newcomer")
def test_the_program_discovers_all_services(nfcli: NfcliRunner, site: Any) -> None:
    """What was found is the result, what wasn't is a line each; that is no failure."""
    ran = nfcli("fastmcp", "discover", "workers", OURS, environment=site.environment)
    found = json.loads(ran.stdout)[OURS]
    assert {service: len(tools) for service, tools in found.items()} == {"demo": 16, "second": 16}
    assert (ran.returncode, sorted(ran.stderr.splitlines())) == (
        0,
        [
            f"{OURS}: service demo: tools found: 16",
            f"{OURS}: service mumble: {NO_TASKS}",
            f"{OURS}: service mute: {NO_ANSWER}",
            f"{OURS}: service second: tools found: 16",
        ],
    )


@pytest.mark.usefixtures("worker", "newcomer")
@pytest.mark.parametrize(
    ("service", "told"),
    [
        ("mute", f"service mute: {NO_ANSWER}"),
        ("mumble", f"service mumble: {NO_TASKS}"),
        ("nosuch", "unknown service 'nosuch': there is demo, mumble, mute, second"),
        ("fastmcp", "service fastmcp is this worker's own: its tools are always published"),
    ],
)
def test_a_service_that_is_not_discovered_is_told_in_one_line(
    nfcli: NfcliRunner, site: Any, service: str, told: str
) -> None:
    """Asked for by name, it is a failure."""
    ran = nfcli("fastmcp", "discover", "service", service, "workers", OURS, environment=site.environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"{OURS}: {told}\n")


def _await_reader(path: Path) -> None:
    """Wait until somebody has opened the named pipe to read from it; whoever comes later doesn't wait."""
    opened = threading.Event()

    def write() -> None:
        os.close(os.open(path, os.O_WRONLY))
        opened.set()

    threading.Thread(target=write, daemon=True).start()
    assert opened.wait(WAIT_SECONDS)
