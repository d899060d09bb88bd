"""The command tree as lines and as JSON Schema, on a tree of the same shape as the shell's."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model

from nfcli.man.tree import json_schema, tree_lines
from nfcli.models.errors import UsageError
from nfcli.models.fields import Seconds, TimeoutSeconds, Token, Username

EXPECTED = Path(__file__).with_name("expected") / "man_tree_fastmcp_auth.txt"


class Job(BaseModel):
    """What every command that starts a job takes."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    timeout: TimeoutSeconds | None = Field(default=None, description="Job timeout")
    workers: str = Field(default="all", description="Filter worker to target")


class CreateToken(Job):
    """A command with a required field among optional ones."""

    token: Token | None = Field(default=None, description="Token string to store, autogenerate if not given")
    username: Username = Field(description="User name to store the token for")
    expire: Annotated[Seconds | None, Field(description="Token expiration time in seconds")] = None


class ListTokens(Job):
    """A command of the same shape as the shell's."""

    username: Username | None = Field(default=None, description="User name to list tokens for")


class DeleteToken(Job):
    """A command of the same shape as the shell's."""

    username: Username | None = Field(default=None, description="User name whose tokens should be deleted")
    token: Token | None = Field(default=None, description="Bearer token string to delete")


class CheckToken(Job):
    """A command whose last field is required."""

    token: Token = Field(description="Bearer token string to check")


class Auth(BaseModel):
    """Branches with aliases, optional, defaulted and required."""

    create_token: CreateToken = Field(default=None, alias="create-token", description="Create authentication token")
    list_tokens: ListTokens = Field(None, alias="list-tokens", description="Retrieve authentication tokens")
    delete_token: DeleteToken = Field(None, alias="delete-token", description="Delete existing authentication token")
    check_token: CheckToken = Field(alias="check-token", description="Check if given token valid")


class FastMcp(BaseModel):
    """A branch with one command group."""

    auth: Auth = Field(None, description="Manage auth tokens")


class Colour(Enum):
    """A choice of words."""

    BLUE = "blue"
    RED = "red"


class Show(BaseModel):
    """Leaves of the less usual kinds."""

    colour: Colour = Field(default=Colour.BLUE, description="Several\n   lines")
    brief: bool = Field(default=False, alias="in-brief")
    limit: int = 0
    nothing: str = ""
    names: list[str] = Field(default_factory=list, description="Names")


class Root(BaseModel):
    """The whole tree."""

    fastmcp: FastMcp = Field(None, description="FastMCP service")
    show: Show = Field(None, description="Show things")


def test_auth_branch_equals_the_accepted_text_byte_for_byte() -> None:
    """`man tree fastmcp.auth` is part of the product's contract."""
    text = "\n".join(tree_lines(Root, "fastmcp.auth")) + "\n"
    assert text.rstrip("\n").encode() == EXPECTED.read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("path", [None, ""])
def test_no_path_draws_the_whole_tree(path: str | None) -> None:
    """Branches that are not the last one keep their vertical line."""
    auth = EXPECTED.read_text(encoding="utf-8").splitlines()[2:]
    assert tree_lines(Root, path) == [
        "root",
        "├── fastmcp:    FastMCP service",
        *("│" + line[1:] for line in auth),
        "└── show:    Show things",
        "    ├── colour:    Several lines, default 'blue'",
        "    ├── in-brief:    default 'false'",
        "    ├── limit:    default '0'",
        "    ├── nothing:    default ''",
        "    └── names:    Names",
    ]


@pytest.mark.parametrize("path", ["fastmcp.auth.check-token", "fastmcp.auth.check_token"])
def test_a_path_takes_aliases_and_field_names(path: str) -> None:
    """Both spellings of a command lead to the same branch, shown under the word that users type."""
    assert tree_lines(Root, path) == [
        "root",
        "└── fastmcp:    FastMCP service",
        "    └── auth:    Manage auth tokens",
        "        └── check-token:    Check if given token valid",
        "            ├── timeout:    Job timeout",
        "            ├── workers:    Filter worker to target, default 'all'",
        "            └── *token:    Bearer token string to check",
    ]


def test_a_path_may_end_at_a_field() -> None:
    """A field has nothing below it, so that its own line ends the tree."""
    assert tree_lines(Root, "fastmcp.auth.create_token.username")[3:] == [
        "        └── create-token:    Create authentication token",
        "            └── *username:    User name to store the token for",
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fastmpc", "unknown path 'fastmpc': expected fastmcp, show"),
        ("fastmcp.outh.x", "unknown path 'outh' below fastmcp: expected auth"),
        (
            "fastmcp.auth.deletetoken",
            (
                "unknown path 'deletetoken' below fastmcp.auth: "
                "expected delete-token, create-token, list-tokens, check-token"
            ),
        ),
        ("show.colour.x", "unknown path 'x' below show.colour: expected nothing"),
        ("fastmcp..auth", "unknown path '' below fastmcp: expected auth"),
        ("\x1b[31m" + "x" * 99, f"unknown path '\\x1b[31m{'x' * 59}': expected fastmcp, show"),
    ],
)
def test_an_unknown_path_is_refused_where_it_went_wrong(path: str, message: str) -> None:
    """The line names the wrong word and lists what exists in its place; the schema says the same."""
    for walk in (tree_lines, json_schema):
        with pytest.raises(UsageError) as caught:
            walk(Root, path)
        assert str(caught.value) == message


def test_json_schema_of_a_command_is_the_models() -> None:
    """Without a path it is the root's."""
    assert json_schema(Root, "fastmcp.auth.create-token") == CreateToken.model_json_schema()
    assert json_schema(Root) == Root.model_json_schema()


def test_json_schema_of_a_field_carries_what_it_refers_to() -> None:
    """A field's schema stands alone: definitions come along."""
    assert json_schema(Root, "show.colour") == {
        "$ref": "#/$defs/Colour",
        "$defs": {"Colour": Show.model_json_schema()["$defs"]["Colour"]},
        "default": "blue",
        "description": "Several\n   lines",
    }
    assert json_schema(Root, "show.limit") == {"default": 0, "title": "Limit", "type": "integer"}


_words = st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)
_trees = st.recursive(st.none(), lambda inner: st.dictionaries(_words, inner, min_size=1, max_size=4), max_leaves=15)


def _model(tree: dict[str, object]) -> type[BaseModel]:
    fields = {
        f"field_{number}": (_model(inner) if isinstance(inner, dict) else str, Field(default=None, alias=word))
        for number, (word, inner) in enumerate(tree.items())
    }
    return create_model("Tree", **fields)  # type: ignore[call-overload, no-any-return]


def _parsed(lines: list[str]) -> dict[str, object]:
    """Read drawn lines back into nested words."""
    tree: dict[str, object] = {}
    stack = [tree]
    for line in lines[1:]:
        depth = min(position for position in (line.find("├"), line.find("└")) if position >= 0) // 4
        inner: dict[str, object] = {}
        del stack[depth + 1 :]
        stack[depth][line[depth * 4 + 4 :].split(":")[0]] = inner
        stack.append(inner)
    return tree


@settings(deadline=None)
@given(_trees.filter(lambda tree: tree is not None))
def test_any_tree_can_be_read_back_from_its_drawing(tree: dict[str, object]) -> None:
    """Words, nesting and order survive the drawing."""

    def without_leaves(part: object) -> dict[str, object]:
        return {word: without_leaves(inner) for word, inner in part.items()} if isinstance(part, dict) else {}

    assert _parsed(tree_lines(_model(tree))) == without_leaves(tree)
