"""Clients behind a trusted proxy, as a worker counts, records and answers them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mcp.served_worker import ServedWorker

PROXY, ELSEWHERE = "127.0.0.1", "127.0.0.2"
FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
METADATA = "/.well-known/oauth-protected-resource"

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker behind a proxy on this machine, with names for its clients."""
    hosts = ["mcp.example.com", "*.team.example.com"]
    folder = tmp_path_factory.mktemp("proxied") / "tokens"
    with ServedWorker(folder, trusted_proxies=[PROXY], allowed_hosts=hosts) as served:
        yield served


def status(worker: Any, client: str, token: str, *, source: str = PROXY) -> int:
    """Post a request for a client with a token; return the status."""
    answer: tuple[int, object, object] = worker.post(token=token, headers=((FOR, client),), source=source)
    return answer[0]


def test_wrong_tokens_count_for_the_client_alone(worker: ServedWorker) -> None:
    """Whatever addresses it claims itself; others behind the same proxy are served."""
    guesses = [status(worker, f"9.9.9.{number}, 203.0.113.1", f"guess{number}") for number in range(11)]
    assert guesses == [401] * 10 + [429]
    assert status(worker, "203.0.113.1", "secret-token") == 429
    assert status(worker, "203.0.113.2", "secret-token") == 200


def test_who_is_not_the_proxy_can_not_claim_other_addresses(worker: ServedWorker) -> None:
    """Its own one is counted."""
    guesses = [status(worker, f"198.51.100.{n}", f"guess{n}", source=ELSEWHERE) for n in range(11)]
    assert guesses == [401] * 10 + [429]
    assert status(worker, "198.51.100.1", "secret-token") == 200


def test_audit_trail_has_the_client_s_address(tmp_path: Path) -> None:
    """Not the proxy's."""
    with ServedWorker(tmp_path / "tokens", trusted_proxies=[PROXY]) as worker:
        assert status(worker, "2001:db8::7", "wrong") == 401
    last = json.loads((tmp_path / "audit-w1.jsonl").read_text().splitlines()[-1])
    assert (last["actor"], last["address"]) == ("2001:db8::/64", "2001:db8::7")


def test_metadata_names_the_url_that_the_client_used(worker: ServedWorker) -> None:
    """In the document, and in the challenge that points at it; directly, the worker's own."""
    own = worker.url.removesuffix("/mcp")
    for host in ("mcp.example.com", "a.team.example.com"):
        headers = ((FOR, "203.0.113.9"), (PROTO, "https"), (HOST, host))
        lines = [f"{name}: {value}" for name, value in headers]
        found = json.loads(worker.get(METADATA, *lines)[2])
        assert (found["resource"], found["authorization_servers"]) == (f"https://{host}", [f"https://{host}"])
        challenge = worker.post(token=None, headers=headers)[1]["www-authenticate"]
        assert challenge == f'Bearer resource_metadata="https://{host}{METADATA}"'
    assert json.loads(worker.get(METADATA)[2])["resource"] == own


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("host", "a.team.example.com"),), 200),
        (((HOST, "a.team.example.com"),), 200),
        ((("host", "evil.example.com"), (HOST, "mcp.example.com")), 421),
        (((HOST, "evil.example.com"),), 421),
        (((HOST, "team.example.com"),), 421),
        (((HOST, 'mcp.example.com"'),), 400),
        (((PROTO, "gopher"),), 400),
        (((FOR, "203.0.113.3"), ("forwarded", "for=203.0.113.4")), 400),
        ((("forwarded", "for="),), 400),
    ],
    ids=str,
)
def test_host_and_the_proxy_s_host_are_both_checked(
    worker: ServedWorker, headers: tuple[tuple[str, str], ...], expected: int
) -> None:
    """A page of another site that makes a browser send X-Forwarded-Host gets nothing by it."""
    assert worker.post(headers=headers)[0] == expected
    assert worker.send(worker.request(headers=headers, path="/other"))[0] == 404


def test_without_trusted_proxies_the_headers_have_no_effect(
    served_worker: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither to claim an address nor to be refused."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": 1})
    assert status(worker, "203.0.113.1", "a") == 401
    assert worker.post(headers=(("forwarded", "=,;"), (HOST, "evil"), (PROTO, "x")))[0] == 200
    assert [status(worker, "203.0.113.2", "b"), status(worker, "203.0.113.3", "c")] == [429, 429]
    assert "too many wrong tokens from 127.0.0.1" in caplog.text


def test_proxy_that_names_nobody_is_logged_once(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Its clients count as one, which the operator should know; so is what it contradicts itself in."""
    worker = served_worker(trusted_proxies=["127.0.0.0/8"])
    with caplog.at_level(logging.WARNING, logger="nfcli.worker.http"):
        for _ in range(2):
            assert worker.post()[0] == 200
            assert worker.post(headers=((PROTO, "gopher"),))[0] == 400
    first, second = (each.getMessage() for each in caplog.records if each.name == "nfcli.worker.http.middleware")
    assert first.startswith("the trusted proxy 127.0.0.1 does not name its clients: they count as one address; let it")
    assert second.startswith(
        "rejected a request that came through the proxy 127.0.0.1: the scheme that the proxy names"
    )


@pytest.mark.parametrize(
    ("header", "is_named"),
    [
        (("x-forwarded-for", "127.0.0.1"), True),
        (("forwarded", 'for="127.0.0.1:80";proto=http'), True),
        (("x-forwarded-for", "127.0.0.1, unknown"), False),
        (("forwarded", "for=127.0.0.1, for=_hidden"), False),
        ((PROTO, "http"), False),
    ],
)
def test_client_on_the_machine_of_the_proxy_is_named(
    served_worker: Serve, caplog: pytest.LogCaptureFixture, header: tuple[str, str], is_named: bool
) -> None:
    """It has the proxy's address, as whoever tries the proxy with curl first of all."""
    worker = served_worker(trusted_proxies=["127.0.0.0/8"])
    with caplog.at_level(logging.WARNING, logger="nfcli.worker.http"):
        assert worker.post(headers=(header,))[0] == 200
    assert ("does not name its clients" in caplog.text) is not is_named
