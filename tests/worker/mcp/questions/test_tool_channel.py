"""The channel of a call that its client makes in several requests."""

from __future__ import annotations

import asyncio
from typing import Any

from nfcli.worker.jobs.channels.base import TaskEvent
from nfcli.worker.jobs.channels.progress import LINES_AT_ONCE
from nfcli.worker.mcp.questions.sessions import OpenQuestions
from nfcli.worker.mcp.questions.tool_channel import ToolChannel, Way


class Stream:
    """The reply of a request, as the channel sees it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def push_progress(self, text: str) -> None:
        """Note a line of progress."""
        self.texts.append(text)


async def _turn() -> None:
    """Let the loop run what was scheduled before."""
    turn = asyncio.get_running_loop().create_future()
    turn.get_loop().call_soon(turn.set_result, None)
    await turn


def test_progress_between_two_requests_comes_with_the_next_one() -> None:
    """The newest of it, in order; what comes after goes there at once, and nothing comes twice."""

    async def run() -> tuple[list[str], list[str]]:
        first, second = Stream(), Stream()
        streams: list[Any] = [first, second]
        channel = ToolChannel(Way.RESULT, "t", streams[0], OpenQuestions())
        channel.send(TaskEvent("before"))
        await _turn()
        channel.detach()
        channel.send(TaskEvent("between"))
        channel.send(TaskEvent("again", severity="ERROR"))
        await _turn()
        channel.attach(streams[1])
        channel.send(TaskEvent("after"))
        await _turn()
        channel.detach()
        channel.attach(streams[1])
        return first.texts, second.texts

    assert asyncio.run(run()) == (["before"], ["between", "ERROR: again", "after"])
    assert LINES_AT_ONCE == 20
