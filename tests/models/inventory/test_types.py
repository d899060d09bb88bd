"""What each type of inventory value accepts and refuses."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from nfcli.models.inventory.types import (
    BindEndpoint,
    BindHost,
    ConnectEndpoint,
    CurveKey,
    Flag,
    HttpUrl,
    ModuleNames,
    Origins,
    Port,
    Scopes,
    Section,
    Texts,
    is_loopback_host,
    kind_of,
    url_host,
)

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def refusal(kind: Any, value: Any) -> str:
    """Return the message with which a type refuses a value."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value.errors()[0]["msg"])


ACCEPTED = [
    *[(Flag, value, True) for value in (True, 1, "1", "true", "True", "YES", "on", " on ")],
    *[(Flag, value, False) for value in (False, 0, "0", "false", "No", "off")],
    (Port, 0, 0),
    (Port, 65_535, 65_535),
    (Port, "08001", 8001),
    (BindHost, "", ""),
    (BindHost, "0.0.0.0", "0.0.0.0"),  # noqa: S104  never bound
    (BindHost, "[::1]", "::1"),
    (BindHost, "fe80::1%eth0", "fe80::1%eth0"),
    (BindHost, "my_host-1.example.", "my_host-1.example."),
    (BindEndpoint, "tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
    (BindEndpoint, "tcp://*:5556", "tcp://*:5556"),
    (BindEndpoint, "tcp://[::]:*", "tcp://[::]:*"),
    (BindEndpoint, "ipc:///run/a b.ipc", "ipc:///run/a b.ipc"),
    (ConnectEndpoint, "tcp://broker.example:5555", "tcp://broker.example:5555"),
    (ConnectEndpoint, "ipc:///run/broker", "ipc:///run/broker"),
    (CurveKey, KEY, KEY),
    (HttpUrl, "https://[::1]:8443/tenant/", "https://[::1]:8443/tenant/"),
    (HttpUrl, "http://127.0.0.1:8001", "http://127.0.0.1:8001"),
    (Scopes, ["read", "https://e/x#y", "a:b"], ("read", "https://e/x#y", "a:b")),
    (
        Origins,
        ["https://a", "http://a:*", "vscode-webview://x", "http://[::1]:1"],
        ("https://a", "http://a:*", "vscode-webview://x", "http://[::1]:1"),
    ),
    (Texts, ("a",), ("a",)),
    (ModuleNames, ["lab", "lab.bgp_tasks", "_x.Y1", "lab"], ("lab", "lab.bgp_tasks", "_x.Y1")),
    (Section, {"a": [1]}, {"a": [1]}),
]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    ACCEPTED,
)
def test_value_is_accepted(kind: Any, value: Any, expected: Any) -> None:
    """Flags and numbers may be text, as in environment variables."""
    assert TypeAdapter(kind).validate_python(value) == expected


FLAG = "must be true or false (also the words 1, yes, on, 0, no, off)"
PORT = "must be a port number, 0 to 65535"
HOST = "must be an IP address or a host name, or empty for all interfaces"
TEXT = "must be text (in quotes, where YAML would read it as something else)"
TCP = "must be tcp://HOST:PORT, or ipc:// and an absolute path"
IPC = "must be ipc:// and an absolute path, or tcp://HOST:PORT"
CURVE = "must be a CURVE public key, 40 Z85 characters in quotes"
URL = "must be a URL, http://… or https://…, without user, query or fragment"
SCOPE = 'must be a scope: printable ASCII without blanks, " and \\'
MODULE = "must be the dotted name of a Python module, as in package.module"
ORIGIN = "must be SCHEME://NAME, SCHEME://NAME:PORT or SCHEME://NAME:*, without a path"


REFUSED = [
    (Flag, "maybe", f"{FLAG}, got 'maybe'"),
    (Flag, "", f"{FLAG}, got ''"),
    (Flag, 2, f"{FLAG}, got 2"),
    (Flag, 1.0, f"{FLAG}, got 1.0"),
    (Flag, None, f"{FLAG}, got nothing"),
    (Flag, [True], f"{FLAG}, got a list"),
    *[(Port, value, f"{PORT}, got {value!r}") for value in (-1, 65_536, 1.0, "8001x", "", " 1", "٣", "1_0", "-1")],
    (Port, None, f"{PORT}, got nothing"),
    (Port, True, f"{PORT}, got true"),
    *[(BindHost, value, f"{HOST}, got {value!r}") for value in ("*", "a b", "a:80", "-a", "a..b", "http://a", "x\n.y")],
    (BindHost, "a" * 64, f"{HOST}, got '{'a' * 59}…'"),
    (BindHost, 127, f"{TEXT}, got 127"),
    *[
        (BindEndpoint, value, f"{TCP}, got {value!r}")
        for value in (
            "",
            "/run/x",
            "udp://a:1",
            "tcp://",
            "tcp://a",
            "tcp://:1",
            "tcp://a:65536",
            "tcp://::1:5",
            "tcp://a:b",
            "tcp://[1]:1",
        )
    ],
    *[(BindEndpoint, value, f"{IPC}, got {value!r}") for value in ("ipc://", "ipc://x", "ipc://@x", "ipc:///run/")],
    (
        BindEndpoint,
        f"ipc:///{'x' * 107}",
        f"must have a path of at most 107 bytes, got 'ipc:///{'x' * 52}…'",
    ),
    *[
        (ConnectEndpoint, value, f"{TCP}, got {value!r}")
        for value in ("tcp://*:1", "tcp://a:0", "tcp://a:*", "tcp://a:٣")
    ],
    (ConnectEndpoint, 5, f"{TEXT}, got 5"),
    *[(CurveKey, value, CURVE) for value in ("", KEY[1:], f"{KEY}x", KEY.replace("r", "_"), 5)],
    *[
        (HttpUrl, value, URL)
        for value in (
            "",
            "a",
            "ftp://a",
            "http://",
            "http://u:secret@a",
            "http://a?x",
            "http://a#x",
            "http://a b",
            "http://a:0",
            "http://a:x",
            "http://[",
            "http://a\x1b",
        )
    ],
    *[(Scopes, [value], f"{SCOPE}, got {value!r}") for value in ("", "a b", '"', "\\", "é")],
    (Scopes, "read", "must be a list, got 'read'"),
    (Scopes, {"read": 1}, "must be a list, got a mapping"),
    *[
        (Origins, [value], f"{ORIGIN}, got {value!r}")
        for value in ("a", "http://", "http://a/", "http://*", "*", "null", "://a", "1a://b")
    ],
    *[
        (ModuleNames, [value], f"{MODULE}, got {value!r}")
        for value in ("", ".a", "a.", "a..b", "a-b", "a.py/b", "1a", "a.in")
    ],
    (ModuleNames, [1], f"{TEXT}, got 1"),
    (Texts, [1], f"{TEXT}, got 1"),
    (Texts, None, "must be a list, got nothing"),
    (Section, [], "must be a mapping, got a list"),
]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    REFUSED,
)
def test_value_is_refused_with_its_reason(kind: Any, value: Any, reason: str) -> None:
    """The message has what was expected and, unless it may be a secret, what was found."""
    assert refusal(kind, value) == reason


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.255.0.9", "::1", "localhost", "LocalHost.", "::ffff:127.0.0.1")],
        *[(host, False) for host in ("", "0.0.0.0", "::", "10.0.0.1", "127.1", "localhost.example", "::ffff:10.0.0.1")],  # noqa: S104
    ],
)
def test_only_loopback_addresses_count_as_loopback(host: str, expected: bool) -> None:
    """Any other address is public, and the worker requires tokens."""
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("a.b", "a.b")],  # noqa: S104
)
def test_host_in_a_url_can_be_connected_to(host: str, expected: str) -> None:
    """All interfaces become loopback; IPv6 addresses get brackets."""
    assert url_host(host) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing"),
        ({}, "a mapping"),
        ([], "a list"),
        ("", "text"),
        (True, "true"),
        (False, "false"),
        (dt.date.min, "a date"),
    ],
)
def test_types_are_named_in_a_users_words(value: Any, expected: str) -> None:
    """Not by Python's names."""
    assert kind_of(value) == expected
