"""`show fastmcp access`: which tools and prompts a user may use."""

from __future__ import annotations

from typing import ClassVar

from ..tasks.tools import BearerTokenAccessInput
from .base import JobArguments


class ShowAccess(BearerTokenAccessInput, JobArguments):
    """Show which tools and prompts a user, or the user of a token, may use."""

    TASK: ClassVar[str] = "bearer_token_access"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "kind", "name", "service")
