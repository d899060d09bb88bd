"""Words mean what they say: every name and token comes back as it was typed, or is refused by its rule in one line."""

from __future__ import annotations

import io
import json
import re
import shlex
import string
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nfcli import NorFab
from nfcli.models.commands.auth import CreateToken
from nfcli.models.commands.base import entries
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session
from nfcli.shell.syntax.lexer import quote
from support.programs import TerminalStarter
from support.tokens.usernames import is_refused, valid_names
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

FIELDS = list(entries(CreateToken))
BEGINNINGS = sorted({name[:count] for name in FIELDS for count in range(1, len(name) + 1)})
PLAIN = [*BEGINNINGS, "12345", "000123", "1e3", "true", "False", "None", "null", "1.5", "-5", "json", "exit"]
NAMES_ONLY = [
    *(
        "{a}",
        '{"a": 1}',
        "[red]x",
        "[1, 2]",
        "it's me",
        'a "b" c',
        "two  blanks",
        "a|b",
        "|",
        "?",
        "what?",
        "??",
        "--help",
    ),
    *("a\\b", "#1", "!ls", "$HOME", "*", "~", "-", "Zoë", "\u00e9", "王小明", "Ωμέγα", "👩\u200d🚀", "שלום"),
]
TOKENS_ONLY = ["-", "+/~._-", "a==", "~", "T" * 1024]

usernames = (
    valid_names
    | st.text(st.sampled_from("'\"\\| {}[]-?#!$*~=,;&<>a1"), min_size=1, max_size=12)
    | st.sampled_from(PLAIN + NAMES_ONLY)
).filter(lambda text: text == text.strip())
token_bodies = st.text(string.ascii_letters + string.digits + "-._~+/", min_size=1, max_size=1000)
tokens = st.builds(str.__add__, token_bodies, st.text("=", max_size=3)) | st.sampled_from(PLAIN + TOKENS_ONLY)


def in_backslashes(text: str) -> str:
    """Quote a word the third way that shells know."""
    return "".join(f"\\{character}" for character in text)


def as_other_shells_do(text: str) -> str:
    """Quote a word as Python does for a POSIX shell, where it isn't one that looks like an option."""
    return quote(text) if text.startswith("--") else shlex.quote(text)


quotings: st.SearchStrategy[Callable[[str], str]] = st.sampled_from([quote, as_other_shells_do, in_backslashes])


class Desk:
    """A session in this process, its client at a real worker; `model` is what must be stored: token to user."""

    def __init__(self, session: Session, out: io.StringIO, err: io.StringIO) -> None:
        self._session, self._out, self._err = session, out, err
        self.model: dict[str, str] = {}

    def run(self, line: str) -> tuple[int, str, str]:
        """Run a line; return its exit status, stdout and stderr."""
        status = self._session.run_line(line)
        said = status, self._out.getvalue(), self._err.getvalue()
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return said

    def create(self, username: str, token: str) -> tuple[int, str, str]:
        """Store a token, both words quoted already."""
        return self.run(f"fastmcp auth create-token username {username} token {token}")

    def tokens_of(self, username: str) -> list[tuple[str, str]]:
        """Return (user, token) as the user's listing gives them, sorted; the name is quoted already."""
        status, text, errors = self.run(f"fastmcp auth list-tokens username {username} | json")
        assert (status, errors) == (0, "")
        return sorted((row["username"], row["token"]) for row in json.loads(text))


@contextmanager
def at_desk(environment: Environment) -> Iterator[Desk]:
    """Sit at a session of an environment whose worker runs."""
    out, err = io.StringIO(), io.StringIO()
    norfab = NorFab(environment.inventory_file)
    try:
        yield Desk(Session(norfab.make_client(), console=Console(out, err)), out, err)
    finally:
        norfab.destroy()


@pytest.fixture(scope="module")
def desk(environment: Environment, worker: RunningWorker) -> Iterator[Desk]:
    """Sit at the module's worker."""
    assert worker.process.poll() is None
    with at_desk(environment) as desk:
        yield desk


def listed(text: str) -> dict[str, str]:
    """Return token to user of a JSON listing."""
    return {row["token"]: row["username"] for row in json.loads(text)}


def test_any_name_and_any_token_survive_shell_worker_disk_and_restart(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """However they are quoted, both come back unchanged, at once and all together from a restarted worker."""
    environment = environment_factory()
    with running_worker(environment), at_desk(environment) as desk:

        @settings(max_examples=250, deadline=None)
        @given(username=usernames, token=tokens, how=quotings)
        @example("it's me", "-", quote)
        @example("-", "token", in_backslashes)
        def survives(username: str, token: str, how: Callable[[str], str]) -> None:
            word = quote(token) if token == "-" else how(token)  # unquoted it asks for the token
            status, text, errors = desk.create(how(username), word)
            if desk.model.setdefault(token, username) != username:
                assert (status, text) == (1, "")
            else:
                assert (status, json.loads(text), errors) == (0, {DEFAULT_WORKER: True}, "")
            expected = sorted((user, each) for each, user in desk.model.items() if user == username)
            assert desk.tokens_of(how(username)) == expected

        survives()
        model = desk.model
    with running_worker(environment):
        done = nfcli("fastmcp", "auth", "list-tokens", "|", "json", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(done.stdout) == model


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300) | st.text("\x1b\x00\r\n\t\u2028\u202e ab", min_size=1, max_size=9), how=quotings)
def test_whatever_is_typed_as_a_name_is_stored_exactly_or_refused_in_one_line(
    desk: Desk, text: str, how: Callable[[str], str]
) -> None:
    """There is no third way: nothing is trimmed, converted but to form NFC, or reported over several lines."""
    word = how(text) or "''"
    status, printed, errors = desk.create(word, "one-token")
    if status == 0:
        assert desk.tokens_of(word) == [(unicodedata.normalize("NFC", text), "one-token")]
        assert desk.run("fastmcp auth delete-token token one-token")[0] == 0
    else:
        assert (status, printed) == (2, "")
        assert re.fullmatch(r"create-token: username: must [^\n]+\n", errors)
        assert errors.strip().isprintable()
        assert not 0 < len(text) <= 256 or text != text.strip() or any(map(is_refused, text))


@pytest.mark.usefixtures("no_tokens")
def test_the_listed_words_are_names_and_tokens_in_a_script(environment: Environment, nfcli: NfcliRunner) -> None:
    """Beginnings of field names, numbers, words that Python knows, brackets, quotes, blanks, other scripts."""
    expected = {f"for-name-{number}": name for number, name in enumerate(PLAIN + NAMES_ONLY)}
    lines = [f"fastmcp auth create-token username {quote(name)} token {token}" for token, name in expected.items()]
    for token in [*PLAIN, *(each for each in TOKENS_ONLY if each != "-")]:
        lines.append(f"fastmcp auth create-token token {token} username {token[:256]}")
        expected[token] = token[:256]
    lines.append("fastmcp auth create-token token '-' username dash")
    expected["-"] = "dash"
    created = nfcli(stdin="\n".join(lines), environment=environment)
    assert (created.returncode, created.stderr) == (0, "")
    done = nfcli(stdin="fastmcp auth list-tokens | json", environment=environment)
    assert listed(done.stdout) == expected


@pytest.mark.usefixtures("no_tokens")
def test_the_listed_words_are_names_on_a_command_line(environment: Environment, nfcli: NfcliRunner) -> None:
    """The system's shell has read the quotes: each argument is a word as it stands, and no option of nfcli's."""
    words = ["t", "000123", "-5", "[red]x", "it's me", "two  blanks", "?", "Zoë"]
    for number, name in enumerate(words):
        done = nfcli(
            "fastmcp", "auth", "create-token", "username", name, "token", f"t{number}", environment=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
    done = nfcli("fastmcp", "auth", "list-tokens", "|", "json", environment=environment)
    assert listed(done.stdout) == {f"t{number}": name for number, name in enumerate(words)}


@pytest.mark.usefixtures("no_tokens")
def test_the_listed_words_are_names_at_a_terminal(environment: Environment, open_terminal: TerminalStarter) -> None:
    """Keys that mean something at the prompt don't where they are part of a quoted word."""
    words = ["t", "000123", "{a}", "[red]x", "it's me", "two  blanks", "what? me", "?", "Zoë", "王小明", "שלום", "-"]
    terminal = open_terminal("-c", environment=environment)
    terminal.wait_for_prompt()
    for number, name in enumerate(words):
        terminal.run(f"fastmcp auth create-token username {quote(name)} token t{number}")
    assert listed(terminal.run("fastmcp auth list-tokens | json")) == {f"t{n}": name for n, name in enumerate(words)}
    table = terminal.run("fastmcp auth list-tokens").splitlines()
    assert sorted(re.split(" {2,}", line.replace("two  blanks", "two blanks"))[1] for line in table[1:]) == sorted(
        "two blanks" if name == "two  blanks" else name for name in words
    )


@pytest.mark.parametrize("token", ["{a}", "[red]x", "'it'\"'\"'s me'", "'a b'", "Zoë", "a=b", "=", "''", "T" * 1025])
def test_what_can_be_no_token_is_refused_by_the_rule_in_one_line(desk: Desk, token: str) -> None:
    """The error says what tokens are made of or how long they may be, and not the token."""
    status, printed, errors = desk.create("someone", token)
    assert (status, printed) == (2, "")
    assert re.fullmatch(r"create-token: token: must be (1 to 1024 characters|made of A-Z a-z 0-9)[^\n]*\n", errors)
    assert desk.tokens_of("someone") == []


@pytest.mark.parametrize(
    "given", ["username a username b", "token a username b token c", "username a expire 1 expire 2"]
)
def test_a_field_given_twice_is_refused(desk: Desk, given: str) -> None:
    """Neither value wins silently."""
    status, printed, errors = desk.run(f"fastmcp auth create-token {given}")
    assert (status, printed) == (2, "")
    assert re.fullmatch(r"create-token: \w+ is given twice: give it once\n", errors)
