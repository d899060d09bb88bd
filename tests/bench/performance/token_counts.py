"""The numbers of tokens and users between which growth is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from subjects.sites import token_rows

MANY = 100_000
FLAT = 1.5
"""Up to this factor two costs count as the same."""

CACHE_MISSES_US = 0.5
"""What a look-up may take longer among so many tokens that no cache of the processor holds them all."""


@dataclass(frozen=True)
class TokenCount:
    """A number of tokens that are shared out among a number of users."""

    tokens: int
    users: int

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield user name and token of each."""
        return token_rows(self.tokens, self.users)


TOKEN_COUNTS = {"100": TokenCount(100, 100), "100,000": TokenCount(MANY, 1_000), "of one user": TokenCount(MANY, 1)}
"""By the headings of a table's columns; the first is what the others are compared with."""

GROUPS = {10: 20, 1_000: 5}
"""How many users there are with so many tokens each, in a stock of many."""

_USERS_OF_THE_REST = 1_000


def grouped_rows() -> Iterator[tuple[str, str]]:
    """Yield many tokens: those of the groups' users, named `group_user`, and the rest dealt out to others."""
    left = MANY
    for size, users in GROUPS.items():
        for number in range(users):
            for each in range(size):
                yield group_user(size, number), f"group-{size}-{number}-{each}"
        left -= size * users
    yield from token_rows(left, _USERS_OF_THE_REST)


def group_user(size: int, number: int) -> str:
    """Return the name of a user that has `size` tokens."""
    return f"with-{size}-{number}"
