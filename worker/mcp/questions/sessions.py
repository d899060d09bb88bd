"""Clients of the 2025 era that can be asked, and their answers.

These clients say once, in `initialize`, what they can; a session id, which only those get that can show forms, says it
again in each request. It is a proof and no key to anything that is remembered: it is valid for one token, on all
workers with the same key, after a restart too. Nothing else belongs to a session, so it needs no end.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ....models.errors import TaskError
from ...http.responses import StaticResponse
from ...jobs.channels.question import Question
from ..running_calls import caller_token
from .elicitation import declares_forms, settle

SESSION_PURPOSE = b"mcp-session"
"""What the key of session ids is derived from the fleet key for."""

_HEADER = b"mcp-session-id"
_ID = re.compile(r"form-([0-9a-f]{32})-([0-9a-f]{64})")
_ACCEPTED = StaticResponse(202)

_can_ask: ContextVar[bool] = ContextVar("can_ask", default=False)


def caller_has_forms() -> bool:
    """Whether the request that is being served is of a 2025 client that has said that it can show forms."""
    return _can_ask.get()


class ClientSessions:
    """Makes and verifies session ids with a key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new_id(self, token: str) -> str:
        """Return the id of a session of the client with this token."""
        nonce = secrets.token_hex(16)
        return f"form-{nonce}-{self._proof(nonce, token)}"

    def is_valid(self, session_id: str, token: str) -> bool:
        """Whether an id was made for this token."""
        found = _ID.fullmatch(session_id)
        return found is not None and hmac.compare_digest(found[2], self._proof(found[1], token))

    def _proof(self, nonce: str, token: str) -> str:
        return hmac.digest(self._key, f"{nonce}:{token}".encode(), "sha256").hex()


class OpenQuestions:
    """Questions that were sent as requests, by their ids, which only the asked client knows; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._questions: dict[str, tuple[str, Question]] = {}

    def add(self, token: str, question: Question) -> None:
        """Await the answer to a question, from a client with this token."""
        with self._lock:
            self._questions[question.request.id] = token, question

    def remove(self, question: Question) -> None:
        """Await no answer any more."""
        with self._lock:
            self._questions.pop(question.request.id, None)

    def answer(self, token: str, response: dict[str, Any]) -> bool:
        """Take a JSON-RPC response; return whether it is one to an open question of this token's client.

        A response that isn't valid ends the question with the reason: a client responds once.
        """
        with self._lock:
            found = self._questions.get(str(response.get("id")))
            if found is None or found[0] != token:
                return False
            question = self._questions.pop(str(response["id"]))[1]
        try:
            if "result" in response:
                settle(question, response["result"])
            else:
                question.abandon("the client has refused to ask its user")
        except TaskError as error:
            question.abandon(f"the client's answer was refused: {error}")
        return True


class QuestionApp:
    """An ASGI application that keeps sessions in front of another one, and takes the answers of its clients.

    The application before this one passes each valid message on in one piece.
    """

    def __init__(self, app: ASGIApp, sessions: ClientSessions, questions: OpenQuestions) -> None:
        self._app = app
        self._sessions = sessions
        self._questions = questions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        first = await receive()
        body = first.get("body", b"")
        token = caller_token()
        if b'"method"' not in body and self._questions.answer(token, _object(body)):
            await _ACCEPTED.send(send)
            return
        headers = dict(scope["headers"])
        _can_ask.set(self._sessions.is_valid(headers.get(_HEADER, b"").decode("latin-1"), token))
        if b'"initialize"' in body and _declares_forms(_object(body)):
            send = self._with_session(send, token)
        pending: list[Message] = [first]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, receive_again, send)

    def _with_session(self, send: Send, token: str) -> Send:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:  # noqa: PLR2004
                session = (_HEADER, self._sessions.new_id(token).encode())
                message = {**message, "headers": [*message.get("headers", ()), session]}
            await send(message)

        return send_with_id


def _declares_forms(message: dict[str, Any]) -> bool:
    params = message.get("params")
    return message.get("method") == "initialize" and isinstance(params, dict) and declares_forms(params)


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
