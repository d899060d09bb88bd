"""Calls of tools whose tasks may ask the client while they run.

A client of the 2026 era is asked by a result of its call: the task waits in memory, in this process, and the client
calls once more, with the answer and the call's state.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, ElicitRequest, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ....models.errors import TaskError, ToolCallError
from ...jobs.channels.question import Question
from ..call_places import MAX_ASKING, MAX_ASKING_PER_TOKEN
from ..reply_streams import current_reply
from ..result_budget import Reservation, current_reservation, use_reservation
from .elicitation import form, has_forms, settle
from .sessions import OpenQuestions, caller_has_forms
from .tool_channel import GONE, MAX_SECONDS, ToolChannel, Way

_Value = TypeVar("_Value")

_QUESTION = "question"
_STOPPING = "the worker is stopping"
_UNKNOWN_STATE = "requestState is not that of a call that waits for this answer: call the tool again"


Track = Callable[[str], AbstractContextManager[object]]
"""Makes a block that is cancelled when a token ends."""


@dataclass(eq=False)
class _WaitingCall:
    """A call whose client may have to call again; `expiry` ends it, `results` the reservation for its results."""

    token: str
    name: str
    arguments: Mapping[str, Any]
    channel: ToolChannel
    task: asyncio.Task[Any]
    reservation: Reservation
    results: ExitStack
    expiry: asyncio.TimerHandle | None = None


class AskingCalls:
    """Does the work of calls, which may ask the caller; belongs to the loop that serves MCP."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._questions = OpenQuestions()
        self._channels: set[ToolChannel] = set()
        self._waiting: dict[str, _WaitingCall] = {}

    @property
    def questions(self) -> OpenQuestions:
        """The questions that clients answer by a response."""
        return self._questions

    async def run(
        self,
        context: ServerRequestContext[Any, Any],
        params: CallToolRequestParams,
        token: str,
        work: Callable[[ToolChannel], Coroutine[Any, Any, _Value]],
    ) -> _Value | InputRequiredResult:
        """Do the work of a call, or let it go on with the answer that a client sends; return its end or its question.

        Raises:
            MCPError: the answer is to no question of this token's, or isn't valid.
            ToolCallError: the token has ended; and whatever the work raises.
        """
        end: _Value | InputRequiredResult
        if params.request_state is not None:
            end = await self._until_question(self._answered(params, token))
            return end
        way = _way(context)
        channel = ToolChannel(way, token, current_reply(), self._questions)
        if way is not Way.RESULT:
            return await self._work(channel, work)
        results = ExitStack()
        reservation = results.enter_context(current_reservation().detached())
        task = asyncio.create_task(self._detached(token, reservation, channel, work))
        arguments = params.arguments or {}
        call = _WaitingCall(token, params.name, arguments, channel, task, reservation, results)
        end = await self._until_question(call)
        return end

    def end_questions(self) -> None:
        """End all open questions, since the worker stops; from the loop."""
        for channel in tuple(self._channels):
            channel.end(_STOPPING)

    async def close(self) -> None:
        """End the calls whose clients would have called again."""
        tasks = [call.task for call in self._waiting.values()]
        for state in tuple(self._waiting):
            self._end(state, _STOPPING)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, channel: ToolChannel, work: Callable[[ToolChannel], Awaitable[_Value]]) -> _Value:
        self._channels.add(channel)
        try:
            return await work(channel)
        finally:
            self._channels.discard(channel)
            channel.end(GONE)

    async def _detached(
        self,
        token: str,
        reservation: Reservation,
        channel: ToolChannel,
        work: Callable[[ToolChannel], Awaitable[_Value]],
    ) -> _Value | None:
        """Do the work of a call for as long as its token is valid; None if that has ended."""
        use_reservation(reservation)
        with self._track(token):
            return await self._work(channel, work)
        return None

    async def _until_question(self, call: _WaitingCall) -> Any:
        """Wait for the end of a call or for its question; a request that is cancelled cancels the call."""
        question = None
        while question is None and not call.task.done():
            asked = asyncio.create_task(call.channel.has_question.wait())
            try:
                await asyncio.wait({call.task, asked}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._drop(call, GONE)
                raise
            finally:
                asked.cancel()
            question = call.channel.question
            call.channel.has_question.clear()
        if question is not None and not call.task.done():
            return self._wait_for_client(call, question)
        with call.results:
            result = await call.task
            current_reservation().adopt(call.reservation)
        if result is None:
            raise ToolCallError(GONE)
        return result

    def _wait_for_client(self, call: _WaitingCall, question: Question) -> InputRequiredResult:
        """Keep a call until its client calls again, and return its question."""
        self._make_room(lambda each: each.token == call.token, MAX_ASKING_PER_TOKEN)
        self._make_room(lambda _each: True, MAX_ASKING)
        call.channel.detach()
        state = secrets.token_urlsafe(32)
        call.expiry = asyncio.get_running_loop().call_later(MAX_SECONDS, self._end, state, GONE)
        self._waiting[state] = call
        request = ElicitRequest(params=form(question.request))
        return InputRequiredResult(input_requests={_QUESTION: request}, request_state=state)

    def _answered(self, params: CallToolRequestParams, token: str) -> _WaitingCall:
        """Return the call that a state is of, its question ended by the answer that comes with it.

        A state is valid once, except after an answer that isn't valid.
        """
        state = params.request_state or ""
        call = self._waiting.get(state)
        is_same = call is not None and (call.token, call.name, call.arguments) == (
            token,
            params.name,
            params.arguments or {},
        )
        if call is None or not is_same:
            raise MCPError(INVALID_PARAMS, _UNKNOWN_STATE)
        response, question = (params.input_responses or {}).get(_QUESTION), call.channel.question
        if question is not None:
            try:
                settle(question, response)
            except TaskError as error:
                if call.channel.question is question and not question.has_ended:
                    raise MCPError(INVALID_PARAMS, f"inputResponses.{_QUESTION}: {error}") from None
        del self._waiting[state]
        if call.expiry is not None:
            call.expiry.cancel()
        call.channel.has_question.clear()
        call.channel.attach(current_reply())
        return call

    def _make_room(self, counts: Callable[[_WaitingCall], bool], most: int) -> None:
        """End the oldest calls of these, so that one more may wait for its client; first those whose task has ended."""
        states = [state for state, each in self._waiting.items() if counts(each)]
        states.sort(key=lambda state: not self._waiting[state].task.done())
        for state in states[: max(0, len(states) - most + 1)]:
            self._end(state, GONE)

    def _end(self, state: str, reason: str) -> None:
        """End a call whose client was to call again."""
        call = self._waiting.pop(state, None)
        if call is not None:
            self._drop(call, reason)

    @staticmethod
    def _drop(call: _WaitingCall, reason: str) -> None:
        if call.expiry is not None:
            call.expiry.cancel()
        call.channel.end(reason)
        call.task.cancel()
        call.results.close()


def _way(context: ServerRequestContext[Any, Any]) -> Way:
    """Return how the client of a request can be asked."""
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return Way.RESULT if has_forms(context.session.client_capabilities) else Way.NONE
    return Way.REQUEST if caller_has_forms() and current_reply() is not None else Way.NONE
