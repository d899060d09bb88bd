"""Catalogue of the published tools and prompts: this worker's own, and those of other services of its fabric.

Readers take no lock: the two mappings are replaced, never changed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

from ...models.errors import EntryError
from ...models.tasks.auth import is_token_task
from ...models.tasks.base import fold_name
from .definitions import JOB_DETAILS_TASK, NAME, PublishedPrompt, PublishedTool, build_tool, count_prompts
from .policy import ToolPolicy, ToolUser
from .relays import RELAY_NOTICE, is_known_relay
from .texts import clean_line

log = logging.getLogger(__name__)

MAX_ENTRIES_OF_A_SERVICE = 1_000
MAX_PROMPTS_OF_A_SERVICE = 200
MAX_TOOLS = 5_000
MAX_PROMPTS = 1_000
MAX_WARNINGS = 1_000
# What clients see: a list changes where these do.
_TOOL, _PROMPT = attrgetter("tool", "access"), attrgetter("prompt", "access")


@dataclass(frozen=True)
class ListChange:
    """Which of the two lists have changed."""

    tools: bool
    prompts: bool


class ToolCatalogue:
    """The published `tools` and `prompts` by name, in the order of their names; thread-safe.

    The functions in `on_change` are called after a list has changed, one at a time, in the thread that changed it. They
    must neither block, nor raise, nor change the catalogue. `own` are the `list_tasks` entries of this worker's tasks.
    """

    def __init__(self, worker: str, service: str, own: Iterable[Mapping[str, Any]], policy: ToolPolicy) -> None:
        self.on_change: list[Callable[[ListChange], None]] = []
        self._service = service
        self._policy = policy
        self._lock = threading.Lock()
        self._warned: set[tuple[str, ...]] = set()
        self._worker = worker
        self._entries: dict[str, list[Mapping[str, Any]]] = {service: list(own)}
        self._by_service: dict[str, tuple[PublishedTool, ...]] = {}
        self._by_service[service] = tuple(self._build(service, self._entries[service], worker))
        self.tools: Mapping[str, PublishedTool] = {}
        self.prompts: Mapping[str, PublishedPrompt] = {}
        self.tools, self.prompts = self._merged()

    def replace(self, service: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Replace the published tools and prompts of another service by those that `entries` declare.

        Invalid entries are skipped, and logged once each. If `entries` is not a list, nothing changes. Returns the
        names of the service's tools that are published now.
        """
        if not NAME.fullmatch(service) or service == self._service:
            self._warn_once(service, "services of this name are not published")
            return []
        if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
            self._warn_once(service, "the answer to list_tasks is not a list: its tools stay as they are")
        else:
            if len(entries) > MAX_ENTRIES_OF_A_SERVICE:
                self._warn_once(service, f"more than {MAX_ENTRIES_OF_A_SERVICE} tasks: the rest is not published")
            kept = list(entries[:MAX_ENTRIES_OF_A_SERVICE])
            found = tuple(self._build(service, kept))
            with self._lock:
                self._by_service[service], self._entries[service] = found, kept
                self._publish()
        return [tool.name for tool in self.tools.values() if tool.service == service]

    def retain(self, services: Collection[str]) -> None:
        """Remove the tools and prompts of all services but these and this worker's own."""
        with self._lock:
            for service in self._by_service.keys() - {*services, self._service}:
                del self._by_service[service], self._entries[service]
            self._publish()

    def apply_policy(self, policy: ToolPolicy) -> None:
        """Publish what another policy allows, with its guardrails, from now on."""
        with self._lock:
            self._policy = policy
            for service, entries in self._entries.items():
                worker = self._worker if service == self._service else None
                self._by_service[service] = tuple(self._build(service, entries, worker))
            self._publish()

    def published_for(self, username: str | None, scopes: Collection[str]) -> list[PublishedTool | PublishedPrompt]:
        """Return the tools, and then the prompts, that a user may use with a token that has `scopes`.

        None is everybody where there is no authentication.
        """
        user = None if username is None else ToolUser(username, frozenset(scopes))
        published: Iterator[PublishedTool | PublishedPrompt] = chain(self.tools.values(), self.prompts.values())
        return [each for each in published if each.access.allows(user)]

    def _publish(self) -> None:
        tools, prompts = self._merged()
        change = ListChange(
            tools=[*map(_TOOL, tools.values())] != [*map(_TOOL, self.tools.values())],
            prompts=[*map(_PROMPT, prompts.values())] != [*map(_PROMPT, self.prompts.values())],
        )
        self.tools, self.prompts = tools, prompts
        if change.tools or change.prompts:
            for notify in list(self.on_change):
                notify(change)

    def _build(self, service: str, entries: Iterable[object], worker: str | None = None) -> Iterator[PublishedTool]:
        count = 0
        entries = list(entries)
        # The jobs of a relay have the arguments and results of those that it ran.
        if any(is_token_task(_name(entry)) or is_known_relay(service, _name(entry)) for entry in entries):
            entries = [entry for entry in entries if not self._shows_jobs(service, _name(entry))]
        for entry in entries:
            count += count_prompts(entry)
            include_prompts = count <= MAX_PROMPTS_OF_A_SERVICE
            if not include_prompts:
                self._warn_once(service, f"more than {MAX_PROMPTS_OF_A_SERVICE} prompts: the rest is not published")
            try:
                tool = build_tool(
                    service, entry, self._policy, self._warn_once, worker=worker, include_prompts=include_prompts
                )
            except EntryError as error:
                self._warn_once(service, str(error), clean_line(_name(entry), 64))
            else:
                if tool is not None:
                    if tool.is_relay:
                        self._log_relay(tool)
                    yield tool

    def _shows_jobs(self, service: str, task: str) -> bool:
        """Return whether a task would show arguments and results of jobs, and no rule names it."""
        return fold_name(task) == JOB_DETAILS_TASK and not self._policy.is_named(service, task)

    def _merged(self) -> tuple[dict[str, PublishedTool], dict[str, PublishedPrompt]]:
        """Return all tools and prompts; where names collide or limits are reached, published tools win."""
        tools: dict[str, PublishedTool] = {}
        prompts: dict[str, PublishedPrompt] = {}
        before = self.tools
        found = chain.from_iterable(self._by_service.values())
        for tool in sorted(found, key=lambda it: it.name not in before or before[it.name].service != it.service):
            if tool.name in tools:
                self._warn_once(tool.service, f"a tool {tool.name} exists already", tool.task)
            elif len(tools) >= MAX_TOOLS:
                self._warn_once("", f"more than {MAX_TOOLS} tools: the rest is not published")
            else:
                tools[tool.name] = tool
                for prompt in tool.prompts:
                    if prompt.name in prompts:
                        self._warn_once(tool.service, f"a prompt {prompt.name} exists already", tool.task)
                    elif len(prompts) >= MAX_PROMPTS:
                        self._warn_once("", f"more than {MAX_PROMPTS} prompts: the rest is not published")
                    else:
                        prompts[prompt.name] = prompt
        return dict(sorted(tools.items())), dict(sorted(prompts.items()))

    def _log_relay(self, tool: PublishedTool) -> None:
        """Log that a tool relays, once."""
        if self._is_new((tool.service, tool.task, RELAY_NOTICE)):
            log.warning("tool %s is published: %s", tool.name, RELAY_NOTICE)

    def relays(self) -> list[str]:
        """Return the names of the published tools that run jobs of other services for their callers."""
        return [tool.name for tool in self.tools.values() if tool.is_relay]

    def _warn_once(self, service: str, problem: str, task: str = "") -> None:
        """Log a problem unless it has been logged already: services are polled."""
        if self._is_new((service, task, problem)):
            log.warning("not published over MCP: %s %s: %s", clean_line(service, 200), task, problem)

    def _is_new(self, warning: tuple[str, ...]) -> bool:
        if warning in self._warned or len(self._warned) >= MAX_WARNINGS:
            return False
        self._warned.add(warning)
        return True


def _name(entry: object) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else ""
