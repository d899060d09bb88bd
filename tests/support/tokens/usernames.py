"""User names that may be stored, by a rule that is written independently of the program's."""

from __future__ import annotations

import unicodedata
from functools import partial

import regex
from hypothesis import strategies as st

_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp", "Zs"})
_IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def is_refused(character: str) -> bool:
    """Whether a name can't have a character, unless it is a joiner that a script or an emoji needs there."""
    is_invisible = unicodedata.category(character) in _REFUSED_CATEGORIES or _IGNORABLE.match(character) is not None
    return character != " " and is_invisible


name_characters = st.characters(exclude_categories=("C", "Z")).filter(lambda each: not is_refused(each))
valid_names = (
    st.text(name_characters | st.just(" "), min_size=1, max_size=256)
    .map(partial(unicodedata.normalize, "NFC"))
    .filter(lambda text: text == text.strip() and len(text) <= 256)
)
"""Composed text (NFC) of 1 to 256 characters, no blank at either end."""
