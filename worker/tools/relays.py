"""Tasks that run jobs of other services for whoever calls them, and so get past every rule about those.

As a tool, such a task would give each MCP client all that the relaying worker may do: every task of every service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...models.tasks.base import fold_name

PUBLISH_HINT = "it runs tasks of other services for its caller: a rule in tools.policy must name its service and task"
"""Why a relay isn't published, and what would publish it."""

RELAY_NOTICE = "MCP clients can run any task of any service through it, whatever tools.policy says of those"
"""What publishing a relay means."""

# Those of norfab 0.25.0. The caller of the first two chooses services and tasks, by a document or in words; the caller
# of the others names files whose code the worker executes, with its own client at hand.
_KNOWN = {
    "workflow": {"run"},
    "agent": {"invoke"},
    "nornir": {"task", "test"},
    "netbox": {"design_deploy", "sync_device_inventory", "check_device_sync", "sync_all"},
}
_NAMES = frozenset({"run_job", "job_run", "post_job", "run_workflow", "invoke_agent"})
_WORKFLOWS = frozenset({"workflow", "workflows"})
_ARGUMENTS = frozenset({"kwargs", "args"})


def is_relay(service: str, task: str, input_schema: Mapping[str, Any]) -> bool:
    """Return whether a task is known to run jobs for its caller, or its schema, of bounded depth, has the shape of one.

    The shape: it takes the names of a service and a task, a task with its arguments, or a workflow, at any depth.
    """
    if is_known_relay(service, task) or fold_name(task) in _NAMES:
        return True
    return any(_is_job(names) for names in _property_names(input_schema))


def is_known_relay(service: str, task: str) -> bool:
    """Return whether a task is one of NorFab's relays."""
    return fold_name(task) in _KNOWN.get(fold_name(service), ())


def known_relays() -> Iterator[tuple[str, str]]:
    """Yield service and task of each relay of NorFab's."""
    return ((service, task) for service in sorted(_KNOWN) for task in sorted(_KNOWN[service]))


def _is_job(names: set[str]) -> bool:
    return bool(names & _WORKFLOWS or ("task" in names and ("service" in names or names & _ARGUMENTS)))


def _property_names(schema: object) -> Iterator[set[str]]:
    """Yield the names of the properties of each object in a schema, in lower case."""
    values: Iterable[object] = ()
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield {str(name).casefold() for name in properties}
        values = schema.values()
    elif isinstance(schema, list | tuple):
        values = schema
    for value in values:
        yield from _property_names(value)
