"""YAML files of an inventory, and the environment variables and templates that their values may refer to.

Independent of the schema. Every error is an `InventoryError` whose message begins with the file's name.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from ..environment.trusted_files import open_trusted
from ..errors import EnvironmentFolderError, InventoryError
from ..fields import Z85_KEY
from .merging import KeyPath, Source, key_label
from .types import kind_of

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 4 * 1024 * 1024
# With anchors a small file can expand to an infinite or exponentially large one.
MAX_DEPTH = 64
MAX_VALUES = 100_000

# Templates are replaced by placeholders before YAML parses the text: an unquoted {{ … }} is a YAML mapping, and quotes
# in a quoted one end the text. To YAML a placeholder is plain text; its delimiters are private-use characters.
_PLACEHOLDER_OPEN, _PLACEHOLDER_CLOSE = "\ue000", "\ue001"
# A broker's public key, which is random, may contain braces by chance, also without the closing ones: it is skipped.
_TEMPLATE = re.compile(
    rf"""\bshared_key["']?[ ]*:[ ]*(?P<quote>["']?)(?!\{{\{{env\.){Z85_KEY.pattern}(?P=quote)(?=[,}}\s]|$)
    |\{{\{{(?P<expression>.*?)\}}\}}""",
    re.VERBOSE,
)

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
# $${ is a literal ${ ; anything else that begins with ${ must be a complete reference.
_VARIABLE = re.compile(
    rf"""(?P<escape>\$\$\{{)
    |\$\{{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>(?:(?!\$\{{)[^}}])*))?\}})?
    |{_PLACEHOLDER_OPEN}(?P<template>\d+){_PLACEHOLDER_CLOSE}""",
    re.VERBOSE,
)
_SERVICE_LINE = re.compile(r"""^service:\s*["']?([\w.-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """Parsed content of a file, variables not yet replaced, and the templates that its placeholders refer to."""

    file: str
    data: dict[Any, Any]
    templates: tuple[str, ...] = ()


class UnreadableFileError(InventoryError):
    """A file's text isn't YAML; `service` is the value of a line that looks like its `service:` key, if any."""

    def __init__(self, message: str, service: str | None) -> None:
        super().__init__(message)
        self.service = service


def read_document(file: Path) -> Document:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        InventoryError: it can't be read, can be changed by other users, isn't such a file, or repeats a key; names the
            line if YAML reports it.
    """
    text = _read_text(file)
    templates: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        if match["expression"] is None:
            return match[0]
        templates.append(match["expression"])
        return f"{_PLACEHOLDER_OPEN}{len(templates) - 1}{_PLACEHOLDER_CLOSE}"

    try:
        loader = _Loader(_TEMPLATE.sub(placeholder, text))
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        service = _SERVICE_LINE.search(text)
        raise UnreadableFileError(f"{file}{_yaml_problem(error, text)}", service[1] if service else None) from error
    except (RecursionError, ValueError, OverflowError) as error:  # nested too deeply, a date in month 13
        raise UnreadableFileError(f"{file}: is not valid YAML: {str(error)[:120]}", None) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        line = f":{node.start_mark.line + 1}" if node else ""
        raise InventoryError(f"{file}{line}: must be a mapping of keys to values, got {kind_of(data)}")
    return Document(str(file), data, tuple(templates))


def read_variables(folder: Path) -> dict[str, str]:
    """Return the variables that values may refer to: those of `.env` in `folder`, and the process's own, which win.

    A folder of that name, as of Python's environments, is ignored.

    Raises:
        InventoryError: `.env` can't be read, can be changed by other users, or has a line that isn't NAME=value.
    """
    file = folder / ".env"
    is_folder = file.is_dir()
    if is_folder:
        log.warning("%s is a folder and is ignored: variables can be set in a file of that name", file)
    text = _read_text(file) if file.exists() and not is_folder else ""
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise InventoryError(f"{file}:{binding.original.line}: must be NAME=value")
    variables = {**dotenv_values(stream=io.StringIO(text)), **os.environ}
    return {name: value for name, value in variables.items() if value is not None}


def resolve(document: Document, value: Any, variables: Mapping[str, str], path: KeyPath = ()) -> Any:
    """Return the `value` at `path` of `document`, with the variables and templates in its texts replaced.

    The value of a variable stays text: it can't become a key, a list or another value.

    Raises:
        InventoryError: a variable isn't set and has no default, or a template has none of the supported forms.
    """
    return _Resolver(document, variables).resolve(value, path)


class _Resolver:
    """Replaces variables in a document's values; limits their depth and number."""

    def __init__(self, document: Document, variables: Mapping[str, str]) -> None:
        self._document = document
        self._variables = variables
        self._count = 0

    def resolve(self, value: Any, path: KeyPath, depth: int = 0) -> Any:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._error(path[:3], f"must have at most {MAX_VALUES} values, nested at most {MAX_DEPTH} deep")
        if isinstance(value, str):
            return self._expand(value, path)
        if isinstance(value, list):
            return [self.resolve(item, (*path, index), depth + 1) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return dict(self._items(value, path, depth))
        return value

    def _items(self, value: dict[Any, Any], path: KeyPath, depth: int) -> Iterator[tuple[str, Any]]:
        seen = set()
        for raw, item in value.items():
            if not isinstance(raw, str):
                # YAML doesn't read the keys on, off, yes, no, null and numbers as text.
                raise self._error((*path, str(raw)), "a key must be text: put it in quotes")
            key = self._expand(raw, (*path, raw))
            if key in seen:
                raise self._error((*path, key), "key given twice: remove one")
            seen.add(key)
            yield key, self.resolve(item, (*path, key), depth + 1)

    def _expand(self, text: str, path: KeyPath) -> str:
        # A broker's public key may contain ${ by chance.
        if path[-2:] == ("broker", "shared_key") and Z85_KEY.fullmatch(text):
            return text
        return _VARIABLE.sub(lambda match: self._value(match, path), text)

    def _value(self, match: re.Match[str], path: KeyPath) -> str:
        if match["escape"]:
            return "${"
        if match["template"]:
            return self._template(int(match["template"]), path)
        if not match["name"]:
            raise self._error(path, "expected ${NAME} or ${NAME:-default}; write $${ for a literal ${")
        value = self._variables.get(match["name"], "")
        # As in a shell, the default of :- also replaces a variable that is set but empty.
        if not value and match["default"] is not None:
            return match["default"]
        if match["name"] not in self._variables:
            raise self._undefined(path, match["name"], f"${{{match['name']}:-default}}")
        return value

    def _template(self, number: int, path: KeyPath) -> str:
        # A file may contain a placeholder's characters itself; they then refer to no template.
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
    """Safe loader that refuses duplicate keys of a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Not when mappings are constructed: by then merge keys (<<) have added the keys of other mappings.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                problem = f"key {repr(key.value) if key_label(key.value) == key.value else ''} given twice: remove one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _yaml_problem(error: yaml.YAMLError, text: str) -> str:
    """Return `:line: problem` for a YAML error, on one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "is not valid YAML"
    line = f":{mark.line + 1}" if mark else ""
    if mark and "{%" in text:
        problem = f'{problem} (template statements {{% … %}} are not supported, use {{{{ env.get("NAME") }}}})'
    return f"{line}: {' '.join(str(problem).split())}"


def _read_text(file: Path) -> str:
    try:
        with open_trusted(file) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except EnvironmentFolderError as error:
        raise InventoryError(str(error)) from error
    except OSError as error:
        raise InventoryError(f"{file}: can't be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InventoryError(f"{file}: must have at most {MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InventoryError(f"{file}:{line}: must be UTF-8 text: save the file as UTF-8") from error
