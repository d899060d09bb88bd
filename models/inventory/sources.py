"""From an inventory file to each worker's merged data: which files and mappings belong to a name, in which order."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InventoryError
from .loader import (
    Document,
    KeyPath,
    Merged,
    Source,
    UnreadableFileError,
    merge,
    read_document,
    read_variables,
    resolve,
)
from .types import kind_of

# What a NorFab inventory.yaml has besides; none of it concerns nfcli.
NORFAB_KEYS = frozenset({"logging", "client", "hooks", "plugins"})
OWN_KEYS = ("broker", "workers", "topology")
# NorFab adds this worker to every topology without an entry in `workers:`.
BUILT_IN_WORKERS = {"filesharing-worker-1": "filesharing"}
_GLOB_CHARACTERS = frozenset("*?[")


def is_misspelt(service: str, own: str) -> bool:
    """Whether this looks like our own service's name: a typing error must not make a worker vanish silently."""
    return bool(difflib.get_close_matches(service.casefold(), [own], n=1, cutoff=0.8))


@dataclass(frozen=True)
class WorkerData:
    """What the inventory says of one worker; `merged` is empty for a worker of another service."""

    service: str
    merged: Merged


class InventorySources:
    """An inventory file and the files it names.

    Raises:
        InventoryError: it can't be read or its top level isn't as it must be.
    """

    def __init__(self, file: Path, service: str) -> None:
        self.file = file
        self._service = service
        self._documents: dict[Path, Document] = {}
        self._document = read_document(file)
        self._variables = read_variables(file.parent)
        self._check_top_level()
        self._patterns = self._read_patterns()

    def section(self, key: str) -> Any:
        """Return the value of `broker` or `topology`, None where there is none."""
        return resolve(self._document, self._document.data.get(key), self._variables, (key,))

    def exact_names(self) -> list[str]:
        """Return the worker names in `workers:` that aren't globs, in the file's order."""
        return [pattern for pattern in self._patterns if not _GLOB_CHARACTERS & set(pattern)]

    def has(self, name: str) -> bool:
        """Whether anything is said of a worker of this name."""
        return name in BUILT_IN_WORKERS or bool(self._sources(name))

    def worker(self, name: str) -> WorkerData:
        """Return the merged data of a worker.

        Files that only NorFab can read don't matter for a worker of another service.

        Raises:
            InventoryError: nothing is said of this name, or a source of it can't be read.
        """
        sources = self._sources(name)
        if not sources and name not in self._patterns:
            if name in BUILT_IN_WORKERS:
                return WorkerData(BUILT_IN_WORKERS[name], Merged())
            known = ", ".join(map(repr, self._patterns)) or "nothing"
            raise self._error(("topology", "workers"), f"{name[:80]!r} has no entry under workers, which has {known}")
        merged = Merged()
        service: Any = None
        problem: InventoryError | None = None
        for path, item in sources:
            try:
                document, data, source = self._read(path, item)
                # First, by itself: what else a file of another service holds may be for NorFab alone to understand.
                if "service" in data:
                    service = resolve(document, data["service"], self._variables, (*source.path, "service"))
                merge(merged, resolve(document, data, self._variables, source.path), source)
            except InventoryError as error:
                service = error.service if isinstance(error, UnreadableFileError) and error.service else service
                problem = problem or error
        if isinstance(service, str) and service != self._service and not is_misspelt(service, self._service):
            return WorkerData(service, Merged())
        if problem is not None:
            raise problem
        return WorkerData(self._service, merged)

    def _read(self, path: KeyPath, item: Any) -> tuple[Document, dict[Any, Any], Source]:
        """Return document, data and label of a source."""
        if isinstance(item, dict):
            return self._document, item, Source(str(self.file), path)
        if not isinstance(item, str):
            raise self._error(path, f"must be the path of a file or a mapping, got {kind_of(item)}")
        name = resolve(self._document, item, self._variables, path)
        file = self.file.parent / name
        if file not in self._documents:
            try:
                is_file = file.is_file()
            except OSError:  # a name too long
                is_file = False
            if not is_file:
                raise self._error(path, f"there is no file {file if name.isprintable() else repr(str(file))}")
            self._documents[file] = read_document(file)
        document = self._documents[file]
        return document, document.data, Source(str(file))

    def _sources(self, name: str) -> list[tuple[KeyPath, Any]]:
        """Return the sources of a worker in the file's order, each with its key path, none twice."""
        found: list[tuple[KeyPath, Any]] = []
        for pattern, items in self._patterns.items():
            if fnmatch.fnmatchcase(name, pattern):
                for index, item in enumerate(items):
                    if not any(item == known for _, known in found):
                        found.append((("workers", pattern, index), item))
        return found

    def _check_top_level(self) -> None:
        for key in self._document.data:
            if key not in OWN_KEYS and key not in NORFAB_KEYS:
                raise self._error((str(key),), f"no such key, expected one of {', '.join(OWN_KEYS)}")

    def _read_patterns(self) -> dict[str, list[Any]]:
        return dict(self._iterate_patterns())

    def _iterate_patterns(self) -> Iterator[tuple[str, list[Any]]]:
        workers = self._document.data.get("workers")
        if workers is None:
            return
        if not isinstance(workers, dict):
            raise self._error(("workers",), f"must be a mapping of names to lists of files, got {kind_of(workers)}")
        for pattern, items in workers.items():
            path = ("workers", str(pattern))
            if not isinstance(pattern, str):
                raise self._error(path, "a worker's name must be text, put it in quotes")
            if items is not None and not isinstance(items, (list, str, dict)):
                raise self._error(path, f"must be a list of files and mappings, got {kind_of(items)}")
            name = resolve(self._document, pattern, self._variables, path)
            yield name, [] if items is None else items if isinstance(items, list) else [items]

    def _error(self, path: KeyPath, text: str) -> InventoryError:
        return InventoryError(f"{Source(str(self.file)).label(path)}: {text}")
