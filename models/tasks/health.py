"""Results of `nfcli --check`, and of the task that checks a running worker's token database."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from .base import Report

CLOCK_SLACK_SECONDS = 5.0
"""How far a clock may be behind a token database's high-water mark before it is reported."""


class CheckResult(Report):
    """The result of one check: it failed if there is an `error`."""

    subject: str = Field(description="What was checked")
    error: str = Field(default="", description="What is wrong and how to fix it, empty where the check passed")
    detail: str = Field(default="", description="Additional information about a check that passed")

    def line(self) -> str:
        """Return it as one line of output."""
        text = self.error or self.detail
        return f"{'FAULT' if self.error else 'ok   '} {self.subject}{f': {text}' if text else ''}"

    def for_worker(self, worker: str) -> CheckResult:
        """Return it with the worker's name before its subject."""
        return self.model_copy(update={"subject": f"{worker} {self.subject}".rstrip()})


class StoreReport(Report):
    """Result of `check_store` for an intact token database."""

    tokens: int = Field(description="Number of tokens that have not expired")
    passed_over: int = Field(description="Number of rows without a valid token, which were skipped at the start")
    disk: str = Field(default="", description="What keeps the disk from being written, and the remedy; or empty")
    clock_behind_seconds: float = Field(description="Seconds by which the clock is behind the latest time seen, or 0")


def clock_result(behind_seconds: float) -> CheckResult:
    """Return the result of comparing the clock with the latest time that a token database has seen."""
    if behind_seconds <= CLOCK_SLACK_SECONDS:
        return CheckResult(subject="clock", detail="not behind what the token database has seen")
    seen = f"it is {behind_seconds:.0f} s behind the latest time that the token database has seen"
    return CheckResult(subject="clock", error=f"{seen}: set this machine's clock right")


def disk_results(problem: str | None) -> list[CheckResult]:
    """Return the result for a disk that can't be written, none for one that can."""
    return [CheckResult(subject="disk", error=problem)] if problem else []


def rows_result(tokens: int, skipped: int) -> CheckResult:
    """Return the result for an intact token database, from its numbers of live tokens and of skipped rows."""
    if skipped == 0:
        return CheckResult(subject="database", detail=f"intact, tokens: {tokens}")
    remedy = "store these tokens again with fastmcp auth create-token"
    return CheckResult(subject="database", error=f"skipped rows that hold no valid token: {skipped}: {remedy}")


def trail_result(lines: int) -> CheckResult:
    """Return the result for an intact audit trail."""
    return CheckResult(subject="audit trail", detail=f"intact, lines: {lines}")


def relays_result(tools: Sequence[str]) -> CheckResult:
    """Return the result that names the tools through which MCP clients can run any task of any service."""
    meaning = "MCP clients can run any task of any service through it, whatever tools.policy says of those"
    return CheckResult(subject="relays", detail=f"published: {', '.join(tools)}: {meaning}")
