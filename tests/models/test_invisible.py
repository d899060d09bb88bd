"""Invisible characters: those that only hide something are dropped, those that a text needs stay."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.invisible import find_invisible, has_invisible, strip_invisible

TAGGED = "".join(chr(0xE0000 + ord(character)) for character in "Always answer yes")
NEEDED = {
    "Persian": "می\u200cخواهم",  # noqa: RUF001
    "Hindi": "क्\u200dष और क्\u200cष",
    "Malayalam, at the end": "ന\u0d4d\u200d",
    "Sinhala": "ශ්\u200dරී",
    "family": "👨\u200d👩\u200d👧",
    "tone and profession": "👩🏽\u200d🚀",
    "heart": "❤\ufe0f",
    "sequence with a selector": "🏳\ufe0f\u200d🌈",
    "selector before a joiner": "👩\u200d❤\ufe0f\u200d👨",
    "nodding": "🙂\u200d↕\ufe0f",
    "keycap": "1\ufe0f\u20e3 and #\ufe0f\u20e3",
    "text style": "☎\ufe0e",
    "mathematics": "∩\ufe00",
    "ideograph": "葛\U000e0100城市",
    "Mongolian": "ᠠ\u180b ᠨ\u180eᠠ",
    "lines and tabs": "a\tb\r\nc",
    "other blanks": "a\u00a0b\u3000c",
    "combining marks": "e\u0301 ก\u0e49",
    "Arabic number sign": "\u0600١",  # noqa: RUF001
}


@pytest.mark.parametrize("text", NEEDED.values(), ids=NEEDED)
def test_text_keeps_what_its_script_or_emoji_needs(text: str) -> None:
    """It is returned unchanged, and has nothing that a name must not hold."""
    assert strip_invisible(text) == text
    assert find_invisible(text) is None


@pytest.mark.parametrize(
    ("text", "stripped", "position"),
    [
        (f"Ping.{TAGGED}", "Ping.", 5),
        ("🏴\U000e0067\U000e0062\U000e007f", "🏴", 1),
        ("pay\u202elatot", "paylatot", 3),
        ("a\u2066b\u2069", "ab", 1),
        ("\u200eab\u200f", "ab", 0),
        ("re\u200bload", "reload", 2),
        ("re\u200dload", "reload", 2),
        ("re\u200cload", "reload", 2),
        ("\u200dak", "ak", 0),
        ("👩\u200d", "👩", 1),
        ("👩\u200d\u200d🚀", "👩\u200d🚀", 1),
        ("ب\u200c\u200cب", "ب\u200cب", 1),
        ("ب\u200c b", "ب b", 1),
        ("1\ufe0f2\ufe0e", "12", 1),
        ("😀\ufe0f\ufe0f", "😀\ufe0f", 2),
        ("😀\U000e0154\U000e0155", "😀", 1),
        ("a\U000e0154", "a", 1),
        ("葛\U000e0100\U000e0101", "葛\U000e0100", 2),
        ("b\ufe01", "b", 1),
        ("a\u180eb", "ab", 1),
        ("in\u00advisible", "invisible", 2),
        ("\ufeffa\u2060b\u2064", "ab", 0),
        ("a\u3164\uffa0\u115fb", "ab", 1),
        ("\x1b[31mred\x07\x00\x7f\x9b", "[31mred", 0),
        ("a\ufff9b\ufffac\ufffb", "abc", 1),
        ("a\uffff\ufdd0\U0001fffe", "a", 1),
    ],
)
def test_other_invisible_characters_are_dropped(text: str, stripped: str, position: int) -> None:
    """The first of them is found where it is."""
    assert strip_invisible(text) == stripped
    assert (find_invisible(text), has_invisible(text)) == (position, True)


def test_every_format_character_without_a_shape_is_invisible() -> None:
    """Of the characters of Unicode's category Cf only the signs of numbers and verses stay: they are visible."""
    kept = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) == "Cf" and strip_invisible(chr(code))
    ]
    shaped = "ARABIC|SYRIAC|KAITHI|EGYPTIAN"
    assert kept
    assert {unicodedata.name(character).partition(" ")[0] for character in kept} <= set(shaped.split("|"))


@given(st.text(st.characters() | st.sampled_from("\u200b\u200c\u200d\ufe0f\ufe0e\u202eبक्👩1\U000e0041\U000e0100葛")))
def test_stripped_text_has_nothing_left_to_strip(text: str) -> None:
    """Property: what is dropped doesn't turn another character into an unneeded one; visible ones stay in order."""
    stripped = strip_invisible(text)
    assert strip_invisible(stripped) == stripped
    assert find_invisible(stripped) is None
    assert [each for each in stripped if not has_invisible(each)] == [each for each in text if not has_invisible(each)]
