"""The tools and prompts that the MCP server publishes: this worker's own, and those of services found on a fabric.

Those come and go. What is published at a moment is a snapshot that never changes; readers take no lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ...models.errors import EntryError
from ...models.tasks.auth import is_token_task
from .definitions import (
    NAME,
    TELLS_OF_JOBS,
    PublishedPrompt,
    PublishedTool,
    ToolRules,
    count_prompts,
    publish,
)
from .schemas import clean_line

log = logging.getLogger(__name__)

MAX_ENTRIES_OF_A_SERVICE = 1_000
MAX_PROMPTS_OF_A_SERVICE = 200
MAX_TOOLS = 5_000
MAX_PROMPTS = 1_000
_MAX_LOGGED = 1_000


@dataclass(frozen=True)
class ListChange:
    """Which lists are no longer what they were."""

    tools: bool
    prompts: bool


@dataclass(frozen=True)
class Snapshot:
    """What is published at one moment, by name and in the names' order."""

    tools: Mapping[str, PublishedTool] = field(default_factory=dict)
    prompts: Mapping[str, PublishedPrompt] = field(default_factory=dict)

    def change_to(self, other: Snapshot) -> ListChange:
        """Return which lists a client would find different."""
        return ListChange(
            tools=[each.tool for each in self.tools.values()] != [each.tool for each in other.tools.values()],
            prompts=[each.prompt for each in self.prompts.values()] != [each.prompt for each in other.prompts.values()],
        )


class ToolCatalogue:
    """What is published; all methods may be called from any thread.

    `on_change` are called after a list has changed, one at a time, from the thread that changed it, with what changed.
    They must neither block, nor raise, nor change the catalogue.

    Args:
        worker: name of this worker.
        service: its service.
        own: its tasks, as `list_tasks` tells them.
        rules: what may be published.
    """

    def __init__(self, worker: str, service: str, own: Iterable[Mapping[str, Any]], rules: ToolRules) -> None:
        self.on_change: list[Callable[[ListChange], None]] = []
        self._service = service
        self._rules = rules
        self._lock = threading.Lock()
        self._logged: set[tuple[str, ...]] = set()
        self._by_service: dict[str, tuple[PublishedTool, ...]] = {service: tuple(self._published(service, own, worker))}
        self._snapshot = Snapshot()
        self._snapshot = self._merged()

    @property
    def snapshot(self) -> Snapshot:
        """What is published now."""
        return self._snapshot

    def tools(self) -> tuple[PublishedTool, ...]:
        """Return the tools, by name."""
        return tuple(self._snapshot.tools.values())

    def prompts(self) -> tuple[PublishedPrompt, ...]:
        """Return the prompts, by name."""
        return tuple(self._snapshot.prompts.values())

    def find(self, name: str) -> PublishedTool | None:
        """Return the tool of that name."""
        return self._snapshot.tools.get(name)

    def find_prompt(self, name: str) -> PublishedPrompt | None:
        """Return the prompt of that name."""
        return self._snapshot.prompts.get(name)

    def replace(self, service: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Publish what another service's tasks declare, in place of what was published of it before.

        A broken entry is passed over and named once in the log. An answer that is no list changes nothing.

        Returns:
            The names of the tools that are published of the service now.
        """
        if not NAME.fullmatch(service) or service == self._service:
            self._say_once(service, "", "a service of this name is not published")
            return []
        if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
            self._say_once(service, "", "the answer to list_tasks is no list: what was published of it stays")
        else:
            if len(entries) > MAX_ENTRIES_OF_A_SERVICE:
                reason = f"more than {MAX_ENTRIES_OF_A_SERVICE} tasks: the others are not published"
                self._say_once(service, "", reason)
            found = tuple(self._published(service, entries[:MAX_ENTRIES_OF_A_SERVICE]))
            self._change({service: found})
        return [tool.name for tool in self.tools() if tool.service == service]

    def keep_only(self, services: Collection[str]) -> None:
        """Take away the tools and prompts of services that aren't among these; this worker's own stay."""
        self._change({}, kept=frozenset(services) | {self._service})

    def _change(self, found: Mapping[str, tuple[PublishedTool, ...]], kept: Collection[str] | None = None) -> None:
        with self._lock:
            for service in list(self._by_service):
                if kept is not None and service not in kept:
                    del self._by_service[service]
            self._by_service.update(found)
            merged = self._merged()
            change = self._snapshot.change_to(merged)
            self._snapshot = merged
            if change.tools or change.prompts:
                for tell in list(self.on_change):
                    tell(change)

    def _published(self, service: str, entries: Iterable[object], worker: str | None = None) -> Iterator[PublishedTool]:
        count = 0
        entries = list(entries)
        if not self._rules.is_named(service, TELLS_OF_JOBS) and any(is_token_task(_name(entry)) for entry in entries):
            entries = [entry for entry in entries if _name(entry) != TELLS_OF_JOBS]
        for entry in entries:
            count += count_prompts(entry)
            has_room = count <= MAX_PROMPTS_OF_A_SERVICE
            if not has_room:
                reason = f"more than {MAX_PROMPTS_OF_A_SERVICE} prompts: the others are not published"
                self._say_once(service, "", reason)
            try:
                tool = publish(service, entry, self._rules, self._say_prompt, worker=worker, has_room=has_room)
            except EntryError as error:
                self._say_once(service, clean_line(_name(entry), 64), str(error))
            else:
                if tool is not None:
                    yield tool

    def _merged(self) -> Snapshot:
        """Return what is published of all services; what is published already isn't pushed out by what is new."""
        tools: dict[str, PublishedTool] = {}
        prompts: dict[str, PublishedPrompt] = {}
        before = self._snapshot.tools
        found = [tool for found in self._by_service.values() for tool in found]
        found.sort(key=lambda tool: tool.name not in before or before[tool.name].service != tool.service)
        for tool in found:
            if tool.name in tools:
                self._say_once(tool.service, tool.task, f"there is a tool {tool.name} already")
            elif len(tools) >= MAX_TOOLS:
                self._say_once("", "", f"more than {MAX_TOOLS} tools: the others are not published")
            else:
                tools[tool.name] = tool
                for prompt in tool.prompts:
                    if prompt.name in prompts:
                        self._say_once(tool.service, tool.task, f"there is a prompt {prompt.name} already")
                    elif len(prompts) >= MAX_PROMPTS:
                        self._say_once("", "", f"more than {MAX_PROMPTS} prompts: the others are not published")
                    else:
                        prompts[prompt.name] = prompt
        by_name = attrgetter("name")
        return Snapshot(
            {tool.name: tool for tool in sorted(tools.values(), key=by_name)},
            {prompt.name: prompt for prompt in sorted(prompts.values(), key=by_name)},
        )

    def _say_prompt(self, tool: str, problem: str) -> None:
        self._say_once(tool, "", problem)

    def _say_once(self, service: str, task: str, problem: str) -> None:
        """Tell the operator, once each: services are asked again and again."""
        said = (service, task, problem)
        if said in self._logged or len(self._logged) >= _MAX_LOGGED:
            return
        self._logged.add(said)
        log.warning("not published over MCP: %s %s: %s", clean_line(service, 200), task, problem)


def _name(entry: object) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else ""
