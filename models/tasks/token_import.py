"""Input and result of the task that imports tokens from another program."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..fields import Instant, StoredUsername, Token
from ..tokens import BearerTokenRecord
from .base import Report, TaskInput

MAX_IMPORT_TOKENS = 100
"""Tokens per message; with the longest tokens and user names they take a quarter of the worker's limit of 1 MiB."""


class ImportedToken(TaskInput):
    """A token with its creation and expiry."""

    token: Annotated[Token, Field(description="Token string to store", repr=False)]
    username: Annotated[StoredUsername, Field(description="User name to store the token for")]
    created: Annotated[Instant, Field(description="When it was created, in seconds since the epoch")]
    expires: Annotated[Instant | None, Field(description="When it expires, likewise, null for never")] = None

    def record(self) -> BearerTokenRecord:
        """Return the record to store."""
        return BearerTokenRecord(**dict(self))


class BearerTokenImportInput(TaskInput):
    """Arguments of `bearer_token_import`."""

    tokens: Annotated[
        list[ImportedToken],
        Field(min_length=1, max_length=MAX_IMPORT_TOKENS, repr=False, description="Tokens to store"),
    ]


class Imported(Report):
    """Result of `bearer_token_import`."""

    imported: int = Field(description="Number of tokens that are stored now and were not before")
    present: int = Field(description="Number of tokens that their users had already, left as they were")
    refused: int = Field(description="Number of tokens that are stored for other users, left as they were")
    expired: int = Field(description="Number of tokens that were skipped because they have expired")
    deleted: int = Field(
        default=0, description="Number of tokens that were skipped because they were deleted here later"
    )
