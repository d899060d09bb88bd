"""Drives NorFab's own client and fabric; run by a Python that has the package norfab, which knows nothing of nfcli.

A line on stdin is a JSON list `[method, {argument: value}]`; a line on stdout is its JSON answer, `{"value": …}` or
`{"error": …}`. The one command-line argument is a folder that holds an `inventory.yaml` of NorFab's.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from norfab.core import NFP
from norfab.core import client as norfab_client
from norfab.core.nfapi import NorFab
from norfab.core.security import generate_certificates

WAIT_SECONDS = 20.0
HEARD_SECONDS = 2.0
ASK_AGAIN_SECONDS = 0.02
REOPENINGS = 5


class Driver:
    """The methods that the tests call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._norfab: Any = None
        self._client: Any = None
        self._responses: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._submitted: dict[str, tuple[Any, Any]] = {}
        self._drops_results = False
        self._pause = threading.Event()
        self._handle_response = norfab_client.handle_response
        norfab_client.handle_response = self._take_response

    def _take_response(self, client: object, uuid: str, status: str, payload: Any) -> None:
        self._responses.put((uuid, status, payload))
        if not (self._drops_results and status == "200"):
            self._handle_response(client, uuid, status, payload)

    def start(self) -> None:
        """Start what the inventory's topology names: nothing, or a broker with workers."""
        self._norfab = NorFab(inventory=str(self._folder / "inventory.yaml"))
        self._norfab.start()

    def stop(self) -> None:
        """Stop what `start` started."""
        self._norfab.destroy()

    def make_key(self, name: str) -> str:
        """Make the key pair of a client that was never opened; return the file of its public key.

        Opening it would do, were it not for the reference: a client that was refused can't be closed.
        """
        folder = Path(self._norfab.inventory.base_dir) / "__norfab__" / "files" / "client" / name
        folder.mkdir(parents=True)
        generate_certificates(str(folder), cert_name=name, inventory=self._norfab.inventory)
        return str(folder / "public_keys" / f"{name}.key")

    def open_client(self, name: str) -> None:
        """Connect a client."""
        self._drops_results = False
        self._client = self._norfab.make_client(name=name)

    def reopen_client(self, name: str) -> None:
        """Close the client and connect one of the same name, until it is heard.

        A ROUTER skips a connection, for as long as it lasts, that came before the older one of its name had gone.
        """
        for _ in range(REOPENINGS):
            self.close_client()
            self.open_client(name)
            if self.mmi("show_workers", timeout=HEARD_SECONDS)["status"] == "200":
                return

    def close_client(self) -> None:
        """Disconnect it; its unfinished jobs stay in its database."""
        self._client.destroy()

    def run_job(self, **job: Any) -> dict[str, Any]:
        """Run a job to its end; return result, state and events."""
        return self._end_of(self._client.submit_job(**{"timeout": WAIT_SECONDS, **job}))

    def submit_job(self, **job: Any) -> None:
        """Send a job whose `uuid` is given, and don't wait."""
        future = self._client.submit_job(**{"timeout": WAIT_SECONDS, **job})
        self._submitted[future.uuid] = (future, future.events(timeout=WAIT_SECONDS))

    def next_event(self, uuid: str) -> Any:
        """Wait for the next event of a job that was submitted."""
        return next(self._submitted[uuid][1])

    def answer(self, uuid: str, input_id: str, value: Any, *, cancel: bool = False) -> None:
        """Answer the question of a job that was submitted."""
        self._submitted[uuid][0].send_response(input_id, value, cancel=cancel)

    def end_job(self, uuid: str) -> dict[str, Any]:
        """Wait for the end of a job that was submitted; return result, state and the events that weren't taken."""
        return self._end_of(self._submitted.pop(uuid)[0])

    def _end_of(self, future: Any) -> dict[str, Any]:
        result = future.result(timeout=future.timeout)
        job = self._client.job_db.get_job(future.uuid)
        return {
            "result": result,
            "state": job["status"],
            "errors": job["errors"],
            "events": list(future.events(timeout=WAIT_SECONDS)),
        }

    def lose_result(self, **job: Any) -> None:
        """Send a job and lose the worker's results, as a client that ends in the middle of it, until it is reopened.

        Workers may send a result by themselves and once more when they are asked for it.
        """
        self._drops_results = True
        future = self._client.submit_job(timeout=WAIT_SECONDS, **job)
        self._await_response(future.uuid, "200")

    def take_up_job(self, uuid: str) -> dict[str, Any]:
        """Return the end of a job that was unfinished when the client was opened."""
        return self._end_of(self._client.job_futures[uuid])

    def get(self, service: str, workers: list[str], uuid: str) -> list[tuple[str, Any]]:
        """Ask for the result of a job as a client does that pulls; return status and payload of each answer."""
        while not self._responses.empty():
            self._responses.get()
        to_bytes = self._client.ensure_bytes
        self._client.send_to_broker(
            NFP.GET, to_bytes(service), to_bytes(workers), to_bytes(uuid), to_bytes({"task": "", "kwargs": {}})
        )
        return [self._await_response(uuid, "202"), self._await_response(uuid)]

    def _await_response(self, uuid: str, wanted: str = "") -> tuple[str, Any]:
        while True:
            found, status, payload = self._responses.get(timeout=WAIT_SECONDS)
            if found == uuid and wanted in {"", status}:
                return status, payload

    def mmi(self, task: str, timeout: float = WAIT_SECONDS, service: str = "mmi", **kwargs: Any) -> Any:
        """Ask the broker's management service, or its inventory service, `sid`."""
        return self._client.mmi(f"{service}.service.broker", task, kwargs=kwargs, timeout=timeout)

    def broker_inventory(self) -> dict[str, Any]:
        """Return what the inventory says of the broker."""
        return dict(self._norfab.inventory.broker)

    def show_workers(self, timeout: float = WAIT_SECONDS) -> list[dict[str, str]]:
        """Return the broker's rows on its workers; none when it doesn't answer."""
        answer = self.mmi("show_workers", timeout=timeout)
        return [row for row in answer["results"] if row["name"]] if answer["status"] == "200" else []

    def await_workers(self, names: list[str], seconds: float, *, gone: bool = False) -> None:
        """Ask until all of these workers are alive, or until none of them is known any more."""
        deadline = time.monotonic() + seconds
        while True:
            known = {row["name"]: row["status"] for row in self.show_workers(HEARD_SECONDS)}
            wanted = None if gone else "alive"
            if all(known.get(name) == wanted for name in names):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {seconds:g} s the broker knows {known}: {names} should be {wanted or 'gone'}"
                )
            self._pause.wait(ASK_AGAIN_SECONDS)


def main() -> None:
    """Answer each line of stdin."""
    # NorFab prints; what isn't an answer goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    driver = Driver(Path(sys.argv[1]))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"value": getattr(driver, method)(**arguments)}
        except Exception as error:  # noqa: BLE001  the test fails with it, and the driver goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
