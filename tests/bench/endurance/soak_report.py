"""What a soak has shown: its stages, the claims about them and how both are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from performance import machine
from performance.figures import columns, percentile
from subjects.processes import Vitals

from nfcli.worker.jobs.lane_threads import JobLimits

STAGES, WARM_UP_STAGES = 10, 2
MEMORY_FACTOR = 1.05
P50_FACTOR, P99_FACTOR = 1.25, 2.0
ENOUGH_SAMPLES = 300
"""Below that a p99 is the time of three answers."""

MILLISECONDS = 1e3
_FENCE = "```"
_VERDICTS = {True: "yes", False: "NO", None: "too short to tell"}


@dataclass(frozen=True)
class Stage:
    """One tenth of a soak; `samples` are seconds by kind of work, `vitals` the worker's at its end."""

    operations: int
    requests: int
    seconds: float
    vitals: Vitals
    samples: dict[str, list[float]]


@dataclass
class Soaked:
    """A soak: the worker's vitals before it, how many clients there were, and its stages."""

    before: Vitals
    clients: int
    stages: list[Stage] = field(default_factory=list)

    @property
    def warm(self) -> list[Stage]:
        """The stages after the warm-up."""
        return self.stages[WARM_UP_STAGES:]

    @property
    def kinds(self) -> list[str]:
        """The kinds of work of which there are samples in the first of these stages and in the last."""
        return sorted(self.warm[0].samples.keys() & self.warm[-1].samples.keys())


@dataclass(frozen=True)
class Claim:
    """Something that must hold after a soak; `holds` is None where the soak was too short to tell."""

    text: str
    figure: str
    limit: str
    holds: bool | None


def claims(soaked: Soaked) -> Iterator[Claim]:
    """Judge the worker: what it holds after each stage, and how fast it answers in the last one."""
    warmed, later = soaked.stages[WARM_UP_STAGES - 1], soaked.warm
    descriptors = {stage.vitals.descriptors for stage in (warmed, *later)}
    yield Claim("file descriptors after warm-up", _range(descriptors), "flat", len(descriptors) == 1)
    # Tool calls run in threads that come when calls meet, which those of all clients may never have done so far.
    threads = {stage.vitals.threads for stage in (warmed, *later)}
    most = warmed.vitals.threads + soaked.clients
    yield Claim("threads after warm-up", _range(threads), f"<= {most}", max(threads) <= most)
    factor = max(stage.vitals.megabytes for stage in later) / warmed.vitals.megabytes
    is_warm = sum(stage.operations for stage in soaked.stages[:WARM_UP_STAGES]) > JobLimits().kept_jobs
    yield Claim(
        "memory, to that after warm-up",
        f"{factor:.3f}",
        f"<= {MEMORY_FACTOR}",
        factor <= MEMORY_FACTOR if is_warm else None,
    )
    for percent, limit in ((50, P50_FACTOR), (99, P99_FACTOR)):
        factors = {kind: _factor(soaked, kind, percent) for kind in soaked.kinds}
        worst = max(factors, key=lambda kind: factors[kind])
        is_enough = min(len(later[0].samples[kind]) for kind in soaked.kinds) >= ENOUGH_SAMPLES
        yield Claim(
            f"p{percent}, last to first stage",
            f"{factors[worst]:.2f} ({worst})",
            f"<= {limit}",
            factors[worst] <= limit if is_enough else None,
        )


def report(described: dict[str, str], soaked: Soaked, found: Sequence[Claim], *, is_markdown: bool) -> str:
    """Return all that is to say of a soak."""
    blocks = [machine.lines(described).splitlines(), _stages(soaked), _times(soaked), _claims(found)]
    texts = ["\n".join(block) + "\n" for block in blocks]
    if is_markdown:
        texts = [f"{_FENCE}text\n{text}{_FENCE}\n" for text in texts]
    return "\n".join(texts)


def _stages(soaked: Soaked) -> list[str]:
    rows = [("after", "operations", "requests", "seconds", "descriptors", "threads", "memory")]
    rows.append(("the start", "", "", "", *_shown(soaked.before)))
    operations = requests = 0
    for number, stage in enumerate(soaked.stages, start=1):
        operations += stage.operations
        requests += stage.requests
        name = f"stage {number}{', warm-up' if number <= WARM_UP_STAGES else ''}"
        rows.append((name, f"{operations:,}", f"{requests:,}", f"{stage.seconds:.1f}", *_shown(stage.vitals)))
    return columns(rows)


def _shown(seen: Vitals) -> tuple[str, str, str]:
    return str(seen.descriptors), str(seen.threads), f"{seen.megabytes:.1f} MB"


def _times(soaked: Soaked) -> list[str]:
    first, last = f"stage {WARM_UP_STAGES + 1}", f"stage {STAGES}"
    rows = [("ms, p50 / p99", first, last, "factors", "a stage")]
    for kind in soaked.kinds:
        shown = []
        for stage in (soaked.warm[0], soaked.warm[-1]):
            p50, p99 = (percentile(stage.samples[kind], percent) * MILLISECONDS for percent in (50, 99))
            shown.append(f"{p50:.2f} / {p99:.2f}")
        factors = " / ".join(f"{_factor(soaked, kind, percent):.2f}" for percent in (50, 99))
        count = statistics.mean(len(stage.samples.get(kind, ())) for stage in soaked.warm)
        rows.append((kind, *shown, factors, f"{count:,.0f}"))
    return columns(rows)


def _claims(found: Sequence[Claim]) -> list[str]:
    rows = [("claim", "figure", "limit", "holds")]
    rows += [(claim.text, claim.figure, claim.limit, _VERDICTS[claim.holds]) for claim in found]
    return columns(rows)


def _factor(soaked: Soaked, kind: str, percent: int) -> float:
    first, last = soaked.warm[0], soaked.warm[-1]
    return percentile(last.samples[kind], percent) / percentile(first.samples[kind], percent)


def _range(values: set[int]) -> str:
    return " to ".join(map(str, sorted({min(values), max(values)})))
