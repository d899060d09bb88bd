"""Bring the tokens of several workers together: for `fastmcp tokens sync`.

Each step is durable on its worker before the next one, and repeating all of it changes nothing, so that it may be
interrupted at any time. A token that changes meanwhile is left as it is, and compared again in the next round.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...models.errors import UsageError
from ...models.tasks.token_sync import MAX_CHANGES, Merged, SyncedToken, TokenState
from ..job_client import JobClient
from .merging import Changes, MergeRule
from .workers import ComparedWorkers, batches, merged_users

ROUNDS = 3
_NAMES = ("stored", "deleted", "kept", "expired")


class TokenSync:
    """One synchronization.

    `counts` has by worker how many tokens were stored and deleted there, kept because they changed meanwhile in the
    last round, or skipped as expired there. `conflicts` describe tokens with different users, `failures` are the
    reasons of workers that failed.
    """

    def __init__(self, client: JobClient, *, sources: Sequence[str], targets: Sequence[str], timeout: float) -> None:
        """Compare the workers; empty `sources` are all workers, empty `targets` all others.

        Raises:
            UsageError: the only source is the only target.
            NoWorkersError: a source or target doesn't exist; nothing was sent.
            TaskError: the workers have different fleet keys.
            NfcliError: as the client does.
        """
        if sources and set(sources) == set(targets):
            raise UsageError(f"from and to name the same worker, {sources[0]}: name another one")
        names = [*dict.fromkeys([*sources, *targets])]
        if names:
            client.check_workers(names)
        self._compared = ComparedWorkers(client, names if sources and targets else "all", timeout)
        self._compared.check_comparable()
        self._sources, self._targets = sources, targets
        self.counts: dict[str, dict[str, int]] = {}
        self.conflicts: list[str] = []

    @property
    def failures(self) -> dict[str, str]:
        """The reasons of the workers that failed."""
        return self._compared.failures

    def run(self) -> None:
        """Bring the tokens together, in rounds until nothing is left to do."""
        targets = self._present_targets()
        self.counts = {worker: dict.fromkeys(_NAMES, 0) for worker in targets}
        for _ in range(ROUNDS):
            for counts in self.counts.values():
                counts["kept"] = counts["expired"] = 0
            self._run_round()
            if not any(counts["kept"] for counts in self.counts.values()):
                return
            self._compared.compare_again()

    def _present_sources(self) -> list[str]:
        return [worker for worker in sorted(self._compared.reports) if not self._sources or worker in self._sources]

    def _present_targets(self) -> list[str]:
        present = sorted(self._compared.reports)
        if self._targets:
            return [worker for worker in present if worker in self._targets]
        return [worker for worker in present if [worker] != list(self._sources)]

    def _run_round(self) -> None:
        self.conflicts = []
        groups = self._compared.different_ranges()
        users = {
            target: merged_users(self._compared.reports, {*self._present_sources(), target})
            for target in self._present_targets()
        }
        for target, deleted in users.items():
            self._spread_users(target, deleted)
        for ranges in groups:
            states = list(self._compared.states(ranges))
            targets = self._present_targets()
            rule = MergeRule(self._present_sources(), targets, users)
            self._carry_out(rule.changes(states))

    def _spread_users(self, target: str, deleted: dict[str, float]) -> None:
        """Make deletions of users known; the tokens that only the target had are deleted with them."""
        own = self._compared.reports[target].users
        for batch in batches(((user, time) for user, time in deleted.items() if own.get(user) != time), MAX_CHANGES):
            self._merge(target, "bearer_token_merge_deletions", deleted=[], users=dict(batch))

    def _carry_out(self, changes: Changes) -> None:
        self.conflicts += changes.conflicts
        for target, deletions in changes.deletions.items():
            for batch in batches(deletions, MAX_CHANGES):
                deleted = [each.model_dump() for each in batch]
                self._merge(target, "bearer_token_merge_deletions", deleted=deleted, users={})
        for (target, source), copies in changes.copies.items():
            for batch in batches(copies, MAX_CHANGES):
                self._copy(target, source, batch)

    def _copy(self, target: str, source: str, copies: list[tuple[TokenState, str]]) -> None:
        """Read tokens from their source and store them at the target."""
        if not {target, source} <= self._compared.reports.keys():
            return
        read = self._compared.run("bearer_token_read", [source], ids=[state.id for state, _ in copies])
        expected = {state.id: (state.version, version) for state, version in copies}
        tokens = []
        for value in read.get(source) or []:
            token = self._compared.validated(source, SyncedToken, value)
            if token is not None and token.version == expected.get(token.id, ("", ""))[0]:  # else it has changed
                tokens.append(token.model_dump() | {"version": expected[token.id][1]})
        if target in self.counts:
            self.counts[target]["kept"] += len(copies) - len(tokens)
        if tokens:
            self._merge(target, "bearer_token_merge", tokens=tokens)

    def _merge(self, target: str, task: str, **kwargs: object) -> None:
        if target not in self._compared.reports:
            return
        value = self._compared.run(task, [target], **kwargs).get(target)
        merged = None if value is None else self._compared.validated(target, Merged, value)
        if merged is not None:
            for name in _NAMES:
                self.counts[target][name] += getattr(merged, name)
