"""What it takes to verify a token, with few and with many of them stored; each size in a process of its own."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, percentile
from sites import Sites, fill, token_rows

from nfcli.worker.token_store import TokenStore
from nfcli.worker.verifier import DiskcacheBearerTokenVerifier

SIZES = (100, 100_000)
CALLS, REFERENCE_CALLS = 20_000, 2_000
MICROSECONDS, NANOSECONDS = 1e6, 1e9
_TARGET_US = 2.0
_SAME = 1.5
"""Up to this factor the two sizes count as the same."""


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure each size."""
    medians: list[float] = []
    for size in SIZES:
        folder = sites.new_folder() / "tokens"
        fill(folder, size)
        command = [sys.executable, __file__, str(folder), str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = json.loads(done.stdout)
        theirs = None
        with sites.reference(start=False) as reference:
            if reference is not None:
                tokens = list(token_rows(size))
                theirs = reference.call("verify_seconds", tokens=tokens, calls=REFERENCE_CALLS)
        medians.append(percentile(seconds, 50) * MICROSECONDS)
        details = {"p99 us": percentile(seconds, 99) * MICROSECONDS}
        if theirs:
            details["reference p99 us"] = percentile(theirs, 99) * MICROSECONDS
        yield Figure(
            f"verify_token with {size:,} tokens, p50",
            medians[-1],
            "us",
            reference=percentile(theirs, 50) * MICROSECONDS if theirs else None,
            target=f"<= {_TARGET_US} us" + (", the same" if len(medians) > 1 else ""),
            met=medians[-1] <= min(_TARGET_US, _SAME * medians[0]),
            details=details,
        )


async def _verify(folder: Path, size: int) -> list[float]:
    seconds = []
    with TokenStore.open(folder) as store:
        verifier = DiskcacheBearerTokenVerifier(store, [], "http://127.0.0.1:8001")
        tokens = [token for _, token in token_rows(size)]
        for token in random.Random(1).choices(tokens, k=CALLS):  # noqa: S311  a sample, the same in each run
            start = time.perf_counter_ns()
            found = await verifier.verify_token(token)
            seconds.append((time.perf_counter_ns() - start) / NANOSECONDS)
            if found is None:
                raise RuntimeError("a stored token is refused")
    return seconds


if __name__ == "__main__":
    json.dump(asyncio.run(_verify(Path(sys.argv[1]), int(sys.argv[2]))), sys.stdout)
