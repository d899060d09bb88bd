"""What each worker lacks of what the others have: the rule by which the states of a token become one.

Of several records the one that was written last is valid, then the one that lives longest. A deletion is stronger than
every record that was written before it, and weaker than later ones. A token that has different users stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...models.tasks.token_sync import DeletedToken, TokenState


@dataclass
class Changes:
    """What is to be done: by target the deletions, and by target and source the states of tokens to carry over.

    `conflicts` describe tokens with different users.
    """

    deletions: dict[str, list[DeletedToken]] = field(default_factory=dict)
    copies: dict[tuple[str, str], list[tuple[TokenState, str]]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


class MergeRule:
    """Collects the changes of targets, which take over what the sources have.

    `users` are the deletions of users that each target knows once it has taken over those of the sources.
    """

    def __init__(
        self, sources: Iterable[str], targets: Iterable[str], users: Mapping[str, Mapping[str, float]]
    ) -> None:
        self._sources = list(sources)
        self._targets = list(targets)
        self._users = users

    def changes(self, tokens: Iterable[tuple[str, Mapping[str, TokenState]]]) -> Changes:
        """Return the changes for some tokens."""
        changes = Changes()
        for token_id, states in tokens:
            conflicts = {self._add(changes, token_id, states, target) for target in self._targets}
            changes.conflicts += sorted(conflict for conflict in conflicts if conflict)[:1]
        return changes

    def _add(self, changes: Changes, token_id: str, states: Mapping[str, TokenState], target: str) -> str:
        """Add what a target lacks of one token; return the description of a conflict, empty if there is none."""
        own = states.get(target)
        known = {worker: states[worker] for worker in {*self._sources, target} if worker in states}
        deleted = max((state.deleted for state in known.values() if state.deleted is not None), default=-math.inf)
        users = self._users[target]
        valid = {}
        for worker, state in known.items():
            if not state.is_stored:
                continue
            deletion = users.get(state.user, -math.inf)
            if (state.written or 0.0) > max(deleted, deletion):
                valid[worker] = state
            else:
                deleted = max(deleted, deletion, state.written or 0.0)
        if len({state.user for state in valid.values()}) > 1:
            sides = ", ".join(f"{state.username} on {worker}" for worker, state in sorted(valid.items()))
            return f"token {own.fingerprint if own else next(iter(valid.values())).fingerprint} belongs to {sides}"
        version = "" if own is None else own.version
        if valid:
            source = max(sorted(valid), key=lambda worker: valid[worker].rank)
            if not _are_equal(own, valid[source]):
                changes.copies.setdefault((target, source), []).append((valid[source], version))
        elif deleted > -math.inf and (own is None or own.is_stored or (own.deleted or 0.0) < deleted):
            change = DeletedToken(id=token_id, version=version, deleted=deleted)
            changes.deletions.setdefault(target, []).append(change)
        return ""


def _are_equal(one: TokenState | None, other: TokenState) -> bool:
    return one is not None and one.is_stored and (one.user, one.expires) == (other.user, other.expires)
