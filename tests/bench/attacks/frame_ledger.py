"""What a worker may answer to a message, derived from the protocol's page, and what it may have done in the end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nfcli.models.environment.paths import DEFAULT_WORKER

Frames = list[bytes]
Row = tuple[str, str]

SERVICE = "fastmcp"
_SURELY_KEPT = 5_000
"""Among so many last jobs a uuid is known; of those before, a worker may have forgotten some."""

_POST, _RESPONSE, _GET, _EVENT, _MMI = b"0x04", b"0x05", b"0x06", b"0x08", b"0x11"
_IGNORED = (b"0x07", b"0x10")
_MESSAGE_FRAMES = 7
_MAX_WRONG = 20


@dataclass
class Expectation:
    """What may be answered under one uuid: (command, status) pairs, and the jobs that may run.

    `open` counts what was dispatched (202) and is not answered yet.
    """

    answers: set[tuple[bytes, str]] = field(default_factory=set)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0


class Run(NamedTuple):
    """A job that ran: as the how-manieth, which task, and whether it failed; one that was too late may run again."""

    place: int
    task: str
    has_failed: bool


class Ledger:
    """Follows one connection after the other: what was sent, what came back, which tokens must be there now.

    `wrong` says what should not have happened; `statuses` counts the answers, `managed` those to requests to a broker
    for which a task ran.
    """

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.statuses: Counter[str] = Counter()
        self.may_have_run_again = 0
        self.managed = 0
        self._managing: set[str] = set()
        self._ran: dict[str, Run] = {}
        self._expected: dict[str, Expectation] = {}
        self._sure: set[Row] = set()
        self._doubtful: set[Row] = set()

    @property
    def ran(self) -> int:
        """How many jobs ran, each counted once."""
        return len(self._ran)

    def complain(self, text: str) -> None:
        """Keep what is wrong, up to a bound."""
        if len(self.wrong) < _MAX_WRONG:
            self.wrong.append(text)

    def sent(self, frames: Frames) -> None:
        """Take note of a message before its answers come."""
        if len(frames) < _MESSAGE_FRAMES - 1 or frames[1] != b"NFPC01":
            return  # without an address and a uuid there is no answer
        uuid = frames[5].decode(errors="replace")
        refusal = self._expected.setdefault(uuid[:64], Expectation())
        refusal.answers.add((_RESPONSE, "400"))
        command, data = frames[2], _json(frames[6]) if len(frames) >= _MESSAGE_FRAMES else None
        if len(frames) < _MESSAGE_FRAMES or command in _IGNORED or not _is_text(frames[5], 128):
            return
        expected = self._expected.setdefault(uuid, Expectation())
        expected.answers.add((_RESPONSE, "400"))
        if command == _MMI and isinstance(data, dict):
            self._managing.add(uuid)
        elif command == _GET and _is_for_us(frames):
            expected.answers |= {(_RESPONSE, status) for status in ("202", "200", "300", "404")}
        elif command == _POST and _is_for_us(frames) and _is_job(data):
            expected.answers |= {(_RESPONSE, "202"), (_RESPONSE, "200"), (_EVENT, "200")}
            expected.jobs.append(data)
            last = self._ran.get(uuid)
            if last is not None and (last.place < len(self._ran) - _SURELY_KEPT or last.has_failed):
                self.may_have_run_again += 1

    def answered(self, frames: Frames) -> None:
        """Take note of an answer."""
        data = _json(frames[6]) if len(frames) == _MESSAGE_FRAMES else None
        if data is None or frames[:2] != [b"", b"NFPB01"]:
            self.complain(f"an answer is no NFP or no JSON: {[frame[:80] for frame in frames]}")
            return
        command, uuid, status = frames[2], frames[4].decode(), frames[5].decode()
        self.statuses[status if command == _RESPONSE else command.decode()] += 1
        if command == _MMI and status == "200" and uuid in self._managing:
            self.managed += isinstance(data, dict)
            return
        expected = self._expected.get(uuid)
        if expected is None or (command, status) not in expected.answers:
            if uuid not in self._ran or status != "200":
                self.complain(f"unsolicited {command!r} {status} of {uuid!r}: {str(data)[:200]}")
            return
        if status == "202":
            expected.open += 1
        elif command == _RESPONSE and status in {"200", "300", "404"}:
            expected.open -= 1
            if status == "200" and expected.jobs:
                self._job_ran(uuid, expected.jobs, data)

    def has_open_jobs(self) -> bool:
        """Whether a job was dispatched and is not answered yet."""
        return any(each.open > 0 for each in self._expected.values())

    def settle(self) -> None:
        """Forget what was expected: all of it has been answered."""
        if self.has_open_jobs():
            self.complain("a job that was dispatched is never answered")
        self._expected.clear()

    def compare(self, stored: set[Row], own: set[Row]) -> None:
        """Hold the tokens that are stored to those that jobs were said to have stored, and our own."""
        missing, surplus = (self._sure | own) - stored, stored - self._sure - self._doubtful - own
        if missing or surplus:
            self.complain(f"tokens that should be stored: {sorted(missing)[:5]}, that shouldn't: {sorted(surplus)[:5]}")

    def _job_ran(self, uuid: str, jobs: list[dict[str, Any]], data: Any) -> None:
        result = data.get(DEFAULT_WORKER) if isinstance(data, dict) and len(data) == 1 else None
        known = self._ran.get(uuid)
        tasks = {known.task if known else "", *(f"{DEFAULT_WORKER}:{job['task']}" for job in jobs)}
        if result is None or result.get("juuid") != uuid or result.get("task") not in tasks:
            self.complain(f"job {uuid!r} is answered with another's result: {str(data)[:200]}")
            return
        self._ran[uuid] = Run(len(self._ran), result["task"], result["failed"])
        if result["result"] is True and (known is None or known.place < len(self._ran) - _SURELY_KEPT):
            for job in jobs:
                self._changed(job["task"], job.get("kwargs", {}), is_sure=len(jobs) == 1 and known is None)

    def _changed(self, task: str, kwargs: dict[str, Any], *, is_sure: bool) -> None:
        """Note a change of tokens; jobs of one moment run in any order, so what a deletion met is in doubt."""
        username, token = kwargs.get("username"), kwargs.get("token")
        if task == "bearer_token_store":
            row = (str(username), str(token))
            (self._sure if is_sure and row not in self._doubtful else self._doubtful).add(row)
        elif task == "bearer_token_delete":
            met = {row for row in self._sure if username in {None, row[0]} and token in {None, row[1]}}
            self._sure -= met
            self._doubtful |= met


def _json(data: bytes) -> Any:
    """Return the value of strict JSON, None where it isn't, and for a mere `null`."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)


def _is_text(frame: bytes, limit: int) -> bool:
    try:
        return len(frame) <= limit and frame.decode().isascii() in {True, False}
    except UnicodeDecodeError:
        return False


def _is_for_us(frames: Frames) -> bool:
    if frames[3] not in {SERVICE.encode(), b"all"}:
        return False
    if frames[4] in {b"all", b"any", DEFAULT_WORKER.encode()}:
        return True
    names = _json(frames[4])
    return isinstance(names, list) and DEFAULT_WORKER in names and all(isinstance(name, str) for name in names)


def _is_job(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and isinstance(data.get("task"), str)
        and isinstance(data.get("kwargs", {}), dict)
        and isinstance(data.get("args", []), list)
    )
