"""Questions as MCP has them: form elicitation, and which clients can be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import ClientCapabilities, ElicitRequestFormParams, ElicitResult
from pydantic import ValidationError

from ....models.errors import TaskError
from ....models.protocol.questions import InputRequest
from ...jobs.channels.question import Question
from ...tools.texts import clean_strings

FIRST_VERSION = "2025-06-18"
"""The first version of MCP with elicitation."""
MAX_PREVIEW_CHARACTERS = 20_000
_FIELD = "answer"
_TYPES = {bool: "boolean", int: "integer", float: "number"}


def form(request: InputRequest) -> ElicitRequestFormParams:
    """Return a question as a form with one field; a preview comes in the message, above the question."""
    kind = _TYPES.get(type(request.default), "string")
    field = {"type": kind, "title": "Answer"}
    if request.default is not None:
        field["default"] = request.default
    schema = {"type": "object", "properties": {_FIELD: field}, "required": [_FIELD]}
    preview = request.metadata.get("preview")
    text = request.question if preview is None else f"{_preview(preview)}\n\n{request.question}"
    return ElicitRequestFormParams(message=clean_strings(text), requested_schema=clean_strings(schema))


def _preview(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    cut = text[:MAX_PREVIEW_CHARACTERS]
    return cut if cut == text else f"{cut}\n… ({len(text) - len(cut)} more characters)"


def settle(question: Question, response: Any) -> None:
    """End a question with a client's response to the form.

    Raises:
        TaskError: the response isn't valid, or the question has ended; it stays as it is.
    """
    try:
        result = response if isinstance(response, ElicitResult) else ElicitResult.model_validate(response)
    except ValidationError:
        raise TaskError("the client's answer is no result of an elicitation") from None
    if result.action != "accept":
        question.decline()
        return
    value, default = (result.content or {}).get(_FIELD), question.request.default
    if isinstance(value, str) and isinstance(default, int | float):
        value = None  # JSON has numbers, and clients send them
    question.answer(question.request.read(value))


def has_forms(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client can show forms; an empty capability, of before there were modes, says so too."""
    found = None if capabilities is None else capabilities.elicitation
    return found is not None and (found.form is not None or found.url is None)


def declares_forms(initialize: Mapping[str, Any]) -> bool:
    """Whether the parameters of `initialize` are of a client that can show forms, in a version that has them."""
    version, capabilities = initialize.get("protocolVersion"), initialize.get("capabilities")
    if not isinstance(version, str) or version < FIRST_VERSION:
        return False
    try:
        return has_forms(ClientCapabilities.model_validate(capabilities))
    except ValidationError:
        return False
