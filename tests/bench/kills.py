"""Kill -9: a worker is killed at chosen moments under load, started again, and held to what it has acknowledged.

    python tests/bench/kills.py [--rounds N] [--seed N]

Several clients create, renew and delete tokens, and each keeps a ledger of its own. In each round the worker dies with
changes in flight: at an acknowledgement, in the middle of a write to a file, while it folds its write-ahead log into
the database, or once more while it starts. The next one must be there without anybody's help and hold what was
acknowledged; what wasn't is done or not done, but wholly. The same seed chooses the same moments.

tests/end_to_end/store/test_kills.py runs this too.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from endurance.crashing_worker import WORKER, CrashingWorker
from endurance.ledger import Change, Ledger, Row

from nfcli import NfcliError, NorFab

CLIENTS = 4
ROUNDS_A_SITE = 10
LIVE_TOKENS = 30
MAX_ACKNOWLEDGEMENTS = 400
"""A worker that hasn't met its moment by then is killed at once."""


class Operator:
    """One client that changes its own tokens without a pause."""

    def __init__(self, norfab: NorFab, name: str) -> None:
        self.client = norfab.make_client()
        self.ledger = Ledger()
        self._name = name
        self._users = [f"{name}-ann", f"{name}-bob"]
        self._count = 0

    def work(self, chance: random.Random, killer: Killer) -> list[str]:
        """Change tokens until the worker is dead; return what it refused while it lived."""
        while True:
            change = self.ledger.pending = self._choose(chance)
            try:
                (result,) = self.client.run_job("fastmcp", change.task, kwargs=change.kwargs, timeout=30).values()
                refusal = None if result["result"] is True else result["errors"]
            except NfcliError as error:
                refusal = error
            if refusal is not None:
                return [] if killer.has_struck.is_set() else [f"{change.task} {change.kwargs} is refused: {refusal}"]
            self.ledger.acknowledge()
            killer.count()

    def _choose(self, chance: random.Random) -> Change:
        live = self.ledger.live()
        what = chance.choices(["create", "renew", "delete", "delete user"], [45, 30, 20, 5])[0]
        expire = chance.choice([None, chance.randrange(10_000, 1_000_000)])
        if not live or (what == "create" and len(live) < LIVE_TOKENS):
            gone = self.ledger.gone()
            if not gone or chance.random() < 0.8:
                self._count += 1
                gone = [f"{self._name}-{self._count}"]
            return Change.store(chance.choice(self._users), chance.choice(gone), expire)
        token, username = chance.choice(list(live.items()))
        if what == "delete":
            return Change.delete([token], token=token)
        if what == "delete user":
            return Change.delete([each for each, owner in live.items() if owner == username], username=username)
        return Change.store(username, token, expire)


@dataclass(frozen=True)
class Plan:
    """When a worker dies.

    Args:
        acknowledgements: after so many since it was ready.
        write_bytes: not at once, but when it writes further than so many bytes beyond its longest file; None: at once.
        is_at_fold: not at once, but when it has begun to fold its write-ahead log into the database.
        start_bytes: the next one dies in its start, when it makes a file longer than this; None: it lives.
    """

    acknowledgements: int
    write_bytes: int | None = None
    is_at_fold: bool = False
    start_bytes: int | None = None

    @classmethod
    def choose(cls, chance: random.Random) -> Plan:
        """Return one of all kinds of moments."""
        kind = chance.choices(["at once", "write", "fold"], [50, 40, 10])[0]
        return cls(
            acknowledgements=chance.randint(1, 60),
            write_bytes=chance.randint(0, 40_000) if kind == "write" else None,
            is_at_fold=kind == "fold",
            start_bytes=_some_bytes(chance) if chance.random() < 0.25 else None,
        )


def _chance(*seeds: float) -> random.Random:
    return random.Random(str(seeds))  # noqa: S311  no secrets: the same seeds choose the same again


def _some_bytes(chance: random.Random) -> int:
    """Return the length of a key file, of a database, or anything between."""
    return int(10 ** chance.uniform(1.5, 5.5))


class Killer:
    """Counts acknowledgements and kills a worker when its moment has come; `has_struck` is set just before."""

    def __init__(self, worker: CrashingWorker, plan: Plan) -> None:
        self.has_struck = threading.Event()
        self.acknowledged = 0
        self._worker, self._plan = worker, plan
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count an acknowledgement; from any thread."""
        with self._lock:
            self.acknowledged += 1
            if self.acknowledged == self._plan.acknowledgements:
                self._strike()
            elif self.acknowledged == MAX_ACKNOWLEDGEMENTS:
                self._kill()

    def _strike(self) -> None:
        if self._plan.write_bytes is not None:
            self.has_struck.set()
            self._worker.limit_files(self._plan.write_bytes)
        elif self._plan.is_at_fold:
            threading.Thread(target=self._kill_at_fold, args=(self._worker.folded(),), daemon=True).start()
        else:
            self._kill()

    def _kill_at_fold(self, before: int) -> None:
        while not self.has_struck.is_set():
            if self._worker.folded() != before:
                self._kill()

    def _kill(self) -> None:
        self.has_struck.set()
        self._worker.process.kill()


class Site:
    """An environment, the workers that live and die in it one after the other, and their clients."""

    def __init__(self, worker: CrashingWorker, counts: Counter[str], start_bytes: int) -> None:
        self._worker = worker
        self._counts = counts
        self._acknowledged = 0
        self._begin(start_bytes)
        self.norfab = NorFab(worker.environment.inventory_file)
        self._operators = [Operator(self.norfab, f"c{number}") for number in range(CLIENTS)]

    def _begin(self, start_bytes: int | None) -> None:
        """Start the next worker; with `start_bytes` after one that dies in its start, if it writes that much."""
        if start_bytes is not None and not self._worker.start(start_bytes):
            self._counts["killed in their start"] += 1
        elif start_bytes is not None:
            self._worker.process.kill()
            self._worker.end()
        if not self._worker.start():
            raise AssertionError("a worker without a limit died of it")

    def round(self, plan: Plan, chance: random.Random) -> list[str]:
        """Let the worker work, die and be followed by the next; return what is wrong then."""
        killer = Killer(self._worker, plan)
        seeds = [chance.random() for _ in self._operators]
        with ThreadPoolExecutor(CLIENTS) as pool:
            work = [
                pool.submit(each.work, _chance(seed), killer) for each, seed in zip(self._operators, seeds, strict=True)
            ]
        findings = [line for done in work for line in done.result()]
        if findings:
            return findings
        self._worker.end()
        self._begin(plan.start_bytes)
        self._counts["rounds"] += 1
        self._counts["changes acknowledged"] += killer.acknowledged
        self._acknowledged += killer.acknowledged
        return self._compare(chance)

    def _compare(self, chance: random.Random) -> list[str]:
        """Return how the worker's listing, its answers to requests and its audit trail differ from the ledgers."""
        rows = self._rows()
        findings = []
        for ledger in [each.ledger for each in self._operators]:
            acknowledged = dict(ledger.state)
            findings += ledger.settle(rows)
            self._counts[f"in flight and {'not ' * (ledger.state == acknowledged)}done"] += 1
        known = {token for each in self._operators for token in each.ledger.state}
        findings += [f"token {token} was never stored: {dict(rows[token])}" for token in rows.keys() - known]
        ledger = chance.choice(self._operators).ledger
        for tokens, expected in ((list(ledger.live()), 200), (ledger.gone(), 401)):
            token = chance.choice([*tokens, None])
            if token is not None and (status := self._worker.status(token)) != expected:
                findings.append(f"a request with token {token} is answered {status} instead of {expected}")
        return findings + self._audit()

    def _audit(self) -> list[str]:
        """Return what is wrong with the audit trail: each change that was acknowledged has its line."""
        (result,) = self._operators[0].client.run_job("fastmcp", "verify_audit").values()
        if result["failed"]:
            return [f"the audit trail is not intact: {result['errors']}"]
        trail = Path(result["result"]["file"]).read_bytes().splitlines()
        lines = sum(b'"operation": "list"' not in line for line in trail)
        missing = self._acknowledged - lines
        return [f"the audit trail has {lines} lines for {self._acknowledged} changes"] if missing > 0 else []

    def _rows(self) -> dict[str, Row]:
        (result,) = self._operators[0].client.run_job("fastmcp", "bearer_token_list").values()
        return {row["token"]: row for row in result["result"]}


@contextmanager
def site(folder: Path, code: str, counts: Counter[str], start_bytes: int) -> Iterator[Site]:
    """Make a site whose first worker runs; its clients and its last worker end with the `with` block."""
    with ExitStack() as stack:
        worker = CrashingWorker(folder, code)
        stack.callback(worker.close)
        made = Site(worker, counts, start_bytes)
        stack.callback(made.norfab.destroy)
        yield made


def run(
    rounds: int, seed: int, folder: Path, code: str = WORKER, note: Callable[[str], None] = lambda _: None
) -> tuple[Counter[str], list[str]]:
    """Run rounds, in a new environment every few; return what was counted, and what was found wrong first.

    Args:
        rounds: how often the worker is killed under load.
        seed: chooses the changes and the moments.
        folder: where the environments are made.
        code: the program that the workers run (`crashing_worker.py`).
        note: called with each round.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        for number in range(rounds):
            chance = _chance(seed, number)
            if number % ROUNDS_A_SITE == 0:
                stack.close()
                place = Path(tempfile.mkdtemp(dir=folder))
                here = stack.enter_context(site(place, code, counts, start_bytes=_some_bytes(chance)))
            plan = Plan.choose(chance)
            note(f"round {number + 1}: {plan}")
            findings = here.round(plan, chance)
            if findings:
                return counts, [f"round {number + 1} with seed {seed}: {line}" for line in findings]
    return counts, []


def main() -> int:
    """Run the rounds that the command line asks for; return 1 if something was lost or has come back."""
    parser = argparse.ArgumentParser(description="Kill workers and hold the next ones to what was acknowledged.")
    parser.add_argument("--rounds", type=int, default=200, help="how often a worker is killed (200)")
    parser.add_argument("--seed", type=int, default=1, help="chooses changes and moments (1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nf") as folder:
        counts, findings = run(arguments.rounds, arguments.seed, Path(folder), note=_note)
    for line in findings:
        sys.stdout.write(f"{line}\n")
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    sys.stdout.write(f"{said}: {'WRONG' if findings else 'nothing acknowledged was lost, nothing deleted is back'}\n")
    return 1 if findings else 0


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
