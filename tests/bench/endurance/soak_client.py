"""One of several clients that change, ask and use tokens at random, and know what each answer has to be.

    python soak_client.py INVENTORY URL NUMBER

Answers calls as `answering.py` says. Its users and tokens are its own, so that its ledger says what the worker has of
them.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from typing import Any

from endurance.soak_requests import Requests, WrongAnswerError
from subjects.answering import answer_calls

from nfcli import Client, NorFab

USERS, TOKENS = 10, 400
REMEMBERED_TOKENS = 200
LIFETIME_SECONDS, BRIEF_SECONDS = 3_600, 1
CHANGE_SHARE, LIST_SHARE = 0.5, 0.04
"""Of the operations; the others are checks."""

BRIEF_SHARE, GONE_SHARE = 0.02, 0.3
GOOD_SHARE, TOOL_SHARE = 0.6, 0.2
_CHANGES = {"create": 40, "renew": 20, "delete": 39, "delete user": 1}


class Driver:
    """The methods that the soak calls."""

    def __init__(self, client: Client, url: str, number: int) -> None:
        self._client = client
        self._number = number
        self._chance = random.Random(number)  # noqa: S311  the same in each run
        self._ledger: dict[str, tuple[str, bool]] = {}
        self._gone: deque[str] = deque(maxlen=REMEMBERED_TOKENS)
        self._serial = 0
        self._took: dict[str, list[float]] = {}
        self._requests = Requests(url, number)

    def stage(self, operations: int, requests: int) -> dict[str, list[float]]:
        """Do as many operations and requests, mixed; return the seconds that each took, by kind."""
        self._took = {}
        turns = [self._operate] * operations + [self._request] * requests
        self._chance.shuffle(turns)
        for turn in turns:
            turn()
        self._requests.close_bad()
        return self._took

    def ledger(self) -> list[tuple[str, str, bool]]:
        """Return user name, token and whether it expires, of each token that must be there."""
        return [(username, token, expires) for token, (username, expires) in self._ledger.items()]

    # -- operations ------------------------------------------------------------------------------------------------

    def _operate(self) -> None:
        drawn = self._chance.random()
        if not self._ledger or drawn < CHANGE_SHARE:
            self._change()
        elif drawn < CHANGE_SHARE + LIST_SHARE:
            self._list()
        else:
            self._check()

    def _change(self) -> None:
        kind = self._chance.choices(list(_CHANGES), list(_CHANGES.values()))[0]
        if not self._ledger or (len(self._ledger) < TOKENS / 2 and kind.startswith("delete")):
            kind = "create"
        elif len(self._ledger) > TOKENS and kind == "create":
            kind = "delete"
        {"create": self._create, "renew": self._renew, "delete": self._delete, "delete user": self._delete_user}[kind]()

    def _create(self) -> None:
        self._serial += 1
        token = f"soak-{self._number}-{self._serial}"
        if self._chance.random() < BRIEF_SHARE:
            self._job("changes", "store", True, username=f"brief-{self._number}", token=token, expire=BRIEF_SECONDS)
            return
        self._store(f"user-{self._number}-{self._chance.randrange(USERS)}", token)

    def _renew(self) -> None:
        token = self._any_token()
        self._store(self._ledger[token][0], token)

    def _store(self, username: str, token: str) -> None:
        expires = self._chance.random() < 0.5
        more = {"expire": LIFETIME_SECONDS} if expires else {}
        self._job("changes", "store", True, username=username, token=token, **more)
        self._ledger[token] = username, expires

    def _delete(self) -> None:
        token = self._any_token()
        self._job("changes", "delete", True, token=token)
        self._forget([token])

    def _delete_user(self) -> None:
        username = self._ledger[self._any_token()][0]
        self._job("changes", "delete", True, username=username)
        self._forget([token for token, (owner, _) in self._ledger.items() if owner == username])

    def _check(self) -> None:
        if self._gone and self._chance.random() < GONE_SHARE:
            self._job("checks", "check", False, token=self._chance.choice(self._gone))
        else:
            self._job("checks", "check", True, token=self._any_token())

    def _list(self) -> None:
        username = self._ledger[self._any_token()][0]
        expected = {token for token, (owner, _) in self._ledger.items() if owner == username}
        listed = self._run("lists", "list", username=username)
        if {row["token"] for row in listed} != expected:
            raise WrongAnswerError(f"{len(listed)} tokens of {username} are listed, {len(expected)} are there")

    def _job(self, kind: str, task: str, expected: bool, **kwargs: Any) -> None:
        result = self._run(kind, task, **kwargs)
        if result is not expected:
            raise WrongAnswerError(f"bearer_token_{task} answers {result}, {expected} is true")

    def _run(self, kind: str, task: str, **kwargs: Any) -> Any:
        start = time.perf_counter()
        [answer] = self._client.run_job("fastmcp", f"bearer_token_{task}", kwargs=kwargs).values()
        self._took.setdefault(kind, []).append(time.perf_counter() - start)
        if answer["failed"]:
            raise WrongAnswerError(f"bearer_token_{task} failed: {answer['errors']}")
        return answer["result"]

    def _any_token(self) -> str:
        return self._chance.choice(list(self._ledger))

    def _forget(self, tokens: list[str]) -> None:
        for token in tokens:
            del self._ledger[token]
        self._gone.extend(tokens)

    # -- requests --------------------------------------------------------------------------------------------------

    def _request(self) -> None:
        drawn = self._chance.random()
        if self._ledger and drawn < GOOD_SHARE:
            is_call = self._chance.random() < TOOL_SHARE
            kind, seconds = "MCP 200", self._requests.good(self._any_token(), is_call=is_call)
        elif self._gone and drawn < (1 + GOOD_SHARE) / 2:
            kind, seconds = "MCP 401", self._requests.bad(self._chance.choice(self._gone))
        else:
            kind, seconds = "MCP 401", self._requests.bad(f"wrong-{drawn}")
        self._took.setdefault(kind, []).append(seconds)


def main() -> None:
    """Answer calls until stdin ends."""
    inventory, url, number = sys.argv[1:]
    norfab = NorFab(inventory=inventory)
    answer_calls(Driver(norfab.make_client(), url, int(number)))
    norfab.destroy()


if __name__ == "__main__":
    main()
