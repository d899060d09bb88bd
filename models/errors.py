"""The errors that nfcli raises, and the exit status of each: a class for each cause.

A message is one line that names the value, the rule and the remedy; it never holds a secret. The worker and the shell
raise the same classes; the message of an error that a task raises is sent in its `Result`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class NfcliError(Exception):
    """Base class of this package's errors; `str(error)` is one line for a user. Exit status 1.

    Raised itself where the cause is only known as a worker's or broker's message.
    """

    exit_status: ClassVar[int] = EXIT_FAILED
    has_reached_none: bool = False
    """Whether this is the error of a job that reached none of its workers, which the message names."""


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


class ServiceError(NfcliError):
    """A service can't be installed: its account, its folders or the program don't permit it."""


class CertificateError(NfcliError):
    """A certificate of the MCP server, its key, or the CA of its clients can't be read or used."""


class NoWorkersError(NfcliError):
    """No worker could be reached: unknown name or service, or nothing answers at the endpoint. Exit status 3."""

    exit_status = EXIT_UNREACHABLE


class JobInterruptedError(KeyboardInterrupt):
    """Ctrl-C during a job; for a job that may change something, the message says where the outcome is unknown."""


class AccessDeniedError(NoWorkersError):
    """The worker or broker at the endpoint refused this client's key. Exit status 3."""


class WorkerStartError(NfcliError):
    """A worker can't start: port in use, name owned by another process, refused configuration."""


class NorfabDatabaseError(NfcliError):
    """A NorFab worker's token database can't be found or read; nothing was imported."""


class SharedFileError(NfcliError):
    """A file that a fabric shares can't be fetched; nothing of it is kept."""


class SharedFileMissingError(SharedFileError):
    """No worker of the file service shares a file of this name."""


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
    """The token database refused an operation; nothing was changed unless a subclass says so. Raised by the store."""


class TokenStoreBusyError(TokenStoreError):
    """Another process holds the lock of the token database."""


class TokenStoreDiskError(TokenStoreError):
    """The disk of the token database refuses to be read or written: a quota, or a fault; see the subclasses."""


class TokenStoreReadOnlyError(TokenStoreDiskError):
    """The token database or its folder can't be accessed or written."""


class TokenStoreFullError(TokenStoreDiskError):
    """The token database can't grow: the disk is full."""


class RevocationPendingError(TokenStoreError):
    """Tokens are revoked, but their disk refused to remove them; the message says whether a restart revives them.

    `tokens` are those that were revoked, which the message doesn't hold.
    """

    def __init__(self, message: str, tokens: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tokens = tokens


class TokenStoreDamagedError(TokenStoreError):
    """The file isn't a token database, or fails its integrity check."""


class ToolRuleError(NfcliError):
    """A task of another service declares invalid rules for its tool; names service, task, key and what was expected."""


class AuditError(TaskError):
    """The audit trail can't be written or was altered; the change that would have been recorded isn't made."""


class AuditDiskError(AuditError):
    """The disk of the audit trail refuses a line: it is full, read-only, over a quota, or fails."""


def validation_messages(error: ValidationError, typed: type[BaseModel] | None = None) -> list[str]:
    """Return one message for each field that a pydantic error names: `username: field required`.

    Input values are left out unless the message of a rule has them: they may be secrets. `typed` is the model of what a
    user has typed: the values of its fields that aren't secret are quoted.
    """
    lines = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        text = _rule(item)
        if text is None:
            text = item["msg"]
        elif typed is not None and _is_quotable(item, typed):
            text = f"{_shorten_choices(text)}, got {item['input'][:_QUOTED_CHARACTERS]!r}"
        lines.append(f"{path}: {text}" if path else text)
    return lines


def _rule(item: ErrorDetails) -> str | None:
    """Return the rule that a value breaks, None where pydantic's message has to do."""
    rule = _RULES.get(item["type"])
    return None if rule is None else rule.format(**item.get("ctx", {}))


def _is_quotable(item: ErrorDetails, typed: type[BaseModel]) -> bool:
    fields = {field.alias or name: field for name, field in typed.model_fields.items()} | typed.model_fields
    field = fields.get(str(item["loc"][0])) if len(item["loc"]) == 1 else None
    return field is not None and field.repr is True and isinstance(item["input"], str)


def _shorten_choices(text: str) -> str:
    return text if len(text) <= _LISTED_CHARACTERS else "must be one of the values that ? lists"


_QUOTED_CHARACTERS = 40
_LISTED_CHARACTERS = 120
_WHOLE_NUMBER, _NUMBER, _BOOL = "must be a whole number", "must be a number", "must be true or false"
_RULES = {
    "missing": "field required",
    "extra_forbidden": "no such field",
    "string_type": "must be text",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "bool_parsing": _BOOL,
    "bool_type": _BOOL,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have at most {max_length} items",
}
