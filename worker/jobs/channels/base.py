"""What a running task tells the client that waits for it, and asks it: a job's client, or one that calls a tool."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from ....models.errors import TaskError
from ....models.protocol.questions import InputRequest

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
EventStatus = Literal[
    "pending",
    "scheduled",
    "started",
    "running",
    "completed",
    "failed",
    "waiting_client_input",
    "received",
    "cancelled",
    "timeout",
    "unknown",
]

MAX_LINE_CHARACTERS = 1_000
MAX_RESOURCES = 100


@dataclass(frozen=True)
class TaskEvent:
    """One event of a task: a line of text, with NFP's severity and status, and the resources that it is about."""

    message: str
    severity: Severity = "INFO"
    status: EventStatus = "running"
    resource: str | list[str] = ""

    def checked(self) -> TaskEvent:
        """Return this event fit to be sent: texts of one line each, bounded; the message may be empty then.

        Raises:
            TaskError: severity or status is none of NFP's.
        """
        severity: Any = str(self.severity).upper()
        for name, value, known in (("severity", severity, Severity), ("status", str(self.status), EventStatus)):
            if value not in get_args(known):
                raise TaskError(f"{name} of an event must be one of {', '.join(get_args(known))}, got {value[:40]!r}")
        given = self.resource
        named = one_line(given) if isinstance(given, str) else [one_line(str(each)) for each in given[:MAX_RESOURCES]]
        return replace(self, message=one_line(str(self.message)), severity=severity, resource=named)


class Channel(Protocol):
    """The way to the client that waits for a task; any thread may call any method."""

    def send(self, event: TaskEvent) -> None:
        """Send an event to the client; it neither blocks nor raises, except for an event that isn't valid."""

    def ask(self, request: InputRequest) -> Any:
        """Ask the client, and return its answer, or what counts without one.

        Raises:
            TaskError: the client can't be asked, or the task's result is not wanted any more.
        """


class NoChannel:
    """The channel of a task that no client waits for."""

    def send(self, event: TaskEvent) -> None:
        """Check the event and send it to nobody."""
        event.checked()

    def ask(self, request: InputRequest) -> Any:  # noqa: ARG002  the same for all questions
        """Refuse to ask."""
        raise TaskError("the task asks a question, and there is no client that could answer")


NO_CHANNEL = NoChannel()


def one_line(text: str) -> str:
    """Return a text as one line of at most `MAX_LINE_CHARACTERS` printable characters."""
    # Cut before all else: a task may pass megabytes.
    beginning = text[: 4 * MAX_LINE_CHARACTERS]
    kept = "".join(character for character in beginning if character.isprintable() or character.isspace())
    return " ".join(kept.split())[:MAX_LINE_CHARACTERS]
