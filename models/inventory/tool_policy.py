"""Schema of the tools policy: the inventory's `tools`, and guardrails that tasks declare; the format is NorFab's.

`worker/tools/policy.py` applies it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ..fields import TimeoutSeconds
from ..patterns.bounded import MAX_PATTERN_CHARACTERS, PatternError, compile_pattern, compile_template
from .types import Flag, Kind, Text, kind_of, parse_whole_number, refusal, summarize

MAX_RULES = 1_000
MAX_PATTERNS = 200
# Limit for the patterns that a task declares: compiling them takes half a second at most.
MAX_TASK_PATTERNS_CHARACTERS = 20_000
MAX_NAME_CHARACTERS = 256
MAX_TEXT_CHARACTERS = 2_000
MAX_LIMIT_BYTES = 10**12
TIMEOUT_SECONDS: Final = 600


def _name(value: str) -> str:
    if not 1 <= len(value) <= MAX_NAME_CHARACTERS:
        raise refusal(f"must have 1 to {MAX_NAME_CHARACTERS} characters, got {len(value)}")
    return value


def _prose(value: str) -> str:
    if len(value) > MAX_TEXT_CHARACTERS:
        raise refusal(f"must have at most {MAX_TEXT_CHARACTERS} characters, got {len(value)}")
    return value


def _rules(value: Any) -> Any:
    if value is None:  # a key without a value
        return ()
    if not isinstance(value, (list, tuple)):
        raise refusal(f"must be a list of rules, got {kind_of(value)}")
    if len(value) > MAX_RULES:
        raise refusal(f"must have at most {MAX_RULES} rules, got {len(value)}")
    return value


def _names(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise refusal(f"must be a list of names or globs, got {summarize(value)}")
    if len(value) > MAX_RULES:
        raise refusal(f"must have at most {MAX_RULES} names, got {len(value)}")
    return value


def _users_or_scopes(value: Any) -> Any:
    names = _names(value)  # a key without a value too: the rule would apply to everybody
    if not names:
        raise refusal("must name at least one: leave the key out in a rule for everybody")
    return names


def _action(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _patterns(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    # Errors don't quote the texts: they may be secrets.
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise refusal("must be a text or a list of texts (in quotes, where YAML would read them as something else)")
    if not 1 <= len(items) <= MAX_PATTERNS:
        raise refusal(f"must have 1 to {MAX_PATTERNS} texts, got {len(items)}")
    for number, item in enumerate(items, start=1):
        if len(item) > MAX_PATTERN_CHARACTERS:
            raise refusal(
                f"text {number} must have at most {MAX_PATTERN_CHARACTERS} characters, got {len(item)}: split it"
            )
    return tuple(items)


def _limit(value: Any) -> int:
    return parse_whole_number(value, 1, MAX_LIMIT_BYTES, f"must be a whole number of bytes, 1 to {MAX_LIMIT_BYTES}")


def _check_patterns(patterns: tuple[str, ...]) -> None:
    for number, pattern in enumerate(patterns, start=1):
        try:
            compile_pattern(pattern)
        except PatternError as error:
            raise refusal(f"text {number} must be a regular expression: {error}") from None


Name = Annotated[Text, AfterValidator(_name)]
Prose = Annotated[Text, AfterValidator(_prose)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_names)]
UsersOrScopes = Annotated[tuple[Name, ...] | None, BeforeValidator(_users_or_scopes)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
Limit = Annotated[int, BeforeValidator(_limit)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _ForTasks(_Rule):
    service: Annotated[Name, Kind("name or glob")] = Field(description="Services the rule applies to")
    task: Annotated[Name, Kind("name or glob")] = Field(description="Tasks the rule applies to")


class PolicyRule(_Rule):
    """Rule about which tasks become tools, and whose. Globs as in a shell: `*`, `?`, `[…]`; case-sensitive."""

    service: Annotated[Name, Kind("name or glob")] = Field(default="*", description="Services the rule applies to")
    tasks: Annotated[Names, Kind("list of names or globs")] = Field(
        default=("*",), description="Tasks the rule applies to"
    )
    users: Annotated[UsersOrScopes, Kind("list of names or globs", "everybody")] = Field(
        default=None, description="Users whose calls the rule applies to"
    )
    scopes: Annotated[UsersOrScopes, Kind("list of scopes", "everybody")] = Field(
        default=None, description="Scopes: the rule applies to calls with a token that has one of them"
    )
    action: Annotated[Literal["allow", "reject"], BeforeValidator(_action), Kind("allow or reject")] = Field(
        default="allow", description="Whether the tasks become tools"
    )


class TaskGuardrail(_Rule):
    """Rule that refuses calls by one argument, as a task declares it."""

    description: Annotated[Prose, Kind("text")] = Field(default="", description="Purpose of the rule")
    field: Annotated[Name, Kind("text")] = Field(description="Argument to check, in any spelling; calls without pass")
    type: Annotated[Literal["contains", "equals", "regex"], Kind("contains, equals or regex")] = Field(
        description="How to compare; contains and equals ignore case"
    )
    match: Annotated[Patterns, Kind("text or list of texts")] = Field(
        description="Texts or patterns that no value of the argument, at any depth, may contain, equal or match"
    )
    message: Annotated[Prose, Kind("text")] = Field(default="", description="Message for the caller")

    @field_validator("match")
    @classmethod
    def _is_of_its_type(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("type") == "regex":
            _check_patterns(value)
        return value


class Guardrail(TaskGuardrail, _ForTasks):
    """Rule of the inventory that refuses calls by one argument."""


class TaskResultGuardrail(_Rule):
    """Rule that filters results, as a task declares it."""

    description: Annotated[Prose, Kind("text")] = Field(default="", description="Purpose of the rule")
    type: Annotated[Literal["limit", "replace", "regex"], Kind("limit, replace or regex")] = Field(
        description="limit leaves large results out, replace replaces matches, regex withholds fields with a match"
    )
    limit: Annotated[Limit | None, Kind("whole number of bytes", "none")] = Field(
        default=None, validate_default=True, description="Maximum size of the results as JSON, in bytes; for limit only"
    )
    match: Annotated[Patterns | None, Kind("text or list of texts", "none")] = Field(
        default=None, validate_default=True, description="Regular expressions; for replace and regex only"
    )
    replace: Annotated[Text | None, Kind("text", "none")] = Field(
        default=None,
        validate_default=True,
        description="Replacement for matches, \\1 for the first group; for replace only",
    )
    message: Annotated[Prose, Kind("text")] = Field(
        default="", description="Text in place of what limit and regex remove"
    )

    @field_validator("limit", "match", "replace")
    @classmethod
    def _is_of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        kind, name = info.data.get("type"), info.field_name or ""
        if kind is None:
            return value
        is_wanted = name in _KEYS_OF[kind]
        if is_wanted != (value is not None):
            raise refusal(f"this key must {'be given' if is_wanted else 'not be given'} where type is {kind}")
        if name == "match" and value is not None:
            _check_patterns(value)
        if name == "replace" and value is not None:
            _check_template(value, info.data.get("match") or ())
        return value


class ResultGuardrail(TaskResultGuardrail, _ForTasks):
    """Rule of the inventory that filters results."""


_KEYS_OF = {"limit": {"limit"}, "replace": {"match", "replace"}, "regex": {"match"}}


def _check_template(template: str, patterns: tuple[str, ...]) -> None:
    for number, pattern in enumerate(patterns, start=1):
        try:
            compile_template(pattern, template)
        except PatternError as error:
            raise refusal(f"must be a replacement for text {number} of match: {error}") from None


class DeclaredGuardrails(BaseModel):
    """Guardrails that a task declares in its `mcp`; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    guardrails: Annotated[tuple[TaskGuardrail, ...], BeforeValidator(_rules)] = ()
    result_guardrails: Annotated[tuple[TaskResultGuardrail, ...], BeforeValidator(_rules)] = ()

    @field_validator("guardrails", "result_guardrails", mode="before")
    @classmethod
    def _is_bounded(cls, value: Any) -> Any:
        """Check the size before anything is compiled: the rules are untrusted."""
        count = sum(map(len, _texts_of(value)))
        if count > MAX_TASK_PATTERNS_CHARACTERS:
            raise refusal(
                f"must have at most {MAX_TASK_PATTERNS_CHARACTERS} characters of match and replace, got {count}"
            )
        return value


def _texts_of(rules: Any) -> Iterator[str]:
    for rule in rules if isinstance(rules, (list, tuple)) else ():
        for key in ("match", "replace") if isinstance(rule, dict) else ():
            value = rule.get(key)
            yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))


class ToolsInventory(_Rule):
    """Tools policy of a worker: which tasks become tools, which calls are refused, how results are filtered."""

    policy: Annotated[tuple[PolicyRule, ...], BeforeValidator(_rules), Kind("list of rules")] = Field(
        default=(),
        description="Which tasks become tools: the first rule that matches decides, without one a task is allowed. "
        "Tasks bearer_token_* never do, run_shell_cmd and tasks that run other services' tasks for their caller only "
        "by a rule with their exact service and name",
    )
    guardrails: Annotated[tuple[Guardrail, ...], BeforeValidator(_rules), Kind("list of rules")] = Field(
        default=(), description="Rules that refuse calls by their arguments"
    )
    result_guardrails: Annotated[tuple[ResultGuardrail, ...], BeforeValidator(_rules), Kind("list of rules")] = Field(
        default=(), description="Rules that filter results, in this order"
    )
    disable_builtin_guardrails: Annotated[Flag, Kind("true or false")] = Field(
        default=False, description="Whether to ignore the guardrails that tasks declare"
    )
    timeout: Annotated[TimeoutSeconds, Kind("whole seconds, 1 to 86400")] = Field(
        default=TIMEOUT_SECONDS, description="Time limit of a tool's job at other services, in seconds"
    )
