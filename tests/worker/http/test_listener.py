"""Binding of the HTTP listener: addresses, ports, and what is rejected."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.http.listener import HttpListener, check_exposure
from nfcli.worker.http.port_holder import find_holder

ALL_INTERFACES = "0.0.0.0"  # noqa: S104  what is tested
NO_HOST = "host-that-is-not.invalid"
WAIT_SECONDS = 10.0

has_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")


@pytest.fixture
def bind() -> Iterator[Callable[..., str]]:
    """Bind listeners until the end of the test, to port 0 unless another is given; return the URL."""
    with ExitStack() as opened:

        def bind_one(**settings: Any) -> str:
            inventory = WorkerInventory.model_validate({"service": "fastmcp", "port": 0, **settings})
            return opened.enter_context(HttpListener.bind(inventory)).url

        yield bind_one


def port_of(url: str) -> int:
    """Return the port in a URL."""
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest.mark.parametrize(
    ("host", "shown", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1"]),
        ("localhost", "localhost", ["127.0.0.1"]),
        (ALL_INTERFACES, "127.0.0.1", ["127.0.0.1"]),
        pytest.param("::1", "[::1]", ["::1"], marks=has_ipv6),
        pytest.param("[::1]", "[::1]", ["::1"], marks=has_ipv6),
        pytest.param("", "127.0.0.1", ["127.0.0.1", "::1"], marks=has_ipv6),
        pytest.param("::", "127.0.0.1", ["127.0.0.1", "::1"], marks=has_ipv6),
    ],
)
def test_url_has_an_address_that_accepts_connections(
    bind: Callable[..., str], host: str, shown: str, reached: list[str]
) -> None:
    """Port 0 selects a free one; connections queue from then on."""
    url = bind(host=host)
    assert url == f"http://{shown}:{port_of(url)}/mcp"
    for address in reached:
        socket.create_connection((address, port_of(url)), timeout=WAIT_SECONDS).close()


@has_ipv6
def test_address_of_one_family_is_not_reached_by_the_other(bind: Callable[..., str]) -> None:
    """`::1` does not include 127.0.0.1."""
    port = port_of(bind(host="::1"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)


def test_port_in_use_is_an_error_that_names_port_and_process(bind: Callable[..., str]) -> None:
    """Also where the other listener does not serve yet; the process where the system tells which it is."""
    port = port_of(bind())
    with pytest.raises(WorkerStartError) as raised:
        bind(port=port)
    assert str(raised.value) == (
        f"port {port} on 127.0.0.1 is already in use{_used_by_this_process()}, "
        "or set another port in the worker's inventory (0 selects a free one)"
    )


def _used_by_this_process() -> str:
    if not sys.platform.startswith("linux"):
        return ": stop the program that uses it"
    return f" by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()}): stop that"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_holder_of_a_port_is_named_without_its_arguments(tmp_path: Path) -> None:
    """They may be secrets; of nfcli's workers the name is shown. Unreadable processes are left out."""
    sockets = "head\n  0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n"
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(sockets)
    assert find_holder(8001, tmp_path) is None
    for pid, command, descriptor in (("7", "x", "9"), ("8", "nginx\0-g\0secret", "4242")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd" / "3").symlink_to(f"socket:[{descriptor}]")
        (tmp_path / pid / "cmdline").write_text(command)
        (tmp_path / pid / "comm").write_text("ngi\x1bnx\n")
    assert find_holder(8001, tmp_path) == "ngi?nx (pid 8)"
    assert find_holder(8002, tmp_path) is None
    (tmp_path / "8" / "cmdline").write_text("python\0-m\0nfcli.worker\0--name\0w1\0")
    assert find_holder(8001, tmp_path) == "nfcli's worker w1 (pid 8)"


def test_port_is_free_again_after_close() -> None:
    """At once, in spite of connections in TIME_WAIT."""
    with HttpListener.bind(WorkerInventory(service="fastmcp", port=0)) as listener:
        port = port_of(listener.url)
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS).close()
    with HttpListener.bind(WorkerInventory(service="fastmcp", port=port)) as again:
        assert port_of(again.url) == port


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", NO_HOST])
def test_host_of_another_machine_is_rejected(bind: Callable[..., str], host: str) -> None:
    """No machine has the addresses reserved for documentation."""
    with pytest.raises(WorkerStartError) as raised:
        bind(host=host)
    expected = f"host {host} is not an address of this machine: set host in the worker's inventory to one that is"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.EACCES,
            "port 443 on 127.0.0.1 requires privileges: set port in the worker's inventory to 1024 or more",
        ),
        (
            errno.ENOBUFS,
            "cannot bind port 443 on 127.0.0.1: no room: check host and port in the worker's inventory",
        ),
    ],
)
def test_bind_error_names_the_remedy(
    bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    """Most systems reserve ports below 1024."""

    def fail(_socket: socket.socket, _address: object) -> None:
        raise OSError(code, "no room")

    monkeypatch.setattr(socket.socket, "bind", fail)
    with pytest.raises(WorkerStartError) as raised:
        bind(port=443)
    assert str(raised.value) == message


def test_socket_options_prevent_shared_ports_and_delays() -> None:
    """The asyncio loop sets TCP_NODELAY only where the protocol is given."""
    with HttpListener.bind(WorkerInventory(service="fastmcp", port=0)) as listener:
        (opened,) = listener.sockets
        assert opened.proto == socket.IPPROTO_TCP
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


@pytest.mark.parametrize("host", [ALL_INTERFACES, "", "::", "10.0.0.1", "mcp.example.com", "fd00::1"])
def test_public_address_without_authentication_is_rejected(host: str) -> None:
    """The error names the host and both remedies."""
    with pytest.raises(WorkerStartError) as raised:
        check_exposure(WorkerInventory(service="fastmcp", host=host))
    assert str(raised.value) == (
        f"other machines can reach host {host or 'empty (all interfaces)'} and authentication is off: set "
        "authentication_enabled: true in the worker's inventory, or allow_unauthenticated: true if that is meant"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "127.0.0.1"},
        {"host": "127.9.9.9"},
        {"host": "::1"},
        {"host": "localhost"},
        {"host": ALL_INTERFACES, "authentication_enabled": True},
        {"host": ALL_INTERFACES, "allow_unauthenticated": True},
    ],
)
def test_other_configurations_are_accepted(settings: dict[str, Any]) -> None:
    """Loopback, authentication, or explicit permission."""
    check_exposure(WorkerInventory.model_validate({"service": "fastmcp", **settings}))


def addresses(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Resolve every name to these addresses."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answers)


def test_addresses_of_a_name_share_a_port(bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this machine does not have is skipped, for instance `::1` without IPv6."""
    addresses(monkeypatch, "192.0.2.1", "127.0.0.2", "127.0.0.3")
    url = bind(host="name")
    monkeypatch.undo()
    for address in ("127.0.0.2", "127.0.0.3"):
        socket.create_connection((address, port_of(url)), timeout=WAIT_SECONDS).close()


def test_port_that_is_free_at_one_address_only_is_released(
    bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some attempts with others, which all fail here: the second address includes the first."""
    addresses(monkeypatch, "127.0.0.1", ALL_INTERFACES)
    with pytest.raises(WorkerStartError, match="port 0 on name"):
        bind(host="name")
