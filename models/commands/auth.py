"""The commands that manage bearer tokens: the same models for every service that has the tasks."""

from __future__ import annotations

import math
import re
import secrets
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ..fields import NEVER, Lifetime, Token, quote_value, seconds_of
from ..protocol.jobs import Results
from ..tasks.auth import (
    BearerTokenCheckInput,
    BearerTokenDeleteInput,
    BearerTokenListInput,
    BearerTokenStoreInput,
)
from .base import CommandGroup, JobArguments, LocalTime, branch

GENERATED_TOKEN_BYTES = 16
_TIME = re.compile(r"[0-9]{4}-")
_NUMBER = re.compile(r"[+-]?[0-9.]+")


def _typed_lifetime(value: object) -> object:
    """Return a lifetime as it is typed in seconds: with a unit, or as the date or time of its end, in local time."""
    seconds = seconds_of(value)
    if not isinstance(seconds, str) or seconds == NEVER or _NUMBER.fullmatch(seconds):
        return seconds
    try:
        end = datetime.fromisoformat(seconds if _TIME.match(seconds) else "").astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "expire_text",
            "must be whole seconds, a number with a unit (90s, 30m, 12h, 30d, 1w), a date or time such as 2027-01-31 "
            "or 2027-01-31T18:00, or never, got {value}",
            {"value": quote_value(value)},
        ) from None
    left = math.ceil((end - datetime.now(UTC)).total_seconds())
    if left < 1:
        raise PydanticCustomError("expire_past", "must be in the future, got {value}", {"value": quote_value(value)})
    return left


class CreateToken(BearerTokenStoreInput, JobArguments):
    """Store a token for a user; the client generates one that is not given, so that all workers store the same."""

    TASK: ClassVar[str] = "bearer_token_store"
    GENERATED: ClassVar[str] = "token"

    token: Annotated[
        Token,
        Field(
            default_factory=partial(secrets.token_hex, GENERATED_TOKEN_BYTES),
            description=BearerTokenStoreInput.model_fields["token"].description,
            repr=False,
        ),
    ]

    expire: Annotated[
        Annotated[Lifetime, BeforeValidator(_typed_lifetime)] | None,
        Field(description=BearerTokenStoreInput.model_fields["expire"].description),
    ] = None

    def consequence(self) -> str:
        """Return what a worker lacks that gave no result; of a generated token the notes say it."""
        return "the token may not be stored there" if self.GENERATED in self.model_fields_set else ""

    def notes(self, results: Results) -> list[str]:
        """Show a generated token once, and only after every targeted worker has stored it."""
        if self.GENERATED in self.model_fields_set:
            return []
        lacking = [worker for worker, result in sorted(results.items()) if result.get("failed")]
        if not lacking:
            return [f"generated token for {self.username}: {self.token}"]
        if len(lacking) == len(results):
            return ["no worker confirmed the generated token, so it is not shown: run the command again"]
        remedy = (
            f"find it with list-tokens, then store it there with create-token token TOKEN workers {','.join(lacking)}, "
            f"or remove it with delete-token"
        )
        return [f"{', '.join(lacking)} didn't confirm the generated token, so it is not shown: {remedy}"]


class ListTokens(BearerTokenListInput, JobArguments):
    """List the tokens of one user or of all."""

    TASK: ClassVar[str] = "bearer_token_list"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("worker", "username", "token", "age"),
        LocalTime("creation"),
        LocalTime("expires"),
    )
    HAS_PAGES: ClassVar[bool] = True


class DeleteToken(BearerTokenDeleteInput, JobArguments):
    """Delete a token, or all tokens of a user."""

    TASK: ClassVar[str] = "bearer_token_delete"

    def consequence(self) -> str:
        """Return what a worker still has that gave no result."""
        return f"{'the token' if self.token is not None else 'tokens of the user'} may still be valid there"


class CheckToken(BearerTokenCheckInput, JobArguments):
    """Check whether a token is stored and not expired."""

    TASK: ClassVar[str] = "bearer_token_check"


class AuthCommands(CommandGroup, prompt="nf[fastmcp-auth]#"):
    """Token management."""

    create_token: CreateToken = branch("Create authentication token", alias="create-token")
    list_tokens: ListTokens = branch("Retrieve authentication tokens", alias="list-tokens")
    delete_token: DeleteToken = branch("Delete existing authentication token", alias="delete-token")
    check_token: CheckToken = branch("Check if given token valid", alias="check-token")
