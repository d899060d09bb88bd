"""Invisible characters: which ones a text needs, and which ones only hide something from its reader.

Models read what people don't see: tag characters can spell whole sentences, bidirectional controls reorder a line, and
zero-width characters split a word or make two names look alike. The same characters join emoji and shape letters. They
count as needed only where a script or an emoji sequence has a use for them:

    U+200C, U+200D    joiners: between letters of scripts that join or stack, after a virama; U+200D between emoji
    U+FE0E, U+FE0F    variation selectors: after a symbol or an emoji, and in keycaps
    U+FE00-U+FE0D     variation selectors: after mathematical symbols, ideographs, letters of Myanmar and Phags-pa
    U+E0100-U+E01EF   variation selectors: after an ideograph
    U+180B-U+180F     Mongolian selectors and vowel separator: after a Mongolian letter

No two of a kind in a row. All others have no use in a line of text: control characters other than tab and
line breaks, bidirectional controls, tags, soft hyphens, fillers, word joiners, byte order marks, noncharacters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_NONCHARACTERS = "".join(chr(plane * 0x10000 + 0xFFFE) + chr(plane * 0x10000 + 0xFFFF) for plane in range(17))
# Default_Ignorable_Code_Point of Unicode, control characters, interlinear annotation, noncharacters.
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f"
    "\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u3164\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb"
    f"\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff{_NONCHARACTERS}]"
)
_PIECE = 65_536
_JOINERS = "\u200c\u200d"
_ZERO_WIDTH_JOINER = "\u200d"
_VARIATION_SELECTOR = re.compile("[\\ufe00-\\ufe0f\\U000e0100-\\U000e01ef]")
_KEYCAP = "\u20e3"
_KEYCAP_BASES = "#*0123456789"
_EMOJI_AMONG_OTHERS = "\u203c\u2049\u2139\u3030"
_VIRAMA = 9  # canonical combining class

# Scripts whose letters join or stack: Arabic, Syriac, N'Ko, Mandaic; from Devanagari to Sinhala; Tibetan, Myanmar;
# Khmer, Mongolian; from Limbu to Vedic signs; from Syloti Nagri to Meetei Mayek; Arabic forms; historic ones.
_JOINED = (
    *((0x0600, 0x08FF), (0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x18AF), (0x1900, 0x1CFF), (0xA800, 0xABFF)),
    *((0xFB50, 0xFDFF), (0xFE70, 0xFEFC), (0x10A00, 0x11FFF), (0x1E900, 0x1E95F)),
)
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFD))
_SELECTED = (*_IDEOGRAPHS, (0x1000, 0x109F), (0x3001, 0x3002), (0xA840, 0xA87F), (0xAA60, 0xAA7F), (0xFF01, 0xFF1F))
_EMOJI = ((0x2190, 0x21FF), (0x25FB, 0x25FE), (0x1F000, 0x1FAFF))
_MONGOLIAN = ((0x1820, 0x18AA),)


def has_invisible(text: str) -> bool:
    """Return whether a text has any invisible character, needed or not; fast, and other threads may run meanwhile."""
    if text.isascii() and text.isprintable():
        return False
    return any(_INVISIBLE.search(text, start, start + _PIECE) for start in range(0, len(text), _PIECE))


def strip_invisible(text: str) -> str:
    """Return a text without the invisible characters that it doesn't need."""
    if _INVISIBLE.search(text) is None:
        return text
    dropped = set(_unneeded(text))
    return "".join(character for position, character in enumerate(text) if position not in dropped)


def find_invisible(text: str) -> int | None:
    """Return the position of the first invisible character that a text doesn't need, or None."""
    return next(_unneeded(text), None) if _INVISIBLE.search(text) else None


def find_ineffective_joiner(text: str) -> int | None:
    """Return the position of the first joiner that a text doesn't show, or None: names without it look the same.

    A joiner between letters shows after a virama; a non-joiner also between two letters that would join otherwise.
    """
    for position, character in enumerate(text):
        if character in _JOINERS and not _is_effective(character, text[:position], text[position + 1 :]):
            return position
    return None


def strip_variation_selectors(text: str) -> str:
    """Return a text without the variation selectors that choose between forms of one symbol or ideograph."""
    if _VARIATION_SELECTOR.search(text) is None:
        return text
    kept = set(_unneeded(text))
    stripped = "".join(
        character
        for position, character in enumerate(text)
        if position in kept or _VARIATION_SELECTOR.match(character) is None
    )
    # The second of two in a row takes the place of the first one.
    return stripped if stripped == text else strip_variation_selectors(stripped)


def _is_effective(joiner: str, before: str, after: str) -> bool:
    if unicodedata.combining(before[-1:] or " ") == _VIRAMA:
        return True
    if joiner == _ZERO_WIDTH_JOINER:
        return _is_emoji(after[:1] or " ")
    # Marks neither join nor keep others from joining.
    previous, following = _first_letter(reversed(before)), _first_letter(iter(after))
    return _has_form("<initial>", previous) and _has_form("<final>", following)


def _first_letter(characters: Iterator[str]) -> str:
    return next((each for each in characters if unicodedata.category(each) != "Mn"), "")


@cache
def _letters_with_form(form: str) -> frozenset[str]:
    """Return the letters that have a presentation form of a kind: `<initial>` before others, `<final>` after others."""
    single = re.compile(f"{form} ([0-9A-F]+)")  # ligatures have several letters
    found = (single.fullmatch(unicodedata.decomposition(chr(code))) for code in range(0xFB50, 0xFEFD))
    return frozenset(chr(int(each[1], 16)) for each in found if each is not None)


def _has_form(form: str, letter: str) -> bool:
    return letter in _letters_with_form(form)


def _unneeded(text: str) -> Iterator[int]:
    previous = base = ""  # the last character that stays; the last one that is visible
    for position, character in enumerate(text):
        if _INVISIBLE.match(character) is None:
            previous = base = character
            continue
        following = text[position + 1 : position + 2]
        if _is_needed(character, previous, base, following):
            previous = character
        else:
            yield position


def _is_needed(character: str, previous: str, base: str, following: str) -> bool:
    if not previous:
        return False
    if character in _JOINERS:
        return _joins(character, previous, base, following)
    return previous == base and _selects(character, base, following)


def _selects(selector: str, base: str, following: str) -> bool:
    if selector in "\ufe0e\ufe0f":
        return _is_symbol(base) or (base in _KEYCAP_BASES and following == _KEYCAP)
    if "\ufe00" <= selector <= "\ufe0d":
        return _is_in(base, _SELECTED) or unicodedata.category(base) == "Sm"
    if "\U000e0100" <= selector <= "\U000e01ef":
        return _is_in(base, _IDEOGRAPHS)
    return "\u180b" <= selector <= "\u180f" and _is_in(base, _MONGOLIAN)


def _joins(joiner: str, previous: str, base: str, following: str) -> bool:
    is_styled = "\ufe0e" <= previous <= "\ufe0f"
    is_between_emoji = bool(following) and _is_emoji(base) and _is_emoji(following)
    if joiner == _ZERO_WIDTH_JOINER and is_between_emoji and (previous == base or is_styled):
        return True
    if previous != base or not _is_in(base, _JOINED):
        return False
    return unicodedata.combining(base) == _VIRAMA or (bool(following) and _is_joined(following) and _is_joined(base))


def _is_symbol(character: str) -> bool:
    is_one = unicodedata.category(character).startswith("S") or _is_in(character, _EMOJI)
    return is_one or character in _EMOJI_AMONG_OTHERS


def _is_emoji(character: str) -> bool:
    return unicodedata.category(character) == "So" or _is_in(character, _EMOJI)


def _is_joined(character: str) -> bool:
    return _is_in(character, _JOINED) and unicodedata.category(character)[0] in "LM"


def _is_in(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)
