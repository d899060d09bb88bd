"""The history file: lines kept across runs, their secrets masked."""

import stat
from collections.abc import Container
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.commands.root import Root
from nfcli.shell.repl.history import KEPT_LINES, HistoryFile, mask_line
from nfcli.shell.syntax.lexer import split
from nfcli.shell.syntax.parser import Parser, Scope

ROOT = (Scope("root", Root),)
SECRET = "Sup3r.S3cret"


def kept(line: str, where: str = "", tokens: Container[str] = ()) -> str:
    """Return what is kept of a line typed in a group; `tokens` are stored."""
    parser = Parser(ROOT)
    parser.feed_all(split(where))
    return mask_line(line, parser.groups, tokens)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (f"fastmcp auth check-token token {SECRET}", "fastmcp auth check-token token ***"),
        (f"fastmcp auth create-token token '{SECRET}' username a", "fastmcp auth create-token token *** username a"),
        (
            f"fastmcp auth create-token username token token {SECRET}",
            "fastmcp auth create-token username token token ***",
        ),
        (f"fastmcp auth check-token token {SECRET}|json", "fastmcp auth check-token token ***|json"),
        (f"fastmcp auth list-tokens | include {32 * 'a'}", "fastmcp auth list-tokens | include ***"),
        ("fastmcp auth list-tokens | exclude automation", "fastmcp auth list-tokens | exclude automation"),
        ("fastmcp auth check-token token - | json", "fastmcp auth check-token token - | json"),
        ("  fastmcp  auth list-tokens ", "fastmcp  auth list-tokens"),
        ("fastmcp auth list-tokens username 'a b' | json", "fastmcp auth list-tokens username 'a b' | json"),
        ("help fastmcp auth", "help fastmcp auth"),
        ("man tree fastmcp.auth ?", "man tree fastmcp.auth ?"),
        ("# a note", ""),
        (f"! fastmcp auth check-token token {SECRET}", ""),
    ],
)
def test_values_of_secret_fields_are_masked(line: str, text: str) -> None:
    """A right line stays as it was typed, its secrets masked; comments aren't kept."""
    assert kept(line) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (f"fastmcp auth check-token {SECRET}", "fastmcp auth check-token ***"),
        (f"fastmcp auth check-token tokn {SECRET}", "fastmcp auth check-token tokn ***"),
        (f"fastmcp auth check-token token={SECRET}", "fastmcp auth check-token ***"),
        (f"fastmcp auth check-token token my {SECRET}", "fastmcp auth check-token token *** ***"),
        (f"fastmcp auth check-token token '{SECRET} more", "fastmcp auth check-token token ***"),
        (f'fastmcp auth create-token username "bob token {SECRET}', "fastmcp auth create-token username ***"),
        (f"fastmcp auth crate-token token {SECRET}", "fastmcp auth crate-token token ***"),
        (f"fastmcp auth list-tokens token {SECRET}", "fastmcp auth list-tokens token ***"),
        ("fastmcp auth list-tokens usrname bob", "fastmcp auth list-tokens usrname ***"),
        (f"auth check-token token {SECRET}", "auth check-token token ***"),
        ("fastmcp auth check-token token username", "fastmcp auth check-token token ***"),
        (f"fastm au create usernme x tok {SECRET}", "fastm au create usernme *** *** ***"),
        ("fastmcp auth create-token usernme x token token", "fastmcp auth create-token usernme *** token ***"),
        (SECRET, "***"),
        (f"help token {SECRET}", "help token ***"),
        (f"exit {SECRET}", "exit ***"),
        ("lst-tokens", "***"),
        ("fastmcp auth lst-tokens", "fastmcp auth lst-tokens"),
        ("fastmcp auth create-token expre ?", "fastmcp auth create-token expre ?"),
    ],
)
def test_a_wrong_line_keeps_only_words_that_can_be_no_secret(line: str, text: str) -> None:
    """From the first wrong word on, only names of the tree and mistyped names stay."""
    assert kept(line) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fastmcp auth list-tokens | include abc1", "fastmcp auth list-tokens | include ***"),
        ("fastmcp auth list-tokens | json | exclude abc1", "fastmcp auth list-tokens | json | exclude ***"),
        ("show norfab workers | include abc1", "show norfab workers | include ***"),
        ("sh nor wor | in abc1", "sh nor wor | in ***"),
        ("fastm au check tok other", "fastm au check tok ***"),
        ("man page abc1 | include ann", "man page abc1 | include ann"),
        ("fastmcp auth create-token username abc1", "fastmcp auth create-token username ***"),
        ("fastmcp auth delete-token username 'abc1'", "fastmcp auth delete-token username ***"),
        ("fastmcp auth list-tokens workers abc1", "fastmcp auth list-tokens workers ***"),
        ("fastmcp auth create-token username ann expire 60", "fastmcp auth create-token username ann expire 60"),
        ("fastmcp auth list-tokens | include ann", "fastmcp auth list-tokens | include ann"),
        ("man page abc1", "man page abc1"),
    ],
)
def test_word_that_is_stored_as_a_token_is_masked_wherever_it_stands(line: str, text: str) -> None:
    """However short; of commands that need no worker, what a filter searches for."""
    assert kept(line, tokens={"abc1", "auth", "60x"}) == text


@pytest.mark.parametrize(
    ("word", "is_kept"),
    [
        ("888945f9a0b14c7c8f3e2d1c0b9a8f7e", False),
        ("Zm9vYmFyMTIzNDU2Nzg5MA==", False),
        ("0123abcd-0123-4567-89ab-0123456789ab", False),
        ("svc-backup-2024-prod.example.com", True),
        ("continuousintegration", True),
        ("20240131120000000", True),
    ],
)
def test_word_that_looks_like_a_token_is_masked_where_a_user_s_name_belongs(word: str, is_kept: bool) -> None:
    """Letters and digits without a name's dots and dashes, or a UUID."""
    assert kept(f"fastmcp auth list-tokens username {word}") == (
        f"fastmcp auth list-tokens username {word if is_kept else '***'}"
    )


def test_what_is_a_secret_depends_on_where_it_is_typed() -> None:
    """The same words mean the same in a subshell as at the top."""
    assert kept(f"check-token token {SECRET}", "fastmcp auth") == "check-token token ***"


@given(
    before=st.sampled_from(["", "username bob ", "usrname bob ", "'", '"', "expire ", "nonsense ", "| json ", "\\"]),
    command=st.sampled_from(["create-token", "check-token", "delete-token", "list-tokens", "x"]),
    after=st.sampled_from(["", " username bob", " 'x", " |", " ?", " \\"]),
    mark=st.sampled_from(["", "'", '"']),
)
def test_no_line_leaks_the_word_behind_token(before: str, command: str, after: str, mark: str) -> None:
    """Right or wrong, with quotes open or closed: what follows `token` isn't kept."""
    assert SECRET not in kept(f"fastmcp auth {command} {before}token {mark}{SECRET}{mark}{after}")


def test_lines_are_kept_across_runs_in_a_private_file(tmp_path: Path) -> None:
    """Each run appends to what the others left; repeats of the last line are left out."""
    path = tmp_path / "history"
    for line in ("one", "two", "two", "鍵"):
        HistoryFile(path).append(line)
    both = HistoryFile(path), HistoryFile(path)
    for history in both:
        history.append("three")
    assert path.read_text(encoding="utf-8") == "one\ntwo\n鍵\nthree\nthree\n"
    assert both[0].lines == ["one", "two", "鍵", "three"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert both[0].problem is None


def test_without_a_file_lines_are_kept_for_the_run() -> None:
    """There is nothing to write to."""
    history = HistoryFile(None)
    history.append("one")
    assert (history.lines, history.problem) == (["one"], None)


def test_a_long_history_is_cut(tmp_path: Path) -> None:
    """Only the latest lines are read, and a file twice as long is rewritten."""
    path = tmp_path / "history"
    HistoryFile(path).append("first")
    with path.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(2 * KEPT_LINES))
    expected = [f"line {number}" for number in range(KEPT_LINES, 2 * KEPT_LINES)]
    assert HistoryFile(path).lines == expected
    assert path.read_text().splitlines() == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_damaged_bytes_don_t_stop_the_shell(tmp_path: Path) -> None:
    """Bytes that aren't UTF-8 are replaced."""
    path = tmp_path / "history"
    HistoryFile(path).append("one")
    path.write_bytes(b"one\n\xff\n\n")
    assert HistoryFile(path).lines == ["one", "\ufffd"]


def test_a_history_that_can_not_be_kept_says_so_once(tmp_path: Path) -> None:
    """A file readable by others or a missing folder is reported, and the shell works on."""
    wide = tmp_path / "wide"
    wide.write_text("one\n")
    wide.chmod(0o644)
    history = HistoryFile(wide)
    assert history.problem is not None
    assert "chmod 600" in history.problem
    history.append("two")
    assert (history.lines, wide.read_text()) == (["two"], "one\n")
    history = HistoryFile(tmp_path / "missing" / "history")
    history.append("one")
    assert history.lines == ["one"]
    assert str(history.problem).startswith("history is not saved: ")
