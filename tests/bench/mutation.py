"""Mutation testing: small faults are put into the code, one at a time, and the tests have to notice each of them.

    python tests/bench/mutation.py [--rooms ROOM,ROOM] [--sample N] [--seed N] [--results FILE] [--again FILE]

For each room (see mutants/rooms.py) N places are chosen by chance, each for one change. The same seed chooses the same
places while the code is the same. The tests that reach the changed line run in the order of their duration until one
of them fails; tests marked `slow` only with `--slow`. The sources are changed in a temporary copy. What mutants/
equivalent.toml names is counted apart. Needs `pip install '.[test,mutation]'`.

Exits with 1 if a mutant survived that isn't named there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from mutants.equivalents import Equivalent, find_outdated, read_equivalents
from mutants.laboratory import Laboratory
from mutants.mutants import Mutant, choose_mutants, repeat_mutant
from mutants.rooms import ROOMS, Room

ROOT = Path(__file__).resolve().parents[2]
NICENESS = 10


def main() -> int:
    """Try mutants of each room and print figures; return 1 if one survived."""
    options = _read_arguments()
    os.nice(NICENESS)
    equivalents = read_equivalents()
    for entry in find_outdated(ROOT, equivalents):
        _write(f"equivalent.toml: {entry.file} doesn't say {entry.before!r} any more")
    figures = {name: _try_room(name, equivalents, options) for name in options.rooms}
    for name, counts in figures.items():
        _write(f"{name}: {_format(counts)}")
    return 1 if any(counts["survived"] for counts in figures.values()) else 0


def _try_room(name: str, equivalents: list[Equivalent], options: argparse.Namespace) -> Counter[str]:
    room = ROOMS[name] if options.tests is None else replace(ROOMS[name], tests=options.tests)
    files = [file for file in room.files(ROOT) if options.file in file]
    chance = random.Random(f"{options.seed} {name}")  # noqa: S311  no secrets: the same seed chooses the same again
    if options.again:
        mutants = list(_read_survivors(options.again, name))
        _write(f"{name}: {len(mutants)} that survived")
    else:
        mutants, places = choose_mutants(ROOT, files, options.sample, chance)
        _write(f"{name}: {len(mutants)} of {places} places")
    counts: Counter[str] = Counter()
    for mutant, outcome, reason in _try_mutants(room, mutants, options):
        is_named = outcome == "survived" and any(each.covers(mutant) for each in equivalents)
        word = "equivalent" if is_named else outcome
        counts[word] += 1
        if options.results:
            values = {key: value for key, value in asdict(mutant).items() if key != "source"}
            with options.results.open("a", encoding="utf-8") as results:
                results.write(json.dumps({"room": name, "outcome": word, "reason": reason, **values}) + "\n")
        if word in {"survived", "slow"} or options.verbose:
            _write(f"{word}: {mutant.file}:{mutant.line} ({mutant.kind}; {reason})")
            _write(f"    - {mutant.before}\n    + {mutant.after}")
    return counts


def _read_survivors(results: Path, room: str) -> Iterator[Mutant]:
    """Make the mutants again that survived in a room when their line was written."""
    for entry in map(json.loads, results.read_text(encoding="utf-8").splitlines()):
        if entry["outcome"] == "survived" and entry["room"] == room:
            place = {key: entry[key] for key in ("file", "line", "before", "after")}
            mutant = repeat_mutant(ROOT, **place)
            if mutant is None:
                _write(f"gone: {entry['file']}:{entry['line']} {entry['before']}")
            else:
                yield mutant


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _try_mutants(room: Room, mutants: list[Mutant], options: argparse.Namespace) -> Iterator[tuple[Mutant, str, str]]:
    with tempfile.TemporaryDirectory(prefix="nfm-", ignore_cleanup_errors=True) as folder:
        begin = time.monotonic()
        laboratory = Laboratory(ROOT, Path(folder), room, ["-m", ""] if options.slow else [])
        tests = laboratory.first.seconds
        _write(f"    {len(tests)} tests in {time.monotonic() - begin:.0f} s")
        for test in laboratory.first.failed:
            _write(f"    left out, fails without a change: {test}")
        for mutant in mutants:
            yield mutant, *laboratory.try_mutant(mutant)


def _format(counts: Counter[str]) -> str:
    """Say how many of those that can be noticed were."""
    noticed = counts["killed"] + counts["slow"] + counts["broken"]
    total = noticed + counts["survived"]
    details = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return f"{noticed} of {total} noticed ({100 * noticed / max(total, 1):.0f} %): {details}"


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rooms", type=lambda text: text.split(","), default=list(ROOMS), help=", ".join(ROOMS))
    parser.add_argument("--file", default="", help="only files with this in their path")
    parser.add_argument("--tests", action="append", help="run these instead of the room's; may be repeated")
    parser.add_argument("--sample", type=int, default=40, help="places in each room (default: 40)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--results", type=Path, help="append a JSON line for each mutant to this file")
    parser.add_argument("--again", type=Path, metavar="FILE", help="try only what survived in such a file")
    parser.add_argument("--slow", action="store_true", help="run tests marked slow too")
    parser.add_argument("--verbose", action="store_true", help="print all mutants")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(ROOMS)
    if unknown:
        parser.error(f"no room {', '.join(sorted(unknown))}: the rooms are {', '.join(ROOMS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
