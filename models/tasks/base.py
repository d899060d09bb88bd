"""Base classes of task inputs and results."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


def fold_name(name: str) -> str:
    """Return a name of a task or an argument without what spellings of it differ in: letter case, `-` and `.` for `_`.

    Rules compare names by it where another spelling must not get past them.
    """
    return name.casefold().replace("-", "_").replace(".", "_")


class Report(BaseModel):
    """Base of structured results: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskInput(BaseModel):
    """Base of task inputs: immutable, unknown fields are errors, error messages don't contain values."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
