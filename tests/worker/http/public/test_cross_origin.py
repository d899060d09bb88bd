"""Requests of web pages: preflights, and who may read responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.mcp.served_worker import TOKEN, ServedWorker

Serve = Callable[..., Any]

PAGE = "https://app.example.com"
PREFLIGHT = ("access-control-request-method: POST", "access-control-request-headers: authorization,x-some.Thing")
ALLOWED = {
    "access-control-allow-headers": "authorization,x-some.Thing",
    "access-control-allow-methods": "GET, POST",
    "access-control-max-age": "600",
}


def shared(origin: str) -> dict[str, str]:
    """Return the headers that let a page of an origin read a response."""
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "WWW-Authenticate, Retry-After",
        "vary": "Origin",
    }


def cors(headers: dict[str, str]) -> dict[str, str]:
    """Return those headers of a response that browsers read."""
    return {name: value for name, value in headers.items() if name.startswith("access-control") or name == "vary"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that a page may use."""
    with ServedWorker(tmp_path_factory.mktemp("cors") / "tokens", allowed_origins=[PAGE]) as served:
        yield served


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:6274", "https://127.0.0.1", "http://[::1]:3000"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/.well-known/oauth-protected-resource", "/register"])
def test_preflight_of_an_allowed_origin_is_answered(worker: ServedWorker, origin: str, path: str) -> None:
    """Without a token, as browsers ask; no token is looked up."""
    worker.looked_up.clear()
    response = worker.get(path, f"origin: {origin}", *PREFLIGHT, method="OPTIONS")
    assert response == (204, {**ALLOWED, **shared(origin)}, b"")
    assert worker.looked_up == []


def test_private_network_is_allowed_where_a_preflight_asks_for_it(worker: ServedWorker) -> None:
    """As Chromium does for a page of the internet that calls this machine."""
    headers = worker.get(
        "/mcp", f"origin: {PAGE}", *PREFLIGHT, "access-control-request-private-network: true", method="OPTIONS"
    )[1]
    assert headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("names", ["x: y", "a/b", "ä", "(x)"])
def test_names_that_no_header_can_have_are_not_allowed(worker: ServedWorker, names: str) -> None:
    """Only tokens are repeated in the response."""
    lines = ("access-control-request-method: POST", f"access-control-request-headers: {names}")
    status, headers, _ = worker.get("/mcp", f"origin: {PAGE}", *lines, method="OPTIONS")
    assert (status, headers.get("access-control-allow-headers")) == (204, None)


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", f"{PAGE}.evil", "http://app.example.com"])
def test_preflight_of_another_origin_is_refused(
    worker: ServedWorker, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting."""
    status, headers, _ = worker.get("/mcp", f"origin: {origin}", *PREFLIGHT, method="OPTIONS")
    assert (status, cors(headers)) == (403, {})
    assert "add it to allowed_origins of worker w1" in caplog.text


@pytest.mark.parametrize(
    ("request_headers", "expected"),
    [
        ((), 200),
        ((("authorization", "Bearer wrong"),), 401),
        ((("authorization", "Bearer " + "x" * 3_000),), 431),
        ((("host", "evil.example.com"),), 421),
        ((("content-type", "text/plain"),), 415),
    ],
)
def test_every_response_can_be_read_by_the_page(
    worker: ServedWorker, request_headers: tuple[tuple[str, str], ...], expected: int
) -> None:
    """Refusals, too: otherwise the page can't say what was wrong."""
    status, headers, _ = worker.post(headers=(*request_headers, ("origin", PAGE)))
    assert (status, cors(headers)) == (expected, shared(PAGE))


@pytest.mark.parametrize("path", ["/.well-known/oauth-protected-resource", "/register", "/x"])
def test_public_documents_can_be_read_by_the_page(worker: ServedWorker, path: str) -> None:
    """Clients in browsers look for metadata before they show an error."""
    assert cors(worker.get(path, f"origin: {PAGE}")[1]) == shared(PAGE)


def test_other_requests_get_no_headers_for_browsers(worker: ServedWorker) -> None:
    """Without Origin, and from another one."""
    assert cors(worker.post()[1]) == {}
    assert cors(worker.post(headers=(("origin", "https://evil.example.com"),))[1]) == {}


def test_options_that_is_no_preflight_is_refused(worker: ServedWorker) -> None:
    """It needs a token, and then another method."""
    assert worker.get("/mcp", f"origin: {PAGE}", method="OPTIONS")[0] == 401
    assert worker.get("/mcp", f"authorization: Bearer {TOKEN}", *PREFLIGHT, method="OPTIONS")[0] == 405


def test_without_authentication_only_listed_origins_are_allowed(
    served_worker: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Any page that this machine serves would be able to call the tools otherwise."""
    caplog.set_level(logging.WARNING)
    worker = served_worker(authentication_enabled=False, allowed_origins=[PAGE])
    for origin, expected in ((PAGE, (204, 200)), ("http://localhost:3000", (403, 200))):
        preflight = worker.get("/mcp", f"origin: {origin}", *PREFLIGHT, method="OPTIONS")
        status, headers, _ = worker.post(token=None, headers=(("origin", origin),))
        assert (preflight[0], status) == expected
        assert cors(headers) == (shared(PAGE) if origin == PAGE else {})
    assert "Origin 'http://localhost:3000'" in caplog.text


@pytest.mark.parametrize("name", ["origin", "access-control-request-method", "access-control-request-headers"])
def test_repeated_headers_of_a_preflight_are_refused(worker: ServedWorker, name: str) -> None:
    """A proxy might read the other one."""
    lines = (f"origin: {PAGE}", *PREFLIGHT, f"{name}: x")
    assert worker.get("/mcp", *lines, method="OPTIONS")[0] == 400
