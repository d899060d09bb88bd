"""From files to plain data: YAML, `.env`, values taken from the environment, merging.

Nothing here knows which keys exist; `models/inventory/schema.py` does. Every error is an `InventoryError` of one
line that begins with the file's name.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from ..errors import InventoryError
from .types import kind_of

KeyPath = tuple[str | int, ...]

FILE_MAX_BYTES = 4 * 1024 * 1024
# Anchors can make a small file stand for an endless or an exponentially large one.
MAX_DEPTH = 64
MAX_VALUES = 100_000

# A template takes the place of a value before YAML sees the text, because an unquoted {{ … }} is a YAML mapping and
# quotes inside a quoted one end it. The stand-in is plain text to YAML; these characters are for private use.
_STAND_IN_OPEN, _STAND_IN_CLOSE = "\ue000", "\ue001"
_TEMPLATE = re.compile(r"\{\{(?P<expression>.*?)\}\}")
_STAND_IN = re.compile(rf"{_STAND_IN_OPEN}(\d+){_STAND_IN_CLOSE}")

_STRING = r"""(?:"[^"]*"|'[^']*')"""
_LITERAL = rf"(?:{_STRING}|-?\d+|[Tt]rue|[Ff]alse)"
_EXPRESSION = re.compile(
    rf"""\s*env(?:
        \.get\(\s*(?P<get>{_STRING})\s*(?:,\s*(?P<get_default>{_LITERAL})\s*)?\)
        |\[\s*(?P<item>{_STRING})\s*\]
        |\.(?P<attribute>[A-Za-z_]\w*)
    )\s*(?:\|\s*default\(\s*(?P<filter_default>{_LITERAL})\s*(?P<filter_empty>,\s*[Tt]rue\s*)?\)\s*)?""",
    re.VERBOSE,
)
# $${ stands for a literal ${ ; whatever else begins with ${ must be complete.
_VARIABLE = re.compile(
    rf"""(?P<escape>\$\$\{{)
    |\$\{{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>(?:(?!\$\{{)[^}}])*))?\}})?
    |{_STAND_IN_OPEN}(?P<template>\d+){_STAND_IN_CLOSE}""",
    re.VERBOSE,
)
_Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_SERVICE_LINE = re.compile(r"""^service:\s*["']?([\w.-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """What a file says, values not yet taken from the environment, and the templates its stand-ins stand for."""

    file: str
    data: dict[Any, Any]
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where merged data came from: a file, and the key path of that data in it."""

    file: str
    path: KeyPath = ()

    def label(self, path: KeyPath) -> str:
        """Return how an error message names the value at `path` of this data."""
        return f"{self.file}: {dotted((*self.path, *path))}"


@dataclass
class Merged:
    """Merged data, and which source gave the value at each key path."""

    data: dict[str, Any] = field(default_factory=dict)
    sources: dict[KeyPath, Source] = field(default_factory=dict)

    def source(self, path: KeyPath) -> Source | None:
        """Return the source of the value at `path`, None when no source has anything there."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]]
        return None


class UnreadableFileError(InventoryError):
    """A file's text isn't YAML; `service` is what its text seems to say of the service, None when it doesn't."""

    def __init__(self, message: str, service: str | None) -> None:
        super().__init__(message)
        self.service = service


def read_document(file: Path) -> Document:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        InventoryError: it can't be read, isn't such a file, or repeats a key; names the line where YAML knows it.
    """
    text = _read_text(file)
    templates: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        templates.append(match["expression"])
        return f"{_STAND_IN_OPEN}{len(templates) - 1}{_STAND_IN_CLOSE}"

    try:
        loader = _Loader(_TEMPLATE.sub(stand_in, text))
        try:
            node = loader.get_single_node()
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        service = _SERVICE_LINE.search(text)
        raise UnreadableFileError(f"{file}{_yaml_problem(error, text)}", service[1] if service else None) from error
    except (RecursionError, ValueError, OverflowError) as error:  # nested without end, a date in month 13
        raise UnreadableFileError(f"{file}: is not valid YAML: {str(error)[:120]}", None) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        line = f":{node.start_mark.line + 1}" if node is not None else ""
        raise InventoryError(f"{file}{line}: must be a mapping of keys to values, got {kind_of(data)}")
    return Document(str(file), data, tuple(templates))


def read_variables(folder: Path) -> dict[str, str]:
    """Return the variables that values may use: those of `.env` in `folder`, the process's own winning.

    Raises:
        InventoryError: `.env` can't be read or has a line that isn't NAME=value.
    """
    file = folder / ".env"
    variables: dict[str, str | None] = {}
    if file.exists():
        text = _read_text(file)
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                raise InventoryError(f"{file}:{binding.original.line}: must be NAME=value")
        variables.update(dotenv_values(stream=io.StringIO(text)))
    variables.update(os.environ)
    return {name: value for name, value in variables.items() if value is not None}


def resolve(document: Document, value: Any, variables: Mapping[str, str], path: KeyPath = ()) -> Any:
    """Return `value`, which stands at `path` in `document`, with variables and templates in its texts replaced.

    What a variable holds stays text: it can't become a key, a list or another value.

    Raises:
        InventoryError: a variable isn't set and has no default, or a template isn't one of the forms understood.
    """
    return _Resolver(document, variables).resolve(value, path)


def merge(target: Merged, data: Mapping[str, Any], source: Source) -> None:
    """Merge `data` into `target`: mappings are merged, lists appended without repeats, other values replaced.

    `target` keeps parts of `data`: give it data that nobody else holds.
    """
    _merge(target, target.data, data, source, ())


def _merge(target: Merged, place: dict[str, Any], data: Mapping[str, Any], source: Source, path: KeyPath) -> None:
    for key, value in data.items():
        here = (*path, key)
        old = place.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(target, old, value, source, here)
        elif isinstance(old, list) and isinstance(value, list):
            for item in value:
                if item not in old:
                    target.sources[(*here, len(old))] = source
                    old.append(item)
        else:
            target.sources = {known: kept for known, kept in target.sources.items() if known[: len(here)] != here}
            target.sources[here] = source
            place[key] = value


def dotted(path: KeyPath) -> str:
    """Return a key path as users read it, in one line: `workers.w1.auth_bearer.required_scopes[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() else repr(part)
            text += f".{word}" if text else word
    return text


class _Resolver:
    """One walk over a document's values, bounded in depth and size."""

    def __init__(self, document: Document, variables: Mapping[str, str]) -> None:
        self._document = document
        self._variables = variables
        self._count = 0

    def resolve(self, value: Any, path: KeyPath, depth: int = 0) -> Any:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._error(path[:3], "too large, or an alias nests it in itself")
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, list):
            return [self.resolve(item, (*path, index), depth + 1) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return dict(self._items(value, path, depth))
        return value

    def _items(self, value: dict[Any, Any], path: KeyPath, depth: int) -> Iterator[tuple[str, Any]]:
        seen = set()
        for raw, item in value.items():
            if not isinstance(raw, str):
                # YAML reads the keys on, off, yes, no, null and numbers as something else than text.
                raise self._error((*path, str(raw)), "a key must be text, put it in quotes")
            key = self._text(raw, (*path, raw))
            if key in seen:
                raise self._error((*path, key), "key given twice")
            seen.add(key)
            yield key, self.resolve(item, (*path, key), depth + 1)

    def _text(self, text: str, path: KeyPath) -> str:
        # A broker's public key may hold ${ by chance.
        if path[-2:] == ("broker", "shared_key") and _Z85_KEY.fullmatch(text):
            return text
        return _VARIABLE.sub(self._replacement(path), text)

    def _replacement(self, path: KeyPath) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            if match["escape"]:
                return "${"
            if match["template"]:
                return self._template(int(match["template"]), path)
            if not match["name"]:
                raise self._error(path, "expected ${NAME} or ${NAME:-default}; write $${ for a literal ${")
            value = self._variables.get(match["name"], "")
            # As in a shell, the default of :- also stands for a variable that is set but empty.
            if not value and match["default"] is not None:
                return match["default"]
            if match["name"] not in self._variables:
                raise self._undefined(path, match["name"], f"${{{match['name']}:-default}}")
            return value

        return replace

    def _template(self, number: int, path: KeyPath) -> str:
        # A file may hold the stand-in's characters itself; they then mean nothing.
        expression = self._document.templates[number] if number < len(self._document.templates) else ""
        match = _EXPRESSION.fullmatch(expression)
        if not match:
            raise self._error(path, 'expected {{ env.get("NAME") }}, {{ env.get("NAME", "default") }} or ${NAME}')
        name = match["attribute"] or (match["get"] or match["item"])[1:-1]
        if self._variables.get(name) or (name in self._variables and not match["filter_empty"]):
            return self._variables[name]
        default = match["filter_default"] if match["get_default"] is None else match["get_default"]
        if default is None:
            raise self._undefined(path, name, f'{{{{ env.get("{name}", "default") }}}}')
        return default[1:-1] if default[0] in "\"'" else default

    def _undefined(self, path: KeyPath, name: str, with_default: str) -> InventoryError:
        return self._error(path, f"environment variable {name} is not set: set it, or write {with_default}")

    def _error(self, path: KeyPath, text: str) -> InventoryError:
        return InventoryError(f"{Source(self._document.file).label(path)}: {text}")


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice in one mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here, not where mappings are constructed: merge keys (<<) have then put other mappings' keys among these.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                problem = f"key {key.value!r} given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _yaml_problem(error: yaml.YAMLError, text: str) -> str:
    """Return `:line: what` for a YAML error, in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "is not valid YAML"
    line = f":{mark.line + 1}" if mark else ""
    if mark and "{%" in text:
        problem = f'{problem} (template statements {{% … %}} are not understood, {{{{ env.get("NAME") }}}} is)'
    return f"{line}: {' '.join(str(problem).split())}"


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise InventoryError(f"{file}: can't be read: {error.strerror}") from error
    if len(content) > FILE_MAX_BYTES:
        raise InventoryError(f"{file}: is longer than {FILE_MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InventoryError(f"{file}:{line}: must be UTF-8 text") from error
