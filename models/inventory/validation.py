"""Validation against the inventory's models, with errors in a user's words; and the manual's table of keys."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import InventoryError
from .merging import KeyPath, Merged, Source, key_label
from .types import Kind, kind_of, summarize

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(model: type[ModelT], data: Any, place: Source, merged: Merged | None = None) -> ModelT:
    """Return `data` as a `model`; an error names the source that `merged` has for a value, or else `place`.

    Raises:
        InventoryError: the first error, and how many more there are. Unknown keys come first: a missing key is often a
            misspelt one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A default that couldn't be computed from a refused value is not a second error.
        items = [item for item in error.errors(include_url=False) if item["type"] != "default_factory_not_called"]
        first = min(items, key=lambda item: item["type"] != "extra_forbidden")
        found = merged.source(first["loc"]) if merged else None
        more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
        path = first["loc"]
        if first["type"] == "extra_forbidden":
            path = (*path[:-1], key_label(path[-1]))
        raise InventoryError(f"{(found or place).label(path)}: {_message(first, model)}{more}") from None


def _message(item: ErrorDetails, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        return unknown_key(item["loc"][-1], list(_model_at(model, item["loc"][:-1]).model_fields))
    if item["type"] == "literal_error":
        return f"must be {item['ctx']['expected']}, got {summarize(item['input'])}"
    if item["type"] == "model_type":
        return f"must be a mapping, got {kind_of(item['input'])}"
    return "required key is missing" if item["type"] == "missing" else item["msg"]


def unknown_key(key: object, keys: Sequence[str]) -> str:
    """Return the message for a key that isn't one of `keys`: which one may be meant, or all."""
    close = difflib.get_close_matches(str(key).lower(), keys, n=1)
    return f"no such key, did you mean {close[0]}?" if close else f"no such key, expected one of {', '.join(keys)}"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        if isinstance(part, int):  # the index of a list item, whose model is already known
            continue
        model = _inner_model(model.model_fields[part].annotation) or model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a field's type: the type itself, an alternative to None, or a container's items."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (key path, type, default, description) of every field, each followed by those of a nested model.

    The default is empty for a required key.
    """
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        kind = next((item for item in field.metadata if isinstance(item, Kind)), Kind("mapping"))
        yield f"{prefix}{name}", kind.text, _default_text(field, kind), field.description or ""
        inner = _inner_model(field.annotation)
        if inner is not None:
            items = ".NAME" if name == "workers" else "[N]" if get_origin(field.annotation) is tuple else ""
            yield from describe(inner, f"{prefix}{name}{items}.")


def _default_text(field: FieldInfo, kind: Kind) -> str:
    if kind.default is not None:
        return kind.default
    if field.is_required():
        return ""
    return "{}" if isinstance(field.default, BaseModel) else json.dumps(field.default)
