"""Names of the tools that every worker publishes, from the declarations of its tasks."""

from __future__ import annotations

from nfcli.models.tasks.tools import tool_name
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.worker import TASK_MODULES

OWN_TASKS = sorted(spec.name for spec in TaskRegistry(*TASK_MODULES) if spec.mcp is not None)
OWN_TOOLS = [tool_name("fastmcp", name) for name in OWN_TASKS]
