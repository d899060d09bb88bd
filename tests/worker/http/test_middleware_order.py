"""Precedence of the middleware's checks, and the SDK's own checks behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nfcli.worker.http import request_cycle
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, ServedWorker

in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
on_loopback = pytest.mark.parametrize("shared_worker", ["127.0.0.1"], indirect=True)

FOREIGN_HOST = ("host", "evil.example.com")
FOREIGN_ORIGIN = ("origin", "https://evil.example.com")
LONG = ("authorization", "Bearer " + "x" * 2048)
WRONG = ("authorization", "Bearer wrong")


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0", "", "::"], ids=repr)  # noqa: S104  what is tested
def shared_worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve workers bound to loopback and to all interfaces; wrong tokens are not counted."""
    bearer = {"max_wrong_tokens_per_minute": 0}
    folder = tmp_path_factory.mktemp("bound") / "tokens"
    with ServedWorker(folder, host=request.param, auth_bearer=bearer) as worker:
        yield worker


@pytest.fixture
def worker(shared_worker: Any) -> Any:
    """Return the worker, without lookups so far."""
    shared_worker.looked_up.clear()
    return shared_worker


def status(worker: Any, *headers: tuple[str, str], **options: Any) -> int:
    """Post a request with these headers; return the status."""
    answer: tuple[int, object, object] = worker.send(worker.request(headers=headers, **options))
    return answer[0]


@in_both_eras
@on_loopback
@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/other", (FOREIGN_HOST, FOREIGN_ORIGIN, LONG), 404),
        ("/mcp", (FOREIGN_HOST, FOREIGN_ORIGIN, LONG), 421),
        ("/mcp", (FOREIGN_ORIGIN, LONG, WRONG), 403),
        ("/mcp", (LONG, WRONG), 431),
        ("/mcp", (WRONG, WRONG), 400),
        ("/mcp", (WRONG,), 401),
    ],
    ids=str,
)
def test_first_failed_check_determines_the_response(
    worker: Any, era: str, path: str, headers: tuple[tuple[str, str], ...], expected: int
) -> None:
    """Path, Host, Origin, length, duplicates, then the token: least is revealed, at least cost."""
    assert status(worker, *headers, era=era, path=path) == expected
    assert worker.looked_up == (["wrong"] if expected == 401 else [])


@on_loopback
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_token_is_checked_before_method_and_body(worker: Any, method: str) -> None:
    """Without a valid token a client does not learn which methods are served."""
    assert worker.get("/mcp", "authorization: Bearer wrong", "content-length: 999999", method=method)[0] == 401


@in_both_eras
@pytest.mark.parametrize(("header", "expected"), [(FOREIGN_HOST, 421), (FOREIGN_ORIGIN, 403)])
def test_foreign_host_and_origin_are_rejected_on_every_bind(
    worker: Any, era: str, header: tuple[str, str], expected: int
) -> None:
    """By default the SDK checks neither on all interfaces; no token is looked up."""
    assert status(worker, header, era=era) == expected
    assert worker.looked_up == []


@in_both_eras
@on_loopback
def test_sdk_limits_bodies_that_the_middleware_would_accept(
    worker: Any, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own limit is not the default of 4 MiB."""
    monkeypatch.setattr(request_cycle, "MAX_BODY_BYTES", 1024 * 1024)
    assert status(worker, era=era, params={"cursor": "x" * 256 * 1024}) == 413
