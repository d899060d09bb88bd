"""`run SERVICE TASK …` and `service NAME`: groups whose commands are the tasks that the workers list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache, partial
from types import new_class
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from ..base import CommandGroup, Entry, OnDemandGroup, branch
from .commands import make_command
from .definitions import TaskDefinition


class TaskSource(Protocol):
    """Who knows the tasks of the services; both methods raise NfcliError where nobody can be asked."""

    def services(self) -> Mapping[str, str]:
        """Return the services, and for each a line about it."""

    def task_entries(self, service: str) -> dict[str, Entry]:
        """Return what can be typed below a service, by the names of its tasks."""


class RunCommands(OnDemandGroup, prompt="nf[run]#"):
    """Run a task of any service."""

    SOURCE: ClassVar[TaskSource | None] = None
    MODELS: ClassVar[dict[str, type[BaseModel]]] = {}
    ENTRIES: ClassVar[dict[tuple[str, str], Entry]] = {}

    @classmethod
    def load_entries(cls) -> dict[str, Entry]:
        """Return the services."""
        services = {} if cls.SOURCE is None else cls.SOURCE.services()
        return {name: cls._service_entry(name, text) for name, text in services.items()}

    @classmethod
    def _service_entry(cls, name: str, text: str) -> Entry:
        if (name, text) not in cls.ENTRIES:
            field = FieldInfo(default=None, description=text)
            cls.ENTRIES[name, text] = Entry(name, name, field, partial(cls._service_model, name))
        return cls.ENTRIES[name, text]

    @classmethod
    def _service_model(cls, service: str) -> type[BaseModel]:
        if service not in cls.MODELS:
            cls.MODELS[service] = _make_service_group(service, cls.SOURCE)
        return cls.MODELS[service]


class ServiceCommands(RunCommands, prompt="nf[service]#"):
    """Enter a service, whose tasks are then typed without `run NAME`."""

    IS_PASSAGE: ClassVar[bool] = True


class ServiceGroup(OnDemandGroup, prompt=""):
    """The tasks of one service."""

    FOLDS_DASHES: ClassVar[bool] = True
    SOURCE: ClassVar[TaskSource | None] = None
    SERVICE: ClassVar[str] = ""

    @classmethod
    def load_entries(cls) -> dict[str, Entry]:
        """Return the tasks."""
        return {} if cls.SOURCE is None else cls.SOURCE.task_entries(cls.SERVICE)


class PluginGroup(OnDemandGroup, prompt=""):
    """The commands of one plugin."""

    FOLDS_DASHES: ClassVar[bool] = True
    COMMANDS: ClassVar[Mapping[str, Entry]] = {}

    @classmethod
    def load_entries(cls) -> dict[str, Entry]:
        """Return the commands."""
        return dict(cls.COMMANDS)


def with_tasks(root: type[CommandGroup], source: TaskSource) -> type[CommandGroup]:
    """Return a root of the command tree whose groups `run` and `service` have the tasks that `source` knows."""
    models: dict[str, type[BaseModel]] = {}
    fields: dict[str, Any] = {}
    for key, field in root.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, RunCommands):
            group = _subclass(field.annotation, {"SOURCE": source, "MODELS": models, "ENTRIES": {}})
            fields[key] = (group, branch(field.description or "", alias=field.alias))
    prompt = root.PicleConfig.prompt  # type: ignore[attr-defined]
    return create_model(root.__name__, __base__=root, __cls_kwargs__={"prompt": prompt}, **fields)


def task_entries(tasks: Mapping[str, TaskDefinition]) -> dict[str, Entry]:
    """Return what can be typed below a service; a task's model is made when it is first asked for.

    Commands of plugins are in a group with the plugin's name, unless a task has it.
    """
    found: dict[str, Entry] = {}
    groups: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for name, task in tasks.items():
        group, word = task.place or ("", name)
        is_grouped = bool(group) and group not in tasks
        place, word = (groups[group], word) if is_grouped else (found, name)
        description = FieldInfo(default=None, description=task.description)
        place[word] = Entry(word, word, description, cache(partial(make_command, task)))
        if is_grouped and group not in found:
            text = FieldInfo(default=None, description=f"Commands of the plugin {group}")
            found[group] = Entry(group, group, text, cache(partial(_make_plugin_group, task.service, group, place)))
    return dict(sorted(found.items()))


def _make_service_group(service: str, source: TaskSource | None) -> type[BaseModel]:
    return _subclass(ServiceGroup, {"SOURCE": source, "SERVICE": service}, f"nf[{service}]#")


def _make_plugin_group(service: str, group: str, commands: Mapping[str, Entry]) -> type[BaseModel]:
    return _subclass(PluginGroup, {"COMMANDS": commands}, f"nf[{service}-{group}]#")


def _subclass(base: type[CommandGroup], attributes: dict[str, Any], prompt: str = "") -> type[CommandGroup]:
    """Return a subclass with values for the class's own variables."""
    prompt = prompt or base.PicleConfig.prompt  # type: ignore[attr-defined]
    model: type[CommandGroup] = new_class(
        base.__name__, (base,), {"prompt": prompt}, lambda space: space.update(attributes)
    )
    return model
