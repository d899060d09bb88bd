"""Regular expressions with a time limit that find what `re` finds."""

from __future__ import annotations

import re
import threading
import time
import unicodedata
import warnings
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nfcli.models.patterns.bounded import (
    Budget,
    BudgetExceeded,
    Pattern,
    PatternError,
    compile_pattern,
    compile_template,
)

# All characters up to U+FFFF that Python's version of Unicode assigns.
KNOWN = "".join(each for each in map(chr, range(0x10000)) if unicodedata.category(each) not in {"Cn", "Co", "Cs"})
PLAIN = "a b i I x _ é \u017f \u212a - # 0 < = , : & ~"
ESCAPED = r"\w \W \s \S \d \D \b \B . ^ $ \A \Z \1 \x61 \u0061 \101 \0 \# \- \[ \] \{"
BRACKETS = "[ [^ [] [^] [a- ] ( (?: (?i: (?-i: (?x: (?s: (?a: (?= (?! (?<= (?<! (?> (?P<n> (?P=n) (?(1) ) | && -- (?#c)"
SETS = r"[[:alpha:]] [[:x] [^\s\S] [\w\W] [^\W_] [a[b] [\]:]"
REPEATS = "* + ? { } {2} {1,} {,2} {,} {} {e<=1} {id} {2i+1d<=3} {1,2}? {1}+ *+ ?+"
PIECES = st.sampled_from([*f"{PLAIN} {ESCAPED} {BRACKETS} {SETS} {REPEATS}".split(), " ", "\n"])
FLAGS = st.sampled_from(["", "(?i)", "(?x)", "(?ix)", "(?a)", "(?ai)", "(?m)", "(?s)"])
TEXTS = st.text("abiIx_ {}[],-:\né1#e<\u017fkK\u212a|&~", min_size=1, max_size=8)
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
    """Return the pattern that `re` compiles, or None if it isn't valid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.compile(pattern)
        except (re.error, OverflowError):
            return None


def all_groups_template(pattern: re.Pattern[str]) -> str:
    """Return a template that inserts a match and all its groups."""
    return "<" + "".join(f"\\g<{number}>|" for number in range(pattern.groups + 1)) + ">"


@settings(max_examples=500, deadline=None)
@given(flags=FLAGS, pieces=st.lists(PIECES, min_size=1, max_size=6), texts=st.lists(TEXTS, min_size=1, max_size=5))
@example("", ["[:a:]"], [":b"])
@example("", ["[[:alpha:]]"], ["a"])
@example("", [r"[^\s\S]"], ["a"])
@example("", ["a{e<=1}"], ["b"])
@example("", [r"(?a:\w)"], ["é"])
@example("", [r"[{e}]\{e<=1}"], ["e{e<=1}"])
@example("(?i)", ["[^\u212a]"], ["kK\u212ax"])
@example("(?x)", ["a # [ ( {e}\n", "{2}"], ["aa"])
@example("", ["(a)|b"], ["ab"])
def test_accepted_pattern_finds_what_python_finds(flags: str, pieces: list[str], texts: list[str]) -> None:
    """Property: an accepted pattern has the same matches and groups as in `re`."""
    pattern = flags + "".join(pieces)
    pattern += ")" * (pattern.count("(") - pattern.count(")") - pattern.count("[("))
    expected = outcome(pattern)
    assume(expected is not None)
    assert expected is not None
    try:
        compiled = compile_pattern(pattern)
    except PatternError:
        assume(False)
    template = all_groups_template(expected)
    for text in texts:
        assert compiled.search(text, Budget(60)) == (expected.search(text) is not None)
        found = compiled.replace(compile_template(pattern, template), text, Budget(60))
        assert found == expected.sub(template, text)


@pytest.mark.parametrize("flags", ["", "(?a)"])
@pytest.mark.parametrize("item", [r"\w", r"\s", r"\d"])
def test_class_differs_from_python_in_the_documented_characters_only(flags: str, item: str) -> None:
    """Words are Unicode's, with combining marks and without numbers such as ²; blanks exclude U+001C to U+001F."""
    documented = {r"\w": {"Mn", "Mc", "Me", "No", "So", "Pc", "Cf"}, r"\s": {"Cc"}, r"\d": set()}[item]
    nothing = compile_template(item, "")
    for pattern in (item, item.upper(), f"[^{item}]"):
        kept = compile_pattern(flags + pattern).replace(nothing, KNOWN, Budget(60))
        differing = set(kept) ^ set(re.sub(flags + pattern, "", KNOWN))
        assert {unicodedata.category(each) for each in differing} == (set() if flags else documented)
        assert documented != {"Cc"} or differing <= set("\x1c\x1d\x1e\x1f")


def test_case_folding_differs_from_python_in_forms_of_i_only() -> None:
    """`re` treats the dotless and the dotted i as forms of i."""
    cased = "".join(each for each in KNOWN if each.lower() != each or each.upper() != each)
    differing = set()
    for letter in cased:
        pattern = "(?i)" + letter
        kept = compile_pattern(pattern).replace(compile_template(pattern, ""), cased, Budget(60))
        if kept != re.sub(pattern, "", cased):
            differing.add(letter)
    assert differing == set("Ii\u0130\u0131")


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.sampled_from(["(b)", "b", "(?P<n>b)(x)?", "(a)|(?P<n>b)", "", "(?s)(.)(?P<n>.)"]),
    template=st.lists(
        st.sampled_from([r"\0", r"\1", r"\2", r"\12", r"\g<0>", r"\g<n>", r"\g<1>", r"\101", r"\n", r"\.", "a", "\\"])
    ).map("".join),
    text=st.sampled_from(["abc", "abab", "b"]),
)
def test_replacement_is_the_same_as_in_python(pattern: str, template: str, text: str) -> None:
    """Property: templates that `re` refuses are refused."""
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
def test_search_that_backtracks_endlessly_is_stopped(pattern: str, text: str) -> None:
    """It stops at the deadline of its budget."""
    started = time.monotonic()
    with pytest.raises(BudgetExceeded, match=r"took longer than 0\.2 s"):
        compile_pattern(pattern).search(text, Budget(0.2))
    assert time.monotonic() - started < 20


def test_other_threads_run_during_a_search() -> None:
    """A long search releases the interpreter's lock, so that the event loop goes on."""
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
    with pytest.raises(BudgetExceeded):
        compile_pattern("(a|a)*[bc]").search("a" * 5_000, Budget(2))
    ended = time.monotonic()
    other.join()
    assert max(turns) < ended


def test_many_replacements_are_stopped() -> None:
    """The deadline is checked for each match."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    with pytest.raises(BudgetExceeded, match="took longer than 1 s"):
        compile_pattern("a").replace(compile_template("a", "b"), "a" * 5_000, Budget(1, clock=clock))


def test_replacement_that_backtracks_endlessly_is_stopped() -> None:
    """This holds in short and in long texts."""
    pattern, template = compile_pattern("(a|a)*[bc]"), compile_template("(a|a)*[bc]", r"\1")
    for text in ("a" * 60, "a" * 20_000):
        with pytest.raises(BudgetExceeded, match="took longer than"):
            pattern.replace(template, text, Budget(0.1))


def test_growth_of_texts_is_limited() -> None:
    """A short replacement can insert a long text many times."""
    pattern, template = compile_pattern("(?s)(.+)"), compile_template("(?s)(.+)", r"\1" * 500)
    with pytest.raises(BudgetExceeded, match="made it too large"):
        pattern.replace(template, "x" * 100_000, Budget(60))
    assert pattern.replace(template, "xy", Budget(60)) == "xy" * 500


def test_budget_is_shared_by_all_searches() -> None:
    """A search gets the time that earlier ones left."""
    now = 0.0
    budget = Budget(1, clock=lambda: now)
    assert compile_pattern("a").search("cab", budget)
    now = 1.0
    with pytest.raises(BudgetExceeded, match="took longer than 1 s"):
        compile_pattern("a").search("cab", budget)


def test_lack_of_memory_exceeds_the_budget() -> None:
    """A search that runs out of memory raises the error of a search that runs out of time."""

    class Hungry:
        def search(self, *_: object, **__: object) -> object:
            raise MemoryError

    hungry: Any = Hungry()
    with pytest.raises(BudgetExceeded, match="took too much memory"):
        Pattern(hungry).search("a", Budget(60))


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
        ("a" * 2001, "longer than 2000 characters"),
        ("(?x)((a{1000}) # (\n {1000})", "repeats make it longer than 10000 items"),
        ("(a{1000})(?#x){1000}", "repeats make it longer than 10000 items"),
        (r"(?a:\w)", "flags a, u and x are not supported for a part: set them for the whole pattern"),
        (r"(?a)(?u:\w)", "for a part"),
        ("(?-x:a b)", "for a part"),
        (r"a{e<=1}", r"{e may start a fuzzy match: write \\{ for the brace"),
        ("a{2i+1d<=3}", "{2i may start a fuzzy match"),
        ("[[:alpha:]]", r"\[: may start a POSIX class: write \\\[ for the bracket"),
        (r"[^\s\S]", r"a set without any character, such as \[\^\\s\\S\], is not supported: write \(\?!\)"),
        (r"\p{L}", r"bad escape \\p at position 0"),
        ("(?R)", "unknown extension"),
    ],
)
def test_unsupported_pattern_is_refused_at_once(pattern: str, message: str) -> None:
    """The error names the limit, the construct with its remedy, or gives the reason of `re`."""
    started = time.monotonic()
    with pytest.raises(PatternError, match=message):
        compile_pattern(pattern)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("template", "message"),
    [(r"\2", "invalid group reference"), ("\U000f0000", r"from U\+F0000 on"), ("a" * 2001, "2000")],
)
def test_invalid_template_is_refused(template: str, message: str) -> None:
    """The error gives the reason of `re`, or names the limit."""
    with pytest.raises(PatternError, match=message):
        compile_template("(a)", template)


def test_bracket_in_a_set_raises_no_warning() -> None:
    """`re` alone would print a FutureWarning."""
    assert compile_pattern("[[]").search("[", Budget(60))
