"""A service as users of NorFab write them: tasks of every kind, on the reference's own worker class.

Imported by the reference, as a plugin of an inventory. The service is the one that the worker's inventory names, so
several services may have these tasks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from norfab.core.worker import Job, NFPWorker, Task
from norfab.models import Result
from pydantic import BaseModel, Field


class SayInput(BaseModel):
    """Arguments of `say`."""

    text: str = Field(description="What to say")
    times: int = Field(default=1, description="How many times to say it", ge=1, le=1_000_000)


class WalkInput(BaseModel):
    """Arguments of `walk`."""

    steps: int = Field(default=3, description="How many events to send", ge=0)
    gate: str | None = Field(default=None, description="Named pipe to read a byte from after each event")


class AdviseInput(BaseModel):
    """Arguments of `advise`."""

    topic: str = Field(description="What the advice is about")
    lines: list[str] = Field(default=[], description="What to say about it")


class DemoWorker(NFPWorker):
    """A worker of the reference's with a few tasks of its own, beside those that all of them have."""

    def __init__(
        self, inventory: Any, broker: str, worker_name: str, exit_event: Any, init_done_event: Any, **_: Any
    ) -> None:
        service = inventory[worker_name]["service"]
        super().__init__(inventory, broker, service, worker_name, exit_event)
        self.demo_inventory = self.load_inventory()
        init_done_event.set()

    @Task(fastapi={"methods": ["GET"]})
    def get_inventory(self) -> Result:
        """Return this worker's inventory."""
        return Result(result=self.demo_inventory)

    @Task(fastapi={"methods": ["GET"]})
    def get_version(self) -> Result:
        """Return this worker's version."""
        return Result(result={"demo": "1"})

    @Task(input=SayInput, mcp={"annotations": {"title": "Say", "readOnlyHint": True, "openWorldHint": False}})
    def say(self, text: str, times: int = 1) -> Result:
        """Say something, as often as wanted."""
        return Result(result={"text": text * times, "worker": self.name})

    @Task()
    def stumble(self, reason: str = "a stone") -> Result:
        """Raise an error."""
        raise RuntimeError(f"stumbled over {reason}")

    @Task()
    def refuse(self, reason: str = "no") -> Result:
        """Fail without raising anything."""
        return Result(failed=True, errors=[reason], result=None)

    @Task(input=WalkInput, mcp={"annotations": {"title": "Walk"}})
    def walk(self, job: Job, steps: int = 3, gate: str | None = None) -> Result:
        """Send an event for each step; where a gate is named, wait behind each until somebody lets one through."""
        with Path(gate or os.devnull).open("rb", buffering=0) as passes:
            for step in range(1, steps + 1):
                job.event(f"step {step} of {steps}", resource=[f"leg-{step}"])
                passes.read(1)
        return Result(result=steps)

    @Task(mcp=False, fastapi=False)
    def approve(self, job: Job, timeout: int = 120) -> Result:
        """Report a warning, then ask whether to go on, with a preview."""
        job.event("two hosts differ", severity="WARNING", resource=["sw1", "sw2"])
        return Result(result=job.request_input("Commit?", timeout=timeout, metadata={"preview": {"vlan": 10}}))

    @Task(mcp=False)
    def hide(self) -> Result:
        """Do what is no MCP client's business."""
        return Result(result="hidden")

    @Task()
    def bearer_token_show(self) -> Result:
        """Show tokens: its author forgot to keep it from MCP clients."""
        return Result(result=["shown-token"])

    @Task()
    def run_shell_cmd(self, command: str) -> Result:
        """Say which command it was given, and run none: its author forgot to keep it from MCP clients, too."""
        return Result(result=f"not run: {command}")

    @Task(
        input=AdviseInput,
        mcp={
            "annotations": {"title": "Advise", "readOnlyHint": True},
            "prompts": [
                {
                    "name": "ask_advice",
                    "title": "Ask for advice",
                    "description": "Ask for advice on a topic",
                    "arguments": [
                        {"name": "topic", "description": "What it is about", "required": True},
                        {"name": "tone", "description": "How to say it"},
                    ],
                    "messages": [
                        {
                            "role": "user",
                            "content": {
                                "type": "text",
                                "text": "Advise me on {{ topic }}{% if tone %}, {{ tone }}{% endif %}.",
                            },
                        },
                        {"role": "assistant", "content": {"type": "text", "text": "What have you tried?"}},
                    ],
                }
            ],
            "guardrails": [
                {"field": "topic", "type": "contains", "match": ["gossip"], "message": "no gossip"},
                {"field": "lines", "type": "regex", "match": "^rm ", "message": "nothing is removed"},
            ],
            "result_guardrails": [
                {"type": "replace", "match": "pass-[0-9]+", "replace": "***"},
                {"type": "regex", "match": "forbidden", "message": "withheld"},
                {"type": "limit", "limit": 20_000, "message": "too long"},
            ],
        },
    )
    def advise(self, topic: str, lines: list[str] | None = None) -> Result:
        """Give advice on a topic."""
        return Result(result={"topic": topic, "advice": lines or ["take care"]})
