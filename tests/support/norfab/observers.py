"""Who looks on while a fabric has a bad day: what its broker lists, what an MCP client gets, what a worker has done."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.worker.tokens.store import TokenStore

WAIT_SECONDS = 60.0
TOKEN = "token-that-stays-valid"
VERSION_TOOL = "service_fastmcp__task_get_version"

_AGAIN_SECONDS = 0.05
_pause = threading.Event()


def until(found: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Ask again and again until something is found; return it, or fail when time is up."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        _pause.wait(_AGAIN_SECONDS)
    return value


class BrokerView:
    """What a broker lists, each time asked over a connection of its own; any thread may ask."""

    def __init__(self, endpoint: str, shared_key: str) -> None:
        self.address = BrokerAddress(endpoint, BrokerKey(shared_key.encode(), "shared_key"))

    def rows(self) -> dict[str, dict[str, str]]:
        """Return the rows of the workers, by name; none when the broker isn't there or doesn't answer."""
        with zmq.Context() as context:
            keys = KeyPair(*zmq.curve_keypair())
            link = BrokerConnection(context, self.address, name=random_routing_id("observer"), keys=keys)
            try:
                return {row["name"]: row for row in link.workers()}
            except NoWorkersError:
                return {}
            finally:
                link.close()

    def await_alive(self, *names: str, seconds: float = WAIT_SECONDS) -> float:
        """Wait until all of these workers are listed as alive; return how many seconds that took."""
        began = time.monotonic()

        def are_alive() -> bool:
            rows = self.rows()
            return all(rows.get(name, {}).get("status") == "alive" for name in names)

        until(are_alive, f"the broker lists {names}", seconds)
        return time.monotonic() - began

    def await_gone(self, *names: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the broker answers and lists none of these workers, while it lists some other one."""
        seen: dict[str, dict[str, str]] = {}

        def are_gone() -> bool:
            seen.clear()
            seen.update(self.rows())
            return bool(seen) and not seen.keys() & set(names)

        try:
            until(are_gone, f"the broker has dropped {names}", seconds)
        except AssertionError as error:
            error.add_note(f"it lists {seen}")
            raise


def ping(url: str, token: str | None = TOKEN) -> int:
    """Ping an MCP server; return the HTTP status."""
    return _post(url, token, {"jsonrpc": "2.0", "id": 1, "method": "ping"})[0]


class McpClient:
    """A client with a valid token that calls a worker's tool again and again, in a thread, until `close`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._ended = threading.Condition()
        self._calls = 0
        self._refused: list[str] = []
        self._thread = threading.Thread(target=self._call_on)
        self._thread.start()

    def assert_served(self) -> None:
        """Wait for a call that is begun from now on; fail if that or an earlier one wasn't answered with a version."""
        with self._ended:
            # The call that is under way was begun before.
            wanted = self._calls + 2
            served = self._ended.wait_for(lambda: self._calls >= wanted or self._refused, WAIT_SECONDS)
            assert served, "the MCP server doesn't answer"
            assert self._refused == []

    def close(self) -> None:
        """End the calls."""
        self._is_over.set()
        self._thread.join()

    def _call_on(self) -> None:
        params = {"name": VERSION_TOOL, "arguments": {}}
        while not self._is_over.wait(_AGAIN_SECONDS):
            try:
                status, text = _post(
                    self._url, TOKEN, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
                )
                problem = "" if status == 200 and '"nfcli"' in text.replace("\\", "") else f"{status}: {text}"
            except OSError as error:
                problem = repr(error)
            with self._ended:
                self._calls += 1
                self._refused += [problem] if problem else []
                self._ended.notify_all()


def _post(url: str, token: str | None, message: dict[str, Any]) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("POST", parts.path, json.dumps(message), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@contextlib.contextmanager
def mcp_client(url: str) -> Iterator[McpClient]:
    """Have an MCP client call for the length of a `with` block."""
    client = McpClient(url)
    try:
        yield client
    finally:
        client.close()


def store_token(environment: Environment, name: str) -> None:
    """Give a worker that doesn't run yet the token `TOKEN`."""
    environment.prepare()
    with TokenStore(environment.tokens_folder(name)) as store:
        store.store(BearerTokenStoreInput(username="observer", token=TOKEN), before_commit=None)


def log_lines(environment: Environment, name: str, pattern: str) -> list[str]:
    """Return the messages in a worker's log that match."""
    file = environment.log_file(name)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    messages = [json.loads(line).get("message", "") for line in lines]
    return [message for message in messages if re.search(pattern, message)]


def changes_by_token(file: Path) -> Counter[str]:
    """Return how often each token was stored, by its fingerprint in an audit trail."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return Counter(token for line in lines if line["operation"] in {"create", "renew"} for token in line["tokens"])
