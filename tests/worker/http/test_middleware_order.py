"""Which rule answers a request that breaks several, and that the SDK behind the gate holds the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nfcli.worker.http import exchange
from nfcli.worker.http.allowed_hosts import Names
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, ServedWorker

in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
on_loopback = pytest.mark.parametrize("shared_worker", ["127.0.0.1"], indirect=True)

FOREIGN_HOST = ("host", "evil.example.com")
FOREIGN_ORIGIN = ("origin", "https://evil.example.com")
LONG = ("authorization", "Bearer " + "x" * 2048)
WRONG = ("authorization", "Bearer wrong")


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0", "", "::"], ids=repr)  # noqa: S104  what is tested
def shared_worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve a worker that is bound to loopback, and then to more than that; wrong tokens aren't counted."""
    bearer = {"max_wrong_tokens_per_minute": 0}
    folder = tmp_path_factory.mktemp("bound") / "tokens"
    with ServedWorker(folder, host=request.param, auth_bearer=bearer) as worker:
        yield worker


@pytest.fixture
def worker(shared_worker: Any) -> Any:
    """Return the worker; it has been asked for no token yet."""
    shared_worker.looked_up.clear()
    return shared_worker


def status(worker: Any, *headers: tuple[str, str], **options: Any) -> int:
    """Post a request with these headers; return the answer's status."""
    answer: tuple[int, object, object] = worker.ask(worker.request(headers=headers, **options))
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
def test_the_first_rule_that_is_broken_gives_the_answer(
    worker: Any, era: str, path: str, headers: tuple[tuple[str, str], ...], expected: int
) -> None:
    """Path, Host, Origin, length, duplicates, and only then the token: strangers learn least and cost least."""
    assert status(worker, *headers, era=era, path=path) == expected
    assert worker.looked_up == (["wrong"] if expected == 401 else [])


@on_loopback
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_the_token_comes_before_method_and_body(worker: Any, method: str) -> None:
    """Who has none isn't told which of them are served."""
    assert worker.get("/mcp", "authorization: Bearer wrong", "content-length: 999999", method=method)[0] == 401


@in_both_eras
@pytest.mark.parametrize(("header", "expected"), [(FOREIGN_HOST, 421), (FOREIGN_ORIGIN, 403)])
def test_foreign_names_are_refused_on_every_bind(worker: Any, era: str, header: tuple[str, str], expected: int) -> None:
    """Left to itself the SDK checks neither where it is bound to more than loopback; no token is looked at."""
    assert status(worker, header, era=era) == expected
    assert worker.looked_up == []


@in_both_eras
@pytest.mark.parametrize(("header", "expected"), [(FOREIGN_HOST, 421), (FOREIGN_ORIGIN, 403)])
def test_the_sdk_refuses_names_that_the_gate_would_let_pass(
    worker: Any, era: str, header: tuple[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own checks of Host and Origin are on as well, on every bind."""
    monkeypatch.setattr(Names, "allows", lambda _names, _value: True)
    assert status(worker, header, era=era) == expected


@in_both_eras
@on_loopback
def test_the_sdk_bounds_bodies_that_the_gate_would_let_pass(
    worker: Any, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own limit isn't left at 4 MiB."""
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 1024 * 1024)
    assert status(worker, era=era, params={"cursor": "x" * 256 * 1024}) == 413
