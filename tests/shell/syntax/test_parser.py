"""Parsing of words: commands, fields, values, pipes."""

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nfcli.models.commands.root import Root
from nfcli.models.errors import UsageError
from nfcli.models.fields import Username, canonical_username
from nfcli.shell.syntax.lexer import arguments, split
from nfcli.shell.syntax.parser import Parser, Scope, secret_words, vocabulary

ROOT = (Scope("root", Root),)
VALUES = ["t", "u", "e", "w", "token", "username", "expire", "workers", "12345", "000123", "true", "None", "1.5", "-5"]
TRICKY_USERS = ["{a}", "[red]x", "it's me", "a b", "жук", "日本 語", "?", "|", "a|b", "#x", "!x", '"', "\\", "x?", "-"]


def _is_valid(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


def _has_meaning(text: str) -> bool:
    """Whether a word of a line has a meaning of its own in place of a value."""
    return text == "***" or text.startswith("--")


usernames = st.one_of(st.sampled_from(VALUES + TRICKY_USERS), st.text(min_size=1, max_size=40)).filter(
    lambda text: _is_valid(Username, text) and canonical_username(text) == text and not _has_meaning(text)
)
tokens = st.one_of(st.sampled_from(VALUES), st.from_regex(r"[A-Za-z0-9._~+/-]{1,40}={0,2}", fullmatch=True)).filter(
    lambda text: not _has_meaning(text)
)


def read(line: str) -> Parser:
    """Read a whole line from the root."""
    parser = Parser(ROOT)
    parser.feed_all(split(line))
    parser.finish()
    return parser


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("fastmcp auth create-token username --expire 5", "create-token: username"),
        ("fastmcp auth check-token token --x", "check-token: token"),
        ("man page --all", "page: topic"),
    ],
)
def test_options_are_no_values(line: str, field: str) -> None:
    """There are none, and who types one has another program in mind; in quotes it is a value. It isn't repeated."""
    problem = f"{field}: there are no options, and a value that begins with -- has to be quoted: "
    with pytest.raises(UsageError) as caught:
        read(line)
    assert str(caught.value) == f"{problem}put it in quotes"
    with pytest.raises(UsageError) as caught:
        Parser(ROOT).feed_all(arguments(line.split()))
    assert str(caught.value) == f"{problem}quote it at the prompt or in a script"
    parser = read("fastmcp auth list-tokens username '--x' | include --")
    assert (parser.command.values if parser.command else None, parser.stages[0].values) == (
        {"username": "--x"},
        {"include": "--"},
    )


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("fastmcp auth create-token username ***", "create-token: username"),
        ("fastmcp auth create-token username '***'", "create-token: username"),
        ("fastmcp auth check-token token ***", "check-token: token"),
        ("fastmcp auth list-tokens workers ***", "list-tokens: workers"),
        ("fastmcp auth list-tokens | include ***", "include"),
        ("man page ***", "page"),
    ],
)
def test_mask_is_no_value(line: str, field: str) -> None:
    """It stands where the history has left a value out: the line would run with it."""
    with pytest.raises(UsageError, match=r"\*\*\* stands for a value that was masked: type the value$") as caught:
        read(line)
    assert field in str(caught.value)
    assert read("fastmcp auth create-token username a***").command is not None


@given(usernames, tokens)
def test_any_name_and_token_reach_the_command_unchanged(username: str, token: str) -> None:
    """Whatever a valid value looks like, quoted as a shell wants it, or as a word of its own, it arrives as it is."""
    line = f"fastmcp auth create-token username {shlex.quote(username)} token {shlex.quote(token)} expire 60"
    expected = {"username": username, "token": token, "expire": "60"}
    parser = Parser(ROOT)
    parser.feed_all(
        arguments(["fastmcp", "auth", "create-token", "username", username, "token", token, "expire", "60"])
    )
    for found in (read(line), parser):
        assert found.command is not None
        assert found.command.values == expected
        assert found.command.model.model_validate(found.command.values).model_dump(
            include={"username", "token", "expire"}
        ) == {**expected, "expire": 60}


@pytest.mark.parametrize("value", VALUES)
def test_the_word_after_a_field_is_its_value(value: str) -> None:
    """Values that look like fields, numbers or options stay what was typed."""
    found = read(f"fastmcp auth create-token username {value} token {value}").command
    assert found is not None
    assert found.values == {"username": value, "token": value}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "fastmcp auth create-token username a b",
            "create-token: 'b' is not valid here: expected timeout, workers, token",
        ),
        ("fastmcp auth create-token username a username b", "create-token: username is given twice"),
        ("fastmcp auth create-token username", "create-token: username: value missing"),
        (
            "fastmcp auth create-token username | json",
            "create-token: username: value missing before |: ",
        ),
        ("fastmcp auth create-token t x", "create-token: ambiguous command 't', possible completions: timeout, token"),
        ("fastmcp auth create-token username a user b", "create-token: username is given twice"),
        (
            "fastmcp auth create-token 'user' x",
            "create-token: incomplete command 'user', possible",
        ),
        (
            "fastmcp auth create-tokn",
            "auth: 'create-tokn' is not valid here: expected create-token, list-tokens, delete-token, check-token (did",
        ),
        ("fas", "ambiguous command 'fas', possible completions: fastmcp, fastapi"),
        ("nonsense", "'nonsense' is not valid here: expected fastmcp, fastapi, filesharing, norfab, show, man"),
        ("''", "'' is not valid here: expected fastmcp, fastapi, filesharing, norfab, show, man"),
        ("| json", "expected a command before the |: fastmcp, fastapi, filesharing, norfab, show, man"),
        ("fastmcp | json", "fastmcp: expected a command before the |: auth"),
        ("man tree a b", "tree: 'b' is not valid here: expected all, |"),
        ("fastmcp auth list-tokens |", "expected a pipe function after the |: "),
        ("fastmcp auth list-tokens | | json", "expected a pipe function after the |: "),
        ("fastmcp auth list-tokens | j i", "json: indent: value missing"),
        ("fastmcp auth list-tokens | include a json", "|: 'json' is not valid here: expected |"),
        ("fastmcp auth list-tokens | include", "|: include: value missing"),
        ("fastmcp auth list-tokens | json indent 1 indent 2", "json: indent is given twice"),
        ("fastmcp auth list-tokens extra\x1b[2J", "list-tokens: 'extra\\x1b[2J' is not valid here: "),
    ],
)
def test_a_wrong_word_is_named_with_what_is_valid_there(line: str, message: str) -> None:
    """Each error is one line with the word and what is valid in its place."""
    with pytest.raises(UsageError) as caught:
        read(line)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("fastm au list u bob w any", "fastmcp auth list-tokens username bob workers any"),
        ("fastm au create user u tok t", "fastmcp auth create-token username u token t"),
        ("sh nor wor | in ann", "show norfab workers | include ann"),
        ("sh fastm aud la 3 | js ind 2", "show fastmcp audit last 3 | json indent 2"),
        ("man tr t", "man tree t"),
        ("fastapi a check token c", "fastapi auth check-token token c"),
    ],
)
def test_a_name_may_be_abbreviated_to_what_it_alone_begins_with(line: str, same: str) -> None:
    """Names of groups, commands, fields and pipe functions; values stay what they are, and secrets are known."""
    found, whole = read(line), read(same)
    assert found.command is not None
    assert whole.command is not None
    assert (found.command.model, found.command.values) == (whole.command.model, whole.command.values)
    assert found.stages == whole.stages
    assert found.secrets == whole.secrets


@pytest.mark.parametrize("line", ["fastm", "fastmcp auth list", "show norfab workers | in x"])
def test_a_strict_parser_takes_whole_names_only(line: str) -> None:
    """What an abbreviation could mean is said."""
    parser = Parser(ROOT, is_strict=True)
    with pytest.raises(UsageError, match=r"incomplete command '\w+', possible completions: "):
        parser.feed_all(split(line))


def test_a_word_of_the_top_typed_in_a_subshell_says_how_to_get_there() -> None:
    """The message has the word that leaves the subshell."""
    parser = Parser((*ROOT, *read("fastmcp").groups[1:]))
    with pytest.raises(UsageError, match=r"^fastmcp: 'show' .* \(enter top first"):
        parser.feed_all(split("show norfab workers"))


def test_a_word_without_a_field_is_the_value_of_the_manual_s_commands() -> None:
    """`man tree PATH` needs no field name, even where the value looks like it."""
    found = read("man tree path").command
    assert found is not None
    assert found.values == {"path": "path"}


def test_pipes_come_apart_into_functions_and_options() -> None:
    """Functions with a value, with options and with switches are distinguished; a switch may be turned off."""
    stages = read("fastmcp auth list-tokens | json indent 2 sort-keys false | include 'a | b' | markdown").stages
    assert [(stage.name, stage.key, stage.values) for stage in stages] == [
        ("json", "json_", {"indent": "2", "sort_keys": "false"}),
        ("include", "include", {"include": "a | b"}),
        ("markdown", "markdown", {"markdown": "true"}),
    ]


def test_positions_of_secrets_are_known() -> None:
    """The value of a token field is a secret, wherever the field stands, and nothing else is."""
    assert read("fastmcp auth create-token token abc username token").secrets == {4}
    assert secret_words(Root) == {"token"}
    assert {"create-token", "username", "json-schema"} <= vocabulary(Root)


@pytest.mark.parametrize("value", ["|", "?", "a b", "'", '"a', "token", "-5", "\\", "#"])
def test_words_of_a_command_line_are_values_as_they_are(value: str) -> None:
    """After a field even a lone bar is a value; nothing is split or unquoted again."""
    parser = Parser(ROOT)
    parser.feed_all(arguments(["fastmcp", "auth", "list-tokens", "username", value, "|", "json"]))
    assert parser.command is not None
    assert parser.command.values == {"username": value}
    assert [stage.name for stage in parser.stages] == ["json"]


@pytest.mark.parametrize(
    ("typed", "workers"),
    [
        ("a b", "a,b"),
        ("a,b c", "a,b,c"),
        ("a, b , c", "a,b,c"),
        ("a 'b'", "a,b"),
        ('["a", "b"]', "[a,b]"),
        ('\'["a", "b"]\'', '["a", "b"]'),
    ],
)
def test_several_workers_may_be_typed_with_blanks(typed: str, workers: str) -> None:
    """Until a word names a field, or something else that may follow."""
    parser = Parser([Scope("", Root)])
    parser.feed_all(split(f"fastmcp auth list-tokens workers {typed} username ann | json"))
    assert parser.command is not None
    assert parser.command.values == {"workers": workers, "username": "ann"}
    assert [stage.name for stage in parser.stages] == ["json"]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("workers a user ann", {"workers": "a", "username": "ann"}),
        ("username ann workers a time 5", {"workers": "a", "username": "ann", "timeout": "5"}),
    ],
)
def test_an_abbreviated_field_ends_a_list_of_workers(words: str, values: dict[str, str]) -> None:
    """A worker of such a name is named behind a comma."""
    parser = Parser([Scope("", Root)])
    parser.feed_all(split(f"fastmcp auth list-tokens {words}"))
    assert parser.command is not None
    assert parser.command.values == values


@pytest.mark.parametrize("words", [arguments(["|", "json"]), split("| json"), split("|json")])
def test_a_pipe_ends_a_list_of_workers(words: list[Any]) -> None:
    """Also as an argument of the program, where nothing distinguishes it from other words."""
    for typed in (["w1"], ["w1", "w2"], ["w1,"]):
        parser = Parser([Scope("", Root)])
        parser.feed_all([*arguments(["fastmcp", "auth", "list-tokens", "workers", *typed]), *words])
        assert parser.command is not None
        assert parser.command.values == {"workers": ",".join(typed)}
        assert [stage.name for stage in parser.stages] == ["json"]


@pytest.mark.parametrize("word", ["usernme", "--username", "***"])
def test_a_mistyped_field_is_not_taken_for_a_worker(word: str) -> None:
    """The message says what was probably meant."""
    parser = Parser([Scope("", Root)])
    with pytest.raises(UsageError, match=r"is not valid here: expected timeout, username"):
        parser.feed_all(split(f"fastmcp auth list-tokens workers w1 {word} bob"))
