"""Sources of each worker's configuration: the files and mappings whose globs match its name, merged in order."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InventoryError
from .documents import Document, UnreadableFileError, read_document, read_variables, resolve
from .merging import KeyPath, Merged, Source, key_label, merge
from .schema import is_other_service
from .types import kind_of
from .validation import unknown_key

# Further keys of NorFab's inventory.yaml, which nfcli ignores.
NORFAB_KEYS = frozenset({"logging", "client", "hooks", "plugins"})
EXTENSION_MARK = "x-"
"""Begins keys that may hold anything, such as what YAML's anchors refer to."""
OWN_KEYS = ("broker", "workers", "topology", "fleet", "state")
# NorFab adds this worker to every topology without an entry in `workers:`.
BUILT_IN_WORKERS = {"filesharing-worker-1": "filesharing"}
_GLOB_CHARACTERS = frozenset("*?[")
_ANSIBLE_TAG = "'!vault'"
_ANSIBLE_KEYS = frozenset({"hosts", "children", "vars"})


class InventorySources:
    """An inventory file and the files that it names.

    Raises:
        InventoryError: the file can't be read, or its top level is invalid.
    """

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        self._source = Source(str(file))
        self._documents: dict[Path, Document] = {}
        try:
            self._document = read_document(file)
        except InventoryError as error:
            if _ANSIBLE_TAG in str(error):
                raise InventoryError(f"{error}{_other_file('Ansible')}") from error
            raise
        self._variables = read_variables(file.parent)
        for key in self._document.data:
            if key not in OWN_KEYS and key not in NORFAB_KEYS and not str(key).startswith(EXTENSION_MARK):
                whose = _other_file(_foreign_program(self._document.data))
                raise self._error((key_label(key),), f"{unknown_key(key, OWN_KEYS)}{whose}")
        self._patterns = dict(self._read_patterns())

    def section(self, key: str) -> Any:
        """Return the value of the key `broker`, `topology`, `fleet` or `state`, or None."""
        return resolve(self._document, self._document.data.get(key), self._variables, (key,))

    def exact_names(self) -> list[str]:
        """Return the worker names in `workers:` that aren't globs, in the file's order."""
        return [pattern for pattern in self._patterns if not _GLOB_CHARACTERS & set(pattern)]

    def has(self, name: str) -> bool:
        """Whether a worker of this name has any source."""
        return name in BUILT_IN_WORKERS or bool(self._sources(name))

    def worker(self, name: str) -> Merged | str:
        """Return the merged data of a worker, or the name of its service if that is another than ours.

        Errors in the files of a worker of another service are ignored.

        Raises:
            InventoryError: the name has no entry, or a source of it can't be read.
        """
        sources = self._sources(name)
        if not sources and name not in self._patterns:
            if name in BUILT_IN_WORKERS:
                return BUILT_IN_WORKERS[name]
            known = ", ".join(map(repr, self._patterns)) or "nothing"
            raise self._error(("topology", "workers"), f"{name[:80]!r} has no entry under workers: there is {known}")
        merged = Merged()
        service: Any = None
        problem: InventoryError | None = None
        for path, item in sources:
            try:
                document, data, source = self._read(path, item)
                # Before the rest: files of another service may contain values that only NorFab supports.
                if "service" in data:
                    service = resolve(document, data["service"], self._variables, (*source.path, "service"))
                merge(merged, resolve(document, data, self._variables, source.path), source)
            except InventoryError as error:
                service = error.service if isinstance(error, UnreadableFileError) and error.service else service
                problem = problem or error
        if is_other_service(service):
            return service
        if problem is not None:
            raise problem
        return merged

    def _read(self, path: KeyPath, item: Any) -> tuple[Document, dict[Any, Any], Source]:
        """Return document, data and origin of a source."""
        if isinstance(item, dict):
            return self._document, item, Source(self._source.file, path)
        if not isinstance(item, str):
            raise self._error(path, f"must be the path of a file or a mapping, got {kind_of(item)}")
        name = resolve(self._document, item, self._variables, path)
        file = self._folder / name
        if file not in self._documents:
            try:
                is_file = file.is_file()
            except OSError:  # a name too long
                is_file = False
            if not is_file:
                raise self._error(path, f"file {file if name.isprintable() else repr(str(file))} doesn't exist")
            self._documents[file] = read_document(file)
        document = self._documents[file]
        return document, document.data, Source(str(file))

    def _sources(self, name: str) -> list[tuple[KeyPath, Any]]:
        """Return the sources of a worker without repeats, in the file's order, each with its key path."""
        found: list[tuple[KeyPath, Any]] = []
        for pattern, items in self._patterns.items():
            if fnmatch.fnmatchcase(name, pattern):
                for index, item in enumerate(items):
                    if not any(item == known for _, known in found):
                        found.append((("workers", pattern, index), item))
        return found

    def _read_patterns(self) -> Iterator[tuple[str, list[Any]]]:
        workers = self._document.data.get("workers")
        if workers is None:
            return
        if not isinstance(workers, dict):
            raise self._error(("workers",), f"must be a mapping of names to lists of files, got {kind_of(workers)}")
        for pattern, items in workers.items():
            path = ("workers", str(pattern))
            if not isinstance(pattern, str):
                raise self._error(path, "a worker's name must be text: put it in quotes")
            if items is not None and not isinstance(items, (list, str, dict)):
                raise self._error(path, f"must be a list of files and mappings, got {kind_of(items)}")
            name = resolve(self._document, pattern, self._variables, path)
            yield name, [] if items is None else items if isinstance(items, list) else [items]

    def _error(self, path: KeyPath, text: str) -> InventoryError:
        return InventoryError(f"{self._source.label(path)}: {text}")


def _other_file(program: str | None) -> str:
    """Return whose file it seems to be, and how to name nfcli's, as the end of an error; or nothing."""
    remedy = "name nfcli's with -i FILE, or its default environment with -i default"
    return f"; this seems to be a file of {program}: {remedy}" if program else ""


def _foreign_program(data: Mapping[Any, Any]) -> str | None:
    """Return the program whose file has these keys, if it is one that names such a file inventory.yaml."""
    if {"apiVersion", "kind"} <= data.keys():
        return "Kubernetes"
    if "services" in data and isinstance(data["services"], dict):
        return "Docker Compose"
    if {"hosts", "groups", "defaults"} & data.keys():
        return "Nornir"
    groups = [value for key, value in data.items() if key not in OWN_KEYS]
    if "all" in data or any(isinstance(group, dict) and _ANSIBLE_KEYS & group.keys() for group in groups):
        return "Ansible"
    return None
