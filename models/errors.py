"""The errors that nfcli raises, and the exit status of each: a class for each cause.

A message is one line that names the value, the rule and the remedy; it never holds a secret. The worker and the shell
raise the same classes; the message of an error that a task raises is sent in its `Result`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ValidationError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class NfcliError(Exception):
    """Base class of this package's errors; `str(error)` is one line for a user. Exit status 1.

    Raised itself where the cause is only known as a worker's or broker's message.
    """

    exit_status: ClassVar[int] = EXIT_FAILED


class UsageError(NfcliError):
    """Input that doesn't parse or breaks a field's rule. Raised before anything is sent. Exit status 2."""

    exit_status = EXIT_USAGE


class InventoryError(NfcliError):
    """The inventory can't be read or breaks its schema; the message names file, key path and what was expected."""


class EnvironmentFolderError(NfcliError):
    """A file or folder can't be used: it is missing, open to other users, another user's, or not of the right type.

    Raised for whatever nfcli keeps private, and for files named on the command line.
    """


class KeyFileError(NfcliError):
    """A CURVE or audit key file can't be read or written, isn't private, or holds no valid key."""


class NoWorkersError(NfcliError):
    """No worker could be reached: unknown name or service, or nothing answers at the endpoint. Exit status 3."""

    exit_status = EXIT_UNREACHABLE


class AccessDeniedError(NoWorkersError):
    """The worker or broker at the endpoint refused this client's key. Exit status 3."""


class WorkerStartError(NfcliError):
    """A worker can't start: port in use, name owned by another process, refused configuration."""


class NorfabDatabaseError(NfcliError):
    """A NorFab worker's token database can't be found or read; nothing was imported."""


class ProtocolError(NfcliError):
    """Frames of a peer that aren't NFP; the message never holds their content."""


class TaskError(NfcliError):
    """A task can't be carried out; the message becomes the failed result's only error line.

    Raised by tasks, and by the shell for a task whose result it needs.
    """


class TaskTimeoutError(TaskError):
    """A worker didn't answer in time: it is unknown whether the task was carried out."""


class EntryError(NfcliError):
    """A task's declaration can't be published over MCP. Raised and logged by the worker."""


class PromptError(NfcliError):
    """A prompt can't be published, or not be rendered with the given arguments. Raised by the worker's MCP server."""


class ToolCallError(NfcliError):
    """A tool call yielded no result that could be returned. Raised by the worker's MCP server."""


class TokenOwnerError(TaskError):
    """The token is stored for another user; nothing was changed. Raised by the token store."""


class TokenStoreError(TaskError):
    """The token database refused an operation; nothing was changed. Raised by the token store."""


class TokenStoreBusyError(TokenStoreError):
    """Another process holds the lock of the token database."""


class TokenStoreReadOnlyError(TokenStoreError):
    """The token database or its folder can't be accessed or written."""


class TokenStoreFullError(TokenStoreError):
    """The token database can't grow: the disk is full."""


class TokenStoreDamagedError(TokenStoreError):
    """The file isn't a token database, or fails its integrity check."""


class ToolRuleError(NfcliError):
    """A task of another service declares invalid rules for its tool; names service, task, key and what was expected."""


class AuditError(TaskError):
    """The audit trail can't be written or was altered; the change that would have been recorded isn't made."""


def validation_messages(error: ValidationError) -> list[str]:
    """Return one message for each field that a pydantic error names: `username: field required`.

    Input values are left out unless the message of a rule has them: they may be secrets.
    """
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part) for part in item["loc"])
        text = _MESSAGES.get(item["type"], item["msg"])
        lines.append(f"{path}: {text}" if path else text)
    return lines


_MESSAGES = {
    "missing": "field required",
    "extra_forbidden": "no such field",
    "string_type": "must be text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
