"""Base classes of task inputs and results."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Base of structured results: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskInput(BaseModel):
    """Base of task inputs: immutable, unknown fields are errors, error messages don't contain values."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
