"""The workers that a job to all must reach: those that the inventory names, and those that were seen before."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from ...models.environment.known_workers import MAX_WORKERS, KnownWorkers, utc_now
from ...models.environment.paths import Environment
from ...models.errors import EnvironmentFolderError, NfcliError, NoWorkersError
from ...models.inventory.schema import SERVICE, Inventory

_GLOB_CHARACTERS = frozenset("*?[")
_NO_ROOM = f"some workers can't be remembered: there are {MAX_WORKERS} already, or their names can't be typed"


@dataclass(frozen=True, slots=True)
class MissingWorker:
    """An expected worker that can't be reached: what is wrong, the remedy, and what to do if it is to stay away."""

    fault: str
    remedy: str
    release: str

    def __str__(self) -> str:
        """Return this as a line of a report."""
        return f"{self.fault}: {self.remedy}, or {self.release}"

    def error(self) -> NoWorkersError:
        """Return the error of a job that was to reach the worker."""
        return NoWorkersError(f"{self.fault}, so it was not reached: {self.remedy} and repeat this, or {self.release}")


class Fleet:
    """The expected workers of the service `fastmcp`: those of `topology.workers` and `fleet`, and every one seen.

    `notice` is called with a line if what was seen can't be stored; `is_recording` false stores nothing.
    """

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        *,
        notice: Callable[[str], None] | None = None,
        is_recording: bool = True,
    ) -> None:
        self._inventory = inventory
        self._globs = [name for name in inventory.fleet if _GLOB_CHARACTERS & set(name)]
        self._named = frozenset(inventory.fleet).difference(self._globs)
        self._local = frozenset(inventory.topology.workers).intersection(inventory.workers)
        self._notify = notice or (lambda _: None)
        self._is_recording = is_recording
        self._stored = KnownWorkers(environment)
        # Those that could not be stored are known to this process at least.
        self._unstored: dict[str, datetime] = {}
        self._notified: set[str] = set()

    def known(self) -> Mapping[str, datetime]:
        """Return when each worker that was seen before was last seen.

        Raises:
            EnvironmentFolderError: the file of these workers can't be read.
        """
        stored = self._stored.read()
        return {**self._unstored, **stored} if self._unstored else stored

    def record(self, names: Collection[str]) -> None:
        """Remember workers that a broker lists."""
        if not names or not self._is_recording:
            return
        now = utc_now()
        try:
            left_out = self._stored.add(names, now)
            reason = _NO_ROOM if left_out else ""
        except EnvironmentFolderError as error:
            left_out, reason = list(names), f"the workers that were seen can't be remembered: {error}"
        self._unstored.update(dict.fromkeys(left_out[: MAX_WORKERS - len(self._unstored)], now))
        if reason and reason not in self._notified:
            self._notified.add(reason)
            self._notify(reason)

    def missing(self, present: Collection[str], local: Collection[str] = ()) -> dict[str, MissingWorker]:
        """Return the expected workers that are not among the `present` ones, by name, or by glob if none has matched.

        `local`: workers of this machine that are expected as well.

        Raises:
            EnvironmentFolderError: as `known`.
        """
        known, present = self.known(), set(present)
        missing = {name: self._seen_before(name, known[name]) for name in known.keys() - present}
        for name in self._named - present:
            missing[name] = self._listed_in(name, "fleet")
        for name in self._local.union(local) - present:
            missing[name] = self._listed_in(name, "topology.workers")
        if self._globs:
            missing |= self._unmatched(present | known.keys() | missing.keys())
        return missing

    def forget(self, name: str, present: Collection[str]) -> None:
        """Forget a worker that was seen before.

        Raises:
            NfcliError: it wasn't seen, or is expected anyway: it is `present`, or the inventory names it.
            EnvironmentFolderError: the file can't be read or written.
        """
        known = self.known()
        if name in self._inventory.topology.workers:
            raise NfcliError(f"worker {name!r} is expected by topology.workers: remove it there")
        if name in self._inventory.fleet:
            raise NfcliError(f"worker {name!r} is expected by fleet in the inventory: remove it there")
        if name not in known:
            raise NfcliError(f"no worker {name!r} was seen before: there is {', '.join(sorted(known)) or 'none'}")
        if name in present:
            raise NfcliError(f"worker {name!r} is registered at the broker: stop it first")
        self._unstored.pop(name, None)
        self._stored.forget(name)

    def _unmatched(self, seen: Collection[str]) -> dict[str, MissingWorker]:
        unmatched = [glob for glob in self._globs if not any(fnmatchcase(name, glob) for name in seen)]
        reason = "no worker was seen yet that matches {} of fleet"
        return {glob: MissingWorker(reason.format(glob), "start one", "remove the glob there") for glob in unmatched}

    def _seen_before(self, name: str, since: datetime) -> MissingWorker:
        fault = f"worker {name}, last seen {since.astimezone():%Y-%m-%d %H:%M}, {self._absence}"
        return MissingWorker(fault, self._remedy, f"drop it with fastmcp workers forget {shlex.quote(name)}")

    def _listed_in(self, name: str, key: str) -> MissingWorker:
        return MissingWorker(f"worker {name} of {key} {self._absence}", self._remedy, f"remove it from {key}")

    @property
    def _absence(self) -> str:
        if self._inventory.broker is None:
            return "has no entry under workers"
        return f"is not registered at the broker for {SERVICE}"

    @property
    def _remedy(self) -> str:
        return "add one" if self._inventory.broker is None else "start it"
