"""A service manager gets reports of what a service does on its socket; without one, nothing happens."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.shell.processes.service_manager import ServiceManager

WAIT_SECONDS = 5.0


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager, in the file system or, as in user sessions of old, outside of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(WAIT_SECONDS)
        listener.bind(str(tmp_path / "notify") if request.param == "path" else f"\0nfcli-test-{os.getpid()}")
        yield listener


def environ(listener: socket.socket, **more: str) -> dict[str, str]:
    """Return what a service manager sets for a service."""
    name = listener.getsockname()
    address = name if isinstance(name, str) else f"@{name[1:].decode()}"
    return {"NOTIFY_SOCKET": address, **more}


def test_what_the_service_does_is_reported(listener: socket.socket) -> None:
    """One datagram each; a status is one line of limited length."""
    manager = ServiceManager(environ(listener), monotonic=lambda: 7.5)
    manager.report_ready("all\nready")
    manager.report_status("x" * 1_000)
    manager.report_reloading()
    manager.report_stopping()
    assert [listener.recv(4096).decode() for _ in range(4)] == [
        "READY=1\nSTATUS=all ready",
        f"STATUS={'x' * 200}",
        "RELOADING=1\nMONOTONIC_USEC=7500000",
        "STOPPING=1",
    ]


def test_the_watchdog_gets_three_pings_in_its_time(listener: socket.socket) -> None:
    """From the moment that the service is ready, until it stops."""
    clock = SimpleNamespace(now=100.0)
    variables = environ(listener, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))
    manager = ServiceManager(variables, monotonic=lambda: clock.now)
    assert (manager.watchdog_seconds, manager.next_ping) == (20.0, math.inf)
    manager.report_ready("")
    manager.ping()
    manager.ping()
    clock.now += 20.0
    manager.ping()
    assert manager.next_ping == 140.0
    manager.report_stopping()
    clock.now += 100.0
    manager.ping()
    manager.report_status("end")
    assert [listener.recv(4096).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=",
        "WATCHDOG=1",
        "WATCHDOG=1",
        "STOPPING=1",
        "STATUS=end",
    ]


@pytest.mark.parametrize(
    "variables",
    [
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_that_is_not_for_this_process_gets_no_pings(tmp_path: Path, variables: dict[str, str]) -> None:
    """Nor does one whose time is not valid."""
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone"), **variables})
    manager.report_ready("the socket is gone")  # which is no error
    assert (manager.watchdog_seconds, manager.next_ping) == (math.inf, math.inf)


def test_child_processes_do_not_get_the_variables(listener: socket.socket) -> None:
    """A worker must not report that the service is ready."""
    variables = environ(listener, WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()), HOME="/")
    ServiceManager(variables)
    assert variables == {"HOME": "/"}


def test_without_a_manager_nothing_is_sent() -> None:
    """As in a terminal."""
    manager = ServiceManager({"WATCHDOG_USEC": "60000000"})
    manager.report_ready("ready")
    assert manager.next_ping == math.inf
