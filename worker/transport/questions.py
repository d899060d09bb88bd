"""Messages of clients that may ask about tokens and nothing else."""

from __future__ import annotations

from ...models.protocol.frames import ClientMessage, Command
from ...models.protocol.jobs import JobRequest
from ...models.tasks.auth import INTROSPECT_TASK


def is_question(message: ClientMessage) -> bool:
    """Whether a message asks about a token, or for the answer once more; ProtocolError if it isn't a valid job."""
    if message.command == Command.POST:
        return JobRequest.parse(message.data).task == INTROSPECT_TASK
    return message.command == Command.GET
