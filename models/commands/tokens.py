"""`fastmcp tokens …` and `show fastmcp tokens …`: the tokens of several workers, compared and brought together."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from ..fields import TimeoutSeconds
from ..protocol.jobs import DEFAULT_TIMEOUT_SECONDS
from .base import CommandGroup, ShellCommand, TargetArguments, branch, check_names, split_names


class TokensSync(ShellCommand):
    """Bring the tokens of the workers together: the later change of each token is made on all of them."""

    HANDLER: ClassVar[str] = "tokens_sync"

    source: Annotated[
        str | None,
        AfterValidator(check_names),
        Field(alias="from", description="Workers whose tokens are taken over, all if not given"),
    ] = None
    targets: Annotated[
        str | None,
        AfterValidator(check_names),
        Field(alias="to", description="Workers that are changed, all others if not given"),
    ] = None
    timeout: Annotated[TimeoutSeconds | None, Field(description="Timeout of each job")] = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a `TokenSync`."""
        return {
            "sources": list(dict.fromkeys(split_names(self.source))) if self.source else [],
            "targets": list(dict.fromkeys(split_names(self.targets))) if self.targets else [],
            "timeout": DEFAULT_TIMEOUT_SECONDS if self.timeout is None else self.timeout,
        }


class TokensCommands(CommandGroup, prompt="nf[fastmcp-tokens]#"):
    """Tokens of several workers."""

    sync: TokensSync = branch("Bring the tokens of the workers together")


class ShowTokensDiff(TargetArguments):
    """Show in which tokens the workers differ, by fingerprint and user; exit status 1 if they do."""

    HANDLER: ClassVar[str] = "tokens_diff"
    COLUMNS: ClassVar[tuple[str, ...]] = ("fingerprint", "username", "difference", "on", "not on", "note")


class ShowTokensCommands(CommandGroup, prompt="nf[show-fastmcp-tokens]#"):
    """Commands that compare the tokens of several workers."""

    diff: ShowTokensDiff = branch("Show in which tokens the workers differ")
