"""Where the HTTP server binds, and what it refuses to bind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.http.server import HttpServer, check_exposure

ALL_INTERFACES = "0.0.0.0"  # noqa: S104  what is tested
NO_HOST = "host-that-is-not.invalid"
WAIT_SECONDS = 10.0

has_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Be an application that is never asked."""


@pytest.fixture
def bind() -> Iterator[Callable[..., str]]:
    """Bind servers until the end of the test; keys of the inventory are given, port 0 unless it is one of them."""
    with ExitStack() as opened:

        def bind_one(**settings: Any) -> str:
            inventory = WorkerInventory.model_validate({"service": "fastmcp", "port": 0, **settings})
            server = HttpServer(nothing, inventory)
            opened.callback(server.close)
            return server.bind()

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
def test_url_names_an_address_that_answers(bind: Callable[..., str], host: str, shown: str, reached: list[str]) -> None:
    """Port 0 takes a free one; connections wait from then on."""
    url = bind(host=host)
    assert url == f"http://{shown}:{port_of(url)}/mcp"
    for address in reached:
        socket.create_connection((address, port_of(url)), timeout=WAIT_SECONDS).close()


@has_ipv6
def test_address_of_one_family_is_not_reached_by_the_other(bind: Callable[..., str]) -> None:
    """`::1` stands for itself only."""
    port = port_of(bind(host="::1"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)


def test_port_that_is_taken_is_named_with_the_key_that_sets_it(bind: Callable[..., str]) -> None:
    """Also by a server that was bound a moment ago and doesn't serve yet."""
    port = port_of(bind())
    reason = f"port {port} on 127.0.0.1 is taken: end what listens there, or set another port in the worker's inventory"
    with pytest.raises(WorkerStartError) as raised:
        bind(port=port)
    assert str(raised.value) == f"{reason} (0 takes a free one)"


def test_port_is_free_again_after_close() -> None:
    """At once, connections that wind down notwithstanding."""
    server = HttpServer(nothing, WorkerInventory(service="fastmcp", port=0))
    port = port_of(server.bind())
    socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS).close()
    server.close()
    again = HttpServer(nothing, WorkerInventory(service="fastmcp", port=port))
    assert port_of(again.bind()) == port
    again.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", NO_HOST])
def test_host_of_another_machine_is_refused(bind: Callable[..., str], host: str) -> None:
    """Addresses for documentation are nobody's."""
    with pytest.raises(WorkerStartError) as raised:
        bind(host=host)
    expected = f"host {host} is not an address of this machine: set host in the worker's inventory to one that is"
    assert str(raised.value) == expected


def test_port_that_needs_rights_is_refused(bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports below 1024, for most users of most systems."""

    def refuse(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(WorkerStartError) as raised:
        bind(port=443)
    expected = "port 443 on 127.0.0.1 is not for this user: set port in the worker's inventory to 1024 or more"
    assert str(raised.value) == expected


def test_sockets_are_set_up_so_that_nobody_shares_the_port_and_nothing_waits() -> None:
    """Only where the protocol is named does asyncio take the delay out of small answers."""
    server = HttpServer(nothing, WorkerInventory(service="fastmcp", port=0))
    server.bind()
    (listener,) = server._sockets
    assert listener.proto == socket.IPPROTO_TCP
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    server.close()


@pytest.mark.parametrize("host", [ALL_INTERFACES, "", "::", "10.0.0.1", "mcp.example.com", "fd00::1"])
def test_public_address_without_authentication_is_refused(host: str) -> None:
    """One line that names the host and both ways out."""
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
def test_other_configurations_are_served(settings: dict[str, Any]) -> None:
    """Loopback, authentication, or the operator's word."""
    check_exposure(WorkerInventory.model_validate({"service": "fastmcp", **settings}))


def addresses(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Let every name have these addresses."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answers)


def test_addresses_of_a_name_share_a_port(bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this machine hasn't is passed over, as `::1` where there is no IPv6."""
    addresses(monkeypatch, "192.0.2.1", "127.0.0.2", "127.0.0.3")
    url = bind(host="name")
    monkeypatch.undo()
    for address in ("127.0.0.2", "127.0.0.3"):
        socket.create_connection((address, port_of(url)), timeout=WAIT_SECONDS).close()


def test_port_that_is_free_at_one_address_only_is_given_back(
    bind: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries with others, here all in vain: the second address is the first and more."""
    addresses(monkeypatch, "127.0.0.1", ALL_INTERFACES)
    with pytest.raises(WorkerStartError, match="port 0 on name is taken"):
        bind(host="name")
