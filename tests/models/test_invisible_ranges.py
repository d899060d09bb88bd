"""Where the ranges of characters that `invisible` knows begin and end."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from nfcli.models.invisible import has_invisible, strip_invisible

# Default_Ignorable_Code_Point of Unicode, controls but tab and line breaks, interlinear annotation, noncharacters.
INVISIBLE = [
    *((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C)),
    *((0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F)),
    *((0x3164, 0x3164), (0xFDD0, 0xFDEF), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB)),
    *((0xFFFE, 0xFFFF), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0x1FFFE, 0x1FFFF), (0x2FFFE, 0x2FFFF)),
    *((0x3FFFE, 0x3FFFF), (0x4FFFE, 0x4FFFF), (0x5FFFE, 0x5FFFF), (0x6FFFE, 0x6FFFF), (0x7FFFE, 0x7FFFF)),
    *((0x8FFFE, 0x8FFFF), (0x9FFFE, 0x9FFFF), (0xAFFFE, 0xAFFFF), (0xBFFFE, 0xBFFFF), (0xCFFFE, 0xCFFFF)),
    *((0xDFFFE, 0xE0FFF), (0xEFFFE, 0xEFFFF), (0xFFFFE, 0xFFFFF), (0x10FFFE, 0x10FFFF)),
]
IDEOGRAPHS = ["\u3400\u4dbf", "\u4e00\u9fff", "\uf900\ufaff", "\U00020000\U0003fffd"]
SELECTED = [*IDEOGRAPHS, *["\u1000\u109f", "\u3001\u3002", "\ua840\ua87f", "\uaa60\uaa7f", "\uff01\uff1f"]]
JOINER, BETWEEN_LETTERS, STYLE = "\u200d", "\u200c", "\ufe0f"


def test_the_invisible_characters_are_those_of_unicode() -> None:
    """Of all characters these and no others."""
    codes = [code for code in range(sys.maxunicode + 1) if has_invisible(chr(code))]
    breaks = [index for index, (code, following) in enumerate(pairwise(codes), start=1) if following != code + 1]
    bounds = zip([0, *breaks], [*breaks, len(codes)], strict=True)
    assert [(codes[start], codes[end - 1]) for start, end in bounds] == INVISIBLE


@pytest.mark.parametrize(
    ("selectors", "ranges"),
    [
        ("\U000e0100\U000e01ef", IDEOGRAPHS),
        ("\ufe00\ufe0d", SELECTED),
        ("\u180b\u180f", ["\u1820\u18aa"]),
    ],
    ids=ascii,
)
def test_a_selector_stays_after_the_characters_that_have_variants(selectors: str, ranges: list[str]) -> None:
    """The first and the last selector of a kind stay after the first and the last of each range, not beside it."""
    for first, last in ranges:
        for selector in selectors:
            assert [base for base in _around(first, last) if _stays(base + selector)] == [first, last]


@pytest.mark.parametrize("outside", "\U000e00ff\U000e01f0\ufdff\u180a\u1810", ids=ascii)
def test_the_neighbours_of_selectors_select_nothing(outside: str) -> None:
    """They are visible, or go after an ideograph and a Mongolian letter too."""
    assert [_stays(f"{base}{outside}") for base in "葛ᠠ"] == [not has_invisible(outside)] * 2


@pytest.mark.parametrize(("first", "last"), ["\u2190\u21ff", "\u25fb\u25fe"], ids=ascii)
def test_arrows_and_squares_join_like_emoji(first: str, last: str) -> None:
    """They are mathematical symbols, whose other members don't join."""
    for text in (f"{{}}{JOINER}🚀", f"🚀{JOINER}{{}}"):
        assert [each for each in _around(first, last) if _stays(text.format(each))] == [first, last]


@pytest.mark.parametrize("emoji", "\U0001f000\U0001faff⌚☎🚀©", ids=ascii)
def test_emoji_join_and_take_a_style(emoji: str) -> None:
    """Also those that Unicode hasn't assigned yet, in the planes that it keeps for them."""
    for text in (f"{emoji}{JOINER}🚀", f"🚀{JOINER}{emoji}", f"{emoji}{STYLE}", f"{emoji}{STYLE}{JOINER}🚀"):
        assert _stays(text)


@pytest.mark.parametrize("symbol", "\u203c\u2049\u2139\u3030+$^♥", ids=ascii)
def test_symbols_take_a_style_and_do_not_join_unless_they_are_emoji(symbol: str) -> None:
    """Marks that have an emoji form are among other punctuation and letters."""
    assert _stays(f"{symbol}{STYLE}")
    assert _stays(f"{symbol}\ufe0e")
    assert _stays(f"{symbol}{JOINER}🚀") == (symbol == "♥")


@pytest.mark.parametrize("base", "#*0123456789")
def test_keycaps_take_a_style(base: str) -> None:
    """Of their bases only those before the keycap itself."""
    assert _stays(f"{base}\ufe0f\u20e3")
    assert _stays(f"{base}\ufe0e\u20e3")
    assert not _stays(f"{base}\ufe0f\u20e2")
    assert not _stays(f"{base}\ufe0f\u20e4")
    assert not _stays(f"{base}\ufe0f")
    assert not _stays(f"{base}\ufe00\u20e3")


@pytest.mark.parametrize("neighbour", "!$)+,-./:;~ab", ids=ascii)
def test_other_characters_of_ascii_are_no_keycaps(neighbour: str) -> None:
    """Symbols among them take a style, before a keycap and elsewhere."""
    assert _stays(f"{neighbour}\ufe0f\u20e3") == _stays(f"{neighbour}\ufe0f") == (neighbour in "$+~")


@pytest.mark.parametrize("tone", "\U0001f3fb\U0001f3ff", ids=ascii)
def test_a_tone_joins_what_follows(tone: str) -> None:
    """It is part of the emoji before it."""
    assert _stays(f"👩{tone}{JOINER}🚀")


@pytest.mark.parametrize(
    "letters",
    [
        "\u0620\u08ff",
        "\u0900\u0df3",
        "\u0f00\u109d",
        "\u1780\u18aa",
        "\u1900\u1cfa",
        "\ua800\uabed",
        "\ufb50\ufdfb",
        "\ufe70\ufefc",
        "\U00010a00\U00011fb0",
        "\U0001e900\U0001e94b",
    ],
    ids=ascii,
)
def test_letters_that_join_keep_joiners_between_them(letters: str) -> None:
    """The first and the last letter of each range, before a joiner and after it, of either kind."""
    for letter in letters:
        for joiner in (JOINER, BETWEEN_LETTERS):
            assert _stays(f"{letter}{joiner}ب")
            assert _stays(f"ب{joiner}{letter}")


@pytest.mark.parametrize(
    "other", "\u05ea\u0e01\u0eff\u10a0\u1d00\ua7ff\uac00\ufb4f\ufe00\U000109ff\U00012000٣؟ a", ids=ascii
)
def test_other_letters_keep_no_joiners(other: str) -> None:
    """Letters of scripts that don't join, and figures and marks of those that do."""
    for joiner in (JOINER, BETWEEN_LETTERS):
        assert not _stays(f"{other}{joiner}ب")
        assert not _stays(f"ب{joiner}{other}")


@pytest.mark.parametrize("text", ["क\u094d", "ന\u0d4d", "\u1039"], ids=ascii)
def test_a_virama_keeps_a_joiner_before_anything(text: str) -> None:
    """It asks for a form of the letter before it; a sign with another combining class doesn't."""
    assert _stays(f"{text}{JOINER} ")
    assert _stays(f"{text}{BETWEEN_LETTERS}")
    assert not _stays(f"क\u093c{JOINER} ")


@pytest.mark.parametrize(
    "text",
    [
        f"👩{BETWEEN_LETTERS}🚀",
        f"👩{JOINER}a",
        f"a{JOINER}🚀",
        f"👩\u20e3\ufe0d{JOINER}🚀",
        f"ب\u180b{JOINER}ب",
        f"∩\ufe00{JOINER}🚀",
        f"+\ufe0f{JOINER}🚀",
        "葛\ufe0f",
        "葛\U000e0100\ufe00",
        "葛\u180b",
        "ᠠ\ufe00",
        "ᠠ\U000e0100",
    ],
    ids=ascii,
)
def test_a_joiner_or_selector_of_another_kind_is_dropped(text: str) -> None:
    """Each has a use of its own only."""
    assert not _stays(text)


def _stays(text: str) -> bool:
    return strip_invisible(text) == text


def _around(first: str, last: str) -> list[str]:
    return [chr(ord(first) - 1), first, last, chr(ord(last) + 1)]
