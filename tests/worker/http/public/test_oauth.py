"""Clients that look for an authorization server after a 401."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfcli.worker.http.public.oauth import DESCRIPTION, PATHS
from support.mcp.served_worker import ServedWorker

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that no test changes."""
    with ServedWorker(tmp_path_factory.mktemp("oauth") / "tokens") as served:
        yield served


def test_registration_is_refused_with_what_to_do(worker: ServedWorker) -> None:
    """Clients print the description; not as an error after which they register again."""
    status, headers, body = worker.get("/register", "content-type: application/json", method="POST")
    assert (status, headers["content-type"], headers["cache-control"]) == (400, "application/json", "no-store")
    assert json.loads(body) == {"error": "access_denied", "error_description": DESCRIPTION}
    for words in ("no OAuth", "Authorization: Bearer TOKEN", "create-token"):
        assert words in DESCRIPTION


@pytest.mark.parametrize("path", sorted(PATHS - {"/.well-known/oauth-protected-resource"}))
def test_every_path_of_the_flow_says_the_same(worker: ServedWorker, path: str) -> None:
    """As 404, so that clients go on to what they show."""
    status, _, body = worker.get(path)
    assert (status, json.loads(body)["error_description"]) == (404, DESCRIPTION)


def test_missing_metadata_says_the_same(served_worker: Serve) -> None:
    """Where the inventory publishes none."""
    worker = served_worker(auth_bearer={"issuer_url": None, "resource_server_url": None})
    status, _, body = worker.get("/.well-known/oauth-protected-resource")
    assert (status, json.loads(body)["error_description"]) == (404, DESCRIPTION)


def test_without_authentication_there_is_no_answer(served_worker: Serve) -> None:
    """Clients need no token then."""
    worker = served_worker(authentication_enabled=False)
    status, _, body = worker.get("/register", method="POST")
    assert (status, b"oauth" in body.lower()) == (404, False)


def test_foreign_host_is_refused(worker: ServedWorker) -> None:
    """The rules for names hold for these paths, too."""
    request = b"POST /register HTTP/1.1\r\nhost: evil.example.com\r\ncontent-length: 2\r\n\r\n{}"
    assert worker.send(request)[0] == 421
