"""The tasks of a service, merged from what each of its workers says in answer to `list_tasks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ...errors import TaskError
from ...invisible import has_invisible
from .documents import Schema, Variant, alternatives, first_paragraph, plain_line, properties

MAX_TASKS = 10_000
MAX_ARGUMENTS = 500
MAX_NAME_CHARACTERS = 128
MAX_VERSIONS = 20
MAX_LINE_CHARACTERS = 300
_JOB = "job"


@dataclass
class TaskDefinition:
    """A task: the argument schemas of its versions, those that differ, and on which workers it is.

    `workers` are in order; `service_workers` are all that the service has, whether they list the task or not.
    """

    service: str
    name: str
    entry: Mapping[str, Any]
    versions: list[Schema] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    service_workers: Sequence[str] = ()

    @property
    def is_everywhere(self) -> bool:
        """Whether all workers of the service have it."""
        return set(self.workers) >= set(self.service_workers)

    @property
    def description(self) -> str:
        """Return the first paragraph of its text, and its workers where others lack it."""
        text = first_paragraph(self.entry.get("description"), MAX_LINE_CHARACTERS)
        where = "" if self.is_everywhere else f"(on {plain_line(', '.join(self.workers), MAX_LINE_CHARACTERS)})"
        return " ".join(filter(None, (text, where)))

    @property
    def is_destructive(self) -> bool:
        """Whether its author says that it may destroy something; of one that only reads, MCP has the hint ignored."""
        return self._annotations.get("destructiveHint") is True and not self.is_read_only

    @property
    def is_read_only(self) -> bool:
        """Whether its author says that it changes nothing."""
        return self._annotations.get("readOnlyHint") is True

    @property
    def _annotations(self) -> Mapping[str, Any]:
        return _mapping(_mapping(self.entry.get("mcp")).get("annotations"))

    @property
    def place(self) -> tuple[str, str] | None:
        """The group and the word of a command of a plugin; None for any other task."""
        command = _mapping(self.entry.get("command"))
        group, word = command.get("group"), command.get("name")
        is_usable = is_usable_name(group) and is_usable_name(word)
        return (str(group), str(word)) if is_usable else None

    @property
    def takes_others(self) -> bool:
        """Whether it takes arguments that its schema doesn't name."""
        return not self.versions or any(version.get("additionalProperties", False) for version in self.versions)

    def arguments(self) -> Iterator[tuple[str, list[Variant], bool]]:
        """Yield name, schemas and whether it is required of each argument, in order; of odd names only the others."""
        names = dict.fromkeys(str(name) for version in self.versions for name in properties(version))
        usable = (name for name in names if is_usable_name(name) and not self._is_injected(name))
        for name in islice(usable, MAX_ARGUMENTS):
            variants = [(properties(one)[name], one) for one in self.versions if name in properties(one)]
            is_required = all(name in _sequence(version.get("required")) for version in self.versions)
            yield name, variants, is_required

    def _is_injected(self, name: str) -> bool:
        """Whether it is `job`, which NorFab's workers list without a type and fill in themselves."""
        return name == _JOB and all(
            not {"type", "anyOf", "$ref", "enum", "const"} & set(_mapping(properties(version).get(name)))
            for version in self.versions
        )


def merge_tasks(service: str, answers: Mapping[str, object], workers: Sequence[str]) -> dict[str, TaskDefinition]:
    """Return the tasks of a service by name, sorted.

    Args:
        service: the service's name.
        answers: what each worker has answered to `list_tasks`.
        workers: all workers of the service.

    Raises:
        TaskError: an answer is no list of tasks; names its worker.
    """
    found: dict[str, TaskDefinition] = {}
    for worker, answer in sorted(answers.items()):
        for name, entry in _tasks_of(worker, answer):
            task = found.setdefault(name, TaskDefinition(service, name, entry, service_workers=workers))
            if worker in task.workers:
                continue
            task.workers.append(worker)
            schema = entry.get("inputSchema")
            if isinstance(schema, Mapping) and len(task.versions) < MAX_VERSIONS and schema not in task.versions:
                task.versions.append(schema)
    return {name: found[name] for name in sorted(found)}


def check_tasks(worker: str, answer: object) -> None:
    """Check that a worker's answer to `list_tasks` is a list of tasks.

    Raises:
        TaskError: it is something else.
    """
    if not isinstance(answer, list) or len(answer) > MAX_TASKS:
        raise TaskError(f"{worker}: the answer to list_tasks is not a list of at most {MAX_TASKS} tasks")


def is_usable_name(name: object) -> bool:
    """Whether a name of a service, task or argument can be typed, and is what it looks like."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= MAX_NAME_CHARACTERS
        and name.isprintable()
        and name == name.strip()
        and not has_invisible(name)
    )


def describe_argument(variants: Sequence[Variant]) -> str:
    """Return an argument's description on one line, or its title."""
    schemas = [_mapping(schema) for schema, _ in variants]
    resolved = [
        part for schema, root in variants for part, _ in alternatives(schema, root) if isinstance(part, Mapping)
    ]
    texts = (one.get(key) for key in ("description", "title") for one in (*schemas, *resolved))
    return next((line for text in texts if (line := plain_line(text, MAX_LINE_CHARACTERS))), "")


def _tasks_of(worker: str, answer: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    check_tasks(worker, answer)
    for entry in answer if isinstance(answer, list) else ():
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and is_usable_name(name):
            yield name, entry


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
