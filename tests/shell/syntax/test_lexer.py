"""Lines to words and back."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import UsageError
from nfcli.shell.syntax.lexer import Tail, Word, arguments, is_comment, quote, split, split_typed

lines = st.text(alphabet=st.sampled_from("ab é日 \t'\"\\#$*?-"), max_size=30)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("show norfab  workers", ["show", "norfab", "workers"]),
        ("username 'a  b'", ["username", "a  b"]),
        ('username "it\'s me"', ["username", "it's me"]),
        (r"username it\'s\ me", ["username", "it's me"]),
        (r'"a\"b\\c\d"', [r'a"b\c\d']),
        (r"'a\b'", [r"a\b"]),
        ("'' \"\"", ["", ""]),
        ("a'b c'\"d\"e", ["ab cde"]),
        ("token -5", ["token", "-5"]),
        ("{a} [red]x $HOME *.py ~ # !", ["{a}", "[red]x", "$HOME", "*.py", "~", "#", "!"]),
        ("a|b | 'c|d' \\|", ["a", "|", "b", "|", "c|d", "|"]),
        ("ключ 鍵 'a\u00a0b' O\u2019Brien", ["ключ", "鍵", "a\u00a0b", "O\u2019Brien"]),
        ("nf#show norfab workers", ["show", "norfab", "workers"]),
        (" nf[fastmcp-auth]# list-tokens", ["list-tokens"]),
        ("username nf#x 'nf#'", ["username", "nf#x", "nf#"]),
        ("  \t ", []),
        ("", []),
    ],
)
def test_quotes_keep_what_they_enclose_and_blanks_separate(line: str, words: list[str]) -> None:
    """A line comes apart as in a POSIX shell, without variables or globs."""
    assert [word.text for word in split(line)] == words


def test_only_an_unquoted_bar_is_a_pipe() -> None:
    """A quoted `|` is a word like any other, an unquoted one needs no blanks around it."""
    assert split("a|'|'") == [Word("a", 0, 1), Word("|", 1, 2), Word("|", 2, 5, is_quoted=True)]
    assert [word.is_pipe for word in split("a|'|'")] == [False, True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "username 'a b",
            "unclosed quote ' in column 10: close it, or put a backslash before it",
        ),
        ("token 'x' username it's", "unclosed quote ' in column 22: "),
        ('a\\"b "c', 'unclosed quote " in column 6: '),
        ("username a\\", "the line ends in a backslash: double it or put it in single quotes"),
    ],
)
def test_a_quote_left_open_is_one_line_that_names_its_column(line: str, message: str) -> None:
    """An unclosed quote or a trailing backslash is an error with the place and the remedy."""
    with pytest.raises(UsageError) as caught:
        split(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@given(lines)
def test_words_are_those_of_shlex(line: str) -> None:
    """Lines without a pipe come apart exactly as `shlex` takes them apart, errors included."""
    try:
        expected = shlex.split(line)
    except ValueError:
        with pytest.raises(UsageError):
            split(line)
    else:
        assert [word.text for word in split(line)] == expected


@given(st.lists(st.text(max_size=12)))
def test_quoted_words_come_back(words: list[str]) -> None:
    """Whatever the words, both our own quoting and `shlex.quote` survive the split, and none becomes a pipe."""
    for quoted in (map(quote, words), map(shlex.quote, words)):
        found = split(" ".join(quoted))
        assert [word.text for word in found] == words
        assert not any(word.is_operator for word in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastmcp\u00a0auth", "column 8: U+00A0 (NO-BREAK SPACE) is no blank here: type a space, or quote the word"),
        ("a b\u200b", "column 4: U+200B (ZERO WIDTH SPACE) is no blank here: type a space, or quote the word"),
        (
            "nf#\ufeffa",
            "column 4: U+FEFF (ZERO WIDTH NO-BREAK SPACE) is no blank here: ",
        ),
        ("u \u201cAnn Smith\u201d", "column 3: U+201C (LEFT DOUBLE QUOTATION MARK) is no quote here: type \" or ', or"),
        (
            "u Smith\u2019",
            "column 8: U+2019 (RIGHT SINGLE QUOTATION MARK) is no quote here: ",
        ),
    ],
)
def test_blanks_and_quotes_of_web_pages_are_refused_by_name(line: str, message: str) -> None:
    """They look like those of a shell: a pasted line would have names that nobody meant."""
    with pytest.raises(UsageError) as caught:
        split(line)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("--help", "'--help'"),
        ("\u201ca\u201d", "'\u201ca\u201d'"),
        ("a\u00a0b", "'a\u00a0b'"),
        ("plain-1.5_~+/=", "plain-1.5_~+/="),
        ("a b", "'a b'"),
        ("it's", '"it\'s"'),
        ("-", "'-'"),
        ("", "''"),
        ("a?", "'a?'"),
    ],
)
def test_words_are_quoted_only_where_they_must_be(text: str, quoted: str) -> None:
    """Quoting stays out of the way and picks the more readable quote."""
    assert quote(text) == quoted


@given(lines)
def test_a_line_that_is_being_typed_never_fails(line: str) -> None:
    """Any beginning of a line has finished words and a last one, which together cover what `split` finds."""
    words, tail = split_typed(line)
    assert tail.word.end == len(line)
    if not tail.open_quote:
        last = [tail.word] if tail.word.text or tail.word.is_quoted else []
        assert split(line) == words + last


def test_the_last_word_of_a_typed_line_knows_its_open_quote() -> None:
    """Completion learns what is typed so far, where it begins and how it is quoted."""
    assert split_typed("username 'a b") == ([Word("username", 0, 8)], Tail(Word("a b", 9, 13, is_quoted=True), "'", 9))
    assert split_typed("username ") == ([Word("username", 0, 8)], Tail(Word("", 9, 9), ""))


def test_words_of_a_command_line_are_taken_as_they_are() -> None:
    """Words that arrive one by one are never split again; whether a lone bar is a pipe is left open."""
    words = arguments(["username", "it's me", "|", "json"])
    assert [word.text for word in words] == ["username", "it's me", "|", "json"]
    assert [word.is_pipe for word in words] == [False, False, True, False]
    assert not any(word.is_operator for word in words)


@pytest.mark.parametrize(
    "line", ["", "  ", "\t", "# note", "  # note", "! rm -rf x", "!", "\r", "nf#", "nf[fastmcp]# # x"]
)
def test_blank_lines_and_comments_are_not_run(line: str) -> None:
    """`#` and `!` make a line a comment."""
    assert is_comment(line)
    assert not is_comment("show # !")
