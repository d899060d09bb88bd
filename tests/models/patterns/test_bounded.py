"""Regular expressions that end, and mean what `re` has them mean."""

from __future__ import annotations

import re
import threading
import time
import unicodedata
import warnings

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nfcli.models.patterns.bounded import Budget, OverBudgetError, PatternError, compile_pattern, compile_template
from nfcli.models.patterns.translation import translate

# Of those that mean something: all up to U+FFFF that Python's version of Unicode has.
KNOWN = "".join(each for each in map(chr, range(0x10000)) if unicodedata.category(each) not in {"Cn", "Co", "Cs"})
PLAIN = "a b i I x \u0130 \u0131 _ é \u0301 ² - # 0 < = , : & ~"
ESCAPED = r"\w \W \s \S \d \D \b \B . ^ $ \A \Z \1 \x69 \u0131 \101 \0 \# \- \[ \]"
BRACKETS = "[ [^ [] [^] ] ( (?: (?i: (?-i: (?x: (?s: (?= (?! (?<= (?<! (?> (?P<n> (?P=n) (?(1) ) | [[:alpha:]] && (?#c)"
REPEATS = "* + ? { } {2} {1,} {,2} {,} {} {e<=1} {1,2}? {1}+ ||"
PIECES = st.sampled_from([*f"{PLAIN} {ESCAPED} {BRACKETS} {REPEATS}".split(), " ", "\n"])
FLAGS = st.sampled_from(["", "(?i)", "(?x)", "(?ix)", "(?a)", "(?ai)", "(?m)", "(?s)"])
TEXTS = st.text("abiIx\u0130\u0131_ {}[],-:\n\x1c\u0301²é1#e<\u017f\u200d|&~", max_size=8)
CATASTROPHES = [
    (r"(a+)+$", "a" * 5_000 + "b"),
    (r"(a|a)*[bc]", "a" * 60),
    (r"(?:(a*)(a*)(a*)(a*))+[bc]", "a" * 300),
    (r"(x+x+)+[yz]", "x" * 100_000),
    (r"x*[yz]", "x" * 300_000),
    (r"(?:(?:(a?){0,1000}){0,1000}){0,1000}[bc]", "a" * 50),
    (r"(?=(a+))+[bc]", "a" * 100_000),
]


def outcome(pattern: str) -> re.Pattern[str] | None:
    """Return what `re` makes of a pattern, None for nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.compile(pattern)
        except (re.error, OverflowError):
            return None


@settings(max_examples=300, deadline=None)
@given(flags=FLAGS, pieces=st.lists(PIECES, min_size=1, max_size=6), texts=st.lists(TEXTS, min_size=1, max_size=5))
@example("", ["[[:alpha:]]"], ["a:]", "b", ":]"])
@example("", ["a{e<=1}"], ["b", "a{e<=1}"])
@example("", [r"[^\d\D]"], ["a1"])
@example("(?i)", ["wr", "i", "te"], ["wr\u0131te"])
@example("(?i)", ["[-i]"], ["-\u0131k"])
@example("(?i)", ["[^]-i]"], ["]i\u0131k-"])
@example("(?x)", ["a # [ ( {e}\n", "{2}"], ["aa"])
@example("", [r"\B"], ["", "\u0301a"])
def test_a_pattern_means_what_it_means_to_python(flags: str, pieces: list[str], texts: list[str]) -> None:
    """The same matches with the same groups, whatever `regex` would make of it."""
    pattern = flags + "".join(pieces)
    pattern += ")" * (pattern.count("(") - pattern.count(")") - pattern.count("[("))
    expected = outcome(pattern)
    assume(expected is not None)
    assert expected is not None
    compiled = compile_pattern(pattern)._compiled
    for text in texts:
        found = [(match.span(), match.groups()) for match in compiled.finditer(text)]
        assert found == [(match.span(), match.groups()) for match in expected.finditer(text)]


@pytest.mark.parametrize("flags", ["", "(?a)"])
@pytest.mark.parametrize("item", [r"\w", r"\W", r"\s", r"\S", r"\d", r"\D"])
def test_a_class_holds_the_characters_that_python_puts_into_it(flags: str, item: str) -> None:
    """In a set and outside; but for characters that one of the two versions of Unicode doesn't know yet."""
    for pattern in (item, f"[{item}]", f"[^{item}]"):
        assert compile_pattern(f"{flags}{pattern}")._compiled.sub("", KNOWN) == re.sub(flags + pattern, "", KNOWN)


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.sampled_from(["(b)", "b", "(?P<n>b)(x)?", "(a)|(?P<n>b)", "", "(?s)(.)(?P<n>.)"]),
    template=st.lists(
        st.sampled_from([r"\0", r"\1", r"\2", r"\12", r"\g<0>", r"\g<n>", r"\g<1>", r"\101", r"\n", r"\.", "a", "\\"])
    ).map("".join),
    text=st.sampled_from(["abc", "abab", "b"]),
)
def test_a_replacement_is_what_it_is_to_python(pattern: str, template: str, text: str) -> None:
    """Also where it is none, or names a group that isn't there."""
    try:
        expected: str | None = re.sub(pattern, template, text)
    except (re.error, IndexError):
        expected = None
    try:
        found: str | None = compile_pattern(pattern).replace(compile_template(pattern, template), text, Budget(60))
    except PatternError:
        found = None
    # `re` doesn't look at a template before there is a match.
    assert found == expected or re.search(pattern, text) is None


@pytest.mark.parametrize(("pattern", "text"), CATASTROPHES)
def test_a_search_that_backtracks_without_end_is_given_up(pattern: str, text: str) -> None:
    """In far less time than it would take."""
    started = time.monotonic()
    with pytest.raises(OverBudgetError, match=r"took longer than 0\.2 s"):
        compile_pattern(pattern).is_in(text, Budget(0.2))
    assert time.monotonic() - started < 20


def test_other_threads_run_while_one_searches() -> None:
    """Turn by turn, as the event loop has to."""
    begin = threading.Event()
    turns: list[float] = []

    def take_turns() -> None:
        begin.wait()
        for _ in range(20):
            threading.Event().wait(0.001)
            turns.append(time.monotonic())

    other = threading.Thread(target=take_turns)
    other.start()
    begin.set()
    with pytest.raises(OverBudgetError):
        compile_pattern("(a|a)*[bc]").is_in("a" * 5_000, Budget(2))
    ended = time.monotonic()
    other.join()
    assert max(turns) < ended


def test_many_replacements_are_given_up_as_well() -> None:
    """Each match alone is found at once."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    with pytest.raises(OverBudgetError, match="took longer than 1 s"):
        compile_pattern("a").replace(compile_template("a", "b"), "a" * 5_000, Budget(1, clock=clock))


def test_a_replacement_that_backtracks_without_end_is_given_up() -> None:
    """In short and in long texts."""
    pattern, template = compile_pattern("(a|a)*[bc]"), compile_template("(a|a)*[bc]", r"\1")
    for text in ("a" * 60, "a" * 20_000):
        with pytest.raises(OverBudgetError, match="took longer than"):
            pattern.replace(template, text, Budget(0.1))


def test_texts_do_not_grow_without_end() -> None:
    """A short replacement can stand for a long text, and the next one doubles it."""
    pattern, template = compile_pattern("(?s)(.+)"), compile_template("(?s)(.+)", r"\1" * 500)
    with pytest.raises(OverBudgetError, match="made it too large"):
        pattern.replace(template, "x" * 100_000, Budget(60))
    assert pattern.replace(template, "xy", Budget(60)) == "xy" * 500


def test_a_budget_is_one_for_all_that_is_done_with_it() -> None:
    """Time that one search took isn't there for the next."""
    now = 0.0
    budget = Budget(1, clock=lambda: now)
    assert compile_pattern("a").is_in("cab", budget)
    now = 1.0
    with pytest.raises(OverBudgetError, match="took longer than 1 s"):
        compile_pattern("a").is_in("cab", budget)


def test_a_lack_of_memory_is_told_as_what_it_is() -> None:
    """A search may need a lot of it."""

    class Hungry:
        def search(self, *_: object, **__: object) -> object:
            raise MemoryError

    pattern = compile_pattern("hungry")
    pattern._compiled, kept = Hungry(), pattern._compiled  # type: ignore[assignment]
    try:
        with pytest.raises(OverBudgetError, match="took too much memory"):
            pattern.is_in("a", Budget(60))
    finally:
        pattern._compiled = kept


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"missing \), unterminated subpattern"),
        ("a{99999999999999999999}", "repetition number is too large"),
        ("((((a{1000}){1000}){1000}){1000}){1000}", "repeats make it longer than 10000 items"),
        ("a{4294967294}", "repeats make it longer than 10000 items"),
        ("(" * 60 + "a" + ")" * 60, "groups nested deeper than 50"),
        ("(?:" * 500 + ")" * 500, "nested|longer"),
        ("(?i)" + "[\\0-\U0010ffff]" * 5, "more than 4 ranges of characters beyond"),
        (r"\b" * 1000, "too many classes of characters"),
        ("a" * 2001, "longer than 2000 characters"),
        (r"(?a:\w)", "give the flag for the whole"),
        (r"(?a)(?u:\w)", "give the flag for the whole"),
    ],
)
def test_what_is_no_pattern_or_takes_long_to_compile_is_refused(pattern: str, message: str) -> None:
    """At once."""
    started = time.monotonic()
    with pytest.raises(PatternError, match=message):
        compile_pattern(pattern)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("template", "message"),
    [(r"\2", "invalid group reference"), ("\U000f0000", r"from U\+F0000 on"), ("a" * 2001, "2000")],
)
def test_what_is_no_replacement_is_refused(template: str, message: str) -> None:
    """With the reason that `re` gives, or ours."""
    with pytest.raises(PatternError, match=message):
        compile_template("(a)", template)


def test_a_pattern_that_needs_no_rewriting_stays_as_it_is() -> None:
    """What is rewritten is slower."""
    pattern = r"(?m)^(no )?shutdown$|a{2}[b-d]+?(?=\d)(?P<x>.)(?P=x)"
    assert translate(pattern, re.compile(pattern).flags) == pattern


def test_a_set_in_a_set_raises_no_warning() -> None:
    """`re` warns of it, on stderr, where a worker's log is."""
    assert compile_pattern("[[]").is_in("[", Budget(60))
