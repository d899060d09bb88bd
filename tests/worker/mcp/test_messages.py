"""What is refused of a POST before the SDK reads it: headers, and bodies that are no JSON-RPC message."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

import pytest

from nfcli.worker.mcp.messages import VERSIONS
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, ServedWorker

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
INVALID_REQUEST, PARSE_ERROR, UNSUPPORTED_VERSION = -32600, -32700, -32022
WRONG_ID = "id must be a string or an integer; a notification has none"
WRONG_ACCEPT = "Accept must allow application/json"
SURROGATE = "a string in the body has half of a surrogate pair, which is not a character"

in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that no test changes."""
    with ServedWorker(tmp_path_factory.mktemp("messages") / "tokens") as served:
        yield served


def send(worker: ServedWorker, body: bytes, *lines: str) -> tuple[int, Any]:
    """Post a body with a token and these header lines; return status and JSON body of the response."""
    head = [
        *("POST /mcp HTTP/1.1", "host: localhost", f"authorization: Bearer {TOKEN}"),
        *(f"content-length: {len(body)}", *lines, "", ""),
    ]
    status, _, text = worker.send("\r\n".join(head).encode() + body)
    return status, json.loads(text) if text else None


def post(worker: ServedWorker, body: bytes, era: str) -> tuple[int, Any]:
    """Post a body with the headers of an era."""
    lines = ("content-type: application/json", "accept: application/json", f"mcp-protocol-version: {era}")
    return send(worker, body, *lines, "mcp-method: ping")


def refusal(reason: str, code: int = INVALID_REQUEST) -> dict[str, Any]:
    """Return the body of a JSON-RPC error without an id."""
    return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": reason}}


@in_both_eras
@pytest.mark.parametrize("request_id", ["null", "1.0", "1.5", "true", "[1]", "{}", "1e2"])
def test_request_with_an_invalid_id_is_refused(worker: ServedWorker, era: str, request_id: str) -> None:
    """It would wait for an answer that a notification doesn't get."""
    body = f'{{"jsonrpc": "2.0", "id": {request_id}, "method": "ping"}}'.encode()
    assert post(worker, body, era) == (400, refusal(WRONG_ID))


@pytest.mark.parametrize("request_id", ["0", "-1", "99999999999999999999", '""', '"é"'])
def test_valid_ids_are_repeated_as_they_are(worker: ServedWorker, request_id: str) -> None:
    """Integers of any size, strings of any text."""
    status, answer = post(worker, f'{{"jsonrpc": "2.0", "id": {request_id}, "method": "ping"}}'.encode(), HANDSHAKE_ERA)
    assert (status, answer) == (200, {"jsonrpc": "2.0", "id": json.loads(request_id), "result": {}})


@in_both_eras
@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b'{"secret": ', PARSE_ERROR, "the body is not JSON"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"} x', PARSE_ERROR, "the body is not JSON"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"x": NaN}}', PARSE_ERROR, "the body is not JSON"),
        (b"", PARSE_ERROR, "the body is empty: send a JSON-RPC message"),
        (b'{"x": "\xff"}', PARSE_ERROR, "the body is not UTF-8"),
        (json.dumps(PING).encode("utf-16"), PARSE_ERROR, "the body is not UTF-8"),
        (b'{"x": "\\ud83d"}', INVALID_REQUEST, SURROGATE),
        (b'{"x": "\\ude00x"}', INVALID_REQUEST, SURROGATE),
        (b'{"\\ud83d\\ud83d": 1}', INVALID_REQUEST, SURROGATE),
        (b"[" * 300 + b"]" * 300, INVALID_REQUEST, "the body is nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, INVALID_REQUEST, "the body is nested too deeply"),
        (b'[{"secret": 1}]', INVALID_REQUEST, "the body is a batch: send each message in a request of its own"),
        (b"null", INVALID_REQUEST, "the body is not a JSON object"),
        (b'"secret"', INVALID_REQUEST, "the body is not a JSON object"),
        (b'{"id": 1, "method": "ping"}', INVALID_REQUEST, 'jsonrpc must be "2.0"'),
        (b'{"jsonrpc": 2.0, "id": 1, "method": "ping"}', INVALID_REQUEST, 'jsonrpc must be "2.0"'),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', INVALID_REQUEST, "method must be a string"),
        (b'{"jsonrpc": "2.0", "method": "ping", "params": [1]}', INVALID_REQUEST, "params must be an object"),
        (
            b'{"jsonrpc": "2.0", "secret": 1}',
            INVALID_REQUEST,
            "the body is not a single JSON-RPC request or notification",
        ),
    ],
)
def test_body_that_is_no_message_is_refused_with_the_reason(
    worker: ServedWorker, era: str, body: bytes, code: int, reason: str
) -> None:
    """The same in both eras, and nothing of what was sent."""
    assert post(worker, body, era) == (400, refusal(reason, code))


def test_byte_order_mark_is_ignored(worker: ServedWorker) -> None:
    """As RFC 8259 lets a parser do; in both eras."""
    ping = codecs.BOM_UTF8 + json.dumps(PING).encode()
    assert post(worker, ping, HANDSHAKE_ERA) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})
    head, _, body = worker.request("tools/list", era=SINGLE_POST_ERA).partition(b"\r\n\r\n")
    longer = head.replace(b"content-length: %d" % len(body), b"content-length: %d" % (len(body) + 3))
    assert worker.send(longer + b"\r\n\r\n" + codecs.BOM_UTF8 + body)[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    "content_type",
    ["Application/JSON", "application/json;charset=UTF-8", "APPLICATION/JSON ; charset=utf-8", " application/json\t"],
)
def test_content_type_is_read_as_a_media_type(worker: ServedWorker, era: str, content_type: str) -> None:
    """Its case and its parameters have no effect."""
    assert worker.post(era=era, headers=(("content-type", content_type),))[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    "line", ["x: y", "content-type:", "content-type: text/plain", "content-type: application/jsonx"]
)
def test_other_content_types_are_refused_by_name(worker: ServedWorker, era: str, line: str) -> None:
    """And none: any web page may send such a request without asking first."""
    lines = (f"mcp-protocol-version: {era}", "accept: application/json", line)
    assert send(worker, json.dumps(PING).encode(), *lines) == (415, refusal("Content-Type must be application/json"))


def test_two_content_types_are_refused(worker: ServedWorker) -> None:
    """A proxy might read the other one."""
    lines = ("content-type: application/json", "content-type: text/plain")
    assert send(worker, json.dumps(PING).encode(), *lines) == (400, refusal("more than one content-type header"))


@in_both_eras
@pytest.mark.parametrize(
    "accept",
    [
        (),
        ("*/*",),
        ("application/*;q=0.5",),
        ("text/html, Application/Json",),
        ("text/event-stream", "application/json"),
    ],
)
def test_every_accept_that_allows_json_is_served(worker: ServedWorker, era: str, accept: tuple[str, ...]) -> None:
    """Also none, and several header lines."""
    request = worker.request(era=era, headers=tuple(("accept", value) for value in accept))
    if not accept:
        request = b"\r\n".join(line for line in request.split(b"\r\n") if not line.startswith(b"accept"))
    assert worker.send(request)[0] == 200


@in_both_eras
@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", ""])
def test_other_accepts_are_refused_by_name(worker: ServedWorker, era: str, accept: str) -> None:
    """As JSON-RPC errors."""
    status, _, body = worker.post(era=era, headers=(("accept", accept),))
    assert (status, body) == (406, refusal(WRONG_ACCEPT))


def test_subscription_without_an_event_stream_is_refused_by_name(worker: ServedWorker) -> None:
    """Its answer is a stream."""
    headers = (("accept", "application/json"),)
    status, _, body = worker.post("subscriptions/listen", {"notifications": {}}, era=SINGLE_POST_ERA, headers=headers)
    assert (status, body) == (406, refusal("Accept must allow text/event-stream for subscriptions/listen"))


@in_both_eras
@pytest.mark.parametrize("version", ["2099-01-01", "2025-11-26", "1", "x" * 100, "draft\t2"])
def test_unknown_protocol_version_is_answered_with_the_known_ones(worker: ServedWorker, version: str, era: str) -> None:
    """In the words that clients of the newer era read, for messages of both."""
    headers = (("mcp-protocol-version", version),)
    status, _, body = worker.post("tools/list", era=era, headers=headers, request_id="a")
    shown = " ".join(version.split())
    shown = shown if len(shown) <= 64 else f"{shown[:63]}…"
    message = f"MCP-Protocol-Version {shown} is not supported; supported: {', '.join(VERSIONS)}"
    error = {
        "code": UNSUPPORTED_VERSION,
        "message": message,
        "data": {"supported": list(VERSIONS), "requested": shown},
    }
    assert (status, body) == (400, {"jsonrpc": "2.0", "id": "a", "error": error})


@in_both_eras
@pytest.mark.parametrize("version", ["", " ", "\t"])
def test_empty_protocol_version_is_called_empty(worker: ServedWorker, version: str, era: str) -> None:
    """There is no value to repeat."""
    status, _, body = worker.post("tools/list", era=era, headers=(("mcp-protocol-version", version),))
    message = f"MCP-Protocol-Version is empty; supported: {', '.join(VERSIONS)}"
    assert (status, body["error"]["message"], body["error"]["data"]["requested"]) == (400, message, "")


def test_initialize_negotiates_whatever_the_header_says(worker: ServedWorker) -> None:
    """The version is in its parameters."""
    params = {
        "protocolVersion": "2099-01-01",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    status, _, body = worker.post("initialize", params, headers=(("mcp-protocol-version", "2099-01-01"),))
    assert (status, body["result"]["protocolVersion"]) == (200, HANDSHAKE_ERA)
