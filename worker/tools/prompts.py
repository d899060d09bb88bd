"""Render the prompts that tasks declare, in a harmless subset of Jinja.

Templates of other services are untrusted. They may insert arguments and compare them in conditions; everything else is
refused before compilation, so that no template runs for long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Annotated, Any, Literal

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...models.errors import PromptError, validation_messages
from ...models.invisible import strip_invisible
from .texts import clean_line, clean_text

MAX_TEMPLATE_BYTES = 32 * 1024
MAX_ARGUMENT_BYTES = 64 * 1024
MAX_TEXT_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_ARGUMENTS = 64
MAX_MESSAGES = 32
MAX_FILTERS = 50
MAX_TOKENS = 2_000

_FILTERS = frozenset({"capitalize", "default", "lower", "title", "tojson", "trim", "upper"})
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.Keyword),
    *(nodes.If, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand),
)
# Names with a meaning of their own in Jinja.
_TAKEN_NAMES = frozenset({"caller", "kwargs", "loop", "self", "super", "varargs"})

_environment = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined)
_environment.globals.clear()


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class PromptArgument(_Declared):
    """An argument of a prompt, as a task declares it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    description: str = ""
    required: bool = False


class _Content(_Declared):
    type: Literal["text"]
    text: Annotated[str, Field(min_length=1)]


class _Message(_Declared):
    role: Literal["user", "assistant"]
    content: _Content


class _Prompt(_Declared):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    title: str = ""
    description: str = ""
    arguments: Annotated[list[PromptArgument], Field(max_length=MAX_ARGUMENTS)] = []
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class PromptTemplate:
    """A prompt's compiled templates, from its untrusted declaration in NorFab's format.

    Raises:
        PromptError: it has another format, or a template does more than insert and compare arguments.
    """

    def __init__(self, declared: object) -> None:
        try:
            prompt = _Prompt.model_validate(declared)
        except ValidationError as error:
            raise PromptError(clean_line("; ".join(validation_messages(error)))) from None
        self.name = prompt.name
        self.title = clean_line(prompt.title)
        self.description = clean_text(prompt.description)
        self.declared_messages = [message.model_dump() for message in prompt.messages]
        self.arguments: tuple[PromptArgument, ...] = tuple(
            argument.model_copy(update={"description": clean_text(argument.description)})
            for argument in prompt.arguments
        )
        names = [argument.name for argument in self.arguments]
        for name in names:
            if names.count(name) > 1 or name in _TAKEN_NAMES:
                raise PromptError(f"argument {name}: declared twice, or a reserved name of Jinja")
        templates = _compile([message.content.text for message in prompt.messages], names)
        self._messages = [(each.role, template) for each, template in zip(prompt.messages, templates, strict=True)]

    def render(self, arguments: Mapping[str, object]) -> list[tuple[Literal["user", "assistant"], str]]:
        """Return role and text of each message; missing optional arguments are empty.

        Raises:
            PromptError: an argument is missing or not valid, or the text is too long.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name, value in arguments.items():
            if name not in known:
                raise PromptError(
                    f"argument {clean_line(name, 64)}: no such argument, call prompts/list for the arguments"
                )
            _check_argument(name, value)
        for name, argument in known.items():
            if argument.required and name not in arguments:
                raise PromptError(f"argument {name}: must be given")
        values = {name: arguments.get(name, "") for name in known}
        left = MAX_TEXT_BYTES
        messages = []
        for role, template in self._messages:
            text = _render(template, values, left)
            left -= len(text.encode())
            messages.append((role, text))
        return messages


def _check_argument(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise PromptError(f"argument {name}: must be text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise PromptError(f"argument {name}: must be valid Unicode") from None
    if size > MAX_ARGUMENT_BYTES:
        raise PromptError(f"argument {name}: must have at most {MAX_ARGUMENT_BYTES} bytes, got {size}")


def _render(template: Any, values: Mapping[str, object], limit: int) -> str:
    pieces, size = [], 0
    try:
        # Piece by piece: a few bytes of a template can insert an argument thousands of times.
        for piece in template.generate(values):
            size += len(piece.encode())
            if size > limit:
                raise PromptError(f"the text is longer than {MAX_TEXT_BYTES} bytes: use shorter arguments")
            pieces.append(piece)
    except (TemplateError, TypeError) as error:
        reason = clean_line(str(error)) or type(error).__name__
        raise PromptError(f"can't be rendered with these arguments: {reason}") from None
    return "".join(pieces)


def _compile(texts: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Return compiled templates that use only the allowed parts of Jinja.

    Raises:
        PromptError: names the first part that is not allowed, or the limit that is exceeded.
    """
    try:
        if sum(len(text.encode()) for text in texts) > MAX_TEMPLATE_BYTES:
            raise PromptError(f"the templates are longer than {MAX_TEMPLATE_BYTES} bytes")
        tokens = chain.from_iterable(_environment.lex(text) for text in texts)
        # 32 KiB of code would take Python's compiler a second, in which nothing else runs.
        if next(islice(tokens, MAX_TOKENS, None), None) is not None:
            raise PromptError(f"the templates have more than {MAX_TOKENS} tokens outside of plain text")
        trees = [_environment.parse(text) for text in texts]
        parts = [part for tree in trees for part in _walk(tree)]
        for node, depth in parts:
            problem = f"is nested more than {MAX_DEPTH} levels deep" if depth > MAX_DEPTH else _problem(node, names)
            if problem is not None:
                raise PromptError(f"a template {problem}")
        for node, _ in parts:
            _clean(node)
        if sum(isinstance(node, nodes.Filter) for node, _ in parts) > MAX_FILTERS:
            raise PromptError(f"the templates have more than {MAX_FILTERS} filters")
        return [_environment.from_string(tree) for tree in trees]
    except TemplateError as error:
        raise PromptError(f"a template is not valid: {clean_line(error.message)}") from None
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
        raise PromptError(f"a template is not valid: {type(error).__name__}") from None


def _clean(node: nodes.Node) -> None:
    """Drop invisible characters from a part of a template; here, because a template can write them as escapes."""
    if isinstance(node, nodes.TemplateData):
        node.data = strip_invisible(node.data)
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        node.value = strip_invisible(node.value)


def _walk(tree: nodes.Node) -> Iterator[tuple[nodes.Node, int]]:
    pending: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        pending += ((child, depth + 1) for child in node.iter_child_nodes())


def _problem(node: nodes.Node, names: Sequence[str]) -> str | None:
    if not isinstance(node, _ALLOWED):
        kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(node).__name__).lower()
        return f"uses what is not allowed in prompts: {kind}"
    if isinstance(node, nodes.Name) and node.name not in names:
        return f"uses {clean_line(node.name, 64)}, which is not an argument of the prompt"
    return _filter_problem(node) if isinstance(node, nodes.Filter) else None


def _filter_problem(node: nodes.Filter) -> str | None:
    if node.name not in _FILTERS:
        return f"uses a filter that is not allowed in prompts: {clean_line(node.name, 64)}"
    if node.dyn_args or node.dyn_kwargs or (node.name != "default" and (node.args or node.kwargs)):
        return f"passes arguments that are not allowed in prompts to the filter {node.name}"
    inner = node.find_all(nodes.Filter)
    if node.name == "tojson" and any(each.name == "tojson" for each in inner):
        # Each level doubles the characters to escape.
        return "nests the filter tojson in tojson"
    return None
