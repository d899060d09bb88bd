"""Checks of POST requests before the SDK reads them: their headers, and the JSON-RPC message in the body.

The SDK takes a request with an invalid id for a notification, which is never answered; it compares some headers case by
case; and its errors quote what was sent, or are no JSON-RPC.
"""

from __future__ import annotations

import codecs
import json
from typing import Any

import pydantic_core
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.jsonrpc import jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.responses import Header, StaticResponse, error_response
from ..tools.texts import clean_line

VERSIONS = (*MODERN_PROTOCOL_VERSIONS, *reversed(HANDSHAKE_PROTOCOL_VERSIONS))
_JSON = b"application/json"
_STREAM = b"text/event-stream"
_STREAM_METHOD = "subscriptions/listen"
_VERSION = b"mcp-protocol-version"
_VERSION_CHARACTERS = 64
_READ_HEADERS = frozenset({b"accept", b"content-type", _VERSION})
_PARSE_ERROR = -32700

_WRONG_CONTENT_TYPE = error_response(415, "Content-Type must be application/json")
_WRONG_ACCEPT = error_response(406, "Accept must allow application/json")
_WRONG_STREAM_ACCEPT = error_response(406, f"Accept must allow text/event-stream for {_STREAM_METHOD}")
_NOT_UTF8 = error_response(400, "the body is not UTF-8", code=_PARSE_ERROR)
_EMPTY = error_response(400, "the body is empty: send a JSON-RPC message", code=_PARSE_ERROR)
_NOT_JSON = error_response(400, "the body is not JSON", code=_PARSE_ERROR)
_TOO_DEEP = error_response(400, "the body is nested too deeply")
_SURROGATE = error_response(400, "a string in the body has half of a surrogate pair, which is not a character")
_BATCH = error_response(400, "the body is a batch: send each message in a request of its own")
_NOT_AN_OBJECT = error_response(400, "the body is not a JSON object")
_WRONG_VERSION = error_response(400, 'jsonrpc must be "2.0"')
_WRONG_ID = error_response(400, "id must be a string or an integer; a notification has none")
_WRONG_METHOD = error_response(400, "method must be a string")
_WRONG_PARAMS = error_response(400, "params must be an object")
_NOT_A_MESSAGE = error_response(400, "the body is not a single JSON-RPC request or notification")


class MessageApp:
    """An ASGI application that passes valid messages on to another one, and refuses others with the reason.

    The middleware before this one passes each body on in one piece.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        first = await receive()
        if first["type"] != "http.request":
            return
        body = first["body"].removeprefix(codecs.BOM_UTF8)  # RFC 8259 section 8.1
        headers = _read_headers(scope)
        message: Any = _check_content_type(headers) or _parse(body)
        refusal = message if isinstance(message, StaticResponse) else _check(message, headers)
        if refusal is not None:
            await refusal.send(send)
            return
        pending: list[Message] = [{**first, "body": body}]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        await self._app({**scope, "headers": _canonical(scope["headers"], headers, message)}, receive_again, send)


def _read_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers that are checked here: of Accept all values, of the others the first."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"accept" and name in found:
            found[name] += b"," + value
        elif name in _READ_HEADERS:
            found.setdefault(name, value)
    return found


def _check_content_type(headers: dict[bytes, bytes]) -> StaticResponse | None:
    return None if _media_type(headers.get(b"content-type", b"")) == _JSON else _WRONG_CONTENT_TYPE


def _parse(body: bytes) -> Any:
    """Return the JSON value of a body, or the response that refuses it."""
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError:
        return _parse_error(body)


def _parse_error(body: bytes) -> StaticResponse:
    if not body:
        return _EMPTY
    try:
        value = json.loads(body.decode())
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        return _TOO_DEEP
    except UnicodeDecodeError:
        return _NOT_UTF8
    except UnicodeEncodeError:
        return _SURROGATE
    except ValueError:
        return _NOT_JSON
    return _TOO_DEEP


def _check(message: Any, headers: dict[bytes, bytes]) -> StaticResponse | None:
    """Return the response that refuses a message, or its headers; None if they are valid."""
    refusal = _check_message(message)
    if refusal is not None:
        return refusal
    accepted = {_media_type(each) for each in headers.get(b"accept", b"*/*").split(b",")}
    if not accepted & {_JSON, b"application/*", b"*/*"}:
        return _WRONG_ACCEPT
    method = message.get("method")
    if method == _STREAM_METHOD and not accepted & {_STREAM, b"text/*", b"*/*"}:
        return _WRONG_STREAM_ACCEPT
    version = headers.get(_VERSION)
    if version is None or method == "initialize" or version.decode("latin-1") in VERSIONS:
        return None
    return _unsupported_version(version.decode("latin-1"), message.get("id"))


def _check_message(message: Any) -> StaticResponse | None:
    if not isinstance(message, dict):
        return _BATCH if isinstance(message, list) else _NOT_AN_OBJECT
    if message.get("jsonrpc") != "2.0":
        return _WRONG_VERSION
    if "method" in message:
        return _check_request(message)
    try:
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        return _NOT_A_MESSAGE
    return None


def _check_request(message: dict[str, Any]) -> StaticResponse | None:
    if "id" in message and type(message["id"]) not in {str, int}:
        return _WRONG_ID
    if not isinstance(message["method"], str):
        return _WRONG_METHOD
    return None if isinstance(message.get("params"), dict | None) else _WRONG_PARAMS


def _unsupported_version(version: str, request_id: int | str | None) -> StaticResponse:
    shown = clean_line(version, _VERSION_CHARACTERS)
    fault = f"MCP-Protocol-Version {shown} is not supported" if shown else "MCP-Protocol-Version is empty"
    reason = f"{fault}; supported: {', '.join(VERSIONS)}"
    return error_response(
        400,
        reason,
        code=UNSUPPORTED_PROTOCOL_VERSION,
        request_id=request_id,
        data={"supported": list(VERSIONS), "requested": shown},
    )


def _canonical(received: list[Header], headers: dict[bytes, bytes], message: dict[str, Any]) -> list[Header]:
    """Return headers as the SDK expects them: it compares Content-Type case by case, and reads the first Accept only.

    What `initialize` negotiates is in its parameters: a version that a client names in the header before is dropped.
    """
    kept = [header for header in received if header[0] not in _READ_HEADERS]
    version = headers.get(_VERSION)
    if version is not None and (message.get("method") != "initialize" or version.decode("latin-1") in VERSIONS):
        kept += [header for header in received if header[0] == _VERSION]
    return [*kept, (b"content-type", _JSON), (b"accept", headers.get(b"accept", _JSON))]


def _media_type(value: bytes) -> bytes:
    return value.partition(b";")[0].strip().lower()
