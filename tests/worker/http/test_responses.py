"""Responses that never change: their bytes, and the names of refusals that counters have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nfcli.worker.http.responses import EVENT_STREAM, REFUSAL, StaticResponse, challenge_response, error_response

REFUSALS = {
    200: "",
    400: "invalid_request",
    401: "credentials",
    403: "origin",
    404: "path",
    405: "method",
    406: "accept",
    408: "body_timeout",
    413: "body_size",
    415: "content_type",
    421: "host",
    429: "too_many_wrong_tokens",
    431: "header_size",
    503: "unavailable",
}


def sent(response: StaticResponse) -> list[dict[str, Any]]:
    """Return the messages of a response."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(response.send(send))
    return messages


@pytest.mark.parametrize(("status", "refusal"), REFUSALS.items())
def test_refusals_have_names(status: int, refusal: str) -> None:
    """By their status, unless another name is given."""
    assert sent(StaticResponse(status))[0][REFUSAL] == refusal
    assert sent(StaticResponse(status, refusal="scope"))[0][REFUSAL] == "scope"


def test_errors_are_json_rpc_errors() -> None:
    """With the request's id where it is known, and null elsewhere."""
    start, body = sent(error_response(400, "no", (b"x", b"y"), code=-1, request_id="a", data={"b": 1}))
    assert json.loads(body["body"]) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {"code": -1, "message": "no", "data": {"b": 1}},
    }
    length = b"%d" % len(body["body"])
    assert start["headers"] == [(b"content-type", b"application/json"), (b"x", b"y"), (b"content-length", length)]
    assert json.loads(error_response(400, "no").body) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "no"},
    }


def test_challenges_are_not_stored() -> None:
    """Each is a header of its own."""
    response = challenge_response(401, "no", "Bearer", "Basic", refusal="scope")
    assert (response.status, response.refusal) == (401, "scope")
    assert response.headers[1:] == (
        (b"www-authenticate", b"Bearer"),
        (b"www-authenticate", b"Basic"),
        (b"cache-control", b"no-store"),
    )


def test_response_without_content_has_no_length() -> None:
    """RFC 9110 section 8.6."""
    assert StaticResponse(204).encode() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert (
        StaticResponse(200, b"ok", ((b"a", b"b"),)).encode()
        == b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 2\r\n\r\nok"
    )


def test_streams_are_neither_stored_nor_collected() -> None:
    """Proxies pass events on as they come."""
    assert dict(EVENT_STREAM) == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-cache, no-transform",
        b"x-accel-buffering": b"no",
    }
