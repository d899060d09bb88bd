"""What `nfcli --check` finds: a line for each thing that was looked at, from the shell or from a worker's own look."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CLOCK_SLACK_SECONDS = 5.0
"""How far a clock may be behind what a token database has seen; less is nothing that tokens depend on."""


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckResult(_Described):
    """One thing that was looked at; all is well with it unless there is a `error`."""

    subject: str = Field(description="What was looked at")
    error: str = Field(default="", description="What is wrong and what to do about it, empty where nothing is")
    detail: str = Field(default="", description="What there is to know of it where all is well")

    def line(self) -> str:
        """Return it as one line of output."""
        text = self.error or self.detail
        return f"{'FAULT' if self.error else 'ok   '} {self.subject}{f': {text}' if text else ''}"

    def for_worker(self, worker: str) -> CheckResult:
        """Return it as a finding about this worker."""
        return self.model_copy(update={"subject": f"{worker} {self.subject}".rstrip()})


class StoreReport(_Described):
    """What `check_store` tells of the token database of a worker that runs; that it is whole, where it tells at all."""

    tokens: int = Field(description="Number of tokens that have not expired")
    passed_over: int = Field(description="Number of rows that hold no valid token and were passed over at the start")
    clock_behind_seconds: float = Field(description="How far the clock is behind the latest time seen, or 0")


def clock_result(behind_seconds: float) -> CheckResult:
    """Return the finding about a clock, by how far it is behind the latest time that a token database has seen."""
    if behind_seconds <= CLOCK_SLACK_SECONDS:
        return CheckResult(subject="clock", detail="not behind what the token database has seen")
    return CheckResult(
        subject="clock",
        error=f"it is {behind_seconds:.0f} s behind the latest time that the token database has seen: "
        "set this machine's clock right",
    )


def rows_result(tokens: int, passed_over: int) -> CheckResult:
    """Return the finding about a whole token database, by how many live tokens it has and how many rows are none."""
    if passed_over == 0:
        return CheckResult(subject="database", detail=f"whole, tokens in it: {tokens}")
    return CheckResult(
        subject="database",
        error=f"rows that hold no valid token and are passed over: {passed_over}: store these tokens again with "
        "fastmcp auth create-token",
    )
