"""What the inputs and the reports of all tasks derive from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Base of what tasks report: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskInput(BaseModel):
    """Base of every task's input: unknown keys are errors, and values never show up in error texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
