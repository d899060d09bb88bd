"""Every error that nfcli raises on purpose, and the exit status that belongs to each.

A message is one line that names the value, the rule and the remedy; it never holds a secret. The worker and the shell
raise the same classes: an error that a task raises travels as one sentence in its `Result`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ValidationError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class NfcliError(Exception):
    """Base of all errors of this package; `str(error)` is one line fit for a user."""

    exit_status: ClassVar[int] = EXIT_FAILED


class UsageError(NfcliError):
    """Words or arguments that don't parse or break a field's rule; decided before anything is sent."""

    exit_status = EXIT_USAGE


class InventoryError(NfcliError):
    """The inventory can't be read or breaks its schema; names file, key path and what was expected."""


class EnvironmentFolderError(NfcliError):
    """A folder or file under `.nfcli/` is missing, has too wide a mode or belongs to somebody else."""


class KeyFileError(NfcliError):
    """A CURVE key file can't be read or isn't one."""


class NoWorkersError(NfcliError):
    """No worker could be reached: unknown name or service, or nothing answers at its endpoint."""

    exit_status = EXIT_UNREACHABLE


class AccessDeniedError(NoWorkersError):
    """The worker at the endpoint doesn't know this client's key."""


class WorkerStartError(NfcliError):
    """A worker can't start: port taken, name already owned, refused configuration."""


class NorfabDatabaseError(NfcliError):
    """A NorFab worker's token database can't be found or read; nothing was imported."""


class ProtocolError(NfcliError):
    """Frames that aren't NFP (nfp: see `models/protocol/frames.py`); the message never holds their content."""


class TaskError(NfcliError):
    """A task can't do what it was asked for; its text becomes the failed result's only error line."""


class EntryError(NfcliError):
    """What a task declares of itself can't be published over MCP."""


class PromptError(NfcliError):
    """A prompt that can't be published, or arguments that it can't be rendered with."""


class ToolCallError(NfcliError):
    """A tool's call has no results that could be given back."""


class TokenOwnerError(TaskError):
    """The token is stored for another user; nothing was changed."""


class TokenStoreError(TaskError):
    """The token database refused an operation; nothing was changed."""


class TokenStoreBusyError(TokenStoreError):
    """Another process holds the database's lock."""


class TokenStoreReadOnlyError(TokenStoreError):
    """The database or its folder can't be written."""


class TokenStoreFullError(TokenStoreError):
    """The disk is full."""


class TokenStoreDamagedError(TokenStoreError):
    """The database file is not one, or fails its integrity check."""


class ToolRuleError(NfcliError):
    """The rules that a task brings along for its tool are no rules; names service, task, key and what was expected."""


class AuditError(TaskError):
    """The audit trail can't be written, or isn't as it was written; a change that it should tell of isn't made."""


def sentences(error: ValidationError) -> list[str]:
    """Turn a pydantic error into one sentence per field: `username: field required`.

    Input values are left out on purpose unless a rule's own message names them: they may be secrets.
    """
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part) for part in item["loc"])
        text = _WORDING.get(item["type"], item["msg"])
        lines.append(f"{path}: {text}" if path else text)
    return lines


_WORDING = {
    "missing": "field required",
    "extra_forbidden": "no such field",
    "string_type": "must be text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
